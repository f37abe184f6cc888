//! The one place where errors become HTTP statuses.
//!
//! The status of an error follows from its [`Code`]: from the code itself where `by_code` lists it, else from its [`Kind`]. `code` in an answer is the word
//! of the code, in lower case. `error` is the phrase of the status, except for the codes that the wire contract marks: those carry the published machine word.
//! The published clients show `message` and give `code` to programs.
//!
//! An answer with status 500 does not show the inner message: that goes to the log.

use axum::http::StatusCode;
use hoody_state::{Code, Error, Kind};

/// What an error looks like in an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The status.
    pub status: StatusCode,
    /// The published machine word; `None`: the status phrase.
    pub word: Option<&'static str>,
    /// The code.
    pub code: Code,
    /// The message to show.
    pub message: String,
}

/// The codes that the API document lists, by status, and in the order of their table within a status.
#[must_use]
pub fn documented() -> Vec<Code> {
    let mut codes: Vec<Code> = Code::ALL.iter().copied().filter(|c| c.in_api()).collect();
    codes.sort_by_key(|c| status(*c));
    codes
}

/// The status of a code.
#[must_use]
pub fn status(code: Code) -> u16 {
    by_code(code).unwrap_or_else(|| by_kind(code.kind()))
}

/// The codes whose status is not that of their kind.
fn by_code(code: Code) -> Option<u16> {
    Some(match code {
        Code::MissingToken | Code::InvalidToken | Code::InvalidCredentials => 401,
        Code::MethodNotAllowed => 405,
        Code::RequestTimeout => 408,
        Code::PreconditionFailed => 412,
        Code::RangeNotSatisfiable => 416,
        Code::AddressLimit | Code::RateLimited => 429,
        Code::StartFailed | Code::PeerUnreachable | Code::PeerRefused | Code::PeerFailed | Code::TransferCut | Code::StreamCorrupt | Code::StreamRefused => 502,
        _ => return None,
    })
}

fn by_kind(kind: Kind) -> u16 {
    match kind {
        Kind::Invalid => 400,
        Kind::Denied => 403,
        Kind::NotFound => 404,
        Kind::Conflict | Kind::Exists | Kind::Busy | Kind::Cancelled => 409,
        Kind::TooLarge => 413,
        Kind::KeyReused => 422,
        Kind::Unavailable => 503,
        Kind::Timeout => 504,
        Kind::NoSpace => 507,
        _ => 500,
    }
}

/// The published machine word of a code, for those that have one.
#[must_use]
pub fn word(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::ValidationError | Code::NotAReceiver => "VALIDATION_ERROR",
        Code::ContainerSnapshotLimit => "CONTAINER_SNAPSHOT_LIMIT",
        Code::OperationInProgress => "CONTAINER_OPERATION_IN_PROGRESS",
        Code::SnapshotOperationInProgress => "SNAPSHOT_OPERATION_IN_PROGRESS",
        Code::StartFailed => "CONTAINER_HOST_COMMAND_FAILED",
        _ if status(code) == 504 => "CONTAINER_HOST_TIMEOUT",
        _ => return None,
    })
}

/// What `error` looks like in an answer; `on_snapshot`: to a request about snapshots.
#[must_use]
pub fn map(error: &Error, on_snapshot: bool) -> Mapped {
    let code = match error.code() {
        Code::OperationInProgress if on_snapshot => Code::SnapshotOperationInProgress,
        code => code,
    };
    let status = StatusCode::from_u16(status(code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(%code, error = %error.message(), source = ?std::error::Error::source(error), "a request failed");
    }
    Mapped { status, word: word(code), code, message: outer_message(error) }
}

/// After how many seconds the client should try again; `None` if trying again does not help by itself.
#[must_use]
pub fn retry_after(error: &Error) -> Option<u32> {
    if error.code() == Code::RateLimited {
        let seconds = error.data().and_then(|d| d["retry_after"].as_u64()).and_then(|s| u32::try_from(s).ok());
        return Some(seconds.unwrap_or(1).max(1));
    }
    let limited = matches!(
        error.code(),
        Code::AddressLimit
            | Code::ServerBusy
            | Code::TooManyConnections
            | Code::ExecLimit
            | Code::UploadLimit
            | Code::WaitLimit
            | Code::StreamLimit
            | Code::SessionLimit
            | Code::TooManyStreams
    );
    (error.kind() == Kind::Busy || limited).then_some(1)
}

/// The message to show.
#[must_use]
pub fn outer_message(error: &Error) -> String {
    match error.kind() {
        Kind::Io | Kind::Internal => FAULT.to_owned(),
        Kind::Corrupt if status(error.code()) == 500 => FAULT.to_owned(),
        // A system call that found no space: its message names a file of the host.
        Kind::NoSpace if error.code() == Code::DiskLimitReached => LIMIT.to_owned(),
        Kind::NoSpace if std::error::Error::source(error).is_some_and(|s| s.is::<std::io::Error>()) => FULL.to_owned(),
        _ => error.message().to_owned(),
    }
}

const FAULT: &str = "the server failed to do this; its log says why";
const LIMIT: &str = "the disk limit of the container or of its project is reached: delete something in it, or raise the limit";
const FULL: &str = "the pool is full: delete snapshots or containers, or grow the pool";

/// The message to show of an error that is known by the word of its code alone: that of an operation that has ended.
#[must_use]
pub fn outer_text(word: &str, message: String) -> String {
    match word.parse() {
        Ok(Code::Interrupted) => message,
        Ok(Code::DiskLimitReached) => LIMIT.to_owned(),
        Ok(code) if status(code) == 507 => FULL.to_owned(),
        Ok(code) if code.in_api() && status(code) != 500 => message,
        _ => FAULT.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_status() {
        for (code, want) in [
            (Code::BadPath, 400),
            (Code::NotRoot, 403),
            (Code::VolumeNotFound, 404),
            (Code::NotRunning, 409),
            (Code::VolumeExists, 409),
            (Code::VolumeInUse, 409),
            (Code::ExecCancelled, 409),
            (Code::ImageTooLarge, 413),
            (Code::IdempotencyKeyReused, 422),
            (Code::Internal, 500),
            (Code::Io, 500),
            (Code::NotAVolume, 500),
            (Code::NoTransport, 503),
            (Code::KillTimeout, 504),
            (Code::PoolFull, 507),
        ] {
            assert_eq!(map(&Error::new(code, "x"), false).status.as_u16(), want, "{code:?}");
        }
    }

    #[test]
    fn documented_codes_are_sorted_by_status() {
        let all = documented();
        assert!(all.is_sorted_by_key(|c| status(*c)));
        assert!(all.contains(&Code::SnapshotNotFound) && !all.contains(&Code::MkfsNotFound));
    }

    #[test]
    fn busy_has_another_word_on_snapshots_and_status_500_hides_the_message() {
        let busy = Error::new(Code::OperationInProgress, "x");
        assert_eq!(map(&busy, false).word, Some("CONTAINER_OPERATION_IN_PROGRESS"));
        assert_eq!(map(&busy, true).word, Some("SNAPSHOT_OPERATION_IN_PROGRESS"));
        assert!(!map(&Error::internal("secret path /x"), false).message.contains("secret"));
        let full = Error::io("write /secret", std::io::Error::from_raw_os_error(28));
        assert_eq!((full.kind(), outer_message(&full).contains("secret")), (Kind::NoSpace, false));
        for code in ["io", "internal", "pool_full", "not_listed"] {
            assert!(!outer_text(code, "write /secret".into()).contains("secret"), "{code}");
        }
        assert_eq!(outer_text("start_failed", "no such program".into()), "no such program");
    }
}
