//! What owners offer and receivers answer: the changes of the catalog, each followed by bringing the receivers in line.

use super::component::Shares;
use super::incoming::{expired, incoming_of};
use crate::catalog::idempotency::IdempotencyKey;
use crate::catalog::{Tx, containers, projects, shares};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId, ShareId};
use crate::model::validate::text;
use crate::model::{IncomingShare, NewShare, Share, ShareFilter, ShareMounted, ShareStatus, ShareTarget, ShareUpdate, ShareWord, Status};
use crate::share::{RECEIVED, path};
use serde_json::json;

/// Checks an alias or a label.
fn check_word(what: &str, s: Option<&str>) -> Result<()> {
    let Some(s) = s else { return Ok(()) };
    let end = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let good = (3..=63).contains(&s.len())
        && s.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-')
        && end(s.bytes().next())
        && end(s.bytes().last());
    if good { Ok(()) } else { Err(Error::new(Code::ValidationError, format!("{what}: 3 to 63 of a-z 0-9 _ -, with a letter or digit first and last"))) }
}

/// The project of a share's owner; nothing if the owner is gone.
pub(super) fn owner_project(tx: &Tx<'_>, s: &Share) -> Result<Option<ProjectId>> {
    Ok(containers::find(tx.conn, &s.source_container_id)?.map(|r| r.project))
}

/// Announces `storage.share.<what>`.
pub(super) fn announce(tx: &mut Tx<'_>, what: &str, s: &Share, project: Option<&ProjectId>) -> Result<()> {
    let payload = json!({ "resource_type": "storage_share", "resource_id": s.id, "project_id": project, "container_id": s.source_container_id, "share": s });
    tx.emit(&format!("storage.share.{what}"), "storage_share", s.id.as_str(), project, payload)
}

type Key<'a> = Option<&'a IdempotencyKey>;

impl Shares {
    fn check_expiry(&self, at: Option<u64>) -> Result<()> {
        match at {
            Some(at) if i64::try_from(at).is_ok_and(|at| at <= self.seconds()) => {
                Err(Error::new(Code::ValidationError, "expires_at is in the past: give a future time in Unix seconds, or null"))
            }
            Some(at) if at > 253_402_300_799 => {
                Err(Error::new(Code::ValidationError, "expires_at is after the year 9999: it is in Unix seconds, not milliseconds"))
            }
            _ => Ok(()),
        }
    }

    /// Offers a directory of `owner`, as `Host::create_share`.
    pub(crate) fn create(&self, key: Key<'_>, owner: &ContainerId, new: NewShare) -> Result<Share> {
        let source_path = path::normalise(&new.source_path)?;
        let target_type = match (&new.target_container_id, &new.target_project_id) {
            (Some(_), None) => ShareTarget::Container,
            (None, Some(_)) => ShareTarget::Project,
            _ => return Err(Error::new(Code::ValidationError, "exactly one of target_container_id and target_project_id must be given")),
        };
        if new.target_container_id.as_ref() == Some(owner) {
            return Err(Error::new(Code::SelfShare, format!("container {owner} has {source_path} already: share it with another")));
        }
        check_word("alias", new.alias.as_deref())?;
        check_word("label", new.label.as_deref())?;
        text("description", new.description.as_deref(), 1000)?;
        self.check_expiry(new.expires_at)?;
        let now = self.records.now();
        let mut share = Share {
            id: ShareId::generate(),
            source_container_id: owner.clone(),
            mount_path: format!("{RECEIVED}/{}", new.alias.as_deref().unwrap_or(path::base(&source_path))),
            source_path,
            target_container_id: new.target_container_id,
            target_project_id: new.target_project_id,
            target_type,
            mode: new.mode,
            alias: new.alias,
            label: new.label,
            description: new.description,
            enabled: new.enabled.unwrap_or(true),
            status: ShareStatus::Active,
            status_message: None,
            expires_at: new.expires_at,
            expiry_notified: false,
            created_by: self.records.catalog.user().clone(),
            realm_ids: Vec::new(),
            held_by: Vec::new(),
            created_at: now,
            updated_at: now,
        };
        if let Some(t) = self.records.replay(key)? {
            return Ok(t);
        }
        // Opened once, to say at once what is wrong with it.
        let row = self.records.read(|c| containers::get(c, owner))?;
        share.status_message = self.open(&share, &row).err().map(|e| e.message().to_owned());
        let share = self.records.change(key, |tx| {
            let row = containers::get(tx.conn, owner)?;
            if row.status == Status::Deleting {
                return Err(Error::new(Code::OperationStateConflict, format!("container {owner} is being deleted")));
            }
            if let Some(t) = &share.target_container_id {
                containers::get(tx.conn, t)?;
            }
            if let Some(p) = &share.target_project_id {
                projects::get(tx.conn, self.records.catalog.user(), p)?;
            }
            tx.put_share(&share)?;
            let share = shares::get(tx.conn, &share.id)?;
            announce(tx, "created", &share, Some(&row.project))?;
            Ok(share)
        })?;
        self.share_changed(&share)?;
        Ok(share)
    }

    /// The shares of a container that pass the filter, oldest first. Error: `container_not_found`.
    pub(crate) fn of_owner(&self, owner: &ContainerId, filter: &ShareFilter) -> Result<Vec<Share>> {
        let all = self.records.read(|c| {
            containers::get(c, owner)?;
            shares::of_owner(c, Some(owner), None)
        })?;
        let now = self.seconds();
        let keep = |s: &Share| {
            filter.target_type.is_none_or(|t| s.target_type == t)
                && filter.label.as_ref().is_none_or(|l| s.label.as_ref() == Some(l))
                && filter.status.is_none_or(|t| s.status == t)
                && filter.enabled.is_none_or(|e| s.enabled == e)
                && (filter.include_expired || !expired(s, now))
        };
        Ok(all.into_iter().filter(keep).collect())
    }

