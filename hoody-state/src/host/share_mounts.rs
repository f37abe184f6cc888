//! The mounts that follow from what is shared: what each container is to see, what it sees, and the way from the one to the other.

use super::Host;
use crate::catalog::containers::{self, ContainerRow};
use crate::catalog::{Catalog, Durability, shares};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ShareId};
use crate::model::mount::Mount;
use crate::model::{DatabaseScope, Share, ShareMode, ShareStatus, ShareTarget, Status};
use crate::services::databases::IfServed;
use crate::share::consent::{self, Standing, Verdict, verdict};
use crate::share::path::{self, Part};
use crate::share::{Detached, RECEIVED, Receiver, Source, Tree};
use crate::snapshot::Volume;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// A share as it stands to one receiver.
pub(super) struct Incoming {
    pub share: Share,
    pub name: String,
    pub wanted: bool,
    pub standing: Standing,
}

impl Incoming {
    /// Whether it is to be mounted if its source is there, whatever was known of that.
    fn agreed(&self) -> bool {
        verdict(&Standing { source: true, ..self.standing }) == Verdict::Mounted
    }
}

/// Sources that were opened for one receiver, for the next: many receive the same.
#[derive(Default)]
struct Trees {
    opened: HashMap<ShareId, std::result::Result<Tree, String>>,
    /// The count of changes before the first of them was opened.
    at: u64,
}

/// What a change of what a container sees has left.
#[derive(Debug, Default)]
struct Synced {
    /// Something that was taken away is still in use in it.
    held: bool,
}

impl Host {
    /// The directory of a share, resolved now.
    pub(super) fn open_share(&self, s: &Share, owner: &ContainerRow) -> Result<Tree> {
        let read_only = s.mode == ShareMode::Readonly;
        let live = self.0.store.path(&Volume::Live(owner.id.clone()));
        let source = match path::part(&s.source_path) {
            Part::Root(p) => {
                // Below these the owner itself sees something else than its volume has.
                let databases = PathBuf::from("hoody/databases");
                let private = owner.spec.databases == DatabaseScope::Private && (self.0.databases.backend().is_some() || live.is_none());
                Source {
                    // Backends without files have trees all the same.
                    root: live.unwrap_or_else(|| PathBuf::from(owner.id.as_str())),
                    path: p.into(),
                    read_only,
                    // Beside the lock broker nobody may write a database.
                    not_above: if private { vec![databases.clone()] } else { Vec::new() },
                    not_within: vec![databases, "hoody/shares".into(), "ramdisk".into()],
                }
            }
            Part::Databases(p) => {
                let at = self.0.databases.serve(owner, live.as_deref(), IfServed::Keep)?;
                let missing = || Error::new(Code::ShareSourceMissing, format!("{} cannot be shared: this server has no databases", s.source_path));
                Source { root: at.ok_or_else(missing)?, path: p.into(), read_only, ..Source::default() }
            }
        };
        self.0.shares.open(&source)
    }

    /// What a container is to see, by name, opened. What cannot be opened is noted in its share.
    fn wanted_by(&self, r: &ContainerRow, known: &mut Trees) -> Result<BTreeMap<String, Tree>> {
        let changes = self.0.share_changes.load(Ordering::SeqCst);
        if known.at != changes {
            // A source may be another by now; whoever has changed it looks at this container after us.
            *known = Trees { opened: HashMap::new(), at: changes };
        }
        let mut owners: HashMap<ContainerId, Option<ContainerRow>> = HashMap::new();
        let mut trees = BTreeMap::new();
        for i in incoming_of(&self.0.catalog, self.seconds(), r)?.into_iter().filter(Incoming::agreed) {
            let opened = match known.opened.get(&i.share.id) {
                Some(o) => o.clone(),
                None => {
                    let owner = match owners.entry(i.share.source_container_id.clone()) {
                        Entry::Occupied(o) => o.into_mut(),
                        Entry::Vacant(v) => v.insert(self.0.catalog.read(|c| containers::find(c, &i.share.source_container_id))?),
                    };
                    let Some(owner) = owner else { continue };
                    let opened = self.open_share(&i.share, owner).map_err(|e| e.message().to_owned());
                    known.opened.insert(i.share.id.clone(), opened.clone());
                    opened
                }
            };
            let message = opened.as_ref().err();
            if message != i.share.status_message.as_ref() {
                self.write(Durability::Process, |tx| tx.set_share_message(&i.share.id, message.map(String::as_str)))?;
            }
            match opened {
                Ok(tree) => drop(trees.insert(i.name, tree)),
                Err(why) => tracing::info!(share = %i.share.id, container = %r.id, why, "a share cannot be mounted"),
            }
        }
        Ok(trees)
    }

