//! The supervisor: a process that restarts the daemon when it dies, and keeps the locks that users of the mount held.
//!
//! When the daemon dies, programs with an open database can no longer look up names or lock, but with passthrough they can still read and write what they
//! have open. A program in the middle of a write transaction may still finish it. So this process, which has the same open files as the daemon, keeps the
//! locks on the backing files until nobody has the file open through the dead mount. Until then users of the new mount wait for them, as they do for
//! programs that use the backing directory directly.

use super::{Result, log};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair};
use std::collections::HashMap;
use std::fs::{File, read_link};
use std::io::{BufRead as _, BufReader, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Pauses between restarts, when the daemon dies repeatedly.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A daemon that ran for this long did not fail at its start: the next pause is the first one again.
const STABLE: Duration = Duration::from_secs(10);
/// How often the open files of a dead mount are checked.
const POLL: Duration = Duration::from_millis(200);

/// Files on which users hold locks, by device and inode.
type Kept = HashMap<[u8; 16], OwnedFd>;

/// A running daemon.
struct Running {
    child: Child,
    report: String,
    kept: std::thread::JoinHandle<Kept>,
}

/// Starts a daemon and waits until it reports that it is mounted. `None`: it failed, and the reason is in the log.
fn start(again: bool) -> Result<Option<Running>> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--kept")
        .args(again.then_some("--again"))
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .spawn()?;
    let kept = std::thread::Builder::new().name("keeper".into()).spawn(move || keep(&ours))?;
    let mut report = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut report)?;
    }
    if report.is_empty() {
        child.wait()?;
        return Ok(None);
    }
    Ok(Some(Running { child, report, kept }))
}

/// Receives the files on which locks are held, until the daemon has ended.
fn keep(from: &OwnedFd) -> Kept {
    let mut kept = Kept::new();
    loop {
        let (mut inode, mut space) = ([0; 16], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut with = RecvAncillaryBuffer::new(&mut space);
        match recvmsg(from, &mut [IoSliceMut::new(&mut inode)], &mut with, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(message) if message.bytes == inode.len() => {}
            _ => return kept,
        }
        let file = with.drain().find_map(|m| if let RecvAncillaryMessage::ScmRights(mut files) = m { files.next() } else { None });
        match file {
            Some(file) => kept.insert(inode, file),
            None => kept.remove(&inode),
        };
    }
}

/// Runs the daemon, again whenever it dies, until it is unmounted.
pub(crate) fn run(backing: &Path, mountpoint: &Path, detached: Option<Option<File>>) -> Result<ExitCode> {
    let mut signals = SigSet::empty();
    for s in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(s);
    }
    signals.thread_block()?;
    let Some(mut running) = start(false)? else { return Ok(ExitCode::FAILURE) };
    write!(std::io::stdout(), "{}", running.report)?;
    std::io::stdout().flush()?;
    if let Some(file) = detached {
        log::detach_from_caller(file)?;
    }
    nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    let (pid, ends) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicBool::new(false)));
    let (to, ending) = (pid.clone(), ends.clone());
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while signals.wait().is_ok() {
            ending.store(true, Ordering::SeqCst);
            let _ = kill(Pid::from_raw(to.load(Ordering::SeqCst)), Signal::SIGTERM);
        }
    })?;
    let (real, at) = (backing.canonicalize().unwrap_or_else(|_| backing.to_owned()), mountpoint.canonicalize()?);
    let mut pause = FIRST_PAUSE;
    loop {
        pid.store(i32::try_from(running.child.id())?, Ordering::SeqCst);
        let (began, mount) = (Instant::now(), mount_id(&at));
        let status = running.child.wait()?;
        if status.success() || ends.load(Ordering::SeqCst) {
            return Ok(ExitCode::SUCCESS);
        }
        tracing::error!("the daemon of {} died ({status}): restarting it", at.display());
        let kept = running.kept.join().unwrap_or_default();
        release_when_closed(kept, &real, &at, mount);
        if began.elapsed() > STABLE {
            pause = FIRST_PAUSE;
        }
        running = loop {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            if ends.load(Ordering::SeqCst) {
                return Ok(ExitCode::FAILURE);
            }
            match start(true) {
                Ok(Some(running)) => break running,
                Ok(None) => tracing::error!("{} could not be mounted again; retrying", at.display()),
                Err(e) => tracing::error!("{} could not be mounted again ({e}); retrying", at.display()),
            }
        };
    }
}

/// The id of the mount on a path.
fn mount_id(at: &Path) -> Option<String> {
    Some(hoody_state::mountinfo::topmost(at).ok()??.id.to_string())
}

/// Keeps locks until nobody has the file open through the dead mount.
fn release_when_closed(mut kept: Kept, backing: &Path, mountpoint: &Path, mount: Option<String>) {
    let Some(mount) = mount else { return };
    let (backing, mountpoint) = (backing.to_owned(), mountpoint.to_owned());
    let spawned = std::thread::Builder::new().name("dead-mount".into()).spawn(move || {
        while !kept.is_empty() {
            let open = open_on(&mountpoint, &mount);
            kept.retain(|_, file| {
                let path = read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
                path.strip_prefix(&backing).is_ok_and(|name| open.iter().any(|o| o == name))
            });
            std::thread::sleep(POLL);
        }
    });
    if let Err(e) = spawned {
        tracing::warn!("the locks of users of the dead mount are released: {e}");
    }
}

/// The files that processes have open on a mount, by their paths below it. Of a mount that was detached, the kernel shows paths relative to its root.
fn open_on(mountpoint: &Path, mount: &str) -> Vec<PathBuf> {
    let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_process = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
    let mut open = Vec::new();
    for process in entries("/proc".into()).filter(is_process) {
        for descriptor in entries(process.path().join("fd")) {
            let Ok(to) = read_link(descriptor.path()) else { continue };
            let Ok(name) = to.strip_prefix(mountpoint).or_else(|_| to.strip_prefix("/")) else { continue };
            let info = std::fs::read_to_string(process.path().join("fdinfo").join(descriptor.file_name())).unwrap_or_default();
            let on = info.lines().find_map(|l| l.strip_prefix("mnt_id:")).map(str::trim);
            if on == Some(mount) {
                open.push(name.to_owned());
            }
        }
    }
    open
}
