//! Errors.
//!
//! An [`Error`] has a [`Code`] (which rule was broken), a message (what failed, on what, why, what to do) and, where there is one, the source. The code says
//! what [`Kind`] of error it is, which is what a caller can do about it. All codes stand in one table.

mod code;
mod row;
mod table;

pub use code::UnknownCode;
pub use table::Code;

use std::fmt;

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The request is wrong as it stands; change it.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// The thing's present state forbids it; change the state first.
    Conflict,
    /// The name is taken.
    Exists,
    /// Another change of the same thing is under way; try again soon.
    Busy,
    /// The same idempotency key came with another request.
    KeyReused,
    /// Not enough space in the pool; nothing was changed.
    NoSpace,
    /// The caller may not do this.
    Denied,
    /// The request is larger than its limit.
    TooLarge,
    /// Something outside that this needs is not there (a runtime, a kernel feature, a device).
    Unavailable,
    /// It did not finish in time; what it began was undone unless the message says otherwise.
    Timeout,
    /// What is stored contradicts itself; run `check`.
    Corrupt,
    /// It was cancelled.
    Cancelled,
    /// A system call failed in a way that is nobody's fault here.
    Io,
    /// A bug of ours.
    Internal,
}

/// An error with everything a person or a program needs to act on it.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    message: String,
    data: Option<serde_json::Value>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with this code and a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { code, message: message.into(), data: None, source: None }))
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// A failed system call: what was tried, on what. ENOSPC and EDQUOT become [`Kind::NoSpace`].
    pub fn io(what: impl fmt::Display, source: impl Into<std::io::Error>) -> Self {
        let source = source.into();
        let code = match source.raw_os_error() {
            Some(nix::libc::ENOSPC) => Code::PoolFull,
            Some(nix::libc::EDQUOT) => Code::DiskLimitReached,
            _ => Code::Io,
        };
        Self::new(code, format!("{what}: {source}")).with_source(source)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error with machine-readable details.
    #[must_use]
    pub fn with_data(mut self, data: serde_json::Value) -> Self {
        self.0.data = Some(data);
        self
    }

    /// The same error, its message preceded by what was being done.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.code.kind()
    }

    /// Which rule was broken.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Machine-readable details.
    #[must_use]
    pub fn data(&self) -> Option<&serde_json::Value> {
        self.0.data.as_ref()
    }

    /// Whether this is a [`Kind::NotFound`].
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == Kind::NotFound
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}): {}", self.kind(), self.0.code, self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| &**s as _)
    }
}

/// Adds what was being done to a failed system call.
pub trait IoContext<T> {
    /// `what` is a phrase such as "open /pool/x".
    fn io<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn io<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Error::io(what(), e))
    }
}
