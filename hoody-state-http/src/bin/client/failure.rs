//! A failure of a command: message, code and exit code.

use hoody_state::Code;
use serde_json::Value;
use std::fmt;

/// The result of a command or a part of it.
pub type Outcome<T = ()> = Result<T, Failure>;

pub use hoody_state_http::exit::client as exit;

/// A failure. Without a message nothing is printed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: u8,
    pub message: String,
    pub code: Option<String>,
}

impl Failure {
    pub fn new(exit: u8, message: impl Into<String>) -> Self {
        Failure { exit, message: message.into(), code: None }
    }

    pub fn other(message: impl Into<String>) -> Self {
        Self::new(exit::OTHER, message)
    }

    /// The failure that a server answered with this status and body.
    pub fn answered(status: u16, body: &[u8]) -> Self {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        let message = text("message").or_else(|| text("error")).unwrap_or_else(|| {
            let body: String = String::from_utf8_lossy(body).trim().chars().take(300).collect();
            format!("the server answered {status}{}{body}", if body.is_empty() { "" } else { ": " })
        });
        let listed = json.pointer("/data/conflicts").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let message = listed.iter().fold(message, |all, c| {
            let part = |key: &str| c.get(key).and_then(Value::as_str).unwrap_or_default().replace('_', " ");
            let path = c.get("path").and_then(Value::as_str).unwrap_or_default().escape_debug().to_string();
            format!("{all}\n  {path}: the fork {}, the target {}", part("fork"), part("target"))
        });
        Failure { exit: exit::of_status(status), message, code: text("code").or_else(|| text("error").filter(|e| !e.contains(' '))) }
    }
}

/// What the server's messages say in the API's words, in those of this program.
fn here(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::DiffNeedsWalk => "`diff --walk`",
        Code::DatabasesShared => "`--databases revert` or `--databases keep`",
        Code::AliasInUse => "`snapshot create --replace`",
        Code::PromoteConflicts => "`--prefer fork` or `--prefer target`",
        Code::SnapshotPinned => "`snapshot unpin`",
        Code::IsADirectory => "`--recursive`",
        _ => return None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let Some(code) = &self.code else { return Ok(()) };
        write!(f, " [{code}]")?;
        match code.parse().ok().and_then(here) {
            Some(words) => write!(f, "\n(here: {words})"),
            None => Ok(()),
        }
    }
}

impl From<std::io::Error> for Failure {
    /// Writing the output failed. If its reader has ended (`| head`), that is not reported.
    fn from(e: std::io::Error) -> Self {
        if e.kind() == std::io::ErrorKind::BrokenPipe { Failure::new(0, "") } else { Failure::other(format!("cannot write the output: {e}")) }
    }
}
