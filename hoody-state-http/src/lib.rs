//! The HTTP server of `hoody-state`: the wire contract over [`hoody_state::host::Host`].
//!
//! [`Api`] makes an [`axum::Router`] out of a host; [`serve`](mod@serve) runs it on TCP and UNIX sockets. One direction, nothing
//! skips a stage: route → extractor (ids, body, caller) → one blocking call of the façade → envelope. A route
//! never names a backend and decides nothing about state; [`error_map`] alone turns errors into statuses.
//!
//! | file | what |
//! | --- | --- |
//! | `routes/` | one file a noun; `published.rs` holds the least that the published clients ask for beside |
//! | `auth.rs` | who asks, and what a token may reach |
//! | `extract.rs` | ids, queries, bodies, idempotency keys, `Prefer` |
//! | `envelope.rs`, `error_map.rs`, `exit.rs` | the shape of answers and of errors; exit codes |
//! | `serve/` | connections: how many, and how long each may take |
//! | `limits.rs`, `slots.rs` | what is taken at once, in all and of each caller |
//! | `transport.rs`, `tls.rs` | other servers, and certificates |
//! | `openapi.rs` | the document |

pub mod app;
pub mod auth;
pub mod envelope;
pub mod error_map;
pub mod exit;
pub mod extract;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod router;
pub mod routes;
pub mod serve;
pub mod slots;
pub mod tls;
pub mod transport;
pub mod unix;

pub use app::{Api, Options};
