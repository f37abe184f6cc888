//! Copies, forks, syncs and moves, over memory backends and a network in memory: what each comes to, and what a cut, a crash or a refusal at each point leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "transfer/faults.rs"]
mod faults;
#[path = "transfer/local.rs"]
mod local;
#[path = "transfer/lying.rs"]
mod lying;
#[path = "transfer/moves.rs"]
mod moves;
#[path = "transfer/peers.rs"]
mod peers;
#[path = "transfer/rights.rs"]
mod rights;

use hoody_state::Code;
use hoody_state::id::ContainerId;
use hoody_state::model::{Container, CopyRequest, OperationStatus, PageRequest, Status, SyncAnswer, SyncRequest};
use hoody_state::transfer::memory::MemoryNet;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{MemoryWorld, acquaint, container, furnish, snapshot};
use std::time::{Duration, Instant};

pub const A: &str = "https://a";
pub const B: &str = "https://b";

/// Two servers that know each other, and a running container with two snapshots on the first.
pub struct Two {
    pub net: MemoryNet,
    pub a: MemoryWorld,
    pub b: MemoryWorld,
    pub here: Host,
    pub there: Host,
    pub source: ContainerId,
}

impl Two {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let net = MemoryNet::new();
        let (a, b) = (MemoryWorld::on(&net, "a"), MemoryWorld::on(&net, "b"));
        let (here, there) = (a.host(), b.host());
        acquaint(&here, A, &there, B);
        let p = furnish(&here);
        let source = container(&here, &p, "agent").unwrap();
        a.write(&source, "big", &"x".repeat(20_000));
        a.write(&source, "state", "one");
        snapshot(&here, &source, "first").unwrap();
        a.write(&source, "state", "two");
        snapshot(&here, &source, "second").unwrap();
        a.write(&source, "state", "three");
        Two { net, a, b, here, there, source }
    }

    pub fn request(&self) -> CopyRequest {
        let project = self.here.container(&self.source).unwrap().project_id;
        CopyRequest {
            target_project_id: Some(project.to_string()),
            target_server_id: Some(self.b.server.id.to_string()),
            name: Some("standby".into()),
            ..Default::default()
        }
    }

    /// The target's server has crashed; another takes its place.
    pub fn restart_there(&mut self) {
        self.net.remove(B);
        self.there = self.here.clone();
        self.b.crash_at(0);
        self.there = self.b.host();
    }

    /// The same of the source's.
    pub fn restart_here(&mut self) {
        self.net.remove(A);
        self.here = self.there.clone();
        self.a.crash_at(0);
        self.here = self.a.host();
    }

    pub fn copy(&self, request: CopyRequest) -> ContainerId {
        self.here.copy_container(&Caller::default(), &self.source, request).unwrap().id
    }
}

/// Waits until nothing is being done to a container.
pub fn idle(host: &Host, id: &ContainerId) -> Container {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let c = host.container(id).unwrap();
        if c.operation_id.is_none() && c.status != Status::Copying {
            return c;
        }
        assert!(Instant::now() < end, "{c:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Syncs a copy. An operation holds its lock for a moment after its end can be read.
pub fn sync_when_free(host: &Host, id: &ContainerId, request: &SyncRequest) -> hoody_state::Result<SyncAnswer> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match host.sync_container(&Caller::default(), id, request) {
            Err(e) if e.code() == Code::OperationInProgress && Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            answered => return answered,
        }
    }
}

/// Waits until no operation is open.
pub fn settled(host: &Host) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let all = host.operations(&PageRequest { limit: 100, ..PageRequest::first() }).unwrap().rows;
        if all.iter().all(|o| o.status != OperationStatus::Running) {
            return;
        }
        assert!(Instant::now() < end, "{all:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until something is so.
pub fn eventually(f: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !f() {
        assert!(Instant::now() < end, "it did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn names(host: &Host, id: &ContainerId) -> Vec<String> {
    host.snapshots(id).unwrap().snapshots.into_iter().rev().map(|s| s.name.to_string()).collect()
}
