//! The control socket of the daemon `hoody-state-fuse`: one line of JSON a request, one a reply.

use super::status::Status;
use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No request or reply line is longer, in bytes.
pub const LONGEST_LINE: u64 = 16 << 20;

/// What can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Whether it lives and is mounted. Older daemons do not know this and answer `bad_request`.
    Ping {},
    /// Who holds and who waits.
    Status {},
    /// Serve a directory under a name.
    AddVolume {
        /// The name.
        volume: String,
        /// The directory.
        backing: PathBuf,
    },
    /// Serve it no longer.
    RemoveVolume {
        /// Which.
        volume: String,
    },
    /// Exchange the directory.
    Rebind {
        /// Which.
        volume: String,
        /// The new one.
        backing: PathBuf,
    },
    /// Hold writes until `release`, the end of the connection, or of the lease.
    Quiesce {
        /// Which; none for all.
        volumes: Vec<String>,
        /// How long to wait for writers, in milliseconds.
        timeout_ms: u64,
        /// How long to hold at most, in milliseconds.
        lease_ms: u64,
    },
    /// Let go of what this connection holds.
    Release {},
    /// Answer what these processes wait for.
    Park {
        /// Which.
        pids: Vec<i32>,
    },
    /// End the mount and the daemon.
    Unmount {},
    /// Asked of a daemon that was unmounted while files were open, by its successor: hold their writes until they are closed.
    Yield {},
}

impl Ask {
    /// How long an answer may take: longer than any daemon that runs needs. One that is stopped (SIGSTOP) or hangs must not hold up its clients for good.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        const SLACK: Duration = Duration::from_secs(2);
        match self {
            Ask::Ping {} | Ask::Status {} | Ask::Park { .. } | Ask::Release {} => SLACK,
            Ask::Quiesce { timeout_ms, .. } => Duration::from_millis(*timeout_ms).saturating_add(SLACK),
            // The kernel may have much to forget.
            Ask::AddVolume { .. } | Ask::RemoveVolume { .. } | Ask::Rebind { .. } => Duration::from_secs(10),
            Ask::Unmount {} | Ask::Yield {} => Duration::from_secs(15),
        }
    }
}

/// What may be the matter with a daemon that lives and does not answer.
const STOPPED: &str = "it is stopped or overloaded: continue it with `kill -CONT PID`, or end it with `kill -9 PID`, after which it is started again";

/// Connects without waiting for a daemon that accepts nobody.
fn connect_at_once(socket: &Path) -> std::io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(socket)?)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done; for `add_volume`, where it shows.
    Done {
        /// Where.
        path: Option<PathBuf>,
    },
    /// To `status`.
    Status(Box<Status>),
    /// To `release`: whether it was held to the end.
    Released {
        /// No lease had run out.
        #[serde(rename = "whole")]
        throughout: bool,
    },
    /// To `park`: how many waits ended.
    Parked {
        /// How many.
        count: usize,
    },
    /// It failed.
    Error {
        /// A stable word.
        code: String,
        /// What failed, why, what to do.
        message: String,
    },
}

/// Where a daemon that was unmounted while files were open still answers: its place is a successor's.
#[must_use]
pub fn left_socket(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

/// One connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// `databases_unavailable`: no daemon listens there, or it accepts no connections.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = connect_at_once(socket).map_err(|e| {
            let at = socket.display();
            let m = if is_silence(&e) {
                // The queue of a socket is full when its daemon accepts no connections.
                format!("the hoody-state-fuse at {at} accepts no connections: {STOPPED}")
            } else {
                format!("no hoody-state-fuse answers at {at} ({e}): start it with `hoody-state-fuse mount … --control {at}`")
            };
            Error::new(Code::DatabasesUnavailable, m).with_source(e)
        })?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// The connection itself, without a deadline: it ends with the daemon.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        let stream = self.stream.into_inner();
        // It fails only for a time of zero.
        let _ = stream.set_read_timeout(None);
        let _ = stream.set_write_timeout(None);
        stream
    }

    /// Whether a daemon answers that has not left its place; one too old to know `ping` is one.
    ///
    /// # Errors
    /// None does.
    pub fn ping(&mut self) -> Result<()> {
        match self.ask(&Ask::Ping {}) {
            Err(e) if e.code() != Code::BadRequest => Err(e),
            _ => Ok(()),
        }
    }

    /// Asks, and waits for the reply until the [deadline](Ask::deadline) of the question. After an error the connection is of no use.
    ///
    /// # Errors
    /// What the daemon answered; `databases_unavailable`: it ended, or did not answer in time.
    pub fn ask(&mut self, ask: &Ask) -> Result<Reply> {
        let deadline = ask.deadline();
        let gone = |e: std::io::Error| {
            let m =
                if is_silence(&e) { format!("hoody-state-fuse has not answered for {deadline:?}: {STOPPED}") } else { format!("hoody-state-fuse ended ({e})") };
            Error::new(Code::DatabasesUnavailable, m).with_source(e)
        };
        let stream = self.stream.get_ref();
        stream.set_write_timeout(Some(deadline)).and_then(|()| stream.set_read_timeout(Some(deadline))).map_err(gone)?;
        let mut line = serde_json::to_vec(ask).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(gone)?;
        let mut reply = String::new();
        self.stream.by_ref().take(LONGEST_LINE).read_line(&mut reply).map_err(gone)?;
        if reply.is_empty() {
            return Err(gone(std::io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&reply) {
            Ok(Reply::Error { code, message }) => Err(answered(&code, message)),
            Ok(reply) => Ok(reply),
            Err(e) => Err(Error::new(Code::Internal, format!("hoody-state-fuse answered what is not understood ({e}); are both of one version?"))),
        }
    }
}

/// The daemon's own error. A daemon of another version may answer with a word that this one does not know: its message is kept.
fn answered(word: &str, message: String) -> Error {
    Error::new(word.parse().unwrap_or(Code::DatabasesFailed), message)
}

/// Whether `error` means that a daemon is there but does not answer, because it is stopped or overloaded.
pub(super) fn does_not_answer(error: &Error) -> bool {
    std::error::Error::source(error).and_then(|s| s.downcast_ref()).is_some_and(is_silence)
}

fn is_silence(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
