//! Schedules on a real pool, with a real container: needs root, BTRFS, a loop device, runc and a static busybox.

use super::*;
use hoody_state::model::{DatabaseScope, NewContainer, Verb};
use hoody_state::units::Bytes;
use hoody_state::{Code, HostConfig};
use hoody_state_workspace::worker::{import, line};
use hoody_state_workspace::{RealHost, assert_clean, programs, snapshot};
use std::time::Instant;

/// A real host whose clock is moved by hand, with a running container.
struct Real {
    real: RealHost,
    clock: Arc<ManualClock>,
    container: ContainerId,
}

impl Real {
    fn new(name: &str, pool: Bytes) -> Self {
        Self::with(name, |c| c.pool_size = Some(pool), |_| {})
    }

    /// The same with databases of the container's own, and with this program in it.
    fn with_databases(name: &str) -> Self {
        let container = |new: &mut NewContainer| {
            new.databases = Some(DatabaseScope::Private);
            new.container_image = Some("worker".into());
        };
        Self::with(name, |c| c.databases = Some(programs::daemon().into()), container)
    }

    fn with(name: &str, config: impl FnOnce(&mut HostConfig), change: impl FnOnce(&mut NewContainer)) -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-02T10:00:00Z".parse().unwrap()));
        let of_host = clock.clone();
        let real = RealHost::built(name, config, move |builder| builder.clock(of_host.clone()));
        let mut new = NewContainer { name: Some("agent".into()), ..Default::default() };
        change(&mut new);
        if new.container_image.is_some() {
            import(&real);
        }
        let project = hoody_state_workspace::project(real.host(), "p");
        let container = real.host().create_container(&Caller::default(), &project, new).unwrap().id;
        Real { real, clock, container }
    }

    fn set(&self, schedules: Vec<Schedule>) {
        let policy = SnapshotPolicy { schedules, ..Default::default() };
        self.real.host().set_snapshot_policy(&Caller::default(), &PolicyTarget::Container(self.container.clone()), &policy).unwrap();
    }

    fn pass(&self, by: Duration) {
        self.clock.advance(by);
        self.real.host().run_due_schedules().unwrap();
    }

    /// Data that nothing else has, in the place of what the file had before.
    fn write(&self, mib: u32) {
        self.real.sh(&self.container, &format!("dd if=/dev/urandom of=/data bs=1M count={mib} conv=fsync 2>&1"));
    }

    fn taken(&self) -> Vec<Snapshot> {
        taken(self.real.host(), &self.container)
    }

    fn times(&self, schedule: &str) -> Vec<String> {
        let own = self.taken().into_iter().filter(|s| s.schedule.as_deref() == Some(schedule));
        own.map(|s| s.scheduled_for.unwrap().strftime("%m-%dT%H:%M").to_string()).collect()
    }

    /// For how many missed runs the newest snapshot of a schedule stands.
    fn missed(&self, schedule: &str) -> Option<u64> {
        self.taken().into_iter().rfind(|s| s.schedule.as_deref() == Some(schedule)).unwrap().missed
    }

    /// The names of the volumes of snapshots in the pool.
    fn volumes(&self) -> std::collections::BTreeSet<String> {
        let home = self.real.live(&self.container).with_file_name("snapshots");
        std::fs::read_dir(home).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn events(&self, event_type: &str) -> Vec<serde_json::Value> {
        let filter = EventFilter { event_type: Some(event_type.into()), limit: 500, ..Default::default() };
        self.real.host().events(&filter).unwrap().0.into_iter().map(|e| e.payload).collect()
    }

    fn used(&self) -> u64 {
        self.real.host().pool().unwrap().used.0
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn runs_on_a_real_pool_give_back_the_room_of_what_they_remove_and_survive_two_weeks_off() {
    let mut s = Real::new("sch-runs", Bytes::gib(2));
    s.set(vec![schedule("hourly", "@hourly", last(2)), schedule("daily", "@daily", Keep { daily: Some(3), weekly: Some(2), ..Default::default() })]);
    let mine = snapshot(s.real.host(), &s.container, "mine").unwrap();
    let before = s.used();
    for _ in 0..5 {
        s.write(24);
        s.pass(HOUR);
    }
    let one = s.taken().remove(0);
    assert_eq!((one.trigger, one.schedule.as_deref(), one.missed), (Trigger::Schedule, Some("hourly"), None));
    assert_eq!((one.alias.unwrap().as_str(), one.created_at), ("hourly-2026-11-02-1400", "2026-11-02T14:00:00Z".parse().unwrap()));
    assert_eq!(s.times("hourly"), ["11-02T14:00", "11-02T15:00"]);
    let listed = |s: &Real| s.real.host().snapshots(&s.container).unwrap().snapshots.into_iter().map(|s| s.name.to_string()).collect();
    assert_eq!(s.volumes(), listed(&s), "what is removed has no volume any more");
    // Two of 24 MiB each are there, of five.
    until("the room does not come back", || s.real.host().pool().unwrap().reclaiming.is_empty() && s.used() - before < 72 << 20);
    s.pass(3 * DAY);
    assert_eq!(s.times("daily"), ["11-05T00:00"]);
    assert_eq!((s.missed("hourly"), s.missed("daily")), (Some(71), Some(3)), "three days without the runner: one run each");

    let kept = s.times("daily");
    s.real.stop();
    s.clock.advance(14 * DAY);
    s.real.start();
    s.real.host().run_due_schedules().unwrap();
    assert_eq!(s.times("hourly"), ["11-05T15:00", "11-19T15:00"]);
    assert_eq!(s.times("daily"), [kept, vec!["11-19T00:00".to_owned()]].concat(), "time without snapshots costs none");
    assert_eq!((s.missed("hourly"), s.missed("daily")), (Some(14 * 24 - 1), Some(14)));
    assert!(s.events("container.snapshot.prune_held_back").is_empty() && s.events("container.snapshot.schedule_failed").is_empty());
    assert_eq!(s.volumes(), listed(&s));
    s.real.host().restore(&Caller::default(), &s.container, mine.name.as_str(), Default::default()).unwrap();
    assert_clean(s.real.host(), "after two weeks");
}

#[test]
fn a_container_that_was_only_read_has_not_changed() {
    let s = Real::new("sch-changed", Bytes::gib(1));
    let mut hourly = schedule("hourly", "@hourly", last(20));
    hourly.only_if_changed = true;
    s.set(vec![hourly]);
    s.real.sh(&s.container, "echo one > /data; mkdir /dir; ln /data /dir/link");
    s.pass(HOUR);
    let count = |n: usize, why: &str| assert_eq!(s.taken().len(), n, "{why}");
    count(1, "the first");
    s.pass(HOUR);
    s.pass(HOUR);
    count(1, "nothing happened");
    s.real.sh(&s.container, "cat /data /dir/link > /dev/null; ls -lR / > /dev/null 2>&1; sync");
    s.pass(HOUR);
    count(1, "only read");
    s.real.sh(&s.container, "touch -a -d '2020-01-01 00:00:00' /data; sync");
    s.pass(HOUR);
    count(1, "only another time of access");
    s.real.sh(&s.container, "echo two > /new; rm /new; mount > /dev/null");
    s.pass(HOUR);
    let after_nothing = s.taken().len();
    s.real.sh(&s.container, "echo two > /data");
    s.pass(HOUR);
    count(after_nothing + 1, "written, and not synced");
    s.real.sh(&s.container, "chmod 600 /data");
    s.pass(HOUR);
    count(after_nothing + 2, "another mode");
    s.real.sh(&s.container, "echo > /hoody/storage/x");
    s.pass(HOUR);
    count(after_nothing + 3, "the storage is part of it");
    s.pass(HOUR);
    count(after_nothing + 3, "nothing again");
    // An older state is back, which nothing has written; a pause and a restart write nothing either.
    let verb = |verb: Verb| drop(s.real.host().lifecycle(&Caller::default(), &s.container, verb, None).unwrap());
    verb(Verb::ForceStop);
    let first = s.taken()[0].name.clone();
    s.real.host().restore(&Caller::default(), &s.container, first.as_str(), Default::default()).unwrap();
    s.pass(HOUR);
    count(after_nothing + 4, "restored");
    verb(Verb::Start);
    s.pass(HOUR);
    verb(Verb::Pause);
    s.pass(HOUR);
    count(after_nothing + 4, "started and paused");
    let listed = s.real.host().snapshots(&s.container).unwrap().snapshots.len();
    assert_eq!(s.volumes().len(), listed, "what was taken to compare is deleted");
    assert_clean(s.real.host(), "after unchanged runs");
}

#[test]
fn a_full_pool_is_pruned_first_and_a_run_without_room_says_so_and_comes_later() {
    let s = Real::new("sch-full", Bytes::mib(512));
    s.set(vec![schedule("hourly", "@hourly", last(3))]);
    for _ in 0..3 {
        s.write(40);
        s.pass(HOUR);
    }
    s.write(1);
    s.set(vec![schedule("hourly", "@hourly", last(1))]);
    // More than once: the room of what was deleted shows late.
    let fill = |s: &Real, name: &str| {
        for n in 0.. {
            let pool = s.real.host().pool().unwrap();
            if pool.free < pool.reserve {
                return;
            }
            assert!(n < 20, "the pool does not fill: {pool:?}");
            let more = (pool.free - pool.reserve).0 / (1 << 20) + 4;
            s.real.sh(&s.container, &format!("dd if=/dev/zero of=/fill-{name}-{n} bs=1M count={more} conv=fsync 2>&1; true"));
        }
    };
    fill(&s, "one");
    s.pass(HOUR);
    until("what was removed does not make room", || s.real.host().pool().unwrap().reclaiming.is_empty());
    s.pass(Duration::from_secs(10));
    assert_eq!(s.times("hourly"), ["11-02T14:00"], "the old ones made room for it");
    assert_eq!(s.taken()[0].missed, None);

    // Now nothing is in the way that the schedule could remove.
    fill(&s, "two");
    assert_eq!(snapshot(s.real.host(), &s.container, "refused").unwrap_err().code(), Code::PoolFull);
    let before = s.events("container.snapshot.schedule_failed").len();
    s.pass(HOUR);
    s.pass(Duration::from_secs(10));
    s.pass(Duration::from_secs(20));
    assert_eq!(s.times("hourly"), ["11-02T14:00"], "the newest stays");
    let failed = s.events("container.snapshot.schedule_failed");
    assert_eq!((failed.len(), failed[0]["error"]["code"].as_str()), (before + 1, Some("pool_full")), "{failed:?}");
    assert_eq!(s.real.sh(&s.container, "echo still here"), "still here\n");
    assert_eq!(s.volumes().len(), 1);
    assert_clean(s.real.host(), "while the pool is full");
    s.real.sh(&s.container, "rm /fill-*; sync");
    until("the room does not come back", || {
        let pool = s.real.host().pool().unwrap();
        pool.free > pool.reserve
    });
    s.pass(HOUR / 2);
    assert_eq!(s.times("hourly"), ["11-02T15:00"]);
    assert_eq!(s.real.host().schedule_counts().unwrap().failing, 0);
    assert_clean(s.real.host(), "after the pool was full");
}

#[test]
fn databases_that_nobody_wrote_have_not_changed() {
    let s = Real::with_databases("sch-databases");
    let mut hourly = schedule("hourly", "@hourly", last(20));
    hourly.only_if_changed = true;
    s.set(vec![hourly]);
    let count = |n: usize, why: &str| assert_eq!(s.taken().len(), n, "{why}");
    s.real.sh(&s.container, &line("init /hoody/databases/app.db"));
    s.pass(HOUR);
    count(1, "the first");
    s.pass(HOUR);
    count(1, "nothing happened");
    s.real.sh(&s.container, &line("add /hoody/databases/app.db 1 50"));
    s.pass(HOUR);
    count(2, "rows were added");
    s.pass(HOUR);
    count(2, "nothing happened");
    std::thread::scope(|scope| {
        scope.spawn(|| s.real.sh(&s.container, &line("add /hoody/databases/app.db 1 1000")));
        std::thread::sleep(Duration::from_millis(300));
        s.pass(HOUR);
    });
    count(3, "while rows are added");
    s.pass(HOUR);
    count(4, "what was added afterwards");
    s.pass(HOUR);
    count(4, "nothing happened");
    assert_clean(s.real.host(), "after unchanged runs with databases");
}
