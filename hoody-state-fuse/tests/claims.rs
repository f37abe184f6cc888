//! One mount a directory: who comes second is refused, and told who was first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state::Code;
use hoody_state::locked_db::LockedDb as _;
use hoody_state::locked_db::control::{Ask, Client};
use hoody_state_fuse::claim::{InUse, Relation};
use hoody_state_fuse::mount::{Mount, MountError, MountOptions};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use support::daemon::{DAEMON, Daemon, make, open, value};

/// A bind mount for a test, gone with it.
struct Bind(PathBuf);

impl Bind {
    fn new(from: &Path, to: &Path) -> Self {
        std::fs::create_dir(to).unwrap();
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        Bind(to.to_owned())
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// A second daemon, which is refused.
fn second(d: &Daemon, backing: &Path) -> Output {
    let at = d.dir.path().join("second");
    let _ = std::fs::create_dir(&at);
    Command::new(DAEMON).arg("mount").arg(backing).arg(&at).arg("--control").arg(d.dir.path().join("sock2")).arg("--foreground").output().unwrap()
}

/// What it said names the first mount and its process.
fn names_the_first(d: &Daemon, output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it was mounted: {said}");
    assert!(said.contains(d.dir.path().join("mnt").to_str().unwrap()) && said.contains(&format!("process {}", d.child.id())), "{said}");
}

fn in_use(result: Result<Mount, MountError>) -> InUse {
    match result {
        Err(MountError::BackingInUse(in_use)) => *in_use,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it was mounted"),
    }
}

/// 38 of 346 commits were left: each daemon knew only its own locks.
#[test]
fn a_backing_is_mounted_once_by_whatever_path() {
    let d = Daemon::start(false);
    let back = d.dir.path().join("back");
    std::fs::create_dir(back.join("sub")).unwrap();
    let (bind, sub) = (d.dir.path().join("bind"), d.dir.path().join("bind-sub"));
    let _binds = (Bind::new(&back, &bind), Bind::new(&back.join("sub"), &sub));
    std::os::unix::fs::symlink(&back, d.dir.path().join("link")).unwrap();
    for path in [back.clone(), bind.clone(), bind.join("sub"), d.dir.path().join("link"), back.join("sub"), sub] {
        names_the_first(&d, &second(&d, &path));
    }
    // What lies around it: here the mountpoints must lie elsewhere.
    let (other, outer) = (tempfile::tempdir().unwrap(), d.dir.path());
    let above = in_use(Mount::single(outer, other.path(), &MountOptions::default()));
    assert_eq!((above.relation, above.served, above.pid), (Relation::Above, back.canonicalize().unwrap(), d.child.id()));
    // A directory beside it is nobody's.
    std::fs::create_dir(outer.join("beside")).unwrap();
    drop(Mount::single(&outer.join("beside"), other.path(), &MountOptions::default()).unwrap());
}

#[test]
fn a_lock_ends_with_its_daemon_however_that_ends() {
    let mut d = Daemon::start(false);
    let back = d.dir.path().join("back");
    names_the_first(&d, &second(&d, &back));
    d.child.kill().unwrap();
    d.child.wait().unwrap();
    // Nobody serves it any more. (By a process of its own: a lock of this one is held for a moment by whatever another test is forking.)
    d.child = Daemon::spawn(&d.dir, false);
    drop(make(d.at("a.db"), "wal"));
}

#[test]
fn a_volume_that_somebody_serves_is_refused_by_its_code() {
    let (d, v) = (Daemon::start(false), Daemon::start(true));
    let back = d.dir.path().join("back");
    std::fs::create_dir(back.join("sub")).unwrap();
    let db = v.locked_db();
    for path in [&back, &back.join("sub")] {
        let e = db.add_volume("v", path).unwrap_err();
        assert_eq!(e.code(), Code::BackingInUse);
        assert!(e.to_string().contains(d.dir.path().join("mnt").to_str().unwrap()), "{e}");
    }
    let (one, two) = (v.dir.path().join("one"), v.dir.path().join("two"));
    std::fs::create_dir_all(one.join("in")).unwrap();
    std::fs::create_dir(&two).unwrap();
    db.add_volume("v", &one).unwrap();
    for path in [&one, &one.join("in")] {
        assert_eq!(db.add_volume("w", path).unwrap_err().code(), Code::BackingInUse, "a second volume of one mount knows other names");
    }
    assert_eq!(db.add_volume("v", &one).unwrap_err().code(), Code::VolumeExists);
    db.rebind("v", &one).unwrap();
    db.rebind("v", &two).unwrap();
    assert_eq!(db.rebind("v", &back).unwrap_err().code(), Code::BackingInUse);
    db.add_volume("w", &one).unwrap();
    assert_eq!(db.rebind("v", &one).unwrap_err().code(), Code::BackingInUse);
    db.remove_volume("w").unwrap();
    db.rebind("v", &one).unwrap();
    names_the_first(&v, &second(&v, &one));
}

/// Two containers of a new project that start at once ask for the same volume. One of them was told that its directory is served already.
#[test]
fn a_volume_that_is_asked_for_twice_at_once_is_added_once() {
    let v = Daemon::start(true);
    let dir = |n: i32| v.dir.path().join(format!("dir-{n}"));
    for n in 0..100 {
        std::fs::create_dir(dir(n)).unwrap();
        let barrier = std::sync::Barrier::new(3);
        let add = || {
            let db = v.locked_db();
            barrier.wait();
            db.add_volume(&format!("v{n}"), &dir(n)).map_err(|e| (e.code(), e.to_string()))
        };
        let results = std::thread::scope(|s| [s.spawn(add), s.spawn(add), s.spawn(add)].map(|t| t.join().unwrap()));
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "{results:?}");
        assert!(results.iter().all(|r| r.as_ref().err().is_none_or(|(code, _)| *code == Code::VolumeExists)), "{results:?}");
    }
}

/// A daemon that was unmounted while files are open keeps serving them. A successor on another mountpoint must know of it.
#[test]
fn a_daemon_that_left_its_place_yields_to_whoever_serves_its_backing_next() {
    let d = Daemon::start(false);
    let user = make(d.at("a.db"), "wal");
    Client::connect(&d.dir.path().join("sock")).unwrap().ask(&Ask::Unmount {}).unwrap();
    let other = tempfile::tempdir().unwrap();
    let next = Mount::single(&d.dir.path().join("back"), other.path(), &MountOptions::default()).unwrap();
    let c = open(other.path().join("a.db"));
    c.execute("UPDATE t SET v = v + 1", []).unwrap();
    std::thread::scope(|s| {
        let held = s.spawn(|| {
            let c = open(other.path().join("a.db"));
            c.execute("UPDATE t SET v = v + 1", []).unwrap();
        });
        held.join().unwrap();
    });
    assert_eq!((value(&c), value(&user)), (2, 2), "who had it open still reads");
    let again = in_use(Mount::single(&d.dir.path().join("back"), d.dir.path(), &MountOptions::default()).map_err(nested_first(&d)));
    assert_eq!(again.pid, std::process::id());
    drop((c, user, next));
}

/// A mountpoint around the backing is refused before anything else; this test needs another case.
fn nested_first(d: &Daemon) -> impl Fn(MountError) -> MountError + '_ {
    move |e| match e {
        MountError::Nested { .. } | MountError::NotEmpty(_) => {
            let at = tempfile::tempdir().unwrap();
            Mount::single(&d.dir.path().join("back"), at.path(), &MountOptions::default()).expect_err("it is served")
        }
        e => e,
    }
}

