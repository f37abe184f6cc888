//! The control socket: root only, one line of JSON a request, one a reply (`hoody_state::locked_db::fuse` has both types). A hold on writes ends with the
//! connection that asked for it, so a client that dies holds nobody up.

use crate::locks::Held;
use crate::mount::{Mount, MountError};
use hoody_state::locked_db::broker::{Class, LockKind, Range};
use hoody_state::locked_db::fuse::{Ask, LONGEST_LINE, Reply};
use hoody_state::locked_db::{FileLocks, LockUser, Status};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Nothing is held longer, whatever is asked for.
const LONGEST_LEASE: Duration = Duration::from_secs(60);

/// Listens on `socket` (made anew, for root alone) and serves until the process ends.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(mount: &Arc<Mount>, socket: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(socket) {
        Ok(m) if std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()) => {
            if UnixStream::connect(socket).is_ok() {
                return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, format!("another daemon listens on {}", socket.display())));
            }
            std::fs::remove_file(socket)?;
        }
        Ok(_) => return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, format!("{} is there and no socket", socket.display()))),
        Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let mount = Arc::downgrade(mount);
    std::thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), Some(mount)) = (stream, mount.upgrade()) else { continue };
            let spawned = std::thread::Builder::new().name("control-client".into()).spawn(move || {
                if let Err(e) = converse(&mount, &stream) {
                    tracing::debug!("a control client left: {e}");
                }
            });
            if let Err(e) = spawned {
                tracing::warn!("a control client was turned away: {e}");
            }
        }
    })?;
    Ok(())
}

fn converse(mount: &Mount, stream: &UnixStream) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut send = |reply: &Reply| {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        out.write_all(&line)
    };
    if getsockopt(stream, PeerCredentials)?.uid() != 0 {
        return send(&error("denied", "only root may use this socket"));
    }
    let mut held: Option<Held> = None;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let n = lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return send(&error("bad_request", "a request is one line of JSON, ended by a newline"));
        }
        match serde_json::from_slice(&line) {
            Ok(ask) => {
                // The process ends with the mount, and whoever asked for that is told first.
                let _farewell = matches!(ask, Ask::Unmount {}).then(|| mount.farewell());
                send(&answer(mount, ask, &mut held))?;
            }
            // What follows cannot be trusted to begin a line.
            Err(e) => return send(&error("bad_request", &format!("not a request: {e}"))),
        }
    }
}

fn error(code: &str, message: &str) -> Reply {
    Reply::Error { code: code.to_owned(), message: message.to_owned() }
}

fn done(result: Result<(), MountError>) -> Reply {
    match result {
        Ok(()) => Reply::Done { path: None },
        Err(e @ (MountError::Volume(_) | MountError::Backing { .. } | MountError::Nested { .. })) => {
            let message = e.to_string();
            let code = if message.contains("there is no volume") {
                "volume_not_found"
            } else if message.contains("already") {
                "volume_exists"
            } else {
                "bad_volume"
            };
            error(code, &message)
        }
        Err(e) => error("databases_failed", &e.to_string()),
    }
}

fn answer(mount: &Mount, ask: Ask, held: &mut Option<Held>) -> Reply {
    match ask {
        Ask::Status {} => Reply::Status(Box::new(status(mount))),
        Ask::AddVolume { volume, backing } => done(mount.add_volume(OsStr::new(&volume), &backing)),
        Ask::RemoveVolume { volume } => done(mount.remove_volume(OsStr::new(&volume))),
        Ask::Rebind { volume, backing } => done(mount.rebind(OsStr::new(&volume), &backing)),
        Ask::Quiesce { volumes, timeout_ms, lease_ms } => quiesce(mount, &volumes, timeout_ms, lease_ms, held),
        Ask::Release {} => Reply::Released { whole: held.take().is_some_and(Held::release) },
        Ask::Park { pids } => {
            let threads = threads(&pids);
            Reply::Parked { count: mount.locks().park(&|tid| threads.contains(&tid)) }
        }
        Ask::Unmount {} => match mount.unmount() {
            Ok(()) => Reply::Done { path: None },
            Err(e) => error("databases_failed", &format!("it stays mounted: {e}")),
        },
    }
}

