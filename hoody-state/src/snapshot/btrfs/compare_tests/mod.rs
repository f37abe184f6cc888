#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]
//! Comparisons of volumes: random trees, and cases by hand.
//!
//! `HOODY_PAIRS=N` sets how many random pairs are compared, `HOODY_SEED=N` which ones come first.

mod cases;
mod changes;
mod model;
mod promotions;

use super::differential_tests::number;
use super::random_trees::Rng;
use super::tests::{OnLoop, op, snap};
use super::*;
use crate::diff::options::Method;
use crate::diff::{Kind, Record};

/// Compares two volumes and checks the order of what comes.
pub(super) fn compare(h: &OnLoop, old: &Volume, new: &Volume, options: &Options<'_>) -> Result<(Vec<Record>, Compared)> {
    let mut records: Vec<Record> = Vec::new();
    let pair = VolumePair { old: Some(old), new: Some(new), prefix: b"", ancestor: None, small: false };
    let done = h.store.compare(&[pair], options, &mut |r| {
        records.push(r);
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    let key = |r: &Record| (r.path.clone(), r.kind != Kind::Deleted);
    assert!(records.is_sorted_by(|x, y| key(x) < key(y)), "sorted, and nothing twice");
    Ok((records, done))
}

/// Applies the difference of two volumes to the first and compares that with the second. How many records there were.
fn oracle(h: &OnLoop, old: &Volume, new: &Volume, options: &Options<'_>, method: Method) -> std::result::Result<usize, String> {
    let (records, done) = compare(h, old, new, options).map_err(|e| format!("{e:?}"))?;
    assert_eq!(done.method, method);
    let [a, b] = [old, new].map(|v| model::read(&h.at(v, ""), options.times));
    for r in &records {
        let (tree, is) = if r.kind == Kind::Deleted { (&a, "the old tree") } else { (&b, "the new tree") };
        let found = model::type_of(tree, &r.path);
        let expected = if r.file_type == crate::diff::FileType::Subvolume { crate::diff::FileType::Directory } else { r.file_type };
        if found != Some(expected) {
            return Err(format!("{r:?}: {is} has {found:?} there"));
        }
    }
    if std::env::var_os("HOODY_RECORDS").is_some() {
        let show = model::show;
        for r in &records {
            let from = if let Kind::Renamed { from } = &r.kind { show(from) } else { String::new() };
            let link_of = r.link_of.as_deref().map(show);
            println!(
                "{} {:?} from {from} type {:?} {:?} fields {:?} link_of {link_of:?} replaces {:?}",
                show(&r.path),
                r.kind,
                r.file_type,
                r.inode,
                r.fields,
                r.replaces
            );
        }
        for (n, v) in [("old", old), ("new", new)] {
            let (dirs, files, _) = super::random_trees::contents(&h.at(v, ""));
            for d in dirs.iter().chain(&files) {
                let ino = std::os::unix::fs::MetadataExt::ino(&std::fs::symlink_metadata(d).unwrap());
                println!("{n} {ino} {}", model::show(std::os::unix::ffi::OsStrExt::as_bytes(d.strip_prefix(h.at(v, "")).unwrap().as_os_str())));
            }
        }
    }
    model::apply(&a, &b, &records)?;
    model::difference(&a, &b).map_or(Ok(records.len()), Err)
}

/// One history with eight pairs: each of four rounds with the one before, over several rounds, backwards, and between two branches.
fn one_history(h: &OnLoop, seed: u64) -> (usize, usize) {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let ((c, live), (d, _)) = (h.container(), h.container());
    let mut open = Vec::new();
    for round in 0..4 {
        let count = 350 + rng.below(150);
        changes::changes(&mut rng, &h.at(&live, ""), count, &mut open);
        h.store.snapshot(&live, &snap(&c, &format!("s{round}")), &op()).unwrap();
        if rng.below(2) == 0 {
            open.clear();
        }
    }
    let branch = Volume::Next(d.clone());
    h.store.clone_volume(&snap(&c, "s1"), &branch, &op()).unwrap();
    changes::changes(&mut rng, &h.at(&branch, ""), 350, &mut open);
    h.store.snapshot(&branch, &snap(&d, "f"), &op()).unwrap();
    let s = |n: &str| snap(&c, n);
    let pairs = [
        (s("s0"), s("s1")),
        (s("s1"), s("s2")),
        (s("s2"), s("s3")),
        (s("s0"), s("s3")),
        (s("s3"), s("s1")),
        (s("s1"), snap(&d, "f")),
        (s("s3"), snap(&d, "f")),
        (snap(&d, "f"), s("s2")),
    ];
    let mut records = 0;
    for (i, (old, new)) in pairs.iter().enumerate() {
        let options = Options { times: (seed as usize + i).is_multiple_of(2), ..Options::default() };
        match oracle(h, old, new, &options, Method::Changes) {
            Ok(n) => records += n,
            Err(e) => panic!("HOODY_SEED={seed}, pair {i} ({old} → {new}): {e}"),
        }
    }
    drop(open);
    for v in h.store.list(Some(&c)).unwrap().iter().chain(&h.store.list(Some(&d)).unwrap()) {
        h.store.delete(v).unwrap();
    }
    (pairs.len(), records)
}

#[test]
fn the_difference_applied_to_the_old_tree_gives_the_new_one() {
    let h = OnLoop::new();
    let (seed, wanted) = (number("HOODY_SEED", 1), number("HOODY_PAIRS", 24) as usize);
    let (mut pairs, mut records, mut next) = (0, 0, seed);
    while pairs < wanted {
        let (p, r) = one_history(&h, next);
        (pairs, records, next) = (pairs + p, records + r, next + 1);
    }
    println!("{pairs} pairs of trees, {records} records: each difference applied to the old tree gave the new one");
    assert!(records >= pairs * 150, "the trees differ in too little");
}
