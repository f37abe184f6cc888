//! Control groups: one per container, below a parent group of our own, on cgroup v2, on v1, and on both together.
//!
//! ```text
//! <parent>/<container id>/          outlives runs: limits, what is charged to them, freezing, killing
//! <parent>/<container id>/run/      the processes of a run
//! <parent>/<container id>/exec-N/   the processes of one exec (where v2 is)
//! <parent>/<container id>/start/    the OCI runtime while it starts a run (v2 alone)
//! ```
//!
//! **Guarantees**: nothing outside `parent` is written, except that v2's controllers are enabled on the way down to it. No state is held here:
//! every answer comes from the kernel, so it is right after a crash too. Waits use poll wherever the kernel notifies (`cgroup.events`).

mod events;
mod kill;
mod layout;
mod limits;
mod oom;
mod stats;
mod tasks;
mod tree;

pub(crate) use events::{read as read_events, wait as wait_events};
pub(crate) use kill::describe;
pub use layout::{Layout, LayoutKind};
pub use limits::Limit;
pub(crate) use limits::host_memory;
pub(crate) use oom::OomSource;
pub use tree::CgroupTree;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
