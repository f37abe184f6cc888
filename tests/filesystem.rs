//! The paths a container has besides its root, on a real pool with real containers and the real daemon: needs root, BTRFS, FUSE, a loop device, runc and a
//! static busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "filesystem/copies.rs"]
mod copies;
#[path = "filesystem/databases.rs"]
mod databases;
#[path = "filesystem/escape.rs"]
mod escape;
#[path = "filesystem/mounts.rs"]
mod mounts;
#[path = "filesystem/ramdisk.rs"]
mod ramdisk;
#[path = "filesystem/shares.rs"]
mod shares;

use hoody_state::Caller;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::NewContainer;
use hoody_state_workspace::RealHost;

pub const DAEMON: &str = env!("CARGO_BIN_EXE_fuse-under-test");

pub fn real(name: &str) -> RealHost {
    let _ = tracing_subscriber::fmt().with_env_filter("info").with_test_writer().try_init();
    RealHost::with_databases(name, DAEMON)
}

pub fn container(real: &RealHost, project: &ProjectId, name: &str, f: impl FnOnce(&mut NewContainer)) -> ContainerId {
    let mut new = NewContainer { name: Some(format!("{name:_<3}")), ..Default::default() };
    f(&mut new);
    real.host().create_container(&Caller::default(), project, new).unwrap().id
}

/// Not a test of its own: what these tests run in containers.
#[test]
fn entry() {
    hoody_state_workspace::worker::play();
}

/// Waits for what comes about by itself.
pub fn eventually(what: &str, f: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !f() {
        assert!(std::time::Instant::now() < end, "{what} did not come about");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
