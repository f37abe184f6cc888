//! The sockets by which containers use a part of the API for themselves.
//!
//! Each container that has one gets a directory of its own on the host, which is mounted in it read-only; the socket stands in that directory. A server that
//! starts again puts a new socket into the same directory, so that a running container finds it under the same name. A socket file mounted by itself would stay the
//! dead one.
//!
//! Whether a run was started with a socket is told by that directory: it is made by the start and removed with the socket.

use super::dirs::ContainerDirs;
use crate::catalog::containers::ContainerRow;
use crate::error::{Code, Error, IoContext, Result};
use crate::id::ContainerId;
use crate::model::mount::{API_SOCKET, Mount, Tree};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The socket's name in its directory, and that of the link to it.
const NAME: &str = "hoody.sock";
/// The socket while it has no owner yet.
const NEW: &str = ".new";
/// What the link `/run/hoody.sock` says.
const LINK: &str = "/hoody/api/hoody.sock";

/// Serves the sockets of containers. Its calls come from any thread and must return at once; they must not call the host.
pub trait ApiServer: Send + Sync {
    /// A container's socket listens: connections are queued from here on. It replaces the one that the container had before. `root`: the host's user id of the
    /// container's root. Only that user can connect; a server checks it once more.
    fn opened(&self, container: &ContainerId, listener: UnixListener, root: u32);

    /// The container has ended, or is to have no socket any more.
    fn closed(&self, container: &ContainerId);
}

/// The sockets of all containers.
pub(crate) struct ApiSockets {
    /// Where their directories are; nothing: containers have none.
    dir: Option<PathBuf>,
    dirs: ContainerDirs,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    server: Option<Arc<dyn ApiServer>>,
    open: HashMap<ContainerId, Open>,
    opened: u64,
}

struct Open {
    /// Tells it from the one that the container has after its next start.
    number: u64,
    /// Until there is a server.
    listener: Option<UnixListener>,
}