    /// What a container that is about to start sees.
    pub(crate) fn share_mounts_for(&self, r: &ContainerRow) -> Result<Vec<Mount>> {
        Ok(self.wanted_by(r, &mut Trees::default())?.into_iter().map(|(name, tree)| Mount::new(tree, format!("{RECEIVED}/{name}"))).collect())
    }

    /// The names that a container sees.
    pub(crate) fn shares_seen(&self, id: &ContainerId) -> Result<Vec<String>> {
        let Some(receiver) = self.receiver(id)? else { return Ok(Vec::new()) };
        match self.0.shares.attached(&receiver) {
            Err(e) if e.code() == Code::ReceiverEnded => Ok(Vec::new()),
            r => Ok(r?.into_keys().collect()),
        }
    }

    fn receiver(&self, id: &ContainerId) -> Result<Option<Receiver>> {
        Ok(self.0.runtime.running(id)?.map(|r| Receiver { container: id.clone(), pid: r.pid }))
    }

    /// Brings what a container that runs sees in line with what it is to see. Whatever is right already is not touched. One that is being started looks
    /// by itself once it runs.
    fn sync_shares(&self, id: &ContainerId, known: &mut Trees) -> Result<Synced> {
        let gate = Arc::clone(self.0.sharing.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default());
        let _one = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = self.0.catalog.read(|c| containers::find(c, id))? else { return Ok(Synced::default()) };
        let Some(receiver) = self.receiver(id)? else { return Ok(Synced::default()) };
        match self.bring_in_line(&row, &receiver, known) {
            // With it ends what it saw; its next start looks for itself.
            Err(e) if e.code() == Code::ReceiverEnded => Ok(Synced::default()),
            r => r,
        }
    }

    fn bring_in_line(&self, row: &ContainerRow, receiver: &Receiver, known: &mut Trees) -> Result<Synced> {
        let wanted = self.wanted_by(row, known)?;
        let seen = self.0.shares.attached(receiver)?;
        let mut synced = Synced::default();
        for name in seen.keys().filter(|n| !wanted.contains_key(*n)) {
            synced.held |= self.0.shares.detach(receiver, name)? == Detached::Held;
        }
        for (name, tree) in wanted.iter().filter(|(n, t)| seen.get(*n) != Some(&t.identity)) {
            synced.held |= self.0.shares.attach(receiver, name, tree)? == Detached::Held;
        }
        Ok(synced)
    }

    pub(crate) fn sync_shares_or_warn(&self, ids: &[&ContainerId]) {
        let mut known = Trees::default();
        for id in ids {
            if let Err(e) = self.sync_shares(id, &mut known) {
                tracing::error!(container = %id, error = %e, "what it sees of shares is not what it should see; restart it");
            }
        }
    }

    /// After a start: what every running container sees is put right.
    pub(super) fn sync_all_shares(&self) -> Result<()> {
        let rows = self.0.catalog.read(|c| containers::all(c, None))?;
        let running: Vec<&ContainerId> = rows.iter().filter(|r| matches!(r.status, Status::Running | Status::Paused)).map(|r| &r.id).collect();
        self.sync_shares_or_warn(&running);
        Ok(())
    }

    /// A receiver sees what is true of its shares now; whether it still uses something that was taken away.
    pub(super) fn share_word_changed(&self, receiver: &ContainerId) -> Result<bool> {
        self.0.share_changes.fetch_add(1, Ordering::SeqCst);
        Ok(self.sync_shares(receiver, &mut Trees::default())?.held)
    }

