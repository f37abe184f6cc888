//! Rolling slots: a new snapshot takes an alias over, and some of those that had it are kept.

use crate::{crash_at_each_step, stage};
use hoody_state::id::ContainerId;
use hoody_state::model::{NewSnapshot, OnAliasConflict, Snapshot, SnapshotFilter};
use hoody_state::{Caller, Code, Host, Result};
use hoody_state_workspace::{assert_clean, snapshot};

fn roll(host: &Host, c: &ContainerId, keep: u32) -> Result<Snapshot> {
    let new = NewSnapshot { alias: Some("slot".into()), on_alias_conflict: OnAliasConflict::Replace, keep_replaced: Some(keep), ..NewSnapshot::default() };
    host.create_snapshot(&Caller::default(), c, new).map(|a| a.snapshot)
}

/// The slot's snapshots, the newest first.
fn slot(host: &Host, c: &ContainerId) -> Vec<Snapshot> {
    host.snapshots_matching(c, &SnapshotFilter { alias: Some("slot".into()), ..SnapshotFilter::default() }).unwrap().snapshots
}

#[test]
fn the_newest_replaced_snapshots_are_kept_without_their_alias() {
    let (w, host, c) = stage("{}");
    let mut taken = Vec::new();
    for n in 0..6 {
        w.write(&c, "n", &n.to_string());
        taken.push(roll(&host, &c, 2).unwrap());
    }
    let left = slot(&host, &c);
    let names: Vec<_> = left.iter().map(|s| s.name.clone()).collect();
    assert_eq!(names, [5, 4, 3].map(|i: usize| taken[i].name.clone()));
    assert_eq!(left[0].alias.as_ref().map(|a| a.as_str()), Some("slot"));
    assert_eq!(left[0].replaced_alias, None);
    for old in &left[1..] {
        assert_eq!((old.alias.as_ref(), old.replaced_alias.as_ref().map(|a| a.as_str())), (None, Some("slot")));
    }
    assert!(slot(&host, &c).iter().all(|s| s.name.as_str() != "slot"));
    assert_eq!(left[0].parent.as_ref(), Some(&left[1].name), "the list is one line still");
    assert!(host.snapshot(&c, "before").is_ok(), "another alias is another slot");
    assert_eq!(host.snapshot(&c, "slot").unwrap().snapshot.name, taken[5].name);
    assert_clean(&host, "rolling");
}

#[test]
fn pinned_and_renamed_snapshots_leave_the_slot() {
    let (_w, host, c) = stage("{}");
    roll(&host, &c, 0).unwrap();
    let first = roll(&host, &c, 0).unwrap().name;
    host.pin_snapshot(&Caller::default(), &c, first.as_str(), Some("release".into())).unwrap();
    let second = roll(&host, &c, 1).unwrap().name;
    let third = roll(&host, &c, 1).unwrap().name;
    assert_eq!(
        slot(&host, &c).iter().map(|s| s.name.clone()).collect::<Vec<_>>(),
        [third.clone(), second.clone(), first.clone()],
        "a pinned one does not count"
    );
    host.rename_snapshot(&Caller::default(), &c, second.as_str(), Some("milestone".into())).unwrap();
    let fourth = roll(&host, &c, 1).unwrap().name;
    let fifth = roll(&host, &c, 1).unwrap().name;
    assert_eq!(slot(&host, &c).iter().map(|s| s.name.clone()).collect::<Vec<_>>(), [fifth, fourth, first]);
    assert_eq!(host.snapshot(&c, "milestone").unwrap().snapshot.name, second, "one that was given a name of its own stays");
    assert!(host.snapshot(&c, third.as_str()).is_err());
}

