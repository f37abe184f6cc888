//! A program that writes a database in a container: this very test program, put into an image with the libraries it needs.

use hoody_state::Caller;
use hoody_state_workspace::RealHost;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where it is in the image.
pub const PROGRAM: &str = "/worker";
/// What makes it one.
const ROLE: &str = "HOODY_TEST_WORKER";

/// Not a test of its own: what [`writers`] runs in containers. Without the variable there is nothing to do.
#[test]
fn entry() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.split(' ');
    let (what, path, n) = (words.next().unwrap(), words.next().unwrap().to_owned(), words.next().unwrap_or("1").parse::<u64>().unwrap());
    match what {
        "init" => init(&path),
        // As many threads, each with a connection of its own, each adding up; for so long.
        "add" => {
            let millis = words.next().unwrap().parse().unwrap();
            let threads: Vec<_> = (0..n).map(|_| std::thread::spawn({ let path = path.clone(); move || add(&path, Duration::from_millis(millis)) })).collect();
            let done: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
            println!("added {done}");
        }
        "sum" => println!("sum {}", sum(&path)),
        // Holds one connection and says what it sees, until it sees what is wanted.
        "watch" => watch(&path, n.cast_signed()),
        other => panic!("{other}"),
    }
}

fn open(path: &str) -> rusqlite::Connection {
    let c = rusqlite::Connection::open(path).unwrap();
    // Nobody shall need patience.
    c.busy_timeout(Duration::ZERO).unwrap();
    c
}

fn init(path: &str) {
    let c = open(path);
    c.pragma_update(None, "journal_mode", "WAL").unwrap();
    c.execute_batch("CREATE TABLE counter(n INTEGER); INSERT INTO counter VALUES(0); CREATE TABLE filler(x); INSERT INTO filler VALUES(randomblob(100000))").unwrap();
}

fn add(path: &str, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut done = 0;
    let mut c = open(path);
    c.pragma_update(None, "synchronous", "NORMAL").unwrap();
    while Instant::now() < end {
        // Read, then write: what a deferred transaction gets SQLITE_BUSY for natively.
        let tx = c.transaction().unwrap();
        let n: i64 = tx.query_row("SELECT n FROM counter", [], |r| r.get(0)).unwrap();
        tx.execute("UPDATE counter SET n = ?1", [n + 1]).unwrap();
        tx.commit().unwrap();
        done += 1;
    }
    done
}

fn sum(path: &str) -> i64 {
    let c = open(path);
    let whole: String = c.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(whole, "ok");
    c.query_row("SELECT n FROM counter", [], |r| r.get(0)).unwrap()
}

fn watch(path: &str, wanted: i64) {
    let c = open(path);
    let mut seen = Vec::new();
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let n: i64 = c.query_row("SELECT n FROM counter", [], |r| r.get(0)).unwrap();
        if seen.last() != Some(&n) {
            seen.push(n);
        }
        if n == wanted {
            c.execute("UPDATE counter SET n = n", []).unwrap();
            println!("seen {}", seen.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never saw {wanted}, only {seen:?}");
}

/// Imports an image with busybox and this program.
pub fn import(real: &RealHost) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut tar = Vec::new();
    hoody_state::image::demo::busybox_rootfs(Path::new("/bin/busybox"), &mut tar).unwrap();
    let base = dir.path().join("base.tar");
    std::fs::write(&base, tar).unwrap();
    let tree = root.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let run = |c: &mut Command| assert!(c.status().unwrap().success(), "{c:?}");
    run(Command::new("tar").arg("-xf").arg(&base).arg("-C").arg(&tree));
    let exe = std::env::current_exe().unwrap();
    run(Command::new("cp").arg(&exe).arg(tree.join(&PROGRAM[1..])));
    let libraries = Command::new("ldd").arg(&exe).output().unwrap();
    for line in String::from_utf8(libraries.stdout).unwrap().lines() {
        if let Some(path) = line.split_whitespace().find(|w| w.starts_with('/')) {
            let to = tree.join(&path[1..]);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            run(Command::new("cp").arg("-L").arg(path).arg(&to));
        }
    }
    let image = dir.path().join("image.tar");
    run(Command::new("tar").arg("-cf").arg(&image).arg("-C").arg(&tree).arg("."));
    real.host().import_image(&Caller::default(), "worker", &mut std::fs::File::open(&image).unwrap()).unwrap();
}

/// The shell line that runs it.
pub fn line(role: &str) -> String {
    format!("{ROLE}='{role}' {PROGRAM} worker::entry --exact --nocapture 2>&1")
}

/// The number after a word of what it said.
pub fn said(out: &str, word: &str) -> i64 {
    let found = out.lines().find_map(|l| l.split_once(&format!("{word} ")).map(|(_, n)| n));
    found.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("no {word:?} in {out}"))
}