    /// Every receiver of a share sees what is true of it now; those that still use something that was taken away.
    pub(super) fn share_changed(&self, s: &Share) -> Result<Vec<ContainerId>> {
        self.0.share_changes.fetch_add(1, Ordering::SeqCst);
        self.0.upkeep.expiry();
        let receivers: Vec<ContainerId> = match (&s.target_container_id, &s.target_project_id) {
            (Some(c), _) => vec![c.clone()],
            (None, Some(p)) => self.0.catalog.read(|c| containers::all(c, Some(p)))?.into_iter().map(|r| r.id).collect(),
            (None, None) => Vec::new(),
        };
        // One that cannot be reached keeps nobody else from it.
        let mut failed = Ok(());
        let mut held = Vec::new();
        let mut known = Trees::default();
        for r in receivers.into_iter().filter(|r| *r != s.source_container_id) {
            match self.sync_shares(&r, &mut known) {
                Ok(synced) if synced.held => held.push(r),
                Ok(_) => {}
                Err(e) => {
                    tracing::error!(container = %r, error = %e, "what it sees of shares is not what it should see");
                    failed = Err(e);
                }
            }
        }
        failed.map(|()| held)
    }

    /// Receivers see what these shares, which have been deleted, leave.
    pub(crate) fn shares_ended(&self, gone: &[Share]) {
        for s in gone {
            match self.share_changed(s) {
                Ok(held) if held.is_empty() => {}
                Ok(held) => tracing::warn!(share = %s.id, ?held, "a share has ended of which receivers still have something open"),
                Err(e) => tracing::error!(share = %s.id, error = %e, "a receiver still sees a share that has ended"),
            }
        }
    }

    /// The volume of `owner` is another one: its receivers see that.
    pub(crate) fn owner_exchanged(&self, owner: &ContainerId) {
        // Somebody may have looked for what it shares of its own databases just before. Once it runs it has those that are there now.
        let forgotten = self.0.runtime.adopt(owner).and_then(|runs| if runs.is_none() { self.0.databases.forget_private(owner) } else { Ok(()) });
        if let Err(e) = forgotten {
            tracing::warn!(container = %owner, error = %e, "its databases before the exchange may still be served");
        }
        match self.0.catalog.read(|c| shares::of_owner(c, Some(owner), None)) {
            Ok(all) => self.shares_ended(&all),
            Err(e) => tracing::error!(container = %owner, error = %e, "cannot read what it shares"),
        }
    }
}

/// What is offered to a container, with its names and how each stands.
pub(super) fn incoming_of(catalog: &Catalog, now: i64, r: &ContainerRow) -> Result<Vec<Incoming>> {
    let all = catalog.read(|c| if shares::any(c)? { shares::for_receiver(c, &r.id, &r.project) } else { Ok(Vec::new()) })?;
    let direct: BTreeSet<(ContainerId, String)> = all
        .iter()
        .filter(|(s, _)| s.target_type == ShareTarget::Container && !expired(s, now))
        .map(|(s, _)| (s.source_container_id.clone(), s.source_path.clone()))
        .collect();
    let mut taken = BTreeSet::new();
    let mut out = Vec::new();
    for (mut share, said) in all {
        let project_wide = share.target_type == ShareTarget::Project;
        if expired(&share, now) || (project_wide && direct.contains(&(share.source_container_id.clone(), share.source_path.clone()))) {
            continue;
        }
        let name = consent::name(share.alias.as_deref().unwrap_or(path::base(&share.source_path)), share.id.as_str(), &taken);
        taken.insert(name.clone());
        share.mount_path = format!("{RECEIVED}/{name}");
        let standing = Standing {
            enabled: share.enabled,
            wanted: said,
            project_wide,
            expired: false,
            own: share.source_container_id == r.id,
            source: share.status == ShareStatus::Active,
        };
        out.push(Incoming { name, wanted: said.unwrap_or(project_wide), standing, share });
    }
    Ok(out)
}

/// The names of what a container is to see, if the sources are there: for `check`.
pub(super) fn expected(catalog: &Catalog, now: i64, r: &ContainerRow) -> Result<BTreeSet<String>> {
    Ok(incoming_of(catalog, now, r)?.into_iter().filter(|i| verdict(&i.standing) == Verdict::Mounted).map(|i| i.name).collect())
}

pub(super) fn expired(s: &Share, now: i64) -> bool {
    s.expires_at.is_some_and(|at| i64::try_from(at).is_ok_and(|at| at <= now))
}
