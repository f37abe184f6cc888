//! Shares: what owners offer, and what receivers say to it.

use super::share_mounts::{Incoming, expired, incoming_of};
use super::{Caller, Host};
use crate::catalog::{Durability, Tx, containers, projects, shares};
use crate::error::{Code, Error, Result};
use crate::id::{ContainerId, ProjectId, ShareId};
use crate::model::{IncomingShare, NewShare, Share, ShareFilter, ShareMounted, ShareStatus, ShareTarget, ShareUpdate, ShareWord, Status};
use crate::share::consent::{Verdict, verdict};
use crate::share::{RECEIVED, path};
use serde_json::json;
use std::time::Duration;

/// How long before its end a share's is announced, in seconds.
const NOTICE: i64 = 3600;

fn word(what: &str, s: Option<&str>) -> Result<()> {
    let Some(s) = s else { return Ok(()) };
    let end = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let good = (3..=63).contains(&s.len())
        && s.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-')
        && end(s.bytes().next())
        && end(s.bytes().last());
    if good { Ok(()) } else { Err(Error::new(Code::ValidationError, format!("{what}: 3 to 63 of a-z 0-9 _ -, with a letter or digit first and last"))) }
}

fn emit(tx: &mut Tx<'_>, what: &str, s: &Share, project: &ProjectId) -> Result<()> {
    let payload = json!({ "resource_type": "storage_share", "resource_id": s.id, "project_id": project, "container_id": s.source_container_id, "share": s });
    tx.emit(&format!("storage.share.{what}"), "storage_share", s.id.as_str(), Some(project), payload)
}

impl Host {
    pub(super) fn seconds(&self) -> i64 {
        self.0.clock.now().as_second()
    }

    fn to_come(&self, at: Option<u64>) -> Result<()> {
        match at {
            Some(at) if i64::try_from(at).is_ok_and(|at| at <= self.seconds()) => {
                Err(Error::new(Code::ValidationError, "expires_at is past: give a time to come in Unix seconds, or null"))
            }
            Some(at) if at > 253_402_300_799 => {
                Err(Error::new(Code::ValidationError, "expires_at is after the year 9999: it is in Unix seconds, not milliseconds"))
            }
            _ => Ok(()),
        }
    }

