//! One case: starts the workers, kills some, adds up, and looks whether the database is whole.

use crate::worker::{self, Report};
use rusqlite::Connection;
use serde_json::json;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Case {
    pub processes: u32,
    pub threads: u32,
    pub journal: String,
    pub synchronous: String,
    pub pattern: String,
    pub kills: u32,
    pub seconds: f64,
}

#[derive(Default)]
pub struct Outcome {
    report: Report,
    lost: i64,
    integrity: String,
    killed: u32,
    seconds: f64,
}

impl Case {
    pub fn run(&self, dir: &Path, timeout: u32) -> Outcome {
        let place = dir.join(format!("workload-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir(&place).expect("a directory for the database");
        let db = place.join("data.db");
        let connections = self.processes * self.threads;
        worker::make(&db, &self.journal, connections);
        let started = Instant::now();
        let end = started + Duration::from_secs_f64(self.seconds);
        let mut workers: Vec<Child> = (0..self.processes).map(|n| self.start(&db, n, timeout, end)).collect();
        let mut outcome = Outcome::default();
        if self.kills > 0 {
            let mut next = 0;
            while Instant::now() + Duration::from_millis(100) < end {
                std::thread::sleep(Duration::from_secs_f64(1.0 / f64::from(self.kills)));
                let victim = next % workers.len();
                next += 1;
                workers[victim].kill().expect("kill a worker");
                outcome.add(&mut workers[victim]);
                outcome.killed += 1;
                workers[victim] = self.start(&db, u32::try_from(victim).unwrap(), timeout, end);
            }
        }
        for w in &mut workers {
            outcome.add(w);
        }
        outcome.seconds = started.elapsed().as_secs_f64();
        let c = Connection::open(&db).expect("open the database");
        c.busy_timeout(Duration::from_secs(5)).unwrap();
        outcome.integrity = c.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap_or_else(|e| e.to_string());
        let sum: i64 = c.query_row("SELECT (SELECT sum(v) FROM counters) + (SELECT count(*) FROM rows)", [], |r| r.get(0)).unwrap_or(-1);
        let acknowledged = i64::try_from(outcome.report.written).unwrap();
        // A killed worker may have committed once without having said so.
        let unsaid = i64::from(outcome.killed * self.threads);
        outcome.lost = if sum < acknowledged { acknowledged - sum } else { (sum - acknowledged - unsaid).max(0) };
        drop(c);
        std::fs::remove_dir_all(&place).expect("remove the database");
        outcome
    }

    fn start(&self, db: &Path, number: u32, timeout: u32, end: Instant) -> Child {
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        Command::new(std::env::current_exe().unwrap())
            .arg("worker")
            .arg(db)
            .args([
                number.to_string(),
                self.threads.to_string(),
                self.journal.clone(),
                self.synchronous.clone(),
                self.pattern.clone(),
                left.to_string(),
                timeout.to_string(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a worker")
    }
}

impl Outcome {
    fn add(&mut self, worker: &mut Child) {
        let mut text = Vec::new();
        worker.stdout.take().expect("piped").read_to_end(&mut text).unwrap();
        worker.wait().unwrap();
        self.report.add(&Report::parse(&text));
    }

    pub fn is_clean(&self) -> bool {
        let r = &self.report;
        r.busy + r.stale + r.other == 0 && self.lost == 0 && self.integrity == "ok" && r.ok > 0
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn worst_us(&self) -> f64 {
        self.report.worst_us as f64
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn errors(&self) -> f64 {
        (self.report.busy + self.report.stale + self.report.other) as f64 + self.lost as f64
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn per_second(&self) -> f64 {
        self.report.ok as f64 / self.seconds
    }

    pub fn json(&self, case: &Case, dir: &str, timeout: u32) -> String {
        let r = &self.report;
        json!({
            "dir": dir, "timeout_ms": timeout, "pattern": case.pattern, "journal": case.journal, "synchronous": case.synchronous,
            "processes": case.processes, "threads": case.threads, "killed": self.killed,
            "ok": r.ok, "per_second": self.per_second().round(), "busy": r.busy, "busy_snapshot": r.stale, "other": r.other, "first_error": r.first_error,
            "lost": self.lost, "integrity": self.integrity,
            "p50_us": r.quantile(0.5), "p99_us": r.quantile(0.99), "max_us": r.worst_us, "slowest_connection": r.least, "fastest_connection": r.most,
        })
        .to_string()
    }

    #[allow(clippy::cast_precision_loss)]
    pub fn ratio(&self, native: &Outcome, case: &Case) -> String {
        let p99 = self.report.quantile(0.99) as f64 / (native.report.quantile(0.99) as f64).max(1.0);
        json!({
            "ratio": {"pattern": case.pattern, "journal": case.journal, "synchronous": case.synchronous, "processes": case.processes, "threads": case.threads},
            "throughput": (self.per_second() / native.per_second() * 1000.0).round() / 1000.0, "p99": (p99 * 1000.0).round() / 1000.0,
        })
        .to_string()
    }
}
