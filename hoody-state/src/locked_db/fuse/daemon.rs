//! The daemon `hoody-state-fuse` as a host keeps it: found or started, watched, started again when it dies.
//!
//! It is a process of its own in a session of its own: databases go on while the server restarts, which then finds it by its socket. That it died is noticed
//! at once (the end of a connection), without looking again and again.

use super::FuseLockedDb;
use crate::error::{Code, Error, IoContext, Result};
use crate::locked_db::control::{Ask, Client, does_not_answer, left_socket};
use crate::locked_db::{LockedDb, Quiesced, RestartListener, Status};
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Where a daemon is and how it is started.
#[derive(Debug, Clone)]
pub struct DaemonConfig {
    /// The program `hoody-state-fuse`.
    pub program: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
    /// Where it mounts; made if need be.
    pub mountpoint: PathBuf,
    /// It may not keep processors awake. Of one that runs already nothing changes.
    pub save_power: bool,
    /// The group of the containers' root: nobody else but the host's root may reach the volumes. Of a daemon that runs already nothing changes.
    pub group: Option<u32>,
}

/// A [`LockedDb`] whose daemon is looked after.
pub struct FuseDaemon {
    config: DaemonConfig,
    client: FuseLockedDb,
    on_restart: OnceLock<RestartListener>,
    /// The connection whose end tells of the daemon's; nothing once this is closed.
    watched: Mutex<Option<UnixStream>>,
    /// Held while a daemon is being started again; `true` once this is closed.
    closed: Mutex<bool>,
    /// There was no daemon before.
    started: bool,
}

impl FuseDaemon {
    /// Takes up the daemon that answers at the socket, or starts one.
    ///
    /// # Errors
    /// `databases_unavailable`, with what it said.
    pub fn open(config: DaemonConfig) -> Result<Arc<Self>> {
        let started = ensure(&config)?;
        let client = FuseLockedDb::new(&config.socket, &config.mountpoint);
        let connection = connection(&config)?;
        let kept = connection.try_clone().io(|| "duplicate a socket")?;
        let daemon = Arc::new(FuseDaemon { config, client, on_restart: OnceLock::new(), watched: Mutex::new(Some(kept)), closed: Mutex::new(false), started });
        let weak = Arc::downgrade(&daemon);
        std::thread::Builder::new()
            .name("databases".into())
            .spawn(move || watch(&weak, connection))
            .io(|| "start the thread that watches the databases' daemon")?;
        Ok(daemon)
    }
}

impl Drop for FuseDaemon {
    fn drop(&mut self) {
        self.close();
    }
}

/// Ends the daemon that listens on `socket` and its mount, if there is one. Error: `databases_busy` when it does not end.
pub(super) fn take_down(socket: &Path, mountpoint: &Path) -> Result<()> {
    let old = left_socket(socket);
    // One that was unmounted before may not have ended yet.
    if let Ok(mut client) = Client::connect(socket).or_else(|_| Client::connect(&old)) {
        // One that was told before may end just now.
        if let Err(e) = client.ask(&Ask::Unmount {})
            && Client::connect(socket).is_ok()
        {
            return Err(e);
        }
        let mut end = BufReader::new(client.into_stream());
        let _ = end.get_mut().set_read_timeout(Some(Duration::from_secs(10)));
        let mut rest = String::new();
        if end.read_line(&mut rest).is_err() {
            return Err(Error::new(Code::DatabasesBusy, "the daemon of the databases does not end: end what uses them, then try again"));
        }
    }
    // What a daemon left that was killed: its mount answers nothing, but can be taken off.
    while crate::sys::mount::is_mounted(mountpoint) {
        let flags = nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW;
        nix::mount::umount2(mountpoint, flags).io(|| format!("unmount {}", mountpoint.display()))?;
    }
    let _ = std::fs::remove_file(socket);
    let _ = std::fs::remove_file(&old);
    let _ = std::fs::remove_dir(mountpoint);
    Ok(())
}

fn connection(config: &DaemonConfig) -> Result<UnixStream> {
    Ok(Client::connect(&config.socket)?.into_stream())
}

