//! Components with a state of their own: each holds the backends it needs and nothing else. An operation calls them; none of them knows an operation.

pub(crate) mod api_sockets;
pub(crate) mod automatic;
pub(crate) mod databases;
pub(crate) mod dirs;
pub(crate) mod exits;
pub(crate) mod files;
pub(crate) mod freezing;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod peers;
pub(crate) mod policies;
pub(crate) mod pool_watch;
pub(crate) mod ramdisks;
pub(crate) mod shares;
pub(crate) mod sizes;
pub(crate) mod starter;
pub(crate) mod usage;
pub(crate) mod view;
pub(crate) mod wake;
