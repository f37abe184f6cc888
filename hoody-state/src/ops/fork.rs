//! Makes many copies of a container at once, each by the operation of a copy.

use super::copied::{copy_row, copyable};
use super::copy::{TAKEN_FOR_COPY_DAYS, THREADS, clone_container, could_be_made};
use super::copy_base::base;
use crate::error::{Code, Error, Result};
use crate::id::ContainerId;
use crate::model::{ForkRequest, ForkResult, Forked};
use crate::name::ContainerName;
use crate::op::Caller;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The most copies one request may make.
const MOST: u32 = 100;

/// See [`crate::Host::fork_container`].
pub(crate) fn fork(world: &World, caller: &Caller, id: &ContainerId, request: &ForkRequest) -> Result<Forked> {
    if let Some(t) = world.engine.replay(caller)? {
        return Ok(t);
    }
    let count = request.count.filter(|n| (1..=MOST).contains(n));
    let count = count.ok_or_else(|| Error::new(Code::ValidationError, format!("count: how many copies, 1 to {MOST}")))?;
    let source = copyable(world, id)?;
    let prefix = request.name_prefix.as_deref().unwrap_or(source.name.as_str());
    let names: Vec<String> = (1..=count).map(|n| format!("{prefix}-{n}")).collect();
    for n in &names {
        ContainerName::for_creation(n)?;
    }
    let start = request.start.unwrap_or(true);
    world.api_sockets.check(request.api_socket)?;
    let row = |name: ContainerName| {
        let mut row = copy_row(world, &source, source.project.clone(), name, None, start, request.new_identity.unwrap_or(true));
        // A container that forks itself gives its copies no means to go on with that.
        row.spec.api_socket = !caller.inside && request.api_socket.unwrap_or(row.spec.api_socket);
        row
    };
    if request.source_snapshot.is_none() {
        // A snapshot is not taken for nothing: where no copy at all could be made, the first one's reason is the answer.
        let could: Vec<Result<()>> = names.iter().map(|n| could_be_made(world, caller, &row(ContainerName::for_creation(n)?))).collect();
        if could.iter().all(Result::is_err) {
            could.into_iter().next().unwrap_or(Ok(()))?;
        }
    }
    let why = format!("taken to fork it {count} times");
    let snapshot = base(world, caller, id, request.source_snapshot.as_deref(), &why, Some(TAKEN_FOR_COPY_DAYS))?;
    let next = AtomicUsize::new(0);
    let made = Mutex::new(BTreeMap::new());
    let inner = Caller { idempotency: None, wait: Duration::ZERO, ..caller.clone() };
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(n) else { return };
            let copy = ContainerName::for_creation(name).and_then(|name| clone_container(world, &inner, row(name), &snapshot, start, true));
            made.lock().unwrap_or_else(PoisonError::into_inner).insert(n, ForkResult::of(name.clone(), copy));
        }
    };
    std::thread::scope(|s| {
        for _ in 1..THREADS {
            // Where there is no thread to be had, the others do it.
            let _ = std::thread::Builder::new().spawn_scoped(s, work);
        }
        work();
    });
    let results = made.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect();
    let forked = Forked { source_container_id: id.clone(), source_snapshot: snapshot.snapshot.name, results };
    world.engine.change(caller, |_| Ok(forked.clone()))
}
