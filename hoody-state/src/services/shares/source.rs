//! Opening what is shared.

use super::component::Shares;
use super::incoming::{Incoming, incoming_of};
use crate::catalog::Durability;
use crate::catalog::containers::{self, ContainerRow};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ShareId};
use crate::model::mount::Mount;
use crate::model::{DatabaseScope, Share, ShareMode};
use crate::services::databases::IfServed;
use crate::share::path::{self, Part};
use crate::share::{RECEIVED, Source, Tree};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Sources that were opened for one receiver, kept for the next: many receive the same.
#[derive(Default)]
pub(super) struct OpenedSources {
    opened: HashMap<ShareId, std::result::Result<Tree, String>>,
    /// The count of changes before the first of them was opened.
    at: u64,
}

impl Shares {
    /// The directory of a share, resolved now. Errors: those of [`ShareMount::open`](crate::share::ShareMount::open).
    pub(super) fn open(&self, s: &Share, owner: &ContainerRow) -> Result<Tree> {
        let read_only = s.mode == ShareMode::Readonly;
        let live = self.roots.path(&owner.id);
        let source = match path::part(&s.source_path) {
            Part::Root(p) => {
                // Below these the owner itself sees something else than its volume has.
                let databases = PathBuf::from("hoody/databases");
                let private = owner.spec.databases == DatabaseScope::Private && (self.databases.backend().is_some() || live.is_none());
                Source {
                    // Backends without files have trees all the same.
                    root: live.unwrap_or_else(|| PathBuf::from(owner.id.as_str())),
                    path: p.into(),
                    read_only,
                    // Beside the lock broker nobody may write a database.
                    not_above: if private { vec![databases.clone()] } else { Vec::new() },
                    not_within: vec![databases, "hoody/shares".into(), "hoody/snapshots".into(), "ramdisk".into()],
                }
            }
            Part::Databases(p) => {
                let at = self.databases.serve(owner, live.as_deref(), IfServed::Keep)?;
                let missing = || Error::new(Code::ShareSourceMissing, format!("{} cannot be shared: this server has no databases", s.source_path));
                Source { root: at.ok_or_else(missing)?, path: p.into(), read_only, ..Source::default() }
            }
        };
        self.mounts.open(&source)
    }

    /// What a container is to see, by name, opened. What cannot be opened is noted in its share.
    pub(super) fn wanted_by(&self, r: &ContainerRow, known: &mut OpenedSources) -> Result<BTreeMap<String, Tree>> {
        let changes = self.changes();
        if known.at != changes {
            // A source may be another by now; whoever has changed it looks at this container after us.
            *known = OpenedSources { opened: HashMap::new(), at: changes };
        }
        let mut owners: HashMap<ContainerId, Option<ContainerRow>> = HashMap::new();
        let mut trees = BTreeMap::new();
        for i in incoming_of(&self.records.catalog, self.seconds(), r)?.into_iter().filter(Incoming::agreed) {
            let opened = match known.opened.get(&i.share.id) {
                Some(o) => o.clone(),
                None => {
                    let owner = match owners.entry(i.share.source_container_id.clone()) {
                        Entry::Occupied(o) => o.into_mut(),
                        Entry::Vacant(v) => v.insert(self.records.read(|c| containers::find(c, &i.share.source_container_id))?),
                    };
                    let Some(owner) = owner else { continue };
                    let opened = self.open(&i.share, owner).map_err(|e| e.message().to_owned());
                    known.opened.insert(i.share.id.clone(), opened.clone());
                    opened
                }
            };
            let message = opened.as_ref().err();
            if message != i.share.status_message.as_ref() {
                self.records.write(Durability::Process, |tx| tx.set_share_message(&i.share.id, message.map(String::as_str)))?;
            }
            match opened {
                Ok(tree) => drop(trees.insert(i.name, tree)),
                Err(why) => tracing::info!(share = %i.share.id, container = %r.id, why, "a share cannot be mounted"),
            }
        }
        Ok(trees)
    }

    /// What a container that is about to start sees.
    pub(crate) fn mounts_for(&self, r: &ContainerRow) -> Result<Vec<Mount>> {
        let wanted = self.wanted_by(r, &mut OpenedSources::default())?;
        Ok(wanted.into_iter().map(|(name, tree)| Mount::new(tree, format!("{RECEIVED}/{name}"))).collect())
    }
}
