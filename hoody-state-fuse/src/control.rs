//! The control socket, for root only. Requests and replies are one line of JSON each (`hoody_state::locked_db::control` has both types). A hold on writes ends
//! with the connection that requested it, so a client that dies does not block anybody.

use crate::locks::Held;
use crate::mount::{Mount, MountError};
use hoody_state::Code;
use hoody_state::locked_db::broker::{Class, FileStatus, LockKind, Range};
use hoody_state::locked_db::control::{Ask, Client, LONGEST_LINE, Reply, left_socket};
use hoody_state::locked_db::{FileLocks, LockUser, Status};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The longest hold on writes, whatever is requested.
const LONGEST_LEASE: Duration = Duration::from_secs(60);

/// A hold until the process ends.
const FOR_GOOD: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The most that a status lists; the rest is counted. Even with the longest texts the line is well below [`LONGEST_LINE`].
const MOST_FILES: usize = 1000;
const MOST_USERS: usize = 100;
const MOST_RANGES: usize = 16;
const MOST_BYTES: usize = 8 << 20;

/// The pause after a failed accept: the next one would fail too, for example without a free descriptor.
const BREATH: Duration = Duration::from_millis(100);

/// How long a successor waits for open write transactions of its predecessor.
const YIELD: Duration = Duration::from_secs(10);

/// The control socket of a mount, and its clients.
///
/// A daemon that is unmounted while files are open keeps serving those files. A successor can then mount there, so the socket is renamed to `<socket>.old`, and
/// other connections end. The successor asks the old daemon there to hold the writes of its users for good, because neither knows the locks of the other.
pub struct Control {
    mount: Weak<Mount>,
    socket: PathBuf,
    /// Device and inode of the socket: its path may belong to a successor by now.
    identity: (u64, u64),
    state: Mutex<State>,
    yielded: Mutex<Option<Held>>,
}

#[derive(Default)]
struct State {
    left: bool,
    clients: HashMap<u64, Connected>,
    next: u64,
}

struct Connected {
    stream: UnixStream,
    /// The client asked for the unmount: its connection ends only when the process ends.
    ends: bool,
}

/// Listens on `socket`, which is created for root only, and serves until the process ends.
///
/// # Errors
/// The socket cannot be created.
pub fn serve(mount: &Arc<Mount>, socket: &Path) -> io::Result<Arc<Control>> {
    match std::fs::symlink_metadata(socket) {
        Ok(m) if std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()) => {
            if UnixStream::connect(socket).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another daemon listens on {}", socket.display())));
            }
            std::fs::remove_file(socket)?;
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists and is not a socket", socket.display()))),
        Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let control = Arc::new(Control {
        mount: Arc::downgrade(mount),
        socket: socket.to_owned(),
        identity: identity(socket)?,
        state: Mutex::default(),
        yielded: Mutex::default(),
    });
    let served = control.clone();
    std::thread::Builder::new().name("control".into()).spawn(move || served.listen(&listener))?;
    Ok(control)
}