    /// The shares of all containers of some projects that have not expired.
    pub(crate) fn all(&self, only: Option<&[ProjectId]>) -> Result<Vec<Share>> {
        let now = self.seconds();
        Ok(self.records.read(|c| shares::of_owner(c, None, only))?.into_iter().filter(|s| !expired(s, now)).collect())
    }

    /// One share. Error: `share_not_found`; also when it is not `owner`'s.
    pub(crate) fn get(&self, owner: Option<&ContainerId>, id: &ShareId) -> Result<Share> {
        let s = self.records.read(|c| shares::get(c, id))?;
        match owner {
            Some(o) if *o != s.source_container_id => Err(Error::new(Code::ShareNotFound, format!("container {o} has no share {id}"))),
            _ => Ok(s),
        }
    }

    /// Changes a share, as `Host::update_share`.
    pub(crate) fn update(&self, key: Key<'_>, owner: &ContainerId, id: &ShareId, update: ShareUpdate) -> Result<Share> {
        for (what, s) in [("alias", &update.alias), ("label", &update.label)] {
            check_word(what, s.as_ref().and_then(Option::as_deref))?;
        }
        text("description", update.description.as_ref().and_then(Option::as_deref), 1000)?;
        self.check_expiry(update.expires_at.flatten())?;
        self.get(Some(owner), id)?;
        let share = self.records.change(key, |tx| {
            let mut s = shares::get(tx.conn, id)?;
            let was = s.enabled;
            s.mode = update.mode.unwrap_or(s.mode);
            s.enabled = update.enabled.unwrap_or(s.enabled);
            if let Some(alias) = update.alias {
                s.alias = alias;
            }
            if let Some(label) = update.label {
                s.label = label;
            }
            if let Some(description) = update.description {
                s.description = description;
            }
            if let Some(at) = update.expires_at {
                s.expires_at = at;
                s.expiry_notified = false;
            }
            s.updated_at = tx.now;
            tx.put_share(&s)?;
            let s = shares::get(tx.conn, id)?;
            let project = containers::get(tx.conn, owner)?.project;
            announce(tx, "updated", &s, Some(&project))?;
            if s.enabled != was {
                announce(tx, if s.enabled { "enabled" } else { "disabled" }, &s, Some(&project))?;
            }
            Ok(s)
        })?;
        let held_by = self.share_changed(&share)?;
        Ok(Share { held_by, ..self.get(Some(owner), id)? })
    }

    /// Deletes a share, as `Host::delete_share`.
    pub(crate) fn delete(&self, key: Key<'_>, id: &ShareId) -> Result<Vec<ContainerId>> {
        if self.records.replay::<()>(key)?.is_some() {
            return Ok(Vec::new());
        }
        let share = self.get(None, id)?;
        self.records.change(key, |tx| {
            let share = shares::get(tx.conn, id)?;
            tx.delete_share(id)?;
            announce(tx, "deleted", &share, owner_project(tx, &share)?.as_ref())
        })?;
        self.share_changed(&share)
    }

    /// What is shared with a container, as `Host::incoming`.
    pub(crate) fn incoming(&self, container: &ContainerId) -> Result<Vec<IncomingShare>> {
        let row = self.records.read(|c| containers::get(c, container))?;
        let all = incoming_of(&self.records.catalog, self.seconds(), &row)?;
        Ok(all.into_iter().map(|i| i.shown(container)).collect())
    }

    /// What is shared with the containers of some projects.
    pub(crate) fn all_incoming(&self, only: Option<&[ProjectId]>) -> Result<Vec<IncomingShare>> {
        let rows = self.records.read(|c| containers::all(c, None))?;
        let mut all = Vec::new();
        for r in rows.iter().filter(|r| r.status != Status::Deleting && only.is_none_or(|o| o.contains(&r.project))) {
            all.extend(incoming_of(&self.records.catalog, self.seconds(), r)?.into_iter().map(|i| i.shown(&r.id)));
        }
        Ok(all)
    }

    /// A receiver accepts or rejects a share, as `Host::set_share_mount`.
    pub(crate) fn set_mount(&self, key: Key<'_>, container: &ContainerId, id: &ShareId, said: ShareWord) -> Result<ShareMounted> {
        let (row, share) = self.records.read(|c| Ok((containers::get(c, container)?, shares::get(c, id)?)))?;
        let for_it = share.target_container_id.as_ref() == Some(container) || share.target_project_id.as_ref() == Some(&row.project);
        if !for_it || share.source_container_id == *container {
            let data = json!({ "share_id": id, "container_id": container, "target_container_id": share.target_container_id, "target_project_id": share.target_project_id });
            return Err(
                Error::new(Code::NotAReceiver, format!("share {id} is not for container {container}: only a receiver accepts or rejects it")).with_data(data)
            );
        }
        let mut answer = self.records.change(key, |tx| {
            let share = shares::get(tx.conn, id)?;
            let word = tx.put_override(id, container, said.mount)?;
            announce(tx, "mount_changed", &share, Some(&row.project))?;
            Ok(ShareMounted { share, word })
        })?;
        let held = self.receiver_changed(container)?;
        answer.share = self.get(None, id)?;
        answer.share.held_by.extend(held.then(|| container.clone()));
        Ok(answer)
    }
}
