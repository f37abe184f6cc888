//! The daemon serves databases as `hoody_state::locked_db` says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state::locked_db::fuse::FuseLockedDb;
use hoody_state::locked_db::fuse::daemon::{DaemonConfig, FuseDaemon};
use hoody_state::locked_db::{LockedDb, suite};
use std::sync::Arc;
use support::daemon::{DAEMON, Daemon};

struct Client(FuseLockedDb);

impl suite::Harness for Client {
    fn databases(&self) -> &dyn LockedDb {
        &self.0
    }
}

#[test]
fn the_client_of_a_daemon_passes_the_suite() {
    let daemon = Daemon::start(true);
    suite::run(&Client(daemon.locked_db()));
}

struct Kept(Arc<FuseDaemon>);

impl suite::Harness for Kept {
    fn databases(&self) -> &dyn LockedDb {
        &*self.0
    }
}

#[test]
fn a_daemon_that_is_looked_after_passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let config = DaemonConfig { program: DAEMON.into(), socket: dir.path().join("sock"), mountpoint: dir.path().join("mnt"), save_power: false, group: None };
    let kept = Kept(FuseDaemon::open(config).unwrap());
    assert!(kept.0.is_new_session());
    suite::run(&kept);
    kept.0.take_down().unwrap();
    kept.0.take_down().unwrap();
    assert!(!dir.path().join("mnt").exists());
}
