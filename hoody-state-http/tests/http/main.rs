//! The API as a client meets it: over real sockets, against a memory host.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod auth;
mod copies;
mod dedupe;
mod diff;
mod document;
mod errors;
mod events;
mod hostile;
mod idempotency;
mod limits;
mod operations;
mod policies;
mod promote;
mod restores;
mod revoked;
mod shapes;
mod shares;
mod slow;
mod snapshot_lists;
mod socket_io;
mod support;
mod timeline;
mod trash;
mod uploads;
