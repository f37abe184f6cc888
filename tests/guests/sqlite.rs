//! SQLite under power cuts: which commits the writers in the guest have acknowledged, and whether they are all there afterwards.

use crate::guest::Agent;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The last commit that was acknowledged, by writer and name of the database. It is kept outside of the guest.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Mutex<BTreeMap<(String, String), i64>>>);

impl Acknowledged {
    /// Takes note of what a writer says in a file of the guest, until the power is cut. The writers never fail: nobody finds a database locked.
    pub fn follow(&self, path: &str) {
        for line in Agent::connect().and_then(|a| a.follow(path)).into_iter().flatten() {
            assert!(!line.contains("panicked"), "a writer has failed: {line}");
            let mut words = line.split(' ');
            if words.next() == Some("committed")
                && let [Some(writer), Some(database), Some(n)] = [words.next(), words.next(), words.next()]
                && let Ok(n) = n.parse::<i64>()
            {
                let mut all = self.0.lock().unwrap();
                let last = all.entry((writer.to_owned(), database.to_owned())).or_default();
                *last = n.max(*last);
            }
        }
    }

    pub fn total(&self) -> i64 {
        self.0.lock().unwrap().values().sum()
    }

    /// Every acknowledged commit of these writers is in the databases in a directory of the guest, none before it is missing, and the databases are sound.
    pub fn verify(&self, directory: &str, writers: &[&str]) {
        let all = self.0.lock().unwrap().clone();
        let databases: std::collections::BTreeSet<&String> = all.keys().filter(|(w, _)| writers.contains(&w.as_str())).map(|(_, d)| d).collect();
        for database in databases {
            let path = format!("{directory}/{database}");
            let (code, out, err) = Agent::connect().unwrap().run(&["/mnt/shared/guest-agent", "look", &path]).unwrap();
            assert_eq!(code, Some(0), "{path}: {out}{err}");
            let look: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(look["integrity"], "ok", "{path}: {look}");
            let found = look["writers"].as_array().unwrap();
            assert!(found.iter().all(|w| w["count"] == w["last"]), "{path}: a commit before the last one is missing: {look}");
            for ((writer, _), acknowledged) in all.iter().filter(|((w, d), _)| d == database && writers.contains(&w.as_str())) {
                let last = found.iter().find(|w| w["writer"] == *writer).map_or(0, |w| w["last"].as_i64().unwrap());
                assert!(last >= *acknowledged, "{path}: commit {acknowledged} of {writer} was acknowledged, and the last one there is {last}: {look}");
            }
        }
    }
}
