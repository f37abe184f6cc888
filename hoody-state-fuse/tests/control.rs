//! The control socket: a daemon that leaves its place, holds whose client dies, statuses that would be too long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use hoody_state::Code;
use hoody_state::locked_db::LockedDb as _;
use hoody_state::locked_db::control::{Ask, Client, left_socket};
use hoody_state::locked_db::fuse::daemon::{DaemonConfig, FuseDaemon};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::daemon::{DAEMON, Daemon, make, open, value};
use support::is_mounted;

/// Waits for what comes soon.
fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn config(dir: &Path) -> DaemonConfig {
    DaemonConfig { program: PathBuf::from(DAEMON), socket: dir.join("sock"), mountpoint: dir.join("mnt"), save_power: false, group: None }
}

fn lives(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// A process that writes once; it ends when it has, or was refused.
fn writer(path: &Path) -> std::process::Child {
    let code = "import sqlite3,sys\nsqlite3.connect(sys.argv[1],timeout=0,isolation_level=None).execute('update t set v=v+1')";
    Command::new("python3").arg("-c").arg(code).arg(path).spawn().unwrap()
}

#[test]
fn a_detached_daemon_is_not_taken_for_a_living_one_and_a_successor_serves_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let backing = dir.path().join("vol");
    std::fs::create_dir(&backing).unwrap();
    let daemon = FuseDaemon::open(config.clone()).unwrap();
    assert!(daemon.is_new_session());
    let (tell, told) = std::sync::mpsc::channel();
    daemon.set_restart_listener(Box::new(move || tell.send(()).unwrap()));
    let shown = daemon.add_volume("v", &backing).unwrap();
    let old = make(shown.join("a.db"), "delete");
    old.execute("UPDATE t SET v = 7", []).unwrap();
    Client::connect(&config.socket).unwrap().ask(&Ask::Unmount {}).unwrap();
    told.recv_timeout(Duration::from_secs(20)).expect("it is noticed that it left, though it lives");
    assert!(is_mounted(&config.mountpoint.canonicalize().unwrap()) && lives(&left_socket(&config.socket)));
    daemon.add_volume("v", &backing).unwrap();
    let new = open(shown.join("a.db"));
    new.execute("UPDATE t SET v = v + 1", []).unwrap();
    assert_eq!((value(&new), value(&old)), (8, 8), "who had it open still reads");
    // And writes no more: neither daemon knows the locks of the other.
    let began = Instant::now();
    assert!(old.execute("UPDATE t SET v = 0", []).is_err());
    assert!(began.elapsed() < Duration::from_secs(20), "it does not wait for what never comes");
    new.execute("UPDATE t SET v = v + 1", []).unwrap();
    assert_eq!(value(&new), 9);
    drop(old);
    soon("it ends with its last user", || !left_socket(&config.socket).exists());
    assert!(config.socket.exists(), "the successor's socket stays");
    new.execute("UPDATE t SET v = v + 1", []).unwrap();
    drop(new);
    daemon.close();
    daemon.take_down().unwrap();
    assert!(!config.mountpoint.exists());
}