/// A daemon whose mount somebody else took off does not know: it is asked, and then yields as well.
#[test]
fn a_daemon_whose_mount_was_taken_off_by_somebody_else_yields_too() {
    let mut d = Daemon::start(false);
    let user = make(d.at("a.db"), "wal");
    umount2(&d.dir.path().join("mnt"), MntFlags::MNT_DETACH).unwrap();
    let other = tempfile::tempdir().unwrap();
    let next = Mount::single(&d.dir.path().join("back"), other.path(), &MountOptions::default()).unwrap();
    open(other.path().join("a.db")).execute("UPDATE t SET v = v + 1", []).unwrap();
    assert_eq!(value(&user), 1);
    drop(user);
    d.child.wait().unwrap();
    drop(next);
}

#[test]
fn a_successor_elsewhere_waits_for_open_write_transactions_and_says_whose_they_are() {
    let d = Daemon::start(false);
    let user = make(d.at("a.db"), "wal");
    user.execute_batch("BEGIN IMMEDIATE; UPDATE t SET v = 5").unwrap();
    Client::connect(&d.dir.path().join("sock")).unwrap().ask(&Ask::Unmount {}).unwrap();
    let other = tempfile::tempdir().unwrap();
    let said = match Mount::single(&d.dir.path().join("back"), other.path(), &MountOptions::default()) {
        Err(MountError::Busy(said)) => said,
        r => panic!("{r:?}"),
    };
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    user.execute_batch("COMMIT").unwrap();
    drop(Mount::single(&d.dir.path().join("back"), other.path(), &MountOptions::default()).unwrap());
    drop(user);
}

