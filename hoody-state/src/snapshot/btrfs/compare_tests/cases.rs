//! Cases by hand: what records say, what is refused, and what a hostile tree does.

use super::super::tests::{OnLoop, op, snap};
use super::super::*;
use super::{compare, oracle};
use crate::diff::options::Method;
use crate::diff::{Field, Kind, Record};
use crate::snapshot::VolumePair;
use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};

struct Two {
    h: OnLoop,
    c: ContainerId,
    live: Volume,
}

impl Two {
    fn new() -> Two {
        let h = OnLoop::new();
        let (c, live) = h.container();
        Two { h, c, live }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.h.at(&self.live, path)
    }

    fn take(&self, name: &str) -> Volume {
        let volume = snap(&self.c, name);
        self.h.store.snapshot(&self.live, &volume, &op()).unwrap();
        volume
    }

    fn diff(&self, old: &Volume, new: &Volume) -> Vec<Record> {
        oracle(&self.h, old, new, &Options::default(), Method::Changes).unwrap();
        compare(&self.h, old, new, &Options::default()).unwrap().0
    }
}

fn said(records: &[Record]) -> Vec<(String, String)> {
    let text = |p: &[u8]| String::from_utf8_lossy(p).into_owned();
    let kind = |r: &Record| match &r.kind {
        Kind::Renamed { from } => format!("renamed from {}", text(from)),
        Kind::TypeChanged { from, to } => format!("{} to {}", from.as_str(), to.as_str()),
        other => format!("{other:?}").to_lowercase(),
    };
    let of = |r: &Record| r.link_of.as_ref().map_or_else(String::new, |l| format!(" link of {}", text(l)));
    records.iter().map(|r| (text(&r.path), format!("{}{}", kind(r), of(r)))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_renamed_directory_is_one_record_and_what_changed_in_it_is_named_as_it_is_now() {
    let t = Two::new();
    std::fs::create_dir_all(t.at("old/deep/er")).unwrap();
    for n in 0..50 {
        std::fs::write(t.at(&format!("old/deep/er/{n}")), [7; 5000]).unwrap();
    }
    let a = t.take("s1");
    std::fs::rename(t.at("old"), t.at("new")).unwrap();
    File::options().write(true).open(t.at("new/deep/er/7")).unwrap().write_all_at(b"x", 4999).unwrap();
    std::fs::remove_file(t.at("new/deep/er/8")).unwrap();
    let b = t.take("s2");
    let records = t.diff(&a, &b);
    assert_eq!(said(&records), pairs(&[("new", "renamed from old"), ("new/deep/er/7", "modified"), ("old/deep/er/8", "deleted")]));
    assert_eq!(records[1].bytes, 904, "the bytes of the block that was written, up to the end of the file");
    let below = |path: &str| {
        let options = Options { below: path.into(), ..Options::default() };
        said(&compare(&t.h, &a, &b, &options).unwrap().0).into_iter().map(|(p, _)| p).collect::<Vec<_>>()
    };
    assert_eq!(below("new/deep"), ["new/deep/er/7"]);
    assert_eq!(below("old"), ["new", "old/deep/er/8"], "what was moved out of there is shown too");
    assert!(below("ne").is_empty());
    assert_eq!(said(&t.diff(&b, &a)), pairs(&[("old", "renamed from new"), ("old/deep/er/7", "modified"), ("old/deep/er/8", "added")]));
}

#[test]
fn two_names_swapped_and_a_file_replaced_as_editors_do() {
    let t = Two::new();
    for name in ["a", "b", "file", "same", "type"] {
        std::fs::write(t.at(name), name).unwrap();
    }
    let a = t.take("s1");
    rustix::fs::renameat_with(rustix::fs::CWD, t.at("a"), rustix::fs::CWD, t.at("b"), rustix::fs::RenameFlags::EXCHANGE).unwrap();
    std::fs::write(t.at("tmp"), "new").unwrap();
    std::fs::rename(t.at("tmp"), t.at("file")).unwrap();
    std::fs::remove_file(t.at("type")).unwrap();
    std::os::unix::fs::symlink("a", t.at("type")).unwrap();
    let b = t.take("s2");
    let expected = [("a", "renamed from b"), ("b", "renamed from a"), ("file", "modified"), ("type", "file to symlink")];
    assert_eq!(said(&t.diff(&a, &b)), pairs(&expected));
}

#[test]
fn links_are_told_from_files_and_count_once() {
    let t = Two::new();
    std::fs::create_dir(t.at("d")).unwrap();
    std::fs::write(t.at("one"), [1; 3000]).unwrap();
    let a = t.take("s1");
    std::fs::hard_link(t.at("one"), t.at("d/two")).unwrap();
    std::fs::hard_link(t.at("one"), t.at("a-third")).unwrap();
    std::fs::write(t.at("new"), [2; 4000]).unwrap();
    std::fs::hard_link(t.at("new"), t.at("d/new")).unwrap();
    let b = t.take("s2");
    let records = t.diff(&a, &b);
    let expected = [("a-third", "added link of one"), ("d/new", "added"), ("d/two", "added link of one"), ("new", "added link of d/new")];
    assert_eq!(said(&records), pairs(&expected));
    assert_eq!(records.iter().map(|r| r.bytes).sum::<u64>(), 4000, "what is new counts once, what was linked not at all");
    std::fs::write(t.at("one"), [3; 3000]).unwrap();
    std::fs::remove_file(t.at("d/two")).unwrap();
    let c = t.take("s3");
    let records = t.diff(&b, &c);
    assert_eq!(said(&records), pairs(&[("a-third", "modified"), ("d/two", "deleted link of a-third"), ("one", "modified link of a-third")]));
}

/// Entries that leave no changed block behind: a block in which every entry was removed is freed.
#[test]
fn what_is_removed_from_a_large_directory_is_found_wherever_it_was() {
    let t = Two::new();
    std::fs::create_dir(t.at("d")).unwrap();
    let name = |n: usize| t.at(&format!("d/{n:0200}"));
    for n in 0..3000 {
        std::fs::write(name(n), "x").unwrap();
    }
    let a = t.take("s1");
    std::fs::remove_file(name(1500)).unwrap();
    let b = t.take("s2");
    std::fs::write(t.at("d/new"), "x").unwrap();
    let c = t.take("s3");
    (1000..1400).for_each(|n| std::fs::remove_file(name(n)).unwrap());
    let d = t.take("s4");
    std::fs::rename(name(10), t.at("d/moved")).unwrap();
    std::fs::rename(name(2990), t.at("above")).unwrap();
    std::fs::hard_link(name(2000), t.at("d/link")).unwrap();
    std::fs::set_permissions(t.at("d"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let e = t.take("s5");
    (0..3000).filter(|n| n % 2 == 0).for_each(|n| drop(std::fs::remove_file(name(n))));
    (0..50).for_each(|n| std::fs::write(t.at(&format!("d/again{n}")), "x").unwrap());
    let f = t.take("s6");
    let count = |old: &Volume, new: &Volume| t.diff(old, new).len();
    assert_eq!([count(&a, &b), count(&b, &c), count(&c, &d), count(&d, &e)], [1, 1, 400, 4]);
    assert_eq!([count(&b, &a), count(&c, &b), count(&d, &c), count(&e, &d)], [1, 1, 400, 4]);
    for (old, new) in [(&a, &f), (&f, &a), (&b, &e), (&e, &f)] {
        assert!(count(old, new) > 400);
    }
}

#[test]
fn only_what_was_asked_for_of_times() {
    let t = Two::new();
    std::fs::create_dir(t.at("d")).unwrap();
    std::fs::write(t.at("d/f"), "x").unwrap();
    let a = t.take("s1");
    // The times of files go by the ticks of the kernel's clock.
    std::thread::sleep(std::time::Duration::from_millis(30));
    std::fs::write(t.at("d/g"), "x").unwrap();
    std::fs::remove_file(t.at("d/g")).unwrap();
    std::fs::set_permissions(t.at("d/f"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let b = t.take("s2");
    let records = t.diff(&a, &b);
    assert_eq!(said(&records), pairs(&[("d/f", "metadata")]));
    assert_eq!(records[0].fields, [Field::Mode]);
    let times = Options { times: true, ..Options::default() };
    let (records, _) = compare(&t.h, &a, &b, &times).unwrap();
    assert_eq!(said(&records), pairs(&[("d", "metadata"), ("d/f", "metadata")]));
    assert_eq!(records[0].fields, [Field::Mtime]);
    assert!(t.diff(&a, &a).is_empty() && t.diff(&b, &b).is_empty());
}

#[test]
fn without_known_history_it_is_refused_and_walked_only_on_request() {
    let t = Two::new();
    std::fs::write(t.at("same"), [1; 10_000]).unwrap();
    std::fs::write(t.at("inline"), "x").unwrap();
    std::fs::write(t.at("mine"), "x").unwrap();
    let a = t.take("s1");
    let (other, live) = t.h.container();
    std::fs::create_dir(t.h.at(&live, "sub")).unwrap();
    std::fs::write(t.h.at(&live, "same"), [1; 10_000]).unwrap();
    std::fs::write(t.h.at(&live, "inline"), "y").unwrap();
    let b = snap(&other, "s");
    t.h.store.snapshot(&live, &b, &op()).unwrap();
    let refused = compare(&t.h, &a, &b, &Options::default()).unwrap_err();
    assert_eq!(refused.code(), Code::DiffNeedsWalk);
    assert!(refused.message().contains("no history"), "{refused}");
    let walk = Options { walk: true, ..Options::default() };
    let n = oracle(&t.h, &a, &b, &walk, Method::Walk).unwrap();
    let (records, _) = compare(&t.h, &a, &b, &walk).unwrap();
    let content: Vec<&Record> = records.iter().filter(|r| r.content || r.kind == Kind::Deleted || r.kind == Kind::Added).collect();
    assert_eq!(content.iter().map(|r| r.path.as_slice()).collect::<Vec<_>>(), [&b"inline"[..], b"mine", b"sub"], "{records:?}");
    assert_eq!(n, records.len());
}

#[test]
fn a_deleted_volume_between_two_is_made_up_for_by_a_known_ancestor() {
    let t = Two::new();
    for n in 0..300 {
        std::fs::write(t.at(&format!("f{n}")), format!("{n}")).unwrap();
    }
    let first = t.take("s1");
    std::fs::write(t.at("f7"), "before").unwrap();
    // Two restores, each from a snapshot that is deleted then, as is what was live before.
    let mut gone = vec![];
    for name in ["x", "y"] {
        let from = t.take(name);
        let next = Volume::Next(t.c.clone());
        t.h.store.clone_volume(&from, &next, &op()).unwrap();
        t.h.store.exchange(&next, &t.live).unwrap();
        gone.extend([t.h.store.delete(&next).unwrap(), t.h.store.delete(&from).unwrap()]);
    }
    std::fs::write(t.at("f8"), "after").unwrap();
    std::fs::remove_file(t.at("f9")).unwrap();
    let last = t.take("s2");
    let refused = compare(&t.h, &first, &last, &Options::default()).unwrap_err();
    assert_eq!(refused.code(), Code::DiffNeedsWalk);
    assert!(refused.message().contains("a volume between them was deleted"), "{refused}");
    let expected = pairs(&[("f7", "modified"), ("f8", "modified"), ("f9", "deleted")]);
    let walk = Options { walk: true, ..Options::default() };
    oracle(&t.h, &first, &last, &walk, Method::Scan).unwrap();
    assert_eq!(said(&compare(&t.h, &first, &last, &walk).unwrap().0), expected);
    let mut records = Vec::new();
    let pair = VolumePair { old: Some(&first), new: Some(&last), prefix: b"", ancestor: Some(&first), small: false };
    let done = t.h.store.compare(&[pair], &Options::default(), &mut |r| {
        records.push(r);
        Ok(std::ops::ControlFlow::Continue(()))
    });
    let done = done.unwrap();
    assert_eq!((said(&records), done.method), (expected, Method::Changes));
    assert!(done.inodes < 50, "{} inodes were looked at", done.inodes);
}

#[test]
fn what_cannot_be_compared_is_said() {
    let t = Two::new();
    let a = t.take("s1");
    assert_eq!(compare(&t.h, &a, &t.live, &Options::default()).unwrap_err().code(), Code::VolumeWritable);
    assert_eq!(compare(&t.h, &a, &snap(&t.c, "none"), &Options::default()).unwrap_err().code(), Code::VolumeNotFound);
    std::fs::write(t.at("f"), "x").unwrap();
    let b = t.take("s2");
    let ended = Options { stop: Some(&|| true), ..Options::default() };
    assert_eq!(compare(&t.h, &a, &b, &ended).unwrap_err().code(), Code::OperationCancelled);
}

#[test]
fn a_path_deeper_than_any_program_can_name_is_refused_and_a_long_one_is_not() {
    let t = Two::new();
    let a = t.take("s1");
    let mut dir = nix::fcntl::open(&t.at(""), nix::fcntl::OFlag::O_RDONLY, Mode::empty()).unwrap();
    let name = std::ffi::CString::new(vec![b'n'; 255]).unwrap();
    for depth in 1..=70 {
        nix::sys::stat::mkdirat(&dir, name.as_c_str(), Mode::S_IRWXU).unwrap();
        dir = open_dir_at(&dir, name.as_c_str()).unwrap();
        if depth == 20 {
            let b = t.take("s2");
            let (records, _) = compare(&t.h, &a, &b, &Options::default()).unwrap();
            assert_eq!((records.len(), records.last().unwrap().path.len()), (20, 20 * 256 - 1));
        }
    }
    let c = t.take("s3");
    assert_eq!(compare(&t.h, &a, &c, &Options::default()).unwrap_err().code(), Code::PathTooLong);
}