    /// Offers a directory of `owner` to a container or to a project. A container sees it once it has said yes, those of a project at once.
    ///
    /// # Errors
    /// `container_not_found`, `project_not_found`, `invalid_path`, `self_share`, `validation_error`, `share_already_exists`, `operation_state_conflict`. A
    /// directory that is not there is none: the share is `failed` until it is.
    pub fn create_share(&self, caller: &Caller, owner: &ContainerId, new: NewShare) -> Result<Share> {
        let source_path = path::normalise(&new.source_path)?;
        let target_type = match (&new.target_container_id, &new.target_project_id) {
            (Some(_), None) => ShareTarget::Container,
            (None, Some(_)) => ShareTarget::Project,
            _ => return Err(Error::new(Code::ValidationError, "exactly one of target_container_id and target_project_id must be given")),
        };
        if new.target_container_id.as_ref() == Some(owner) {
            return Err(Error::new(Code::SelfShare, format!("container {owner} has {source_path} already: share it with another")));
        }
        word("alias", new.alias.as_deref())?;
        word("label", new.label.as_deref())?;
        crate::container::text("description", new.description.as_deref(), 1000)?;
        self.to_come(new.expires_at)?;
        let now = self.0.clock.now();
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
            created_by: self.user(),
            realm_ids: Vec::new(),
            held_by: Vec::new(),
            created_at: now,
            updated_at: now,
        };
        if let Some(t) = self.replay(caller)? {
            return Ok(t);
        }
        // Opened once, to say at once what is wrong with it.
        let row = self.0.catalog.read(|c| containers::get(c, owner))?;
        share.status_message = self.open_share(&share, &row).err().map(|e| e.message().to_owned());
        let share = self.change(caller, |tx| {
            let row = containers::get(tx.conn, owner)?;
            if row.status == Status::Deleting {
                return Err(Error::new(Code::OperationStateConflict, format!("container {owner} is being deleted")));
            }
            if let Some(t) = &share.target_container_id {
                containers::get(tx.conn, t)?;
            }
            if let Some(p) = &share.target_project_id {
                projects::get(tx.conn, self.0.catalog.user(), p)?;
            }
            tx.put_share(&share)?;
            let share = shares::get(tx.conn, &share.id)?;
            emit(tx, "created", &share, &row.project)?;
            Ok(share)
        })?;
        self.share_changed(&share)?;
        Ok(share)
    }

    /// The shares of a container, oldest first.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn shares_of(&self, owner: &ContainerId, filter: &ShareFilter) -> Result<Vec<Share>> {
        let all = self.0.catalog.read(|c| {
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

    /// The shares of all containers of some projects.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn all_shares(&self, only: Option<&[ProjectId]>) -> Result<Vec<Share>> {
        let now = self.seconds();
        Ok(self.0.catalog.read(|c| shares::of_owner(c, None, only))?.into_iter().filter(|s| !expired(s, now)).collect())
    }

    /// One share.
    ///
    /// # Errors
    /// `share_not_found`; also when it is not `owner`'s.
    pub fn share(&self, owner: Option<&ContainerId>, id: &ShareId) -> Result<Share> {
        let s = self.0.catalog.read(|c| shares::get(c, id))?;
        match owner {
            Some(o) if *o != s.source_container_id => Err(Error::new(Code::ShareNotFound, format!("container {o} has no share {id}"))),
            _ => Ok(s),
        }
    }

    /// Changes a share; what is absent stays. Receivers that run see it at once.
    ///
    /// # Errors
    /// `share_not_found`, `validation_error`.
    pub fn update_share(&self, caller: &Caller, owner: &ContainerId, id: &ShareId, update: ShareUpdate) -> Result<Share> {
        for (what, s) in [("alias", &update.alias), ("label", &update.label)] {
            word(what, s.as_ref().and_then(Option::as_deref))?;
        }
        crate::container::text("description", update.description.as_ref().and_then(Option::as_deref), 1000)?;
        self.to_come(update.expires_at.flatten())?;
        self.share(Some(owner), id)?;
        let share = self.change(caller, |tx| {
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
            emit(tx, "updated", &s, &project)?;
            if s.enabled != was {
                emit(tx, if s.enabled { "enabled" } else { "disabled" }, &s, &project)?;
            }
            Ok(s)
        })?;
        let held_by = self.share_changed(&share)?;
        Ok(Share { held_by, ..self.share(Some(owner), id)? })
    }

    /// Deletes a share: no receiver sees it any more when this returns. The receivers in which a process still has something of it open.
    ///
    /// # Errors
    /// `share_not_found`; `share_mount_failed` when a receiver could not be reached (it sees it until its restart).
    pub fn delete_share(&self, caller: &Caller, id: &ShareId) -> Result<Vec<ContainerId>> {
        if self.replay::<()>(caller)?.is_some() {
            return Ok(Vec::new());
        }
        let share = self.share(None, id)?;
        self.change(caller, |tx| {
            let share = shares::get(tx.conn, id)?;
            let project = containers::get(tx.conn, &share.source_container_id)?.project;
            tx.delete_share(id)?;
            emit(tx, "deleted", &share, &project)
        })?;
        self.share_changed(&share)
    }

    /// What is shared with a container, oldest first: a share with it alone beats one with its project of the same directory; its own and expired ones are
    /// left out.
    ///
    /// # Errors
    /// `container_not_found`.
    pub fn incoming(&self, container: &ContainerId) -> Result<Vec<IncomingShare>> {
        let row = self.0.catalog.read(|c| containers::get(c, container))?;
        let all = incoming_of(&self.0.catalog, self.seconds(), &row)?;
        Ok(all.into_iter().map(|i| incoming_view(i, container)).collect())
    }

    /// The same for all containers of some projects.
    ///
    /// # Errors
    /// Those of the catalog.
    pub fn all_incoming(&self, only: Option<&[ProjectId]>) -> Result<Vec<IncomingShare>> {
        let rows = self.0.catalog.read(|c| containers::all(c, None))?;
        let mut all = Vec::new();
        for r in rows.iter().filter(|r| r.status != Status::Deleting && only.is_none_or(|o| o.contains(&r.project))) {
            all.extend(incoming_of(&self.0.catalog, self.seconds(), r)?.into_iter().map(|i| incoming_view(i, &r.id)));
        }
        Ok(all)
    }

    /// A receiver's word: it sees the share at once, or no more.
    ///
    /// # Errors
    /// `container_not_found`, `share_not_found`; `validation_error` when the share is not for this container; `share_mount_failed`.
    pub fn set_share_mount(&self, caller: &Caller, container: &ContainerId, id: &ShareId, said: ShareWord) -> Result<ShareMounted> {
        let (row, share) = self.0.catalog.read(|c| Ok((containers::get(c, container)?, shares::get(c, id)?)))?;
        let for_it = share.target_container_id.as_ref() == Some(container) || share.target_project_id.as_ref() == Some(&row.project);
        if !for_it || share.source_container_id == *container {
            let data = json!({ "share_id": id, "container_id": container, "target_container_id": share.target_container_id, "target_project_id": share.target_project_id });
            return Err(
                Error::new(Code::NotAReceiver, format!("share {id} is not for container {container}: only a receiver accepts or rejects it")).with_data(data)
            );
        }
        let mut answer = self.change(caller, |tx| {
            let share = shares::get(tx.conn, id)?;
            let word = tx.put_override(id, container, said.mount)?;
            emit(tx, "mount_changed", &share, &row.project)?;
            Ok(ShareMounted { share, word })
        })?;
        let held = self.share_word_changed(container)?;
        answer.share = self.share(None, id)?;
        answer.share.held_by.extend(held.then(|| container.clone()));
        Ok(answer)
    }

    /// Deletes shares whose time is over and announces those whose end is near; when there is something to do again.
    pub(super) fn expire_shares(&self) -> Result<Option<Duration>> {
        let now = self.seconds();
        let ((due, next), (ending, next_notice)) = self.0.catalog.read(|c| Ok((shares::expired(c, now)?, shares::ending(c, now + NOTICE)?)))?;
        for s in &due {
            self.write(Durability::Disk, |tx| {
                tx.delete_share(&s.id)?;
                let project = containers::get(tx.conn, &s.source_container_id)?.project;
                emit(tx, "expired", s, &project)
            })?;
            tracing::info!(share = %s.id, "a share has expired");
        }
        self.shares_ended(&due);
        for mut s in ending.into_iter().filter(|s| !due.iter().any(|d| d.id == s.id)) {
            self.write(Durability::Process, |tx| {
                s.expiry_notified = true;
                tx.put_share(&s)?;
                let project = containers::get(tx.conn, &s.source_container_id)?.project;
                emit(tx, "expiring_soon", &s, &project)
            })?;
        }
        let next = next.into_iter().chain(next_notice.map(|at| at - NOTICE)).min();
        Ok(next.map(|at| Duration::from_secs(u64::try_from((at - now).max(1)).unwrap_or(1))))
    }
}

fn incoming_view(i: Incoming, container: &ContainerId) -> IncomingShare {
    let s = i.share;
    IncomingShare {
        mounted: verdict(&i.standing) == Verdict::Mounted,
        mount: i.wanted,
        container_id: container.clone(),
        id: s.id,
        source_container_id: s.source_container_id,
        source_path: s.source_path,
        target_container_id: s.target_container_id,
        target_project_id: s.target_project_id,
        target_type: s.target_type,
        mode: s.mode,
        enabled: s.enabled,
        status: s.status,
        status_message: s.status_message,
        expires_at: s.expires_at,
        created_by: s.created_by,
        mount_path: s.mount_path,
        created_at: s.created_at,
        updated_at: s.updated_at,
    }
}
