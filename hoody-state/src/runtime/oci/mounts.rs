//! Tests of what is mounted in a container, and of the freezer that the runtime uses.

use super::OciRuntime;
use super::testing::Fixture;
use crate::error::{Code, Result};
use crate::freeze::{FreezeState, Freezer};
use crate::id::ContainerId;
use crate::model::mount::{Mount, MountSource, RECEIVED, Tree};
use crate::runtime::suite::eventually;
use crate::runtime::{ExecSpec, Runtime};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn sh(script: &str) -> ExecSpec {
    ExecSpec { command: vec!["/bin/sh".into(), "-c".into(), script.into()], output_limit: 1000, ..ExecSpec::default() }
}

#[test]
fn a_directory_is_mounted_by_name_and_by_descriptor_as_a_mount_and_as_a_share() {
    let f = Fixture::new();
    let c = ContainerId::generate();
    for name in ["one", "two", "three"] {
        let dir = f.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(super::testing::ID_BASE), None).unwrap();
        std::fs::write(dir.join("name"), name).unwrap();
    }
    let named = |name: &str| MountSource::from(f.dir.path().join(name));
    let held = |name: &str, read_only| Tree::new(named(name).open().unwrap().unwrap(), read_only).unwrap();
    let mut spec = f.sh(&c, "sleep 1000");
    spec.mounts = vec![Mount::new(held("one", false), "/srv/one"), Mount { read_only: true, ..Mount::new(named("two"), "/srv/two") }];
    spec.shares = Some(vec![
        Mount::new(held("one", true), format!("{RECEIVED}/one")),
        Mount { read_only: true, ..Mount::new(named("two"), format!("{RECEIVED}/two")) },
        Mount::new(named("three"), format!("{RECEIVED}/three")),
    ]);
    f.rt().start(&spec).unwrap();
    let out = f
        .rt()
        .exec(
            &c,
            &sh(
                "for d in /srv/one /srv/two /hoody/shares/one /hoody/shares/two /hoody/shares/three; do cat $d/name; touch $d/w 2>/dev/null && echo -n +; done",
            ),
        )
        .unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "one+twoonetwothree+");
    // Another mount replaces the first, in the running container.
    f.rt().remount(&c, &Mount::new(held("three", false), "/srv/one")).unwrap();
    assert_eq!(f.rt().exec(&c, &sh("cat /srv/one/name")).unwrap().stdout, b"three");
    let left = crate::mountinfo::of_this_process().unwrap();
    assert!(!left.iter().any(|m| m.at.starts_with(f.dir.path())), "the host's own mounts stay as they were");
}

/// A freezer that reports everything as frozen until it is thawed, whatever the control groups say.
#[derive(Default)]
struct Claims {
    thawed: AtomicUsize,
}

impl Freezer for Claims {
    fn freeze_waking(&self, _: &ContainerId, _: Duration, _: &dyn Fn(&[i32])) -> Result<FreezeState> {
        Ok(FreezeState::Frozen)
    }
    fn thaw(&self, _: &ContainerId) -> Result<FreezeState> {
        self.thawed.fetch_add(1, Ordering::SeqCst);
        Ok(FreezeState::Frozen)
    }
    fn state(&self, _: &ContainerId) -> Result<FreezeState> {
        Ok(if self.thawed.load(Ordering::SeqCst) == 0 { FreezeState::Frozen } else { FreezeState::Thawed })
    }
}

#[test]
fn stop_and_exec_ask_the_freezer_that_the_runtime_was_given() {
    let mut f = Fixture::new();
    let freezer = Arc::new(Claims::default());
    let mut config = Fixture::config(f.dir.path(), &f.parent);
    config.freezer = freezer.clone();
    f.runtime = Some(OciRuntime::new(config).unwrap());
    let c = ContainerId::generate();
    f.rt().start(&f.sh(&c, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done")).unwrap();
    eventually("the trap", || f.rt().console(&c, None).unwrap().ends_with(b"ready\n"));
    assert_eq!(f.rt().exec(&c, &sh("true")).unwrap_err().code(), Code::ContainerPaused);
    f.rt().stop(&c, Duration::from_secs(10)).unwrap();
    assert_eq!(freezer.thawed.load(Ordering::SeqCst), 1);
}
