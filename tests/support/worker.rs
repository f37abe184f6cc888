//! A program that does something in a container: this very test program, put into an image with the libraries it needs.

use crate::RealHost;
use hoody_state::Caller;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where it is in the image.
pub const PROGRAM: &str = "/worker";
/// What makes it one.
const ROLE: &str = "HOODY_TEST_WORKER";

/// Plays the role that the environment asks for; false if it asks for none. A test program calls it in a test named `entry`, a bench first of all.
pub fn play() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let mut words = role.split(' ');
    let (what, path, n) = (words.next().unwrap(), words.next().unwrap().to_owned(), words.next().unwrap_or("1").parse::<u64>().unwrap());
    match what {
        "init" => init(&path, "WAL"),
        "init-delete" => init(&path, "DELETE"),
        // As many threads, each with a connection of its own, each adding up; for so long.
        "add" => {
            let millis = words.next().unwrap().parse().unwrap();
            let threads: Vec<_> = (0..n)
                .map(|_| {
                    std::thread::spawn({
                        let path = path.clone();
                        move || add(&path, Duration::from_millis(millis))
                    })
                })
                .collect();
            let done: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
            println!("added {done}");
        }
        "sum" => println!("sum {}", sum(&path)),
        // In the middle of a transaction for so many milliseconds.
        "hold" => {
            let c = open(&path);
            c.execute_batch("BEGIN IMMEDIATE; UPDATE counter SET n = n + 1; INSERT INTO filler VALUES(randomblob(3000000))").unwrap();
            std::thread::sleep(Duration::from_millis(n));
            c.execute_batch("COMMIT").unwrap();
            println!("held {n}");
        }
        // Holds one connection and says what it sees, until it sees what is wanted.
        "watch" => watch(&path, n.cast_signed()),
        // Figures of a directory: MiB, and rounds.
        "disk" => disk(&path, n, words.next().unwrap().parse().unwrap()),
        other => panic!("{other}"),
    }
    true
}

/// Writes and reads a file of so many MiB, and single blocks of it; medians.
fn disk(dir: &str, mib: u64, rounds: usize) {
    use std::os::unix::fs::FileExt;
    let path = format!("{dir}/figures");
    let block = vec![7u8; 1 << 20];
    let mut read = vec![0u8; 1 << 20];
    let median = |mut v: Vec<f64>| {
        v.sort_by(f64::total_cmp);
        v[v.len() / 2]
    };
    let (mut writes, mut reads, mut small) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        let t = Instant::now();
        (0..mib).for_each(|i| file.write_all_at(&block, i << 20).unwrap());
        writes.push(mib as f64 / 1024.0 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        (0..mib).for_each(|i| file.read_exact_at(&mut read, i << 20).unwrap());
        reads.push(mib as f64 / 1024.0 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        (0..1000).for_each(|i| file.write_all_at(&block[..512], (i * 7919 % (mib << 10)) << 10).unwrap());
        small.push(t.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(&path).unwrap();
    println!("write {:.3}\nread {:.3}\nsmall {:.3}", median(writes), median(reads), median(small));
}

fn open(path: &str) -> rusqlite::Connection {
    let c = rusqlite::Connection::open(path).unwrap();
    // Nobody shall need patience.
    c.busy_timeout(Duration::ZERO).unwrap();
    c
}

fn init(path: &str, journal: &str) {
    let c = open(path);
    c.pragma_update(None, "journal_mode", journal).unwrap();
    c.execute_batch("CREATE TABLE counter(n INTEGER); INSERT INTO counter VALUES(0); CREATE TABLE filler(x); INSERT INTO filler VALUES(randomblob(100000))")
        .unwrap();
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
    let image = dir.path().join("image.tar");
    make_image(&std::env::current_exe().unwrap(), PROGRAM, &image);
    real.host().import_image(&Caller::default(), "worker", &mut std::fs::File::open(&image).unwrap()).unwrap();
}

/// Makes a tar of a root file system with busybox and a program, and with the libraries that the program needs.
pub fn make_image(program: &Path, place: &str, image: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Vec::new();
    hoody_state::image::demo::busybox_rootfs(Path::new("/bin/busybox"), &mut tar).unwrap();
    let base = dir.path().join("base.tar");
    std::fs::write(&base, tar).unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let run = |c: &mut Command| assert!(c.status().unwrap().success(), "{c:?}");
    run(Command::new("tar").arg("-xf").arg(&base).arg("-C").arg(&tree));
    run(Command::new("cp").arg(program).arg(tree.join(&place[1..])));
    let libraries = Command::new("ldd").arg(program).output().unwrap();
    for line in String::from_utf8(libraries.stdout).unwrap().lines() {
        if let Some(path) = line.split_whitespace().find(|w| w.starts_with('/')) {
            let to = tree.join(&path[1..]);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            run(Command::new("cp").arg("-L").arg(path).arg(&to));
        }
    }
    run(Command::new("tar").arg("-cf").arg(image).arg("-C").arg(&tree).arg("."));
}

/// The shell line that runs it.
pub fn line(role: &str) -> String {
    format!("{ROLE}='{role}' {PROGRAM} entry --exact --nocapture 2>&1")
}

/// The number after a word of what it said.
pub fn said<T: std::str::FromStr>(out: &str, word: &str) -> T {
    let found = out.lines().find_map(|l| l.split_once(&format!("{word} ")).map(|(_, n)| n));
    found.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("no {word:?} in {out}"))
}