#[test]
fn without_keep_replaced_the_old_one_is_deleted_and_a_pinned_one_refused() {
    let (_w, host, c) = stage("{}");
    roll(&host, &c, 0).unwrap();
    let second = roll(&host, &c, 0).unwrap().name;
    assert_eq!(slot(&host, &c).into_iter().map(|s| s.name).collect::<Vec<_>>(), std::slice::from_ref(&second));
    host.pin_snapshot(&Caller::default(), &c, second.as_str(), Some("kept".into())).unwrap();
    assert_eq!(roll(&host, &c, 0).unwrap_err().code(), Code::SnapshotPinned);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (_w, host, c) = stage("{}");
    let of = |f: fn(&mut NewSnapshot)| {
        let mut new = NewSnapshot { alias: Some("slot".into()), on_alias_conflict: OnAliasConflict::Replace, ..NewSnapshot::default() };
        f(&mut new);
        host.create_snapshot(&Caller::default(), &c, new).unwrap_err()
    };
    assert_eq!(of(|n| n.keep_replaced = Some(1001)).code(), Code::ValidationError);
    let e = of(|n| {
        n.keep_replaced = Some(1);
        n.on_alias_conflict = OnAliasConflict::Error;
    });
    assert!(e.code() == Code::ValidationError && e.message().contains("on_alias_conflict"), "{e}");
    let e = of(|n| {
        n.expiry = Some(7.into());
        n.expires_in = Some("6h".parse().unwrap());
    });
    assert_eq!(e.code(), Code::InvalidExpiry);
    assert_eq!(host.snapshots(&c).unwrap().snapshot_count, 1, "nothing was created");
}

#[test]
fn a_name_cannot_be_taken_away_so_the_replaced_snapshot_gets_another_alias() {
    let (_w, host, c) = stage("{}");
    let first = roll(&host, &c, 2).unwrap();
    assert_eq!(first.name.as_str(), "slot");
    let second = roll(&host, &c, 2).unwrap();
    assert_eq!(host.snapshot(&c, "slot").unwrap().snapshot.name, second.name, "whoever asks for the slot gets the newest");
    let old = slot(&host, &c).pop().unwrap();
    assert_eq!(old.name, first.name);
    let shown = old.alias.unwrap().to_string();
    assert!(shown.starts_with("slot-20"), "{shown}");
    assert_eq!(host.snapshot(&c, &shown).unwrap().snapshot.name, first.name);
    assert_eq!(old.replaced_alias.unwrap().as_str(), "slot");
}

#[test]
fn a_snapshot_is_kept_for_hours() {
    let (_w, host, c) = stage("{}");
    let taken =
        host.create_snapshot(&Caller::default(), &c, NewSnapshot { expires_in: Some("6h".parse().unwrap()), ..NewSnapshot::default() }).unwrap().snapshot;
    assert_eq!(taken.expires_at.unwrap().duration_since(taken.created_at).as_hours(), 6);
    let changed = host.set_snapshot_expiry_in(&Caller::default(), &c, taken.name.as_str(), "90s".parse().unwrap()).unwrap().snapshot;
    assert!(changed.expires_at.unwrap().duration_since(taken.created_at).as_secs() < 120);
}

#[test]
fn crashes_while_an_alias_is_taken_over() {
    crash_at_each_step(
        "rolling slot",
        "{}",
        |_, h, c| (0..3).for_each(|_| drop(roll(h, c, 2).unwrap())),
        |_, h, c| roll(h, c, 2).map(drop),
        |_, h, c, acknowledged| {
            let left = slot(h, c);
            assert_eq!(left.len(), 3, "one has the alias and two are kept: {left:?}");
            assert_eq!(left.iter().filter(|s| s.alias.as_ref().is_some_and(|a| a.as_str() == "slot")).count(), 1);
            assert_eq!(left[0].alias.as_ref().map(|a| a.as_str()), Some("slot"), "the newest has it");
            assert!(!acknowledged || h.snapshots(c).unwrap().snapshot_count == 4);
            snapshot(h, c, "afterwards").unwrap();
        },
    );
}
