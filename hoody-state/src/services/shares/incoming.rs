//! What is offered to a container, and what it is to see of that.

use crate::catalog::containers::ContainerRow;
use crate::catalog::{Catalog, shares};
use crate::error::Result;
use crate::id::ContainerId;
use crate::model::{IncomingShare, Share, ShareStatus, ShareTarget};
use crate::share::consent::{self, Standing, Verdict, verdict};
use crate::share::{RECEIVED, path};
use std::collections::BTreeSet;

/// A share as it stands to one receiver.
pub(super) struct Incoming {
    pub share: Share,
    /// What the receiver sees it as, in its directory of shares.
    pub name: String,
    /// What the receiver wants, or the default while it has not said.
    wanted: bool,
    standing: Standing,
}

impl Incoming {
    /// Whether it is to be mounted if its source is there, whatever was known of that.
    pub(super) fn agreed(&self) -> bool {
        verdict(&Standing { source: true, ..self.standing }) == Verdict::Mounted
    }

    pub(super) fn shown(self, container: &ContainerId) -> IncomingShare {
        let s = self.share;
        IncomingShare {
            mounted: verdict(&self.standing) == Verdict::Mounted,
            mount: self.wanted,
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
}

/// Whether a share's time is over at `now`, in Unix seconds.
pub(super) fn expired(s: &Share, now: i64) -> bool {
    s.expires_at.is_some_and(|at| i64::try_from(at).is_ok_and(|at| at <= now))
}

/// What is offered to a container, oldest first, with its names and how each stands.
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

/// The names of what a container is to see at `now` (Unix seconds), if the sources are there.
pub(crate) fn expected_names(catalog: &Catalog, now: i64, r: &ContainerRow) -> Result<BTreeSet<String>> {
    Ok(incoming_of(catalog, now, r)?.into_iter().filter(|i| verdict(&i.standing) == Verdict::Mounted).map(|i| i.name).collect())
}