fn watch(daemon: &Weak<FuseDaemon>, mut connection: UnixStream) {
    let mut patience = Duration::ZERO;
    loop {
        let began = Instant::now();
        let mut end = String::new();
        let _ = BufReader::new(&connection).read_line(&mut end);
        let Some(daemon) = daemon.upgrade() else { return };
        if daemon.watched.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return;
        }
        tracing::error!("the databases' daemon has ended: it is started again");
        // One that dies again and again is given more and more time.
        patience =
            if began.elapsed() > Duration::from_secs(10) { Duration::ZERO } else { (patience * 2 + Duration::from_millis(50)).min(Duration::from_secs(10)) };
        connection = loop {
            std::thread::sleep(patience);
            let closed = daemon.closed.lock().unwrap_or_else(PoisonError::into_inner);
            if *closed {
                return;
            }
            match ensure(&daemon.config).and_then(|_| self::connection(&daemon.config)) {
                Ok(c) => break c,
                Err(e) => {
                    tracing::error!(error = %e, "the databases' daemon could not be started again; trying on");
                    patience = (patience * 2 + Duration::from_millis(50)).min(Duration::from_secs(10));
                }
            }
        };
        match connection.try_clone() {
            Ok(c) => *daemon.watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(c),
            Err(e) => tracing::warn!("cannot duplicate a socket: {e}"),
        }
        if let Some(f) = daemon.on_restart.get() {
            f();
        }
    }
}

/// Starts a daemon if none answers whose mount is there; whether it did. One that was unmounted while files were open lives on for those who have them
/// open, and serves nobody else.
fn ensure(config: &DaemonConfig) -> Result<bool> {
    match Client::connect(&config.socket).and_then(|mut c| c.ping()) {
        Ok(()) if crate::sys::mount::is_mounted(&config.mountpoint) => return Ok(false),
        // It lives: a second one could not take its place.
        Err(e) if does_not_answer(&e) => return Err(e),
        _ => {}
    }
    let unavailable = |m: String| Error::new(Code::DatabasesUnavailable, m);
    if !crate::sys::mount::is_mounted(&config.mountpoint) {
        std::fs::create_dir_all(&config.mountpoint).io(|| format!("make {}", config.mountpoint.display()))?;
    }
    let mut command = Command::new(&config.program);
    command.args(["mount", "-"]).arg(&config.mountpoint).arg("--control").arg(&config.socket).arg("--foreground");
    if config.save_power {
        command.arg("--save-power");
    }
    if let Some(gid) = config.group {
        command.arg("--group").arg(gid.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).current_dir("/");
    crate::sys::process::enter_before_exec(&mut command, Vec::new());
    let mut child = command.spawn().map_err(|e| {
        unavailable(format!(
            "{} cannot be run ({e}): install hoody-state-fuse beside the server, name it, or serve without databases",
            config.program.display()
        ))
    })?;
    let mut said = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = BufReader::new(out).read_line(&mut said);
    }
    if said.is_empty() {
        let status = child.wait().io(|| "wait for the databases' daemon")?;
        return Err(unavailable(format!("{} ended at once ({status}); it has said why in the log", config.program.display())));
    }
    // Reaped when it ends, if this process lives so long.
    let reap = std::thread::Builder::new().name("daemon".into()).spawn(move || child.wait().map(drop));
    if let Err(e) = reap {
        tracing::warn!("nobody waits for the databases' daemon: {e}");
    }
    Ok(true)
}

impl LockedDb for FuseDaemon {
    fn path(&self, volume: &str) -> PathBuf {
        self.client.path(volume)
    }

    fn add_volume(&self, volume: &str, backing: &Path) -> Result<PathBuf> {
        self.client.add_volume(volume, backing)
    }

    fn remove_volume(&self, volume: &str) -> Result<()> {
        self.client.remove_volume(volume)
    }

    fn rebind(&self, volume: &str, backing: &Path) -> Result<()> {
        self.client.rebind(volume, backing)
    }

    fn quiesce(&self, volumes: &[&str], timeout: Duration, lease: Duration) -> Result<Box<dyn Quiesced>> {
        self.client.quiesce(volumes, timeout, lease)
    }

    fn restore_database(&self, volume: &str, from: &Path, to: &Path) -> Result<()> {
        self.client.restore_database(volume, from, to)
    }

    fn park(&self, pids: &[i32]) -> Result<usize> {
        self.client.park(pids)
    }

    fn status(&self) -> Result<Status> {
        self.client.status()
    }

    fn is_new_session(&self) -> bool {
        self.started
    }

    fn set_restart_listener(&self, listener: RestartListener) {
        if self.on_restart.set(listener).is_err() {
            tracing::warn!("the restart listener was set twice; the first stays");
        }
    }

    fn take_down(&self) -> Result<()> {
        self.close();
        self.client.take_down()
    }

    fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(s) = self.watched.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = s.shutdown(std::net::Shutdown::Both);
        }
    }
}
