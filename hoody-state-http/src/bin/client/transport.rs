//! Connections for ureq: TCP without proxies, and UNIX sockets.
//!
//! A server that refuses an upload answers and closes the connection before it has read everything. So an upload ends as soon as there is an answer, and a
//! broken pipe is not an error here: it ends the upload, and the answer is read.

use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Set once the server has stopped reading.
pub type Broken = Arc<AtomicBool>;

/// Connects to the socket, else to the address of the request.
#[derive(Debug)]
pub struct Dial {
    pub socket: Option<PathBuf>,
    pub broken: Broken,
}

impl Connector for Dial {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails, _chained: Option<()>) -> Result<Option<Connection>, Error> {
        self.broken.store(false, Ordering::Relaxed);
        let stream = match &self.socket {
            Some(path) => Stream::Unix(UnixStream::connect(path)?),
            None => {
                let mut error = Error::HostNotFound;
                let mut connected = None;
                for addr in details.addrs.iter() {
                    match TcpStream::connect_timeout(addr, CONNECT_TIME) {
                        Ok(s) => {
                            connected = Some(s);
                            break;
                        }
                        Err(e) => error = e.into(),
                    }
                }
                let stream = connected.ok_or(error)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        };
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        // With TLS, input may be something else than an answer.
        let plain = details.uri.scheme_str() == Some("http");
        Ok(Some(Connection { stream, buffers, plain, broken: self.broken.clone() }))
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_timeouts(&self, read: bool, limit: Option<Duration>) -> std::io::Result<()> {
        match (self, read) {
            (Stream::Tcp(s), true) => s.set_read_timeout(limit),
            (Stream::Tcp(s), false) => s.set_write_timeout(limit),
            (Stream::Unix(s), true) => s.set_read_timeout(limit),
            (Stream::Unix(s), false) => s.set_write_timeout(limit),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = match self {
                Stream::Tcp(s) => s.read(buffer),
                Stream::Unix(s) => s.read(buffer),
            };
            match read {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Whether the server has answered or closed the connection before the request was complete.
    fn has_input(&self) -> bool {
        let fd = match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
        };
        nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|n| n > 0)
    }

    fn write_all(&mut self, data: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Tcp(s) => s.write_all(data),
            Stream::Unix(s) => s.write_all(data),
        }
    }
}

/// A connection for one call.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffers: LazyBuffers,
    plain: bool,
    broken: Broken,
}

fn timed_out(e: std::io::Error, timeout: &NextTimeout) -> Error {
    match e.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Error::Timeout(timeout.reason),
        _ => e.into(),
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.plain && self.stream.has_input() {
            self.broken.store(true, Ordering::Relaxed);
            return Ok(());
        }
        self.stream.set_timeouts(false, timeout.not_zero().map(|t| *t))?;
        match self.stream.write_all(&self.buffers.output()[..amount]) {
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.broken.store(true, Ordering::Relaxed);
                Ok(())
            }
            written => written.map_err(|e| timed_out(e, &timeout)),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // On a broken connection this may fail with EINVAL; reading shows the outcome.
        let _ = self.stream.set_timeouts(true, timeout.not_zero().map(|t| *t));
        let amount = self.stream.read(self.buffers.input_append_buf()).map_err(|e| timed_out(e, &timeout))?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // One connection for each call, so that none becomes stale between the polls of a long wait.
        false
    }
}

/// The body of an upload. Once the server has stopped reading, it ends at once; if a length was announced, the rest is filled with bytes that nobody reads.
pub struct Upload<'a> {
    pub inner: &'a mut dyn Read,
    /// How much of the announced length is still to be sent.
    pub left: Option<u64>,
    pub broken: Broken,
}

impl Read for Upload<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // Of a file that has grown, only the announced length is sent.
        let most = self.left.map_or(buffer.len(), |left| usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len()));
        if self.broken.load(Ordering::Relaxed) {
            let filled = if self.left.is_some() { most } else { 0 };
            self.left = self.left.map(|left| left - filled as u64);
            return Ok(filled);
        }
        let n = self.inner.read(&mut buffer[..most])?;
        if n == 0 && most > 0 && self.left.is_some() {
            return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
        }
        self.left = self.left.map(|left| left - n as u64);
        Ok(n)
    }
}