impl ApiSockets {
    pub(crate) fn new(dir: Option<PathBuf>, dirs: ContainerDirs) -> Self {
        ApiSockets { dir, dirs, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a socket on a host that serves none. Error: `api_socket_unsupported`.
    pub(crate) fn check(&self, wanted: Option<bool>) -> Result<()> {
        if wanted == Some(true) && self.dir.is_none() {
            let why = "api_socket: this host serves no sockets in containers; leave it out, or use a server";
            return Err(Error::new(Code::ApiSocketUnsupported, why));
        }
        Ok(())
    }

    /// Hands what listens to `server`, now and from now on. `None`: there is no server any more.
    pub(crate) fn serve(&self, server: Option<Arc<dyn ApiServer>>) {
        let mut state = self.state();
        if let Some(server) = &server {
            for (id, open) in &mut state.open {
                if let Some(listener) = open.listener.take() {
                    server.opened(id, listener, self.dirs.id_base);
                }
            }
        }
        state.server = server;
    }

    /// Opens the socket of a container that is about to start, if it is to have one; what is mounted of it. A start does not fail for it. `root`: its volume.
    pub(crate) fn mount_for(&self, r: &ContainerRow, root: &Path) -> Option<Mount> {
        if let Err(e) = self.put_link(r.spec.api_socket && self.dir.is_some(), root) {
            tracing::warn!(container = %r.id, error = %e, "the link /run/{NAME} could not be put right");
        }
        let opened = match &self.dir {
            Some(dir) if r.spec.api_socket => match self.dirs.open_or_make(root, &["hoody", "api"]) {
                Ok(Some(_)) => self.open(dir, &r.id).map(Some),
                Ok(None) => Err(Error::new(Code::NotASocket, format!("something else is at {API_SOCKET}"))),
                Err(e) => Err(e),
            },
            _ => Ok(None),
        };
        opened.unwrap_or_else(|e| {
            tracing::warn!(container = %r.id, error = %e, "the container starts without its socket");
            None
        })
    }

    fn open(&self, dir: &Path, id: &ContainerId) -> Result<Mount> {
        let mut state = self.state();
        let at = dir.join(id.as_str());
        let what = || format!("make a socket in {}", at.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).io(what)?;
        std::fs::DirBuilder::new().recursive(true).create(&at).io(what)?;
        std::fs::set_permissions(&at, PermissionsExt::from_mode(0o755)).io(what)?;
        let opened = File::open(&at).io(what)?;
        let listener = self.listen(&opened).io(what)?;
        let tree = Tree::new(OwnedFd::from(opened), true).io(what)?;
        state.opened += 1;
        let listener = match &state.server {
            Some(server) => {
                server.opened(id, listener, self.dirs.id_base);
                None
            }
            None => Some(listener),
        };
        let number = state.opened;
        state.open.insert(id.clone(), Open { number, listener });
        Ok(Mount::new(tree, API_SOCKET))
    }

    /// A socket in an open directory. Until it has its owner and its name, nobody in the container may connect: it belongs to the host's root.
    fn listen(&self, dir: &File) -> std::io::Result<UnixListener> {
        let remove = |name: &str| match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e),
        };
        remove(NEW)?;
        // By the descriptor: the path of a socket may have 107 bytes at most.
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{NEW}", dir.as_raw_fd()))?;
        rustix::fs::chmodat(dir, NEW, Mode::from_raw_mode(0o600), AtFlags::empty())?;
        let root = self.dirs.id_base;
        rustix::fs::chownat(dir, NEW, Some(rustix::fs::Uid::from_raw(root)), Some(rustix::fs::Gid::from_raw(root)), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::renameat(dir, NEW, dir, NAME)?;
        Ok(listener)
    }

    /// Makes the link `/run/hoody.sock` in a volume, or removes it. What else is there stays.
    fn put_link(&self, wanted: bool, root: &Path) -> Result<()> {
        let what = || format!("look at /run/{NAME}");
        let run = if wanted {
            self.dirs.open_or_make(root, &["run"])?
        } else {
            let root = File::open(root).io(what)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat2(&root, "run", flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).ok()
        };
        let Some(run) = run else { return Ok(()) };
        let there = rustix::fs::readlinkat(&run, NAME, Vec::new());
        match (there, wanted) {
            (Err(rustix::io::Errno::NOENT), true) => {
                rustix::fs::symlinkat(LINK, &run, NAME).io(what)?;
                let owner = (rustix::fs::Uid::from_raw(self.dirs.id_base), rustix::fs::Gid::from_raw(self.dirs.id_base));
                rustix::fs::chownat(&run, NAME, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW).io(what)
            }
            (Ok(to), false) if to.as_bytes() == LINK.as_bytes() => rustix::fs::unlinkat(&run, NAME, AtFlags::empty()).io(what),
            _ => Ok(()),
        }
    }

    /// After a start of the server: the sockets of containers that still run listen again, others are removed. `runs`: whether a container runs and is to have
    /// a socket.
    pub(crate) fn take_up(&self, runs: impl Fn(&ContainerId) -> bool) {
        let Some(dir) = &self.dir else { return };
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for id in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<ContainerId>().ok()) {
            let done = if runs(&id) { self.open(dir, &id).map(drop) } else { remove(dir, &id) };
            if let Err(e) = done {
                tracing::warn!(container = %id, error = %e, "a container's socket could not be opened again or removed");
            }
        }
    }

    /// The number of the socket that the container has now, for [`ApiSockets::close`].
    pub(crate) fn number(&self, id: &ContainerId) -> Option<u64> {
        self.state().open.get(id).map(|o| o.number)
    }

    /// Whether the container has one now.
    pub(crate) fn is_open(&self, id: &ContainerId) -> bool {
        self.number(id).is_some()
    }

    /// Closes the container's socket, if it still is the one with this number.
    pub(crate) fn close(&self, id: &ContainerId, number: u64) {
        let (Some(dir), mut state) = (&self.dir, self.state()) else { return };
        if state.open.get(id).is_none_or(|o| o.number != number) {
            return;
        }
        state.open.remove(id);
        if let Some(server) = &state.server {
            server.closed(id);
        }
        if let Err(e) = remove(dir, id) {
            tracing::warn!(container = %id, error = %e, "a container's socket could not be removed");
        }
    }
}

