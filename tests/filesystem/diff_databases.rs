//! Rows of databases in a diff, on a real pool.

use super::{container, real};
use hoody_state::host::Host;
use hoody_state::id::ContainerId;
use hoody_state::model::{DatabaseScope, DiffDatabase, DiffLine, DiffRequest, DiffSummary};
use hoody_state_workspace::{assert_clean, project, snapshot};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;

fn databases(host: &Host, c: &ContainerId, to: &str) -> (BTreeMap<String, DiffDatabase>, DiffSummary) {
    let request = DiffRequest { to: to.into(), databases: true, ..DiffRequest::default() };
    let mut found = BTreeMap::new();
    let summary = host
        .diff(c, "one", &request, &|| false, &mut |line| {
            match line {
                DiffLine::Database(d) => drop(found.insert(d.path.rsplit('/').next().unwrap().to_owned(), d)),
                _ => assert!(found.is_empty(), "records come before databases: {line:?}"),
            }
            Ok(())
        })
        .unwrap();
    (found, summary)
}

fn sql(path: &Path, text: &str) -> Connection {
    let c = Connection::open(path).unwrap();
    c.execute_batch(text).unwrap();
    c
}

/// As text: the tables, and how many are equal; or the code of the error.
fn shown(d: &DiffDatabase) -> String {
    if let Some(e) = &d.error {
        return e.code.clone();
    }
    let tables: Vec<String> = d.tables.iter().map(|t| format!("{} {:?} {:?}", t.name, t.from, t.to)).collect();
    format!("{} equal; {}", d.equal_tables, tables.join(", ")).replace("Some(", "").replace(')', "")
}

const TWO: &str = "CREATE TABLE a(n); INSERT INTO a VALUES (1), (2); CREATE TABLE b(n); INSERT INTO b VALUES (1);";

fn change(dir: &Path, take: &dyn Fn(&str)) {
    for name in ["rows.db", "gone.db", "same.db", "log.db", "damaged.db", "half.db", "swapped.db"] {
        sql(&dir.join(name), TWO);
    }
    std::fs::create_dir(dir.join("old")).unwrap();
    sql(&dir.join("old/within.db"), TWO);
    sql(&dir.join("renamed.db"), TWO);
    let log = sql(&dir.join("log.db"), "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; INSERT INTO a VALUES (3);");
    take("one");
    sql(
        &dir.join("rows.db"),
        "INSERT INTO a VALUES (3); UPDATE b SET n = 7; DROP TABLE b; CREATE TABLE c(n); CREATE TABLE b(n); INSERT INTO b VALUES (9); CREATE VIEW v AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r;",
    );
    std::fs::remove_file(dir.join("gone.db")).unwrap();
    sql(&dir.join("new.db"), "CREATE TABLE a(n); INSERT INTO a VALUES (1);");
    log.execute_batch("INSERT INTO a VALUES (4), (5); DROP TABLE b;").unwrap();
    let mut bytes = std::fs::read(dir.join("damaged.db")).unwrap();
    bytes[100..].fill(0xff);
    std::fs::write(dir.join("damaged.db"), bytes).unwrap();
    sql(&dir.join("half.db"), "INSERT INTO a VALUES (3)");
    std::fs::write(dir.join("half.db-journal"), [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0, 0, 0, 0]).unwrap();
    std::fs::remove_file(dir.join("swapped.db")).unwrap();
    std::os::unix::fs::symlink("/hoody/databases/rows.db", dir.join("swapped.db")).unwrap();
    std::fs::rename(dir.join("old"), dir.join("moved")).unwrap();
    sql(&dir.join("moved/within.db"), "DELETE FROM a");
    std::fs::rename(dir.join("renamed.db"), dir.join("other.db")).unwrap();
    std::fs::write(dir.join("plain"), "text").unwrap();
    take("two");
    drop(log);
}

#[test]
fn a_diff_counts_the_rows_of_databases_that_differ() {
    let real = real("diff-databases");
    let p = project(real.host(), "web");
    for scope in [DatabaseScope::Project, DatabaseScope::Private] {
        let c = container(&real, &p, &format!("{scope:?}").to_lowercase(), |n| n.databases = Some(scope));
        let pool = real.config.run.join("pool");
        let dir = match scope {
            DatabaseScope::Project => pool.join("projects").join(p.as_str()).join("databases"),
            DatabaseScope::Private => pool.join("containers").join(c.as_str()).join("live/hoody/databases"),
        };
        change(&dir, &|name| drop(snapshot(real.host(), &c, name).unwrap()));
        // The present state differs from `two` in nothing that is counted.
        for to in ["two", "live"] {
            let (found, summary) = databases(real.host(), &c, to);
            let found: BTreeMap<&str, String> = found.iter().map(|(name, d)| (name.as_str(), shown(d))).collect();
            let wanted = [
                ("damaged.db", "not_a_database"),
                ("gone.db", "0 equal; a 2 None, b 1 None"),
                ("half.db", "databases_busy"),
                ("log.db", "0 equal; a 3 5, b 1 None"),
                ("new.db", "0 equal; a None 1"),
                ("other.db", "2 equal; "),
                ("rows.db", "1 equal; a 2 3, c None 0"),
                ("swapped.db", "0 equal; a 2 None, b 1 None"),
                ("within.db", "1 equal; a 2 0"),
            ];
            assert_eq!(found, wanted.map(|(name, text)| (name, text.to_owned())).into(), "{scope:?} {to}");
            assert_eq!(summary.databases_left_out, 0);
        }
    }
    assert_clean(real.host(), "after diffs of databases");
}
