//! Merges of random trees, applied to volumes.

use super::*;
use crate::diff::merge::{Compare, Merged, merge};
use crate::snapshot::Mergeable;

struct Volumes<'a> {
    h: &'a OnLoop,
    winner: &'a Volume,
    loser: &'a Volume,
}

impl Compare for Volumes<'_> {
    fn equal(&self, winner: &[u8], loser: &[u8]) -> Result<bool> {
        self.h.store.equal((self.winner, winner), (self.loser, loser))
    }
}

/// Merges what two volumes changed since `base` into a clone of the first, at `next`.
fn merged(h: &OnLoop, base: &Volume, winner: &Volume, loser: &Volume, next: &Volume) -> Merged {
    let diff = |v: &Volume| compare(h, base, v, &Options::default()).unwrap().0;
    let m = merge(&diff(winner), &diff(loser), &Volumes { h, winner, loser }).unwrap();
    h.store.delete(next).unwrap();
    h.store.clone_volume(winner, next, &op()).unwrap();
    h.store.apply(&m.steps, loser, next, &|| Ok(())).unwrap();
    m
}

fn difference(h: &OnLoop, a: &Volume, b: &Volume) -> Option<String> {
    let [a, b] = [a, b].map(|v| model::read(&h.at(v, ""), false));
    model::difference(&a, &b)
}

#[test]
fn changes_that_are_taken_over_make_the_base_what_the_other_is() {
    let h = OnLoop::new();
    let seed = number("HOODY_SEED", 1);
    let (mut steps, mut conflicts) = (0, 0);
    for seed in seed..seed + number("HOODY_MERGES", 12) {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let ((c, live), (d, _)) = (h.container(), h.container());
        let mut open = Vec::new();
        changes::changes(&mut rng, &h.at(&live, ""), 300, &mut open);
        let base = snap(&c, "base");
        h.store.snapshot(&live, &base, &op()).unwrap();
        let (w, l, next) = (snap(&c, "w"), snap(&d, "l"), Volume::Next(c.clone()));
        let branch = Volume::Next(d.clone());
        h.store.clone_volume(&base, &branch, &op()).unwrap();
        changes::changes(&mut rng, &h.at(&branch, ""), 250, &mut open);
        h.store.snapshot(&branch, &l, &op()).unwrap();
        let m = merged(&h, &base, &base, &l, &next);
        assert_eq!(m.conflicts, vec![], "HOODY_SEED={seed}");
        if let Some(e) = difference(&h, &next, &l) {
            panic!("HOODY_SEED={seed}: only one side changed, and the result is another: {e}");
        }
        steps += m.steps.len();
        // Both changed: whatever contradicts, every step can be taken, and the winner's state is left where nothing of the loser's is taken.
        changes::changes(&mut rng, &h.at(&live, ""), 250, &mut open);
        h.store.snapshot(&live, &w, &op()).unwrap();
        conflicts += merged(&h, &base, &w, &l, &next).conflicts.len();
        let m = merged(&h, &base, &w, &w, &next);
        assert_eq!(m, Merged::default(), "HOODY_SEED={seed}: the same on both sides");
        drop(open);
        for v in h.store.list(Some(&c)).unwrap().iter().chain(&h.store.list(Some(&d)).unwrap()) {
            h.store.delete(v).unwrap();
        }
    }
    println!("{steps} steps, {conflicts} conflicts");
    assert!(steps > 500 && conflicts > 50, "the trees differ in too little: {steps} steps, {conflicts} conflicts");
}
