//! Shares: what owners offer, what receivers say to it, and the mounts that follow in containers that run.
//!
//! The catalog says what each container is to see. Every change of it is followed by bringing the receivers in line ([`sync`]). A receiver that could not be
//! brought in line is tried again with growing pauses until it is ([`retry`]): a share that has ended must not stay readable.

mod behind;
mod component;
mod expiry;
pub(crate) mod incoming;
mod offers;
mod retry;
mod source;
mod sync;

pub(crate) use component::Shares;
