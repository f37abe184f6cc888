//! The paths a container has besides its root, on a real pool with real containers and the real daemon: needs root, BTRFS, FUSE, a loop device, runc and a
//! static busybox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "filesystem/automatic.rs"]
mod automatic;
#[path = "filesystem/checkout.rs"]
mod checkout;
#[path = "filesystem/container_api.rs"]
mod container_api;
#[path = "filesystem/copies.rs"]
mod copies;
#[path = "filesystem/databases.rs"]
mod databases;
#[path = "filesystem/diff_databases.rs"]
mod diff_databases;
#[path = "filesystem/escape.rs"]
mod escape;
#[path = "filesystem/etc.rs"]
mod etc;
#[path = "filesystem/exec.rs"]
mod exec;
#[path = "filesystem/frozen.rs"]
mod frozen;
#[path = "filesystem/handles.rs"]
mod handles;
#[path = "filesystem/identity.rs"]
mod identity;
#[path = "filesystem/isolation.rs"]
mod isolation;
#[path = "filesystem/mounts.rs"]
mod mounts;
#[path = "filesystem/ramdisk.rs"]
mod ramdisk;
#[path = "filesystem/revoke.rs"]
mod revoke;
#[path = "filesystem/share_limits.rs"]
mod share_limits;
#[path = "filesystem/shares.rs"]
mod shares;
#[path = "filesystem/snapshots.rs"]
mod snapshots;
#[path = "filesystem/subvolumes.rs"]
mod subvolumes;

use hoody_state::Caller;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{NewContainer, NewShare, Share, ShareMode, ShareWord};
use hoody_state::runtime::{ExecOutput, ExecSpec};
use hoody_state_workspace::{RealHost, programs};

pub fn real(name: &str) -> RealHost {
    let _ = tracing_subscriber::fmt().with_env_filter("info").with_test_writer().try_init();
    RealHost::with_databases(name, programs::daemon())
}

pub fn container(real: &RealHost, project: &ProjectId, name: &str, f: impl FnOnce(&mut NewContainer)) -> ContainerId {
    let mut new = NewContainer { name: Some(format!("{name:_<3}")), ..Default::default() };
    f(&mut new);
    real.host().create_container(&Caller::default(), project, new).unwrap().id
}

/// A shell line in a container, however it ends.
pub fn attempt(real: &RealHost, c: &ContainerId, line: &str) -> ExecOutput {
    let timeout = Some(std::time::Duration::from_secs(60));
    let spec = ExecSpec { command: vec!["/bin/sh".into(), "-c".into(), line.into()], output_limit: 1 << 16, timeout, ..Default::default() };
    real.host().exec(c, &spec).unwrap()
}

pub fn offer(path: &str, mode: ShareMode) -> NewShare {
    NewShare {
        source_path: path.into(),
        mode,
        target_container_id: None,
        target_project_id: None,
        alias: None,
        label: None,
        description: None,
        enabled: None,
        expires_at: None,
    }
}

pub fn share(real: &RealHost, owner: &ContainerId, path: &str, to: &ContainerId, mode: ShareMode) -> Share {
    let new = NewShare { target_container_id: Some(to.clone()), ..offer(path, mode) };
    real.host().create_share(&Caller::default(), owner, new).unwrap()
}

pub fn share_with_all(real: &RealHost, owner: &ContainerId, path: &str, to: &ProjectId) -> Share {
    let new = NewShare { target_project_id: Some(to.clone()), ..offer(path, ShareMode::Readwrite) };
    real.host().create_share(&Caller::default(), owner, new).unwrap()
}

/// The receiver's word; whether something of the share is still in use in it.
pub fn say(real: &RealHost, c: &ContainerId, s: &Share, mount: bool) -> bool {
    !real.host().set_share_mount(&Caller::default(), c, &s.id, ShareWord { mount }).unwrap().share.held_by.is_empty()
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