#[test]
fn a_daemon_whose_mount_somebody_else_detached_is_not_taken_for_a_living_one() {
    let mut d = Daemon::start(false);
    let config = config(d.dir.path());
    let user = make(d.at("a.db"), "wal");
    nix::mount::umount2(&config.mountpoint, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let daemon = FuseDaemon::open(config.clone()).unwrap();
    assert!(daemon.is_new_session() && daemon.status().unwrap().volumes.is_empty());
    drop(user);
    d.child.wait().unwrap();
    assert!(lives(&config.socket));
    daemon.close();
    daemon.take_down().unwrap();
}

#[test]
fn who_asked_for_the_end_is_answered_and_sees_it_only_when_it_has_come() {
    let mut d = Daemon::start(false);
    let socket = d.dir.path().join("sock");
    let user = make(d.at("a.db"), "wal");
    let (mut watcher, mut client) = (UnixStream::connect(&socket).unwrap(), Client::connect(&socket).unwrap());
    client.ping().unwrap();
    client.ask(&Ask::Unmount {}).unwrap();
    assert_eq!(watcher.read(&mut [0]).unwrap(), 0, "who watches sees it leave");
    assert!(!socket.exists());
    let mut end = client.into_stream();
    end.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(end.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "somebody has a file open");
    // Whoever asks once more waits as well.
    let unmount = || Command::new(DAEMON).arg("unmount").arg(d.dir.path().join("mnt")).arg("--control").arg(&socket).spawn().unwrap();
    let mut second = unmount();
    let descriptors = format!("/proc/{}/fd", second.id());
    let links = || std::fs::read_dir(&descriptors).into_iter().flatten().flatten().filter_map(|e| std::fs::read_link(e.path()).ok());
    soon("it is connected", || links().any(|to| to.to_string_lossy().starts_with("socket:")));
    std::thread::sleep(Duration::from_millis(500));
    assert!(second.try_wait().unwrap().is_none());
    drop(user);
    end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(end.read(&mut [0]).unwrap(), 0);
    assert!(second.wait().unwrap().success());
    assert!(d.child.wait().unwrap().success());
    assert!(!left_socket(&socket).exists());
}

#[test]
fn a_successor_begins_when_no_write_transaction_of_the_old_mount_is_open() {
    let mut d = Daemon::start(false);
    let user = make(d.at("a.db"), "wal");
    user.execute_batch("BEGIN IMMEDIATE; UPDATE t SET v = 5").unwrap();
    Client::connect(&d.dir.path().join("sock")).unwrap().ask(&Ask::Unmount {}).unwrap();
    let next = std::thread::scope(|s| {
        let next = s.spawn(|| Daemon::spawn(&d.dir, false));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!next.is_finished());
        user.execute_batch("COMMIT").unwrap();
        next.join().unwrap()
    });
    let c = open(d.at("a.db"));
    c.execute("UPDATE t SET v = v + 1", []).unwrap();
    assert_eq!(value(&c), 6);
    drop(user);
    d.child.wait().unwrap();
    d.child = next;
    assert_eq!(c.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok");
    c.execute("UPDATE t SET v = v + 1", []).unwrap();
    assert_eq!(value(&open(d.at("a.db"))), 7, "the last user of the old one took no log away");
}

#[test]
fn a_client_that_dies_while_it_waits_for_quiet_holds_nobody_up() {
    let d = Daemon::start(false);
    let open_transaction = make(d.at("a.db"), "wal");
    open_transaction.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(make(d.at("b.db"), "wal"));
    let mut client = UnixStream::connect(d.dir.path().join("sock")).unwrap();
    client.write_all(b"{\"op\":\"quiesce\",\"volumes\":[],\"timeout_ms\":60000,\"lease_ms\":1000}\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let mut waits = writer(&d.at("b.db"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(waits.try_wait().unwrap().is_none(), "writes are held while it waits");
    drop(client);
    soon("it gives up", || waits.try_wait().unwrap().is_some());
    assert!(waits.wait().unwrap().success());
    open_transaction.execute_batch("COMMIT").unwrap();
}

/// Ten thousand such files made a status longer than a line may be, and the daemon was taken for dead.
#[test]
fn a_status_tells_of_as_many_files_as_a_line_has_room_for_and_first_of_those_waited_for() {
    let d = Daemon::start(false);
    let limit = rustix::process::Rlimit { current: Some(4096), maximum: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let whole = nix::libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    let locked: Vec<std::fs::File> = (0..1200)
        .map(|n| {
            let name = [&vec![1; 240][..], format!("{n:04}.db").as_bytes()].concat();
            let file = std::fs::File::create(d.at("").join(std::ffi::OsStr::from_bytes(&name))).unwrap();
            nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&whole)).unwrap();
            file
        })
        .collect();
    let last = d.at("").join(std::ffi::OsStr::from_bytes(&[&vec![1; 240][..], b"1199.db"].concat()));
    let mut waits = Command::new("python3").args(["-c", "import fcntl,sys\nfcntl.lockf(open(sys.argv[1],'r+b'),fcntl.LOCK_EX)"]).arg(&last).spawn().unwrap();
    let mut status = d.locked_db().status().unwrap();
    soon("somebody waits", || {
        status = d.locked_db().status().unwrap();
        !status.files[0].waiters.is_empty()
    });
    assert_eq!((status.files.len(), status.counters["files_left_out"], status.counters["lock_users_left_out"]), (1000, 200, 0));
    assert!(status.files[0].name.ends_with("1199.db") && status.files[1].waiters.is_empty(), "{:?}", status.files[0]);
    assert_eq!(status.files[1].name.len(), 247);
    drop(locked);
    assert!(waits.wait().unwrap().success());
}

#[test]
fn a_link_on_the_mount_leads_no_restore_out_of_its_volume() {
    let d = Daemon::start(true);
    for at in ["vol", "vol/sub", "outside"] {
        std::fs::create_dir(d.dir.path().join(at)).unwrap();
    }
    let db = d.locked_db();
    let shown = db.add_volume("v", &d.dir.path().join("vol")).unwrap();
    let (saved, outside) = (d.dir.path().join("saved.db"), d.dir.path().join("outside"));
    make(saved.clone(), "wal").execute("UPDATE t SET v = 3", []).unwrap();
    std::os::unix::fs::symlink(&outside, shown.join("way")).unwrap();
    assert_eq!(db.restore_database("v", &saved, Path::new("way/a.db")).unwrap_err().code(), Code::BadPath);
    assert!(!outside.join("a.db").exists());
    assert_eq!(db.restore_database("w", &saved, Path::new("a.db")).unwrap_err().code(), Code::VolumeNotFound);
    let user = make(shown.join("sub/a.db"), "wal");
    db.restore_database("v", &saved, Path::new("sub/a.db")).unwrap();
    assert_eq!(value(&user), 3);
    std::fs::write(shown.join("rubbish.db"), "rubbish").unwrap();
    db.restore_database("v", &saved, Path::new("rubbish.db")).unwrap();
    assert_eq!(value(&open(shown.join("rubbish.db"))), 3);
}

#[test]
fn a_daemon_without_descriptors_does_not_spin_on_its_control_socket() {
    let d = Daemon::start(false);
    let pid = rustix::process::Pid::from_raw(i32::try_from(d.child.id()).unwrap());
    let set = |limit| rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    let out = format!("/proc/{}/fd/1", d.child.id());
    soon("it needs no descriptor to start", || std::fs::read_link(&out).is_ok_and(|to| to == Path::new("/dev/null")));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", d.child.id())).unwrap();
    let maximum = limits.lines().find_map(|l| l.strip_prefix("Max open files")?.split_whitespace().nth(1)?.parse().ok());
    let before = set(rustix::process::Rlimit { current: Some(3), maximum });
    let _waits = UnixStream::connect(d.dir.path().join("sock")).unwrap();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", d.child.id())).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum::<u64>()
    };
    let began = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - began < 30, "it spins");
    set(before);
    Client::connect(&d.dir.path().join("sock")).unwrap().ping().unwrap();
}

