//! Share mounts of your own, here a table over directories of this machine: `cargo run --example share_mount`. They pass the suite, and then serve a host on
//! this machine. Needs root.

use hoody_state::id::ContainerId;
use hoody_state::share::{Detached, Identity, Receiver, ShareMount, Source, Tree, suite};
use hoody_state::{Code, Error, Host, HostConfig, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A mount is a row: who sees what, by which name. `base`: what the roots of owners are relative to, if they are not absolute as a host's are.
#[derive(Default)]
pub struct Table {
    pub base: PathBuf,
    rows: Mutex<BTreeMap<(ContainerId, String), Identity>>,
}

impl ShareMount for Table {
    fn open(&self, source: &Source) -> Result<Tree> {
        let shown = source.path.display();
        let refused = source.not_within.iter().any(|p| source.path.starts_with(p)) || source.not_above.iter().any(|p| p.starts_with(&source.path));
        if refused {
            return Err(Error::new(Code::ShareSourceRefused, format!("/{shown} is something else to the container that shares it")));
        }
        let missing = |e| Error::new(Code::ShareSourceMissing, format!("/{shown} is not there: {e}"));
        // A real backend follows no link out of the root: see `BindShareMount`.
        let dir = File::open(self.base.join(&source.root).join(&source.path)).map_err(missing)?;
        Tree::new(dir.into(), source.read_only).map_err(missing)
    }

    fn attach(&self, receiver: &Receiver, name: &str, tree: &Tree) -> Result<Detached> {
        self.rows.lock().unwrap().insert((receiver.container.clone(), name.to_owned()), tree.identity);
        Ok(Detached::Free)
    }

    fn detach(&self, receiver: &Receiver, name: &str) -> Result<Detached> {
        self.rows.lock().unwrap().remove(&(receiver.container.clone(), name.to_owned()));
        Ok(Detached::Free)
    }

    fn attached(&self, receiver: &Receiver) -> Result<BTreeMap<String, Identity>> {
        let rows = self.rows.lock().unwrap();
        Ok(rows.iter().filter(|((c, _), _)| *c == receiver.container).map(|((_, name), seen)| (name.clone(), *seen)).collect())
    }
}

impl suite::Harness for Table {
    fn shares(&self) -> &dyn ShareMount {
        self
    }
    fn receiver(&self) -> Receiver {
        Receiver { container: ContainerId::generate(), pid: 0 }
    }
    fn source(&self, name: &str, read_only: bool) -> Source {
        std::fs::create_dir_all(self.base.join("owner").join(name)).unwrap();
        Source { root: "owner".into(), path: name.into(), read_only, ..Default::default() }
    }
    fn missing(&self) -> Source {
        Source { root: "owner".into(), path: "missing".into(), ..Default::default() }
    }
}

pub fn main() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let shares = Table { base: dir.path().to_owned(), rows: Mutex::default() };
    // The suite shares directories that it does not ask for first.
    for name in ["a", "b", "never"] {
        suite::Harness::source(&shares, name, false);
    }
    suite::run(&shares);
    let config = HostConfig::new("/var/tmp/hoody-table", "/run/hoody-table");
    let host = Host::builder(&config)?.shares(Arc::new(Table::default())).open()?;
    println!("a host with shares in a table: {} findings", host.check(false)?.len());
    host.close();
    drop(host);
    Host::unmount(&config)
}
