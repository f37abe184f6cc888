//! Random histories against a small model: what each live state comes from, and which snapshots there are.

use super::{by_id, me, of, of_project};
use hoody_state::Host;
use hoody_state::id::{ContainerId, ProjectId};
use hoody_state::model::{ForkRequest, NodeKind, SyncRequest};
use hoody_state_workspace::{MemoryWorld, assert_clean, at_rest, container, furnish, snapshot};
use std::collections::BTreeMap;

/// What the live state of each container comes from: a kind, and the name of a snapshot where there is one.
type Model = BTreeMap<ContainerId, (NodeKind, Option<String>)>;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

fn step(host: &Host, dice: &mut Dice, model: &mut Model, number: usize) {
    let ids: Vec<ContainerId> = model.keys().cloned().collect();
    let c = ids[dice.roll(ids.len())].clone();
    let names: Vec<String> = host.snapshots(&c).unwrap().snapshots.iter().map(|s| s.name.to_string()).collect();
    let some = |dice: &mut Dice| (!names.is_empty()).then(|| names[dice.roll(names.len())].clone());
    match dice.roll(12) {
        0..=3 => {
            let s = snapshot(host, &c, &format!("s{number}")).unwrap();
            model.insert(c, (NodeKind::Snapshot, Some(s.name.to_string())));
        }
        4 | 5 => {
            let Some(name) = some(dice) else { return };
            host.restore(&me(), &c, &name, Default::default()).unwrap();
            model.insert(c, (NodeKind::Restore, Some(name)));
        }
        6..=8 => {
            let Some(name) = some(dice) else { return };
            host.delete_snapshot(&me(), &c, &name).unwrap();
        }
        9 if ids.len() < 6 => {
            let request = ForkRequest { count: Some(1), source_snapshot: some(dice), name_prefix: Some(format!("fork{number}")), ..Default::default() };
            let forked = host.fork_container(&me(), &c, &request).unwrap();
            at_rest(host);
            if request.source_snapshot.is_none() {
                model.insert(c, (NodeKind::Snapshot, Some(forked.source_snapshot.to_string())));
            }
            let fork = serde_json::to_value(&forked.results[0]).unwrap()["container"]["id"].as_str().unwrap().parse().unwrap();
            model.insert(fork, (NodeKind::Fork, None));
        }
        10 => {
            let row = host.container(&c).unwrap();
            let Some(source) = row.source_container_id.filter(|s| model.contains_key(s)) else { return };
            let before: Vec<_> = host.snapshots(&source).unwrap().snapshots;
            let synced = host.sync_container(&me(), &c, &SyncRequest::default()).unwrap();
            at_rest(host);
            let after = host.snapshots(&source).unwrap().snapshots;
            if let Some(taken) = after.iter().find(|s| before.iter().all(|b| b.name != s.name)) {
                model.insert(source, (NodeKind::Snapshot, Some(taken.name.to_string())));
            } else {
                // It took one and deleted it again, or took none: what the source comes from is checked from the next step on.
                model.remove(&source).map(|_| model.insert(source.clone(), present(host, &source)));
            }
            if synced.changed == Some(true) || synced.kept.is_some() {
                model.insert(c, (NodeKind::Sync, None));
            }
        }
        11 if ids.len() > 2 => {
            host.delete_container(&me(), &c).unwrap();
            at_rest(host);
            model.remove(&c);
        }
        _ => {}
    }
}

fn present(host: &Host, c: &ContainerId) -> (NodeKind, Option<String>) {
    let t = of(host, c);
    let now = t.nodes.iter().find(|n| n.kind == Some(NodeKind::Now)).unwrap();
    let parent = by_id(&t)[now.parents[0].as_str()];
    let named = matches!(parent.kind, Some(NodeKind::Snapshot | NodeKind::Restore));
    (parent.kind.unwrap(), parent.snapshot.as_ref().filter(|_| named).map(ToString::to_string))
}

fn agrees(host: &Host, p: &ProjectId, model: &Model, when: &str) {
    for (c, expected) in model {
        assert_eq!(&present(host, c), expected, "{when}: {c}");
        let t = of(host, c);
        let mut shown: Vec<String> =
            t.nodes.iter().filter(|n| n.kind == Some(NodeKind::Snapshot) && n.deleted_at.is_none()).map(|n| n.snapshot.clone().unwrap().to_string()).collect();
        let mut there: Vec<String> = host.snapshots(c).unwrap().snapshots.iter().map(|s| s.name.to_string()).collect();
        shown.sort();
        there.sort();
        assert_eq!(shown, there, "{when}: {c}");
    }
    let t = of_project(host, p);
    // The image stays, though the container that was made from it may be gone.
    assert!(t.outside.iter().all(|n| n.container_id.is_none() && !n.hidden), "{when}: {:#?}", t.outside);
    // What is deleted is there only for others.
    for n in t.nodes.iter().filter(|n| n.deleted_at.is_some() && n.container_id.is_some()) {
        let needed = t.nodes.iter().any(|o| o.parents.contains(&n.id) || o.overwrote.as_ref() == Some(&n.id));
        assert!(needed, "{when}: {n:#?} is needed by nobody");
    }
}

#[test]
fn random_histories_are_as_the_model_says() {
    for seed in 0..5 {
        let host = MemoryWorld::new().host();
        let p = furnish(&host);
        let c = container(&host, &p, "agent").unwrap();
        let mut model: Model = [(c, (NodeKind::Create, None))].into();
        let mut dice = Dice(seed);
        for number in 0..45 {
            step(&host, &mut dice, &mut model, number);
            agrees(&host, &p, &model, &format!("seed {seed}, step {number}"));
        }
        assert_clean(&host, "a random history");
    }
}
