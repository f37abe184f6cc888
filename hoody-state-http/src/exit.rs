//! Exit codes of the two programs. Both follow from the error's [`Code`].

use hoody_state::{Code, Kind};

/// Exit codes of the client, `hoody-state`. They follow from the HTTP status of the answer.
pub mod client {
    use crate::error_map;
    use hoody_state::Code;

    /// Any error without a number of its own.
    pub const OTHER: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// The thing does not exist.
    pub const NOT_FOUND: u8 = 3;
    /// The state of the thing forbids it, or something else is running.
    pub const CONFLICT: u8 = 4;
    /// The token does not allow it.
    pub const DENIED: u8 = 5;
    /// There is no space.
    pub const NO_SPACE: u8 = 6;
    /// The server cannot be reached.
    pub const UNREACHABLE: u8 = 7;
    /// The server calls the request invalid.
    pub const INVALID: u8 = 8;

    /// For an answer with this status.
    #[must_use]
    pub fn of_status(status: u16) -> u8 {
        match status {
            404 => NOT_FOUND,
            409 | 423 | 425 | 429 => CONFLICT,
            401 | 403 => DENIED,
            507 => NO_SPACE,
            400..=499 => INVALID,
            _ => OTHER,
        }
    }

    /// For an error with this code.
    #[must_use]
    pub fn of(code: Code) -> u8 {
        of_status(error_map::status(code))
    }
}

/// The exit code of the server's program, `hoody-state-http`, for an error with this code. 2 is also clap's, for a wrong command line; 1 also means that `check`
/// has findings.
#[must_use]
pub fn server(code: Code) -> u8 {
    match code.kind() {
        Kind::Invalid => 2,
        Kind::Busy | Kind::Exists | Kind::Conflict => 3,
        Kind::Denied => 4,
        Kind::Unavailable => 5,
        Kind::NotFound => 6,
        Kind::NoSpace => 7,
        _ => 1,
    }
}
