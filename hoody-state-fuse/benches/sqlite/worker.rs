//! A worker process: its threads, each with a connection of its own, and what they report.

use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What came of a worker, or of all of them.
#[derive(Default, Clone)]
pub struct Report {
    pub ok: u64,
    /// Commits that changed something.
    pub written: u64,
    pub busy: u64,
    pub stale: u64,
    pub other: u64,
    pub first_error: String,
    pub worst_us: u64,
    pub least: Option<u64>,
    pub most: u64,
    /// Latencies by eighths of powers of two.
    buckets: BTreeMap<u32, u64>,
}

fn bucket(us: u64) -> u32 {
    let us = us.max(8);
    let high = us.ilog2();
    high * 8 + u32::try_from((us >> (high - 3)) & 7).unwrap()
}

fn lower_bound(bucket: u32) -> u64 {
    (8 + u64::from(bucket % 8)) << (bucket / 8 - 3)
}

impl Report {
    pub fn add(&mut self, o: &Report) {
        self.ok += o.ok;
        self.written += o.written;
        self.busy += o.busy;
        self.stale += o.stale;
        self.other += o.other;
        self.worst_us = self.worst_us.max(o.worst_us);
        if self.first_error.is_empty() {
            self.first_error.clone_from(&o.first_error);
        }
        self.least = [self.least, o.least].into_iter().flatten().min();
        self.most = self.most.max(o.most);
        for (b, n) in &o.buckets {
            *self.buckets.entry(*b).or_default() += n;
        }
    }

    pub fn quantile(&self, q: f64) -> u64 {
        let all: u64 = self.buckets.values().sum();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let mut left = (all as f64 * q) as u64;
        for (b, n) in &self.buckets {
            if left < *n {
                return lower_bound(*b);
            }
            left -= n;
        }
        self.worst_us
    }

    fn note(&mut self, e: &rusqlite::Error) {
        match e.sqlite_error() {
            Some(s) if s.extended_code == rusqlite::ffi::SQLITE_BUSY_SNAPSHOT => self.stale += 1,
            Some(s) if s.code == ErrorCode::DatabaseBusy => self.busy += 1,
            _ => self.other += 1,
        }
        if self.first_error.is_empty() {
            self.first_error = e.to_string();
        }
    }

    fn line(&self) -> String {
        let buckets: Vec<String> = self.buckets.iter().map(|(b, n)| format!("{b}:{n}")).collect();
        let least = self.least.unwrap_or(0);
        format!(
            "= {} {} {} {} {} {} {} {}|{}\n",
            self.ok,
            self.busy,
            self.stale,
            self.other,
            self.worst_us,
            least,
            self.most,
            buckets.join(","),
            self.first_error
        )
    }

    /// From what a worker printed: a `w` for each commit, and its report unless it was killed.
    pub fn parse(text: &[u8]) -> Report {
        let mut r = Report::default();
        let text = String::from_utf8_lossy(text);
        r.written = text.lines().next().map_or(0, |_| text.bytes().take_while(|b| *b != b'=').filter(|b| *b == b'w').count() as u64);
        r.ok = r.written;
        let Some((_, line)) = text.split_once("= ") else { return r };
        let (numbers, error) = line.trim_end().split_once('|').unwrap();
        let f: Vec<&str> = numbers.split(' ').collect();
        let n = |i: usize| f[i].parse::<u64>().unwrap();
        (r.ok, r.busy, r.stale, r.other, r.worst_us, r.least, r.most) = (n(0), n(1), n(2), n(3), n(4), Some(n(5)), n(6));
        r.first_error = error.to_owned();
        for pair in f[7].split(',').filter(|p| !p.is_empty()) {
            let (b, n) = pair.split_once(':').unwrap();
            r.buckets.insert(b.parse().unwrap(), n.parse().unwrap());
        }
        r
    }
}

/// Makes the database.
pub fn make(db: &Path, journal: &str, connections: u32) {
    let c = Connection::open(db).expect("make the database");
    c.busy_timeout(Duration::from_secs(5)).unwrap();
    c.pragma_update_and_check(None, "journal_mode", journal, |_| Ok(())).expect("set the journal mode");
    c.execute_batch("CREATE TABLE counters(id INTEGER PRIMARY KEY, v INTEGER); CREATE TABLE rows(id INTEGER PRIMARY KEY, who INTEGER, text TEXT)").unwrap();
    for n in 0..=connections {
        c.execute("INSERT INTO counters VALUES(?1, 0)", [n]).unwrap();
    }
}

