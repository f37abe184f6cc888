//! The HTTP server of `hoody-state`: the wire contract over [`hoody_state::host::Host`].
//!
//! [`Api`] makes an [`axum::Router`] from a host; [`serve`](mod@serve) runs it on TCP and UNIX sockets. A request passes
//! the extractors (ids, body, caller), one blocking call of the host, and the envelope of the answer. A route
//! never names a backend and decides nothing about state; only [`error_map`] turns errors into statuses.
//!
//! | file | what |
//! | --- | --- |
//! | `routes/` | one file for each resource; `published.rs` has minimal answers to the other requests of the published clients |
//! | `auth/` | who asks, and what a token can reach |
//! | `extract.rs` | ids, queries, bodies, idempotency keys, `Prefer` |
//! | `envelope.rs`, `error_map.rs`, `exit.rs` | the form of answers and errors; exit codes |
//! | `container_api/` | the part of the API that a container has by its own socket |
//! | `serve/` | connections: how many, and their time limits |
//! | `limits.rs`, `slots.rs` | how much may be open at once, in total and for each caller |
//! | `spool.rs` | answers that are complete before they are sent |
//! | `transport.rs`, `tls.rs` | requests to other servers; certificates |
//! | `openapi.rs` | the OpenAPI document |

pub mod app;
pub mod auth;
pub mod container_api;
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
mod spool;
pub mod tls;
pub mod transport;
pub mod unix;

pub use app::{Api, Options};