fn remove(dir: &Path, id: &ContainerId) -> Result<()> {
    let at = dir.join(id.as_str());
    match std::fs::remove_dir_all(&at) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).io(|| format!("remove {}", at.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl ApiServer for Seen {
        fn opened(&self, container: &ContainerId, _: UnixListener, root: u32) {
            self.0.lock().unwrap().push(format!("opened {container} {root}"));
        }
        fn closed(&self, container: &ContainerId) {
            self.0.lock().unwrap().push(format!("closed {container}"));
        }
    }

    #[test]
    fn a_socket_is_its_containers_and_a_new_server_puts_a_new_one_into_the_same_directory() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("api");
        let (id, stopped) = (ContainerId::generate(), ContainerId::generate());
        let sockets = ApiSockets::new(Some(dir.clone()), ContainerDirs { id_base: 100_000 });
        let mount = sockets.open(&dir, &id).unwrap();
        assert!(mount.read_only && mount.target == API_SOCKET);
        let socket = std::fs::metadata(dir.join(id.as_str()).join(NAME)).unwrap();
        assert!(socket.file_type().is_socket());
        assert_eq!((socket.mode() & 0o7777, socket.uid(), socket.gid()), (0o600, 100_000, 100_000));
        let inode = std::fs::metadata(dir.join(id.as_str())).unwrap().ino();
        let seen = Arc::new(Seen::default());
        sockets.serve(Some(seen.clone()));
        assert_eq!(*seen.0.lock().unwrap(), [format!("opened {id} 100000")], "what listened before there was a server");
        drop(sockets);
        // The server was killed, and another container has ended meanwhile.
        std::fs::create_dir(dir.join(stopped.as_str())).unwrap();
        let again = ApiSockets::new(Some(dir.clone()), ContainerDirs { id_base: 100_000 });
        again.take_up(|c| *c == id);
        assert_eq!(std::fs::metadata(dir.join(id.as_str())).unwrap().ino(), inode, "a running container has this directory mounted");
        assert!(std::os::unix::net::UnixStream::connect(dir.join(id.as_str()).join(NAME)).is_ok());
        assert!(!dir.join(stopped.as_str()).exists());
        // A start that came between is not undone by the end of the run before it.
        let number = again.number(&id).unwrap();
        again.open(&dir, &id).unwrap();
        again.close(&id, number);
        assert!(again.is_open(&id));
        again.close(&id, again.number(&id).unwrap());
        assert!(!again.is_open(&id) && !dir.join(id.as_str()).exists());
    }

    #[test]
    fn the_link_in_a_volume_is_made_and_removed_and_what_else_is_there_stays() {
        let root = tempfile::tempdir().unwrap();
        let sockets = ApiSockets::new(None, ContainerDirs { id_base: 100_000 });
        let at = root.path().join("run").join(NAME);
        let link = |wanted| sockets.put_link(wanted, root.path()).map(|()| std::fs::read_link(&at).ok().map(|l| l.display().to_string())).unwrap();
        assert_eq!(link(false), None);
        assert!(!root.path().join("run").exists(), "nothing is made where nothing is wanted");
        assert_eq!((link(true).as_deref(), link(true).as_deref()), (Some(LINK), Some(LINK)));
        assert_eq!(std::fs::symlink_metadata(&at).unwrap().uid(), 100_000);
        assert_eq!(link(false), None);
        std::os::unix::fs::symlink("/etc/passwd", &at).unwrap();
        assert_eq!((link(true).as_deref(), link(false).as_deref()), (Some("/etc/passwd"), Some("/etc/passwd")));
        // Nor is a link followed that the container has made of /run.
        std::fs::remove_dir_all(root.path().join("run")).unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("run")).unwrap();
        let _ = (link(true), link(false));
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