pub fn run(args: &[String]) {
    let [db, number, threads, journal, synchronous, pattern, left, timeout] = args else { panic!("a worker's arguments") };
    let (number, threads): (u32, u32) = (number.parse().unwrap(), threads.parse().unwrap());
    let end = Instant::now() + Duration::from_millis(left.parse().unwrap());
    let timeout = Duration::from_millis(timeout.parse().unwrap());
    let total = Mutex::new(Report::default());
    std::thread::scope(|s| {
        for t in 0..threads {
            let total = &total;
            s.spawn(move || {
                let report = connection(Path::new(db), number * threads + t, (journal, synchronous), pattern, end, timeout);
                total.lock().unwrap().add(&report);
            });
        }
    });
    let line = total.into_inner().unwrap().line();
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

fn connection(db: &Path, id: u32, modes: (&str, &str), pattern: &str, end: Instant, timeout: Duration) -> Report {
    let mut report = Report::default();
    let read_only = pattern.ends_with("-ro") && (pattern != "half-ro" || id % 2 == 1);
    let c = match open(db, modes, read_only, timeout) {
        Ok(c) => c,
        Err(e) => {
            report.note(&e);
            return report;
        }
    };
    let mut turn = u64::from(id);
    while Instant::now() < end {
        turn += 1;
        let started = Instant::now();
        let what = match pattern {
            "mix" => ["insert", "deferred", "immediate", "reads"][usize::try_from(turn % 4).unwrap()],
            "long-reader" if id % 2 == 1 => "long-reader",
            "long-reader" => "deferred",
            // Writers, and readers that opened the database read-only, in one process if it has threads.
            "half-ro" if read_only => "reads-ro",
            "half-ro" => "deferred",
            other => other,
        };
        match transaction(&c, what, id) {
            Ok(wrote) => {
                report.ok += 1;
                if wrote {
                    // One byte at once: a killed worker must have said what it committed, or nearly.
                    std::io::stdout().write_all(b"w").and_then(|()| std::io::stdout().flush()).unwrap();
                }
            }
            Err(e) => {
                report.note(&e);
                if !c.is_autocommit() {
                    let _ = c.execute_batch("ROLLBACK");
                }
            }
        }
        let us = u64::try_from(started.elapsed().as_micros()).unwrap();
        report.worst_us = report.worst_us.max(us);
        *report.buckets.entry(bucket(us)).or_default() += 1;
    }
    report.least = Some(report.ok);
    report.most = report.ok;
    report
}

fn open(db: &Path, (journal, synchronous): (&str, &str), read_only: bool, timeout: Duration) -> rusqlite::Result<Connection> {
    if read_only {
        let c = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        c.busy_timeout(timeout)?;
        return Ok(c);
    }
    let c = Connection::open(db)?;
    c.busy_timeout(timeout)?;
    // Which kind of rollback journal is each connection's own affair; WAL is the database's.
    if journal != "wal" {
        c.pragma_update_and_check(None, "journal_mode", journal, |_| Ok(()))?;
    }
    c.pragma_update(None, "synchronous", synchronous)?;
    Ok(c)
}

/// One transaction; whether it changed something.
fn transaction(c: &Connection, what: &str, id: u32) -> rusqlite::Result<bool> {
    match what {
        "insert" => {
            c.prepare_cached("INSERT INTO rows(who, text) VALUES(?1, 'a row of some length, as applications write them')")?.execute([id])?;
        }
        "deferred" | "immediate" => {
            c.execute_batch(if what == "deferred" { "BEGIN" } else { "BEGIN IMMEDIATE" })?;
            let v: i64 = c.prepare_cached("SELECT v FROM counters WHERE id = 0")?.query_row([], |r| r.get(0))?;
            // Written as it was read: an update lost between the two shows in the sum.
            c.prepare_cached("UPDATE counters SET v = ?1 WHERE id = 0")?.execute([v + 1])?;
            c.execute_batch("COMMIT")?;
        }
        "reads" | "reads-ro" => {
            let _: i64 = c.prepare_cached("SELECT v FROM counters WHERE id = ?1")?.query_row([id], |r| r.get(0))?;
            return Ok(false);
        }
        // A few milliseconds of work in one read transaction.
        "scans" | "scans-ro" => {
            let sum = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT sum(i) + (SELECT sum(v) FROM counters) FROM n";
            let _: i64 = c.prepare_cached(sum)?.query_row([], |r| r.get(0))?;
            return Ok(false);
        }
        "long-reader" => {
            c.execute_batch("BEGIN")?;
            let look = || c.prepare_cached("SELECT v FROM counters WHERE id = 0")?.query_row([], |r| r.get::<_, i64>(0));
            let first = look()?;
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(10));
                assert_eq!(look()?, first, "a snapshot does not change");
            }
            c.execute_batch("COMMIT")?;
            return Ok(false);
        }
        other => panic!("no pattern is called {other}"),
    }
    Ok(true)
}
