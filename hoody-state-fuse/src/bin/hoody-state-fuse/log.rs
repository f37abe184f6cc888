//! Where the log goes: standard error, until a daemon in the background has said that it is mounted; then its caller's streams are let go of.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use tracing_subscriber::fmt::MakeWriter;

/// Where a system takes log lines.
const SYSTEM: &str = "/dev/log";
/// `daemon.info`, as `syslog(3)` has it.
const PRIORITY: u8 = 3 << 3 | 6;

enum Elsewhere {
    File(Mutex<File>),
    System(UnixDatagram),
    Nowhere,
}

static ELSEWHERE: OnceLock<Elsewhere> = OnceLock::new();

/// Writes each line to where the log goes now.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match ELSEWHERE.get() {
            None => io::stderr().write_all(line)?,
            Some(Elsewhere::File(file)) => file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(line)?,
            // A log that takes nothing just now holds nobody up.
            Some(Elsewhere::System(socket)) => {
                let mut message = format!("<{PRIORITY}>hoody-state-fuse[{}]: ", std::process::id()).into_bytes();
                message.extend_from_slice(line.trim_ascii_end());
                let _ = socket.send(&message);
            }
            Some(Elsewhere::Nowhere) => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        Log
    }
}

/// A file for the log, opened before anybody depends on it.
pub(crate) fn open(file: &Path) -> Result<File, String> {
    File::options().append(true).create(true).open(file).map_err(|e| format!("the log {} cannot be opened: {e}", file.display()))
}

/// From now on the log goes to a file, or to the system's log if there is one, and nothing of the caller's streams stays open.
pub(crate) fn leave_the_caller(file: Option<File>) -> io::Result<()> {
    let system = || {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSTEM)?;
        socket.set_nonblocking(true)?;
        io::Result::Ok(socket)
    };
    let to = match file {
        Some(file) => Elsewhere::File(Mutex::new(file)),
        None => system().map_or(Elsewhere::Nowhere, Elsewhere::System),
    };
    let _ = ELSEWHERE.set(to);
    nix::unistd::dup2_stderr(File::options().write(true).open("/dev/null")?)?;
    Ok(())
}
