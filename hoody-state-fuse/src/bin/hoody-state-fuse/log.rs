//! Where the log goes: to standard error; once a daemon in the background is mounted, to a file or to the system log.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use tracing_subscriber::fmt::MakeWriter;

/// The socket of the system log.
const SYSTEM: &str = "/dev/log";
/// `daemon.info`, as defined by `syslog(3)`.
const PRIORITY: u8 = 3 << 3 | 6;

enum Target {
    File(Mutex<File>),
    System(UnixDatagram),
    Discard,
}

static TARGET: OnceLock<Target> = OnceLock::new();

/// Writes each line to where the log goes now.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match TARGET.get() {
            None => io::stderr().write_all(line)?,
            Some(Target::File(file)) => file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(line)?,
            // If the log does not accept the line now, it is dropped: nothing waits for it.
            Some(Target::System(socket)) => {
                let mut message = format!("<{PRIORITY}>hoody-state-fuse[{}]: ", std::process::id()).into_bytes();
                message.extend_from_slice(line.trim_ascii_end());
                let _ = socket.send(&message);
            }
            Some(Target::Discard) => {}
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

/// Opens the log file, before anything is mounted.
pub(crate) fn open(file: &Path) -> Result<File, String> {
    File::options().append(true).create(true).open(file).map_err(|e| format!("the log {} cannot be opened: {e}", file.display()))
}

/// Sends the log to a file, else to the system log if there is one, and closes standard error, which is the caller's.
pub(crate) fn detach_from_caller(file: Option<File>) -> io::Result<()> {
    let system = || {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSTEM)?;
        socket.set_nonblocking(true)?;
        io::Result::Ok(socket)
    };
    let to = match file {
        Some(file) => Target::File(Mutex::new(file)),
        None => system().map_or(Target::Discard, Target::System),
    };
    let _ = TARGET.set(to);
    nix::unistd::dup2_stderr(File::options().write(true).open("/dev/null")?)?;
    Ok(())
}
