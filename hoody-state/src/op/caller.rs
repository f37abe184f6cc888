use crate::catalog::idempotency::IdempotencyKey;
use std::time::Duration;

/// How long a change waits for a short one before it, unless its caller says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Who asks, and how.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Goes into the status log: `user`.
    pub by: String,
    /// Who that is in the history, if it is more than `by` says: the name of a token, or `root`.
    pub author: Option<String>,
    /// Whether a process of the container itself asks, by its socket. Then it changes only snapshots that it made that way, and its forks have no socket.
    pub inside: bool,
    /// How long to hold the answer of work that may outlast it; the work continues in the background.
    pub wait: Duration,
    /// How long a change may wait for a short one of the same thing that came before it; zero: it is refused at once. Default: 10 s.
    pub patience: Duration,
    /// The same key and request gives the first answer again.
    pub idempotency: Option<IdempotencyKey>,
}

impl Default for Caller {
    fn default() -> Self {
        Caller { by: "user".into(), author: None, inside: false, wait: Duration::from_secs(60), patience: PATIENCE, idempotency: None }
    }
}

impl Caller {
    /// Who asks, as the history names it.
    pub(crate) fn author(&self) -> &str {
        self.author.as_deref().unwrap_or(&self.by)
    }
}