#[test]
fn a_daemon_that_is_stopped_is_named_and_nobody_waits_for_it_for_long() {
    use nix::sys::signal::{Signal, kill};
    let d = Daemon::start(false);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(d.child.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let began = std::time::Instant::now();
    let refused = second(&d, &d.dir.path().join("back"));
    let place = Command::new(DAEMON).arg("mount").arg(d.dir.path().join("back")).arg(d.dir.path().join("mnt")).arg("--foreground").output().unwrap();
    let took = began.elapsed();
    kill(pid, Signal::SIGCONT).unwrap();
    names_the_first(&d, &refused);
    assert!(!place.status.success() && String::from_utf8_lossy(&place.stderr).contains("stopped"), "{place:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_directory_is_mounted_over_itself_and_its_files_are_reached_by_no_other_path() {
    let dir = tempfile::tempdir().unwrap();
    let (at, socket) = (dir.path().join("db"), dir.path().join("sock"));
    std::fs::create_dir(&at).unwrap();
    make(at.join("a.db"), "wal").execute("UPDATE t SET v = 3", []).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg("20").arg(DAEMON).args(args).arg(&at).arg("--control").arg(&socket);
        command
    };
    let mounted = run(&["mount"]).output().unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
    let c = open(at.join("a.db"));
    c.execute("UPDATE t SET v = v + 1", []).unwrap();
    let pid = peer(&socket);
    for again in [run(&["mount"]), second_over(&at, dir.path())] {
        let said = { again }.output().unwrap();
        assert!(!said.status.success(), "{said:?}");
    }
    let status = run(&["status", "--json"]).output().unwrap();
    assert!(status.status.success() && String::from_utf8_lossy(&status.stdout).contains("a.db"), "{status:?}");
    // A copy of the files below the mount.
    let copied = run(&["quiesce"]).args(["--", "sh", "-c", "cp \"$BACKING\"/a.db* \"$0\""]).arg(dir.path()).status().unwrap();
    assert!(copied.success());
    assert_eq!(value(&Connection::open(dir.path().join("a.db")).unwrap()), 4);
    // Killed, it is mounted again, by the same words.
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for_end(&socket);
    drop(c);
    assert!(std::fs::read_dir(&at).is_err(), "the dead mount covers it");
    let mounted = run(&["mount"]).output().unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
    open(at.join("a.db")).execute("UPDATE t SET v = v + 1", []).unwrap();
    assert!(run(&["unmount"]).status().unwrap().success());
    assert_eq!(value(&Connection::open(at.join("a.db")).unwrap()), 5, "without the mount it is an ordinary directory again");
    assert!(!support::is_mounted(&at));
}

fn second_over(at: &Path, dir: &Path) -> Command {
    let other = dir.join("other");
    std::fs::create_dir(&other).unwrap();
    let mut command = Command::new(DAEMON);
    command.arg("mount").arg(at).arg(other).arg("--control").arg(dir.join("sock2"));
    command
}

fn peer(socket: &Path) -> nix::unistd::Pid {
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).unwrap();
    nix::unistd::Pid::from_raw(peer.pid())
}

fn wait_for_end(socket: &Path) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while std::os::unix::net::UnixStream::connect(socket).is_ok() {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_mountpoint_with_something_in_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for d in ["back", "mnt/full"] {
        std::fs::create_dir_all(dir.path().join(d)).unwrap();
    }
    let at = dir.path().join("mnt");
    let refused = Mount::single(&dir.path().join("back"), &at, &MountOptions::default()).unwrap_err();
    assert!(matches!(&refused, MountError::NotEmpty(p) if *p == at.canonicalize().unwrap()), "{refused}");
    assert!(matches!(Mount::volumes(&at, &MountOptions::default()).unwrap_err(), MountError::NotEmpty(_)));
}

/// `$(hoody-state-fuse mount …)` waited for the end of the daemon.
#[test]
fn a_daemon_in_the_background_keeps_nothing_of_its_caller_open() {
    let dir = tempfile::tempdir().unwrap();
    let (at, socket, log) = (dir.path().join("db"), dir.path().join("sock"), dir.path().join("log"));
    std::fs::create_dir(&at).unwrap();
    let mut mounted = Command::new("timeout");
    mounted.arg("10").arg(DAEMON).arg("mount").arg(&at).arg("--control").arg(&socket).arg("--log").arg(&log);
    let mounted = mounted.output().unwrap();
    assert!(mounted.status.success() && String::from_utf8_lossy(&mounted.stdout).starts_with("mounted"), "{mounted:?}");
    let pid = peer(&socket);
    for descriptor in 0..3 {
        let to = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
        assert_eq!(to, Path::new("/dev/null"), "{descriptor}");
    }
    assert!(Command::new(DAEMON).arg("unmount").arg(&at).arg("--control").arg(&socket).status().unwrap().success());
    assert!(log.exists());
}

/// Where the process may not raise its own limit: it was mounted, and no database could be opened.
#[test]
fn a_start_with_64_descriptors_works_or_says_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let (at, socket) = (dir.path().join("db"), dir.path().join("sock"));
    std::fs::create_dir(&at).unwrap();
    let start = "ulimit -n 64; exec timeout 20 \"$0\" mount \"$1\" --control \"$2\"";
    let mounted = Command::new("sh").args(["-c", start, DAEMON]).args([&at, &socket]).output().unwrap();
    if !mounted.status.success() {
        let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(said.contains("open files is 64") && said.contains("ulimit -n"), "{said}");
        return;
    }
    drop(make(at.join("a.db"), "wal"));
    assert!(Command::new(DAEMON).arg("unmount").arg(&at).arg("--control").arg(&socket).status().unwrap().success());
}
