//! Snapshot policies at work: runs at the right times, missed runs, failures, retention, a clock that moves, a server that ends in the middle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod clock;
mod crash;
mod failures;
mod policies;
mod real;
mod runs;

use hoody_state::clock::ManualClock;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{EventFilter, Keep, PolicyTarget, Schedule, Snapshot, SnapshotPolicy, Trigger};
use hoody_state::{Caller, Host};
use hoody_state_workspace::{MemoryWorld, container, furnish};
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A world whose clock is moved by hand, with a container.
struct Stage {
    world: MemoryWorld,
    clock: Arc<ManualClock>,
    host: Host,
    project: ProjectId,
    container: ContainerId,
}

impl Stage {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-02T10:00:00Z".parse().unwrap()));
        let mut world = MemoryWorld::new();
        world.clock = Some(clock.clone());
        let host = world.host();
        let project = furnish(&host);
        let container = container(&host, &project, "agent").unwrap();
        Stage { world, clock, host, project, container }
    }

    /// Sets the container's policy: schedules as `(name, cron, keep)`.
    fn schedules(&self, schedules: &[(&str, &str, Keep)]) {
        let schedules = schedules.iter().map(|(name, cron, keep)| schedule(name, cron, *keep)).collect();
        self.set(&SnapshotPolicy { schedules, ..Default::default() });
    }

    fn set(&self, policy: &SnapshotPolicy) {
        self.host.set_snapshot_policy(&Caller::default(), &self.target(), policy).unwrap();
    }

    fn target(&self) -> PolicyTarget {
        PolicyTarget::Container(self.container.clone())
    }

    /// Time passes, and what is due then runs.
    fn pass(&self, by: Duration) {
        self.clock.advance(by);
        self.host.run_due_schedules().unwrap();
    }

    /// The server ends, time passes, and it starts again. What is due runs at the start.
    fn restart_after(&mut self, by: Duration) {
        self.host.close();
        self.clock.advance(by);
        self.host = self.world.host();
        self.host.run_due_schedules().unwrap();
    }

    /// The container changes.
    fn write(&self, text: &str) {
        self.world.write(&self.container, "etc/passwd", text);
    }

    /// The snapshots of schedules, the oldest first.
    fn taken(&self) -> Vec<Snapshot> {
        taken(&self.host, &self.container)
    }

    /// The times for which a schedule has snapshots, the oldest first.
    fn times(&self, schedule: &str) -> Vec<String> {
        let own = self.taken().into_iter().filter(|s| s.schedule.as_deref() == Some(schedule));
        own.map(|s| s.scheduled_for.unwrap().strftime("%m-%dT%H:%M").to_string()).collect()
    }

    fn events(&self, event_type: &str) -> Vec<serde_json::Value> {
        let filter = EventFilter { event_type: Some(event_type.into()), limit: 500, ascending: true, ..Default::default() };
        self.host.events(&filter).unwrap().0.into_iter().map(|e| e.payload).collect()
    }
}

fn taken(host: &Host, c: &ContainerId) -> Vec<Snapshot> {
    let mut all: Vec<Snapshot> = host.snapshots(c).unwrap().snapshots.into_iter().filter(|s| s.trigger == Trigger::Schedule).collect();
    all.reverse();
    all
}

fn schedule(name: &str, cron: &str, keep: Keep) -> Schedule {
    Schedule {
        name: name.into(),
        cron: cron.into(),
        alias_pattern: None,
        keep,
        max_age: None,
        only_if_changed: false,
        spread: None,
        condition: Default::default(),
    }
}

fn last(n: u32) -> Keep {
    Keep { last: Some(n), ..Default::default() }
}

/// Not a test of its own: what these tests run in containers.
#[test]
fn entry() {
    hoody_state_workspace::worker::play();
}