/// Makes a predecessor that still serves open files hold their writes from now on. To be called before a daemon mounts.
///
/// # Errors
/// A write transaction is open there, and does not end.
pub fn succeed(socket: &Path) -> hoody_state::Result<()> {
    let old = left_socket(socket);
    let Ok(mut client) = Client::connect(&old) else { return Ok(()) };
    match client.ask(&Ask::Yield {}) {
        Err(e) if e.code() == Code::DatabasesBusy => Err(e),
        // It has ended meanwhile.
        _ => Ok(()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, listener: &UnixListener) {
        let mut failing = false;
        for stream in listener.incoming() {
            let stream = match stream {
                Ok(s) => s,
                Err(e) => {
                    // Log it once, not ten times a second.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("control clients cannot be accepted: {e}");
                    }
                    std::thread::sleep(BREATH);
                    continue;
                }
            };
            failing = false;
            let Some(mount) = self.mount.upgrade() else { return };
            // Registered here and not on its thread: a client that is accepted before an unmount must be known by then, to be disconnected.
            let id = match self.enter(&stream) {
                Ok(id) => id,
                Err(e) => {
                    tracing::warn!("a control client was refused: {e}");
                    continue;
                }
            };
            let control = self.clone();
            let spawned = std::thread::Builder::new().name("control-client".into()).spawn(move || {
                let said = control.converse(&mount, &stream, id);
                control.state().clients.remove(&id);
                if let Err(e) = said {
                    tracing::debug!("a control client disconnected: {e}");
                }
            });
            if let Err(e) = spawned {
                tracing::warn!("a control client was refused: {e}");
                self.state().clients.remove(&id);
            }
        }
    }

    fn enter(&self, stream: &UnixStream) -> io::Result<u64> {
        let stream = stream.try_clone()?;
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        // A client that connects after the unmount must be disconnected too.
        if !state.left {
            state.clients.insert(id, Connected { stream, ends: false });
        }
        Ok(id)
    }

    fn converse(&self, mount: &Mount, stream: &UnixStream, id: u64) -> io::Result<()> {
        let mut out = stream;
        let mut send = |reply: &Reply| {
            let mut line = serde_json::to_vec(reply)?;
            line.push(b'\n');
            out.write_all(&line)
        };
        if getsockopt(stream, PeerCredentials)?.uid() != 0 {
            return send(&error(Code::NotRoot, "only root may use this socket"));
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
                return send(&error(Code::BadRequest, "a request is one line of JSON that ends with a newline"));
            }
            match serde_json::from_slice(&line) {
                // The process ends with the mount; the client that asked for it must be answered first.
                Ok(Ask::Unmount {}) => {
                    self.ends(id, true);
                    let _farewell = mount.farewell();
                    send(&match self.unmount(mount) {
                        Ok(()) => Reply::Done { path: None },
                        Err(e) => {
                            self.ends(id, false);
                            error(Code::DatabasesFailed, &format!("it cannot be unmounted: {e}"))
                        }
                    })?;
                }
                Ok(Ask::Ping {}) => {
                    self.ends(id, true);
                    let reply = self.ping(mount);
                    send(&reply)?;
                    if matches!(reply, Reply::Error { .. }) {
                        return Ok(());
                    }
                    self.ends(id, false);
                }
                Ok(Ask::Yield {}) => send(&self.yield_writes(mount, &|| hung_up(stream)))?,
                Ok(ask) => send(&answer(mount, ask, &mut held, &|| hung_up(stream)))?,
                // The rest of the input may begin in the middle of a line.
                Err(e) => return send(&error(Code::BadRequest, &format!("this is not a valid request: {e}"))),
            }
        }
    }

    fn ends(&self, id: u64, ends: bool) {
        if let Some(c) = self.state().clients.get_mut(&id) {
            c.ends = ends;
        }
    }

    /// Unmounts. Afterwards a successor can mount there, even if files are open.
    ///
    /// # Errors
    /// As [`Mount::unmount`].
    pub fn unmount(&self, mount: &Mount) -> io::Result<()> {
        mount.unmount()?;
        self.leave();
        Ok(())
    }

    /// Makes way for a successor: the socket is renamed, and connections end.
    fn leave(&self) {
        let mut state = self.state();
        if std::mem::replace(&mut state.left, true) {
            return;
        }
        if identity(&self.socket).is_ok_and(|now| now == self.identity)
            && let Err(e) = std::fs::rename(&self.socket, left_socket(&self.socket))
        {
            tracing::warn!("the control socket cannot be renamed: {e}");
        }
        for (_, gone) in state.clients.extract_if(|_, c| !c.ends) {
            let _ = gone.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Removes the socket, under either name, because the process ends.
    pub fn end(&self) {
        for path in [&self.socket, &left_socket(&self.socket)] {
            if identity(path).is_ok_and(|now| now == self.identity) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn ping(&self, mount: &Mount) -> Reply {
        if mount.is_there() && !self.state().left {
            return Reply::Done { path: None };
        }
        // Somebody else has detached the mount, perhaps with files open: it cannot be reached any more.
        if let Err(e) = self.unmount(mount) {
            tracing::warn!("a detached mount cannot be ended: {e}");
        }
        error(Code::DatabasesUnavailable, "it is not mounted any more, and only serves files that are still open")
    }

    fn yield_writes(&self, mount: &Mount, gone: &dyn Fn() -> bool) -> Reply {
        if !self.state().left {
            return error(Code::BadRequest, "it is mounted: only an unmounted daemon can yield");
        }
        let mut yielded = self.yielded.lock().unwrap_or_else(PoisonError::into_inner);
        if yielded.is_none() {
            let all: Vec<u64> = mount.list_volumes().into_iter().map(|(_, id, _)| id).collect();
            match mount.locks().quiesce_unless(&all, YIELD, FOR_GOOD, gone) {
                Ok(held) => {
                    *yielded = Some(held);
                    mount.locks().refuse_held_back();
                    mount.give_up_claims();
                }
                Err(e) => {
                    let pids: Vec<String> = e.pids.iter().map(u32::to_string).collect();
                    let m =
                        format!("a daemon that was mounted here before is still written to by process {}: that transaction must end first", pids.join(", "));
                    return error(Code::DatabasesBusy, &m);
                }
            }
        }
        Reply::Done { path: None }
    }
}

/// Whether the client has disconnected. Nothing is read.
fn hung_up(stream: &UnixStream) -> bool {
    let mut at = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut at, PollTimeout::ZERO).is_ok() && at[0].revents().is_some_and(|r| r.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}

fn error(code: Code, message: &str) -> Reply {
    Reply::Error { code: code.to_string(), message: message.to_owned() }
}

fn done(result: Result<(), MountError>) -> Reply {
    result.map_or_else(|e| error(e.code(), &e.to_string()), |()| Reply::Done { path: None })
}

fn answer(mount: &Mount, ask: Ask, held: &mut Option<Held>, gone: &dyn Fn() -> bool) -> Reply {
    match ask {
        Ask::Status {} => Reply::Status(Box::new(status(mount))),
        Ask::AddVolume { volume, backing } => done(mount.add_volume(OsStr::new(&volume), &backing)),
        Ask::RemoveVolume { volume } => done(mount.remove_volume(OsStr::new(&volume))),
        Ask::Rebind { volume, backing } => done(mount.rebind(OsStr::new(&volume), &backing)),
        Ask::Quiesce { volumes, timeout_ms, lease_ms } => quiesce(mount, &volumes, timeout_ms, lease_ms, held, gone),
        Ask::Release {} => Reply::Released { throughout: held.take().is_some_and(Held::release) },
        Ask::Park { pids } => {
            let threads = threads(&pids);
            Reply::Parked { count: mount.locks().park(&|tid| threads.contains(&tid)) }
        }
        Ask::Unmount {} | Ask::Ping {} | Ask::Yield {} => error(Code::BadRequest, "this request is not valid here"),
    }
}

fn quiesce(mount: &Mount, volumes: &[String], timeout_ms: u64, lease_ms: u64, held: &mut Option<Held>, gone: &dyn Fn() -> bool) -> Reply {
    if held.is_some() {
        return error(Code::BadRequest, "this connection holds writes already: release them first");
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
    match mount.locks().quiesce_unless(&ids, Duration::from_millis(timeout_ms).min(LONGEST_LEASE), lease, gone) {
        Ok(guard) => {
            *held = Some(guard);
            Reply::Done { path: None }
        }
        Err(e) => error(Code::DatabasesBusy, &e.to_string()),
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
    let volume_name = |id: u64| volumes.iter().find(|(_, v, _)| *v == id).map(|(n, _, _)| n.to_string_lossy().into_owned()).unwrap_or_default();
    let (files, left_out) = most_waited_for(files, &volume_name);
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
    numbers.extend(mount.descriptors().map(|(name, n)| (name.to_owned(), n)));
    numbers.insert("files_left_out".to_owned(), left_out.files);
    numbers.insert("lock_users_left_out".to_owned(), left_out.users);
    numbers.insert("kept_awake_us".to_owned(), mount.kept_awake_us());
    let volumes = volumes.into_iter().map(|(n, _, b)| (n.to_string_lossy().into_owned(), b)).collect();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let open_files = mount.open_files().into_iter().map(|(name, n)| (name.to_string_lossy().into_owned(), count(n))).collect();
    Status { open_files, volumes, passthrough: mount.passes_through(), files, counters: numbers }
}

/// What was left out of a status.
#[derive(Debug, Default, PartialEq, Eq)]
struct LeftOut {
    files: u64,
    users: u64,
}

/// The files of a status, as many as a line has room for. Those with the longest waits come first.
fn most_waited_for(mut files: Vec<(FileStatus, Option<OsString>)>, volume_name: &dyn Fn(u64) -> String) -> (Vec<FileLocks>, LeftOut) {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    files.sort_by_key(|(f, _)| std::cmp::Reverse(f.waiters.iter().map(|w| w.waited + 1).max().unwrap_or(0)));
    let (mut listed, mut left_out, mut bytes) = (Vec::new(), LeftOut::default(), 0);
    for (f, name) in &files {
        if listed.len() == MOST_FILES {
            break;
        }
        let file = file_locks(f, volume_name(f.volume), name.as_deref().unwrap_or_default());
        bytes += serde_json::to_vec(&file).map_or(0, |line| line.len());
        if bytes > MOST_BYTES {
            break;
        }
        left_out.users += count(f.holders.len() - file.holders.len() + f.waiters.len() - file.waiters.len());
        listed.push(file);
    }
    left_out.files = count(files.len() - listed.len());
    (listed, left_out)
}

fn file_locks(f: &FileStatus, volume: String, name: &OsStr) -> FileLocks {
    let text = |range: Range, kind: LockKind| format!("{} {}-{}", if kind == LockKind::Write { "write" } else { "read" }, range.start, range.end);
    let texts = |ranges: &[(Range, LockKind)]| {
        let mut all: Vec<String> = ranges.iter().take(MOST_RANGES).map(|(r, k)| text(*r, *k)).collect();
        if ranges.len() > MOST_RANGES {
            all.push(format!("and {} more", ranges.len() - MOST_RANGES));
        }
        all.join(", ")
    };
    FileLocks {
        volume,
        name: name.to_string_lossy().into_owned(),
        class: match f.class {
            Class::Plain => "plain",
            Class::Database => "database",
            Class::Shm => "shm",
        }
        .to_owned(),
        intent: f.intent.map(|(o, since)| (f.holders.iter().find(|h| h.owner == o).map_or(0, |h| h.task.pid), since)),
        holders: f.holders.iter().take(MOST_USERS).map(|h| LockUser { pid: h.task.pid, tid: h.task.tid, since_us: h.held, locks: texts(&h.ranges) }).collect(),
        waiters: f
            .waiters
            .iter()
            .take(MOST_USERS)
            .map(|w| LockUser { pid: w.task.pid, tid: w.task.tid, since_us: w.waited, locks: text(w.range, w.kind) })
            .collect(),
    }
}
