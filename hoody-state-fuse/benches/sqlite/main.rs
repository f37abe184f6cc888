//! A workload for SQLite on any directory, native or mounted: processes × threads × journal mode × `synchronous` × pattern × kills.
//!
//! `cargo bench -p hoody-state-fuse --bench sqlite -- --dir /native=5000 --dir /mount=0 --strict /mount` runs each case on each directory in turn
//! (the number is `busy_timeout` in ms) and prints one JSON line a case, then the ratio of the second directory to the first; with `--table`, at the end, the
//! medians over all rounds. Exit code 1 when a
//! `--strict` directory had an error, a lost update, or a failed integrity check.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod case;
mod table;
mod worker;

use case::{Case, Outcome};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use table::Table;

#[derive(Parser, Debug)]
struct Args {
    /// A directory, with the busy_timeout in ms of its connections: `PATH=5000`.
    #[arg(long = "dir", required = true)]
    dirs: Vec<String>,
    /// Directories on which nothing may fail.
    #[arg(long)]
    strict: Vec<PathBuf>,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8])]
    processes: Vec<u32>,
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    threads: Vec<u32>,
    #[arg(long, value_delimiter = ',', default_values_t = ["wal".to_owned(), "delete".to_owned()])]
    journal: Vec<String>,
    #[arg(long, value_delimiter = ',', default_values_t = ["normal".to_owned(), "full".to_owned()])]
    synchronous: Vec<String>,
    #[arg(long, value_delimiter = ',', default_values_t = ["insert".to_owned(), "deferred".to_owned(), "immediate".to_owned(), "mix".to_owned(), "long-reader".to_owned()])]
    pattern: Vec<String>,
    /// Processes killed (and started again) a second.
    #[arg(long, default_value_t = 0)]
    kills: u32,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Print the medians over all rounds, of two directories.
    #[arg(long)]
    table: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let raw: Vec<String> = std::env::args().collect();
    if raw.get(1).is_some_and(|a| a == "worker") {
        worker::run(&raw[2..]);
        return ExitCode::SUCCESS;
    }
    // `cargo bench` for the whole workspace has no directory to offer: it is a tool, not a bench of its own.
    if !raw.iter().any(|a| a.starts_with("--dir")) {
        println!("sqlite workload: give --dir PATH[=BUSY_TIMEOUT_MS] (see the head of benches/sqlite/main.rs)");
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    let mut failed = false;
    let mut table = Table::default();
    for round in 0..args.rounds {
        for (number, case) in cases(&args).into_iter().enumerate() {
            let mut dirs: Vec<(usize, &String)> = args.dirs.iter().enumerate().collect();
            if round % 2 == 1 {
                dirs.reverse();
            }
            let mut outcomes: Vec<(usize, Outcome)> = Vec::new();
            for (at, dir) in dirs {
                let (path, timeout) = dir.rsplit_once('=').map_or((dir.as_str(), 0), |(p, t)| (p, t.parse().expect("a number of ms")));
                let outcome = case.run(&PathBuf::from(path), timeout);
                println!("{}", outcome.json(&case, path, timeout));
                failed |= args.strict.iter().any(|s| s == &PathBuf::from(path)) && !outcome.is_clean();
                outcomes.push((at, outcome));
            }
            outcomes.sort_by_key(|(at, _)| *at);
            if let Ok([(_, first), (_, second)]) = <[_; 2]>::try_from(outcomes) {
                println!("{}", second.ratio(&first, &case));
                table.add(number, &case, first, second);
            }
        }
    }
    if args.table {
        print!("{}", table.text());
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn cases(args: &Args) -> Vec<Case> {
    let mut all = Vec::new();
    for pattern in &args.pattern {
        for journal in &args.journal {
            for synchronous in &args.synchronous {
                for processes in &args.processes {
                    for threads in &args.threads {
                        all.push(Case {
                            processes: *processes,
                            threads: *threads,
                            journal: journal.clone(),
                            synchronous: synchronous.clone(),
                            pattern: pattern.clone(),
                            kills: args.kills,
                            seconds: args.seconds,
                        });
                    }
                }
            }
        }
    }
    all
}
