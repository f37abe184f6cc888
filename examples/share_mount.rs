//! Share mounts of your own, here a table over directories of this machine: `cargo run --example share_mount`. They pass the suite. Needs no root.

use hoody_state::id::ContainerId;
use hoody_state::model::{NewContainer, NewShare, ProjectInput, ShareMode};
use hoody_state::share::{Detached, Identity, Receiver, ShareMount, Source, Tree, suite};
use hoody_state::{Caller, Code, Error, HostBuilder, Result};
use hoody_state::{freeze::memory::MemoryFreezer, runtime::memory::MemoryRuntime, snapshot::memory::MemoryStore};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The directories of each container are below `base`, in a directory of its own. A mount is a row: who sees what, by which name.
struct Table {
    base: PathBuf,
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
    let shares = Arc::new(Table { base: dir.path().to_owned(), rows: Mutex::default() });
    // The suite shares directories that it does not ask for first.
    for name in ["a", "b", "never"] {
        suite::Harness::source(&*shares, name, false);
    }
    suite::run(&*shares);

    let builder = HostBuilder::new(None, Arc::new(MemoryStore::new()), Arc::new(MemoryFreezer::new()), Arc::new(MemoryRuntime::new()))?;
    let host = builder.shares(shares.clone()).open()?;
    let me = Caller::default();
    host.import_image(&me, "tiny", &mut &hoody_state_workspace::tiny_image()[..])?;
    let project = host.create_project(&me, ProjectInput { alias: Some("web".into()), ..Default::default() })?.id;
    let [owner, receiver] = [(); 2].map(|()| host.create_container(&me, &project, NewContainer::default()).map(|c| c.id));
    let (owner, receiver) = (owner?, receiver?);
    std::fs::create_dir_all(dir.path().join(owner.as_str()).join("srv")).unwrap();
    let share = NewShare {
        source_path: "/srv".into(),
        target_project_id: Some(project),
        mode: ShareMode::Readonly,
        target_container_id: None,
        alias: None,
        label: None,
        description: None,
        enabled: None,
        expires_at: None,
    };
    host.create_share(&me, &owner, share)?;
    println!("{receiver} sees {:?}", shares.attached(&Receiver { container: receiver.clone(), pid: 0 })?.keys().collect::<Vec<_>>());
    Ok(())
}
