//! Rows of databases that somebody made to do harm.
#![allow(clippy::unwrap_used)]

use super::counts::{TABLES, rows};
use crate::error::Code;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

struct Made(tempfile::TempDir);

impl Made {
    fn by(sql: &str) -> Made {
        let made = Made(tempfile::tempdir().unwrap());
        let c = Connection::open(made.path()).unwrap();
        c.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false).unwrap();
        c.execute_batch(sql).unwrap();
        made
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("db")
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn shown(path: &Path) -> Vec<(String, u64)> {
    rows(path, soon(), &|| false).unwrap().into_iter().collect()
}

#[test]
fn only_tables_are_counted_whatever_their_names() {
    let made = Made::by(
        "CREATE TABLE \"a\"\"b'; DROP TABLE x; --\"(n INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO \"a\"\"b'; DROP TABLE x; --\" VALUES (1), (2);
         CREATE TABLE keyed(k TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO keyed VALUES ('x');
         CREATE VIEW endless AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r;
         CREATE TRIGGER t AFTER INSERT ON keyed BEGIN SELECT count(*) FROM endless; END;",
    );
    assert_eq!(shown(&made.path()), [("a\"b'; DROP TABLE x; --".to_owned(), 2), ("keyed".to_owned(), 1)]);
}

#[test]
fn a_view_that_is_listed_as_a_table_is_refused_and_not_run() {
    let made = Made::by(
        "CREATE TABLE a(n); CREATE VIEW endless AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r;
         PRAGMA writable_schema = ON; UPDATE sqlite_schema SET type = 'table', rootpage = 2 WHERE name = 'endless';",
    );
    let begun = Instant::now();
    assert_eq!(rows(&made.path(), begun + Duration::from_secs(60), &|| false).unwrap_err().code(), Code::NotADatabase);
}

#[test]
fn a_count_ends_with_its_time_and_when_nobody_waits() {
    let made = Made::by("CREATE TABLE a(n)");
    assert_eq!(rows(&made.path(), Instant::now(), &|| false).unwrap_err().code(), Code::RequestTimeout);
    assert_eq!(rows(&made.path(), soon(), &|| true).unwrap_err().code(), Code::OperationCancelled);
}

#[test]
fn more_tables_or_longer_names_than_are_shown_are_refused() {
    let many: String = (0..=TABLES).map(|n| format!("CREATE TABLE t{n}(a);")).collect();
    let long = format!("CREATE TABLE \"{}\"(a)", "x".repeat(600));
    for sql in [format!("BEGIN; {many} COMMIT"), long] {
        assert_eq!(rows(&Made::by(&sql).path(), soon(), &|| false).unwrap_err().code(), Code::DiffTooLarge);
    }
}

#[test]
fn what_is_no_database_or_damaged_says_so() {
    let made = Made::by("CREATE TABLE a(n); WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 5000) INSERT INTO a SELECT n FROM r;");
    let mut bytes = std::fs::read(made.path()).unwrap();
    bytes[4096..].fill(0xff);
    std::fs::write(made.path(), &bytes).unwrap();
    assert_eq!(rows(&made.path(), soon(), &|| false).unwrap_err().code(), Code::NotADatabase);
    std::fs::write(made.path(), [b'x'; 8192]).unwrap();
    assert_eq!(rows(&made.path(), soon(), &|| false).unwrap_err().code(), Code::NotADatabase);
    std::fs::write(made.path(), []).unwrap();
    assert!(shown(&made.path()).is_empty());
}

/// Five pages that lead to 10^11 rows: what counts rows has no other limit than the time.
#[test]
fn a_tree_that_leads_to_the_same_page_again_and_again_ends_with_its_time() {
    const PAGE: usize = 4096;
    let made = Made::by("CREATE TABLE a(n); CREATE TABLE filler(x); INSERT INTO filler VALUES (zeroblob(40000));");
    let mut bytes = std::fs::read(made.path()).unwrap();
    // A page of the tree of `a`, with `cells` that are all the same.
    let mut write = |number: usize, kind: u8, cell: &[u8], cells: u16, right: u32| {
        let mut page = vec![0; PAGE];
        let start = u16::try_from(PAGE).unwrap() - cells * u16::try_from(cell.len()).unwrap();
        page[0] = kind;
        page[3..5].copy_from_slice(&cells.to_be_bytes());
        page[5..7].copy_from_slice(&start.to_be_bytes());
        let head = if kind == 5 { 12 } else { 8 };
        page[8..12].copy_from_slice(&right.to_be_bytes());
        for n in 0..usize::from(cells) {
            let at = usize::from(start) + n * cell.len();
            page[at..at + cell.len()].copy_from_slice(cell);
            page[head + 2 * n..head + 2 * n + 2].copy_from_slice(&u16::try_from(at).unwrap().to_be_bytes());
        }
        bytes[(number - 1) * PAGE..number * PAGE].copy_from_slice(&page);
    };
    for (page, below) in [(2, 4u32), (4, 5), (5, 6), (6, 7)] {
        let cell = [&below.to_be_bytes()[..], &[1]].concat();
        write(page, 5, &cell, 500, below);
    }
    write(7, 13, &[2, 1, 2, 0], 1, 0);
    std::fs::write(made.path(), &bytes).unwrap();
    let e = rows(&made.path(), Instant::now() + Duration::from_millis(300), &|| false).unwrap_err();
    assert_eq!(e.code(), Code::RequestTimeout, "{e:?}");
}
