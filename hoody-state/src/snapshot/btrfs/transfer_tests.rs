#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
//! What is sent arrives as it was, and what a hostile sender makes up arrives nowhere.

use super::random_trees::{same, tree};
use super::testing::{End, Packed, command, stream};
use super::tests::{OnLoop, nest, op, snap};
use super::*;
use crate::snapshot::suite::Harness;
use proptest::prelude::*;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

fn pass_on(h: &OnLoop, from: &Volume, base: Option<&Volume>, to: &Volume, to_base: Option<&Volume>) -> usize {
    let mut bytes = Vec::new();
    h.store.send(from, base, &mut bytes).unwrap();
    h.store.receive(to, to_base, &op(), &mut &bytes[..]).unwrap();
    bytes.len()
}

#[test]
fn a_tree_of_every_kind_arrives_as_it_was() {
    let h = OnLoop::new();
    let ((a, live), (b, _)) = (h.container(), h.container());
    let at = |p: &str| h.at(&live, p);
    std::fs::create_dir_all(at("dir/deep/er")).unwrap();
    std::fs::write(at("dir/file"), vec![5; 200_000]).unwrap();
    std::fs::write(h.at(&live, OsString::from_vec(vec![b'n', 0xff, 0xfe])), b"no UTF-8").unwrap();
    std::fs::write(h.at(&live, "x".repeat(255)), b"long").unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    sparse.write_all_at(b"far", 9 << 20).unwrap();
    std::fs::hard_link(at("dir/file"), at("dir/deep/second")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", at("link")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    nix::sys::stat::mknod(&at("null"), nix::sys::stat::SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), nix::sys::stat::makedev(300, 70_000)).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::os::unix::fs::lchown(at("link"), Some(100_007), Some(100_008)).unwrap();
    std::os::unix::fs::chown(at("dir/file"), Some(100_001), Some(100_002)).unwrap();
    fchmod(File::open(at("dir/file")).unwrap(), Mode::from_bits_truncate(0o6751)).unwrap();
    rustix::fs::setxattr(at("dir"), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    // cap_net_raw in a namespace of its own: goes with a change of owner, so it must come after.
    let capability = [0x01u8, 0, 0, 0x03, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 0x86, 1, 0];
    rustix::fs::setxattr(at("dir/file"), "security.capability", &capability, rustix::fs::XattrFlags::empty()).unwrap();
    let nested = nest(&at("dir/deep/volume"));
    std::fs::write(nested.join("in"), b"one").unwrap();
    let inner = nest(&nested.join("inner"));
    std::fs::write(inner.join("in"), b"deep").unwrap();
    let (s1, s2) = (snap(&a, "s1"), snap(&a, "s2"));
    h.store.snapshot(&live, &s1, &op()).unwrap();

    // A second state: everything moves.
    std::fs::rename(at("dir"), at("moved")).unwrap();
    std::fs::rename(at("moved/deep"), at("dir")).unwrap();
    std::fs::remove_file(at("fifo")).unwrap();
    std::fs::create_dir(at("fifo")).unwrap();
    std::fs::remove_file(at("dir/second")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dir/second")).unwrap();
    std::fs::write(at("dir/volume/in"), b"two").unwrap();
    std::fs::write(at("dir/volume/inner/more"), b"more").unwrap();
    std::fs::write(nest(&at("fifo/new volume")).join("in"), b"new").unwrap();
    File::options().write(true).open(at("sparse")).unwrap().set_len(5 << 20).unwrap();
    std::process::Command::new("cp").args(["--reflink=always"]).arg(at("moved/file")).arg(at("copied")).status().unwrap();
    h.store.snapshot(&live, &s2, &op()).unwrap();

    let (r1, r2) = (snap(&b, "r1"), snap(&b, "r2"));
    let full = pass_on(&h, &s1, None, &r1, None);
    same(&h.at(&r1, ""), &h.at(&s1, ""));
    let increment = pass_on(&h, &s2, Some(&s1), &r2, Some(&r1));
    same(&h.at(&r2, ""), &h.at(&s2, ""));
    assert!(increment < full / 4, "{increment} of {full}: what is shared with the base is not sent");
    assert_eq!(h.store.info(&r2).unwrap().unwrap().nested, 3);
    assert!(h.store.list(None).unwrap().iter().all(|v| !matches!(v, Volume::Staging(_))));
    // And the other way round, on what was received.
    let back = snap(&a, "back");
    // The kernel's stream does not remove a directory that a nested volume was in.
    pass_on(&h, &r1, Some(&r2), &back, Some(&s2));
    same(&h.at(&back, ""), &h.at(&s1, ""));
    let (rlive, again) = (Volume::Next(b.clone()), snap(&b, "r3"));
    h.store.clone_volume(&r2, &rlive, &op()).unwrap();
    h.store.snapshot(&rlive, &again, &op()).unwrap();
    assert!(!h.store.differs(&r2, &again).unwrap());
    std::fs::write(h.at(&rlive, "dir/volume/inner/more"), b"else").unwrap();
    let last = snap(&b, "r4");
    h.store.snapshot(&rlive, &last, &op()).unwrap();
    assert!(h.store.differs(&again, &last).unwrap(), "in a nested volume");
}

#[test]
fn the_roots_times_stay_when_only_what_is_below_it_changed() {
    let h = OnLoop::new();
    let ((a, live), (b, _)) = (h.container(), h.container());
    std::fs::create_dir(h.at(&live, "dir")).unwrap();
    h.store.snapshot(&live, &snap(&a, "s1"), &op()).unwrap();
    h.write(&live, "dir/new", b"new").unwrap();
    h.store.snapshot(&live, &snap(&a, "s2"), &op()).unwrap();
    pass_on(&h, &snap(&a, "s1"), None, &snap(&b, "r1"), None);
    std::thread::sleep(std::time::Duration::from_millis(20));
    pass_on(&h, &snap(&a, "s2"), Some(&snap(&a, "s1")), &snap(&b, "r2"), Some(&snap(&b, "r1")));
    same(&h.at(&snap(&b, "r2"), ""), &h.at(&snap(&a, "s2"), ""));
}

/// A bundle of one volume around a stream.
fn bundle(commands: &[Packed]) -> Vec<u8> {
    let uuid = [7; 16];
    let mut out = b"hoody volumes 1\n".to_vec();
    out.extend([1, 0, 0, 0, 0, 0]);
    out.extend(uuid);
    out.extend([0; 20]);
    let mut all = vec![command(1, &[(15, b"s"), (1, &uuid), (2, &9u64.to_le_bytes())])];
    all.extend_from_slice(commands);
    out.extend(stream(1, &all, End::Whole));
    out.push(0);
    out
}

fn n(v: u64) -> [u8; 8] {
    v.to_le_bytes()
}

fn file(p: &[u8]) -> Packed {
    command(3, &[(15, p)])
}

fn write(p: &[u8]) -> Packed {
    command(15, &[(15, p), (18, &n(0)), (19, b"owned")])
}

fn link(p: &[u8], to: &[u8]) -> Packed {
    command(8, &[(15, p), (17, to)])
}

fn hole(p: &[u8], mode: u32, at: u64, len: u64) -> Packed {
    command(23, &[(15, p), (25, &mode.to_le_bytes()), (18, &n(at)), (4, &n(len))])
}

/// Streams that try to reach what is outside their volume: the file `secret` in the directory `dir` of the volume `other`.
fn hostile_streams(secret: &[u8], dir: &[u8], other: uuid::Uuid) -> Vec<(&'static str, Vec<Packed>)> {
    let up: &[u8] = b"../../../../../../../../tmp/hoody-escaped";
    vec![
        ("a path upwards", vec![file(up)]),
        ("an absolute path", vec![file(secret)]),
        ("a path upwards inside", vec![command(4, &[(15, b"d")]), file(b"d/../../x")]),
        ("a dot", vec![file(b"./x")]),
        ("an empty component", vec![file(b"a//b")]),
        ("a write through a link", vec![link(b"l", secret), write(b"l")]),
        ("a write through a link to a directory", vec![link(b"l", dir), write(b"l/secret")]),
        ("a file made through a link", vec![link(b"l", dir), file(b"l/new")]),
        ("a rename through a link", vec![link(b"l", dir), file(b"f"), command(9, &[(15, b"f"), (16, b"l/secret")])]),
        ("a rename out", vec![file(b"f"), command(9, &[(15, b"f"), (16, up)])]),
        ("an unlink outside", vec![command(11, &[(15, b"../secret")])]),
        ("an unlink through a link", vec![link(b"l", dir), command(11, &[(15, b"l/secret")])]),
        ("a hard link to outside", vec![command(10, &[(15, b"h"), (17, secret)])]),
        ("a hard link through a link", vec![link(b"l", dir), command(10, &[(15, b"h"), (17, b"l/secret")])]),
        ("a mode through a link", vec![link(b"l", secret), command(18, &[(15, b"l"), (5, &n(0o777))])]),
        ("a truncation through a link", vec![link(b"l", secret), command(17, &[(15, b"l"), (4, &n(0))])]),
        ("a write to a device", vec![command(5, &[(15, b"dev"), (5, &n(0o060_600)), (8, &n(0x800))]), write(b"dev")]),
        ("a write to a pipe", vec![command(6, &[(15, b"p")]), write(b"p")]),
        ("a regular file by mknod", vec![command(5, &[(15, b"f"), (5, &n(0o100_600)), (8, &n(0))])]),
        (
            "a clone from another volume",
            vec![file(b"f"), command(16, &[(15, b"f"), (18, &n(0)), (24, &n(4096)), (20, other.as_bytes()), (21, &n(1)), (22, b"secret"), (23, &n(0))])],
        ),
        (
            "a clone through a link",
            vec![
                file(b"f"),
                link(b"l", dir),
                command(16, &[(15, b"f"), (18, &n(0)), (24, &n(4096)), (20, &[7; 16]), (21, &n(1)), (22, b"l/secret"), (23, &n(0))]),
            ],
        ),
        ("a second volume", vec![command(1, &[(15, b"t"), (1, &[8; 16]), (2, &n(1))])]),
        ("a snapshot of another volume", vec![command(2, &[(15, b"t"), (1, &[8; 16]), (2, &n(1)), (20, other.as_bytes()), (21, &n(1))])]),
        ("a size beyond all", vec![file(b"f"), command(17, &[(15, b"f"), (4, &n(u64::MAX))])]),
        ("a place beyond all", vec![file(b"f"), command(15, &[(15, b"f"), (18, &n(u64::MAX - 2)), (19, b"12345")])]),
        (
            "endless attributes",
            std::iter::once(file(b"f")).chain((0..12_000).map(|i| command(13, &[(15, b"f"), (13, format!("user.{i}").as_bytes()), (14, b"")]))).collect(),
        ),
        ("a mode of fallocate that moves data", vec![file(b"f"), write(b"f"), hole(b"f", 8, 0, 4096)]),
        ("a hole beyond all", vec![file(b"f"), hole(b"f", 3, u64::MAX - 5, 4096)]),
        ("space for more than the pool has", vec![file(b"f"), hole(b"f", 1, 0, 1 << 40)]),
        ("space reserved through a link", vec![link(b"l", secret), hole(b"l", 0, 0, 1 << 20)]),
        ("a hole made through a link", vec![link(b"l", dir), hole(b"l/secret", 3, 0, 4096)]),
        ("flags set through a link", vec![link(b"l", dir), command(24, &[(15, b"l/secret"), (26, &n(1 << 8))])]),
        ("fs-verity", vec![file(b"f"), command(26, &[(15, b"f")])]),
        ("encoded data", vec![file(b"f"), command(25, &[(15, b"f"), (18, &n(0))])]),
    ]
}

#[test]
fn a_hostile_stream_is_refused_and_nothing_is_written_outside() {
    let h = OnLoop::new();
    let ((c, live), (_, other)) = (h.container(), h.container());
    h.write(&other, "secret", b"secret").unwrap();
    let outside = h.at(&other, "secret");
    let secret = outside.to_str().unwrap().as_bytes().to_vec();
    let dir = outside.parent().unwrap().to_str().unwrap().as_bytes().to_vec();
    let other_uuid = subvolume::subvolume_info(File::open(h.at(&other, "")).unwrap().as_fd()).unwrap().uuid;
    let cases = hostile_streams(&secret, &dir, other_uuid);
    let before = (tree(&h.at(&other, "")), tree(&h.at(&live, "")));
    let to = snap(&c, "r");
    for (what, commands) in &cases {
        let staging = op();
        let e = h.store.receive(&to, None, &staging, &mut &bundle(commands)[..]).expect_err(what);
        assert!([Code::StreamRefused, Code::StreamCorrupt, Code::Io, Code::PoolFull].contains(&e.code()), "{what}: {e:?}");
        h.store.delete(&Volume::Staging(staging)).unwrap();
        assert!(h.store.info(&to).unwrap().is_none(), "{what}");
        assert_eq!((tree(&h.at(&other, "")), tree(&h.at(&live, ""))), before, "{what}");
        assert!(!Path::new("/tmp/hoody-escaped").exists(), "{what}");
    }
    // The same frame, well-behaved, is good.
    h.store.receive(&to, None, &op(), &mut &bundle(&[file(b"f"), write(b"f"), link(b"l", b"/etc/passwd")])[..]).unwrap();
    assert_eq!(h.read(&to, "f").unwrap().unwrap(), b"owned");
    // Where the nested volumes go is the sender's word too.
    for path in [&b"../out"[..], b"/out", b"no/where", b"l/out", b"", b".."] {
        let mut bytes = bundle(&[link(b"l", &dir)]);
        bytes.pop();
        bytes.extend([1, 0]);
        bytes.extend(u32::try_from(path.len()).unwrap().to_le_bytes());
        bytes.extend(path);
        bytes.extend([8; 16]);
        bytes.extend([0; 20]);
        bytes.extend(stream(1, &[command(1, &[(15, b"s"), (1, &[8; 16]), (2, &n(1))])], End::Whole));
        bytes.push(0);
        let staging = op();
        let e = h.store.receive(&snap(&c, "n"), None, &staging, &mut &bytes[..]).expect_err("a nested volume outside");
        assert!([Code::StreamRefused, Code::StreamCorrupt].contains(&e.code()), "{e:?}");
        h.store.delete(&Volume::Staging(staging)).unwrap();
        assert_eq!(tree(&h.at(&other, "")), before.0);
    }
}

#[test]
fn random_streams_change_nothing_outside_their_volume() {
    let h = OnLoop::new();
    let ((c, _), (_, other)) = (h.container(), h.container());
    h.write(&other, "secret", b"secret").unwrap();
    let dir = h.at(&other, "").to_str().unwrap().trim_end_matches('/').to_owned();
    let before = tree(Path::new(&dir));
    let names = ["a", "b", "d", "d/e", "..", "../x", "d/..", "/", "l", "l/secret", "", "o257-1-0"];
    let path = prop::sample::select(names.to_vec());
    let one = (1u16..28, path.clone(), path, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(move |(kind, a, b, number, data)| {
        let target = if number % 3 == 0 { dir.as_str() } else { b };
        let attributes: Vec<(u16, Vec<u8>)> = vec![
            (1, vec![7; 16]),
            (2, n(1).to_vec()),
            (4, n(number % 100_000).to_vec()),
            (5, n(number % 0o200_000).to_vec()),
            (6, n(100_000).to_vec()),
            (7, n(100_000).to_vec()),
            (8, n(0x103).to_vec()),
            (10, vec![1; 12]),
            (11, vec![1; 12]),
            (13, b"user.x".to_vec()),
            (14, data.clone()),
            (15, a.into()),
            (16, b.into()),
            (17, target.into()),
            (18, n(number % 50_000).to_vec()),
            (20, vec![7; 16]),
            (22, b.into()),
            (23, n(0).to_vec()),
            (24, n(4096).to_vec()),
            (25, u32::try_from(number % 64).unwrap().to_le_bytes().to_vec()),
            (26, n(number).to_vec()),
            (19, data),
        ];
        command(kind, &attributes.iter().map(|(k, v)| (*k, &v[..])).collect::<Vec<_>>())
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() });
    let to = snap(&c, "r");
    runner
        .run(&proptest::collection::vec(one, 1..25), |commands| {
            let staging = op();
            let _ = h.store.receive(&to, None, &staging, &mut &bundle(&commands)[..]);
            h.store.delete(&Volume::Staging(staging)).unwrap();
            h.store.delete(&to).unwrap();
            prop_assert_eq!(&tree(&h.at(&other, "")), &before);
            Ok(())
        })
        .unwrap();
}