fn quiesce(mount: &Mount, volumes: &[String], timeout_ms: u64, lease_ms: u64, held: &mut Option<Held>) -> Reply {
    if held.is_some() {
        return error("bad_request", "this connection holds writes already: release first");
    }
    let ids: Result<Vec<u64>, MountError> = if volumes.is_empty() {
        Ok(mount.list_volumes().into_iter().map(|(_, id, _)| id).collect())
    } else {
        volumes.iter().map(|v| mount.volume_id(OsStr::new(v))).collect()
    };
    let ids = match ids {
        Ok(ids) => ids,
        Err(e) => return done(Err(e)),
    };
    let lease = Duration::from_millis(lease_ms).min(LONGEST_LEASE);
    match mount.locks().quiesce(&ids, Duration::from_millis(timeout_ms).min(LONGEST_LEASE), lease) {
        Ok(guard) => {
            *held = Some(guard);
            Reply::Done { path: None }
        }
        Err(e) => error("databases_busy", &e.to_string()),
    }
}

/// All threads of some processes.
fn threads(pids: &[i32]) -> std::collections::HashSet<u32> {
    let tasks = |pid: &i32| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    pids.iter().flat_map(tasks).filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

fn status(mount: &Mount) -> Status {
    let volumes = mount.list_volumes();
    let (files, counters) = mount.locks().status();
    let text = |range: Range, kind: LockKind| format!("{} {}-{}", if kind == LockKind::Write { "write" } else { "read" }, range.start, range.end);
    let volume_name = |id: u64| volumes.iter().find(|(_, v, _)| *v == id).map(|(n, _, _)| n.to_string_lossy().into_owned()).unwrap_or_default();
    let files = files
        .into_iter()
        .map(|(f, name)| FileLocks {
            volume: volume_name(f.volume),
            name: name.unwrap_or_default().to_string_lossy().into_owned(),
            class: match f.class {
                Class::Plain => "plain",
                Class::Database => "database",
                Class::Shm => "shm",
            }
            .to_owned(),
            intent: f.intent.map(|(o, since)| (f.holders.iter().find(|h| h.owner == o).map_or(0, |h| h.task.pid), since)),
            holders: f
                .holders
                .iter()
                .map(|h| LockUser {
                    pid: h.task.pid,
                    tid: h.task.tid,
                    since_us: h.held,
                    locks: h.ranges.iter().map(|(r, k)| text(*r, *k)).collect::<Vec<_>>().join(", "),
                })
                .collect(),
            waiters: f.waiters.iter().map(|w| LockUser { pid: w.task.pid, tid: w.task.tid, since_us: w.waited, locks: text(w.range, w.kind) }).collect(),
        })
        .collect();
    let mut numbers = BTreeMap::new();
    for (name, n) in [
        ("granted", counters.granted),
        ("granted_late", counters.granted_late),
        ("waits", counters.waits),
        ("waited_us", counters.waited),
        ("longest_wait_us", counters.longest_wait),
        ("revoked", counters.revoked),
        ("upgrades_after_revocation", counters.upgrades_after_revocation),
    ] {
        numbers.insert(name.to_owned(), n);
    }
    for (cause, n) in &counters.refused {
        numbers.insert(format!("refused_{}", format!("{cause:?}").to_lowercase()), *n);
    }
    numbers.extend(mount.requests().into_iter().map(|(name, n)| (format!("requests_{name}"), n)));
    numbers.insert("kept_awake_us".to_owned(), mount.kept_awake_us());
    let volumes = volumes.into_iter().map(|(n, _, b)| (n.to_string_lossy().into_owned(), b)).collect();
    Status { volumes, passthrough: mount.passes_through(), files, counters: numbers }
}
