//! What differs from the routes for everybody: less is shown, and there are limits.

use crate::app::Shared;
use crate::auth::Identity;
use crate::envelope::{Reply, ok};
use crate::extract::{Id, Input, Named, Nothing};
use crate::routes::{copies, restore_files, snapshots};
use axum::extract::State;
use hoody_state::host::Host;
use hoody_state::id::ContainerId;
use hoody_state::model::{Container, DeleteOptions, FilesRestored, ForkRequest, Forked, NewSnapshot, RestoreFiles, SnapshotAnswer, Status};
use hoody_state::name::ContainerName;
use hoody_state::{Code, Error, Result};
use serde::Serialize;

/// How many snapshots of its own making a container may have; so many, too, are the undo snapshots of its restores of files.
pub const MOST_SNAPSHOTS: u64 = 100;
/// How many copies of its own making a container may have.
pub const MOST_COPIES: usize = 8;

/// What a container sees of itself and of its copies.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    id: ContainerId,
    name: ContainerName,
    status: Status,
    status_message: Option<String>,
    source_container_id: Option<ContainerId>,
    /// Whether it is the container that asks.
    is_self: bool,
}

impl Shown {
    fn of(c: Container, own: &ContainerId) -> Self {
        Shown {
            is_self: c.id == *own,
            // Of whom the container itself is a copy is not its business.
            source_container_id: c.source_container_id.filter(|s| s == own),
            id: c.id,
            name: c.name,
            status: c.status,
            status_message: c.status_message,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct All {
    containers: Vec<Shown>,
    pagination: Pagination,
}

#[derive(Debug, Serialize)]
struct Pagination {
    total: usize,
    page: usize,
    limit: usize,
    #[serde(rename = "totalPages")]
    total_pages: usize,
}

fn visible(host: &Host, who: &Identity) -> Result<Vec<Shown>> {
    let Identity::Container(own) = who else { return Ok(Vec::new()) };
    let mut all = vec![host.container(own)?];
    all.extend(host.copies_by(own, &who.author())?);
    Ok(all.into_iter().map(|c| Shown::of(c, own)).collect())
}

/// Itself and its copies, on one page.
pub(super) async fn list(State(app): State<Shared>, who: Identity) -> Reply<All> {
    let containers = app.read(move |host| visible(host, &who)).await?;
    let pagination = Pagination { total: containers.len(), page: 1, limit: MOST_COPIES + 1, total_pages: 1 };
    ok("Containers", All { containers, pagination })
}

pub(super) async fn show(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>) -> Reply<Shown> {
    let found = app.read(move |host| visible(host, &who)?.into_iter().find(|c| c.id == id).ok_or_else(|| unknown(&id))).await?;
    ok("Container", found)
}

fn unknown(id: &ContainerId) -> Error {
    Error::new(Code::ContainerNotFound, format!("there is no container {id}"))
}

/// Deletes a copy that the container made, for good: in the trash copies would take space that no limit on their number bounds.
pub(super) async fn remove(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<Nothing>) -> Reply<()> {
    app.change(move |host| {
        if !who.made(host, &id)? {
            return Err(unknown(&id));
        }
        host.delete_container_with(&input.caller, &id, DeleteOptions { permanently: true })
    })
    .await?;
    ok("Container deleted", ())
}

/// Refuses what would make one more snapshot than a container may have of its own making.
async fn room_for_snapshot(app: &Shared, who: &Identity, id: &ContainerId) -> Result<(), crate::envelope::ApiError> {
    let (author, id) = (who.author(), id.clone());
    let has = app.read(move |host| host.snapshots_by(&id, &author)).await?;
    if has < MOST_SNAPSHOTS {
        return Ok(());
    }
    let message = format!("this container has {has} snapshots of its own making, and may have {MOST_SNAPSHOTS}: delete one, or let them expire sooner");
    Err(Error::new(Code::ContainerSnapshotLimit, message).into())
}

pub(super) async fn snapshot(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<NewSnapshot>) -> Reply<SnapshotAnswer> {
    room_for_snapshot(&app, &who, &id).await?;
    snapshots::create(State(app), who, Id(id), input).await
}

pub(super) async fn restore_files(State(app): State<Shared>, who: Identity, path: Named<ContainerId>, input: Input<RestoreFiles>) -> Reply<FilesRestored> {
    room_for_snapshot(&app, &who, &path.0).await?;
    restore_files::restore_files(State(app), who, path, input).await
}

pub(super) async fn fork(State(app): State<Shared>, who: Identity, Id(id): Id<ContainerId>, input: Input<ForkRequest>) -> Reply<Forked> {
    room_for_snapshot(&app, &who, &id).await?;
    let (asker, own, count) = (who.clone(), id.clone(), input.body.count.unwrap_or(0) as usize);
    app.read(move |host| {
        asker.check_container(host, &own)?;
        let has = host.copies_by(&own, &asker.author())?.len();
        if has + count <= MOST_COPIES {
            return Ok(());
        }
        let message = format!("this container has {has} copies of its own making, and may have {MOST_COPIES}: {count} more are too many; delete some first");
        Err(Error::new(Code::ForkLimit, message))
    })
    .await?;
    copies::fork(State(app), who, Id(id), input).await
}
