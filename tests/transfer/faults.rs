//! Crashes of either side before every step, and many random faults.

use super::{Two, idle, names, settled};
use hoody_state::Caller;
use hoody_state::id::ContainerId;
use hoody_state::model::{CopyRequest, PageRequest, Status, SyncRequest};
use hoody_state::transfer::memory::Fault;
use hoody_state::units::Bytes;
use hoody_state_workspace::{assert_clean, snapshot};

fn only(two: &Two) -> Option<ContainerId> {
    two.there.containers(&PageRequest::first(), None, None).unwrap().rows.first().map(|c| c.id.clone())
}

/// A copy whose target crashed before its `n`th step and was started again; what the order was answered.
fn crashed_at(n: u64) -> (Two, hoody_state::Result<hoody_state::model::Container>) {
    let mut two = Two::new();
    two.b.crash_at(n);
    let ordered = two.here.copy_container(&Caller::default(), &two.source, two.request());
    std::thread::sleep(std::time::Duration::from_millis(20));
    while two.b.steps() < n && only(&two).is_some_and(|c| two.there.container(&c).unwrap().status == Status::Copying) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    two.restart_there();
    settled(&two.there);
    (two, ordered)
}

/// What a copy has written since it was made, when no snapshot is left to count from.
fn grown(host: &hoody_state::Host, copy: &ContainerId) -> Bytes {
    for name in host.snapshots(copy).unwrap().snapshots {
        // An operation lets go a moment after its end can be read.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while let Err(e) = host.delete_snapshot(&Caller::default(), copy, name.name.as_str()) {
            assert!(e.kind() == hoody_state::Kind::Busy && std::time::Instant::now() < end, "{e}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    snapshot(host, copy, "grown").unwrap().size
}

/// A crash between the clone and its record left a copy that counted everything it was made with as its own growth.
#[test]
fn a_copy_whose_record_of_the_clone_was_lost_counts_its_growth_from_the_clone() {
    let two = Two::new();
    two.b.crash_at(0);
    let copy = two.copy(two.request());
    idle(&two.there, &copy);
    let (steps, grew) = (two.b.steps(), grown(&two.there, &copy));
    for n in 1..=steps {
        let (two, _) = crashed_at(n);
        let Some(copy) = only(&two) else { continue };
        idle(&two.there, &copy);
        assert_eq!(grown(&two.there, &copy), grew, "step {n} of {steps}");
    }
}

/// The target crashes before each step of a copy; after its next start the copy goes on by itself.
#[test]
fn a_copy_whose_target_crashes_at_any_step_is_finished() {
    let two = Two::new();
    two.b.crash_at(0);
    idle(&two.there, &two.copy(two.request()));
    let steps = two.b.steps();
    assert!(steps > 10, "{steps}");
    for n in 1..=steps {
        let (two, ordered) = crashed_at(n);
        let when = format!("step {n} of {steps}");
        assert_clean(&two.there, &when);
        assert_clean(&two.here, &when);
        let Some(copy) = only(&two) else {
            assert!(ordered.is_err(), "{when}: an order that was taken is lost");
            continue;
        };
        assert_eq!(idle(&two.there, &copy).status, Status::Running, "{when}");
        assert_eq!(names(&two.there, &copy), names(&two.here, &two.source), "{when}");
        assert_eq!(two.b.read(&copy, "state").as_deref(), Some("three"), "{when}");
    }
}

/// The target crashes before each step of a sync; the copy is as before or as the source, and the next sync ends well.
#[test]
fn a_sync_whose_target_crashes_at_any_step_can_be_repeated() {
    let stage = || {
        let two = Two::new();
        let copy = two.copy(two.request());
        idle(&two.there, &copy);
        two.a.write(&two.source, "state", "four");
        two.b.write(&copy, "own", "mine");
        (two, copy)
    };
    let (two, copy) = stage();
    two.b.crash_at(0);
    two.there.sync_container(&Caller::default(), &copy, &SyncRequest::default()).unwrap();
    let steps = two.b.steps();
    for n in 1..=steps {
        let (mut two, copy) = stage();
        two.b.crash_at(n);
        let _ = two.there.sync_container(&Caller::default(), &copy, &SyncRequest::default());
        two.restart_there();
        settled(&two.there);
        let when = format!("step {n} of {steps}");
        assert_clean(&two.there, &when);
        let state = (two.b.read(&copy, "state"), two.b.read(&copy, "own"));
        let (before, after) = ((Some("three".into()), Some("mine".into())), (Some("four".into()), None));
        assert!(state == before || state == after, "{when}: {state:?}");
        assert_eq!(two.there.container(&copy).unwrap().status, Status::Running, "{when}");
        two.there.sync_container(&Caller::default(), &copy, &SyncRequest::default()).unwrap();
        assert_eq!((two.b.read(&copy, "state"), two.b.read(&copy, "own")), after, "{when}");
        assert_clean(&two.there, &when);
        assert_clean(&two.here, &when);
    }
}

/// The host crashes before each step of a copy of its own.
#[test]
fn a_local_copy_cut_short_at_any_step_is_complete_or_absent() {
    let request = |two: &Two| CopyRequest { target_server_id: None, source_snapshot: Some("second".into()), ..two.request() };
    let two = Two::new();
    two.a.crash_at(0);
    two.copy(request(&two));
    let steps = two.a.steps();
    for n in 1..=steps {
        let mut two = Two::new();
        two.a.crash_at(n);
        let made = two.here.copy_container(&Caller::default(), &two.source, request(&two));
        settled_or_crashed(&two);
        two.restart_here();
        settled(&two.here);
        let when = format!("step {n} of {steps}");
        assert_clean(&two.here, &when);
        let all = two.here.containers(&PageRequest::first(), None, None).unwrap().rows;
        match all.iter().find(|c| c.id != two.source) {
            None => assert!(made.is_err(), "{when}"),
            Some(c) => {
                assert_eq!((c.status, c.snapshot_count), (Status::Running, 2), "{when}: {c:?}");
                assert_eq!(two.a.read(&c.id, "state").as_deref(), Some("two"), "{when}");
            }
        }
    }
}

fn settled_or_crashed(two: &Two) {
    // A crashed operation stays open: its thread has ended by then.
    std::thread::sleep(std::time::Duration::from_millis(5));
    let _ = two;
}

/// Cuts, damage, lost requests and answers at random: every copy and sync ends well, or says that it failed and ends well when it is asked for again.
#[test]
fn random_faults_never_leave_anything_incomplete() {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move |n: u64| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    };
    let rounds = std::env::var("HOODY_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for round in 0..rounds {
        let two = Two::new();
        let mut seed = random(1 << 40) | 1;
        two.net.set_fault(move |_, _| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            match seed % 10 {
                0 => Some(Fault::Unreachable),
                1 => Some(Fault::AnswerLost),
                2 | 3 => Some(Fault::Cut(seed / 10 % 600)),
                4 => Some(Fault::Damage(seed / 10 % 300)),
                _ => None,
            }
        });
        let me = Caller::default();
        let mut copy = two.here.copy_container(&me, &two.source, two.request()).ok().map(|c| c.id).or_else(|| only(&two));
        for n in 0..8 {
            settled(&two.there);
            if n > 5 {
                two.net.set_fault(|_, _| None);
            }
            match &copy {
                None => copy = two.here.copy_container(&me, &two.source, two.request()).ok().map(|c| c.id).or_else(|| only(&two)),
                Some(c) => {
                    two.a.write(&two.source, "state", &format!("{round} {n}"));
                    let done = two.there.sync_container(&me, c, &SyncRequest::default());
                    settled(&two.there);
                    if done.is_ok_and(|d| d.changed.is_some()) && two.there.container(c).unwrap().status == Status::Running {
                        assert_eq!(two.b.read(c, "big").map(|b| b.len()), Some(20_000));
                    }
                }
            }
            assert_clean(&two.there, &format!("round {round}, {n}"));
        }
        let copy = copy.unwrap();
        two.there.sync_container(&me, &copy, &SyncRequest::default()).unwrap();
        settled(&two.there);
        assert_eq!(two.b.read(&copy, "state"), two.a.read(&two.source, "state"), "round {round}");
        assert_eq!(two.there.container(&copy).unwrap().status, Status::Running, "round {round}");
        assert_clean(&two.here, &format!("round {round}"));
        assert_clean(&two.there, &format!("round {round}"));
    }
}