/// Each failure has a code of its own, whatever its message says: "… are served already" was taken for a name that is taken.
#[test]
fn a_failure_is_known_by_its_code() {
    let d = Daemon::start(true);
    let db = d.locked_db();
    let backing = d.dir.path().join("already");
    std::fs::create_dir(&backing).unwrap();
    let code = |r: hoody_state::Result<PathBuf>| r.unwrap_err().code();
    db.add_volume("v", &backing).unwrap();
    assert_eq!(code(db.add_volume("v", &d.dir.path().join("back"))), Code::VolumeExists);
    assert_eq!(code(db.add_volume("..", &backing)), Code::BadVolume);
    assert_eq!(code(db.add_volume("already", &d.dir.path().join("there is no volume"))), Code::BadVolume);
    assert_eq!(db.remove_volume("already").unwrap_err().code(), Code::VolumeNotFound);
    assert_eq!(code(Daemon::start(false).locked_db().add_volume("v", &backing)), Code::BadVolume);
}

/// A daemon of a later version may answer with codes that are not known here.
#[test]
fn an_unknown_code_is_a_failure_of_the_databases() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let daemon = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream.try_clone().unwrap()), &mut String::new()).unwrap();
        std::io::Write::write_all(&mut stream, b"{\"error\":{\"code\":\"of_tomorrow\",\"message\":\"there is no volume: already\",\"hint\":1}}\n").unwrap();
    });
    let e = Client::connect(&socket).unwrap().ask(&Ask::Status {}).unwrap_err();
    assert_eq!((e.code(), e.message()), (Code::DatabasesFailed, "there is no volume: already"));
    daemon.join().unwrap();
}
