//! Other servers: which are known, how they are asked, and what each may have done here.

mod asking;
mod known;
mod rights;
mod sending;

pub(crate) use asking::{Peers, wrong_answer};
pub(crate) use sending::{Sending, Sent};
