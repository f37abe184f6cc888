//! When the kernel has made the pool read-only and it can be mounted again, the server restarts: it replaces itself by `exec`, with the same process id.

use hoody_state::host::Host;
use hoody_state::{Error, Result};
use std::os::unix::process::CommandExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The environment variable that tells the new server when the last restart was, in seconds since 1970.
const LAST: &str = "HOODY_STATE_REMOUNTED_AT";
/// The least time between two restarts. A pool that becomes read-only again soon has another problem than a full disk, and each restart ends its containers.
const PAUSE: Duration = Duration::from_secs(600);

/// Waits until a read-only pool can be mounted again.
pub struct Recovery(watch::Receiver<bool>);

impl Recovery {
    pub fn watch(host: &Host) -> Self {
        let (due, is_due) = watch::channel(false);
        let again = move || {
            let _ = due.send(true);
        };
        let (host, wait) = (host.clone(), PAUSE.saturating_sub(since_last()));
        if wait.is_zero() {
            host.on_recoverable(Box::new(again));
        } else {
            // Ends with the process.
            let later = move || {
                std::thread::sleep(wait);
                host.on_recoverable(Box::new(again));
            };
            drop(std::thread::Builder::new().name("recovery".into()).spawn(later));
        }
        Recovery(is_due)
    }

    /// Returns when the server must restart.
    pub async fn due(&self) {
        if self.0.clone().wait_for(|due| *due).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub fn is_due(&self) -> bool {
        *self.0.borrow()
    }

    /// Replaces this process by a new server with the same arguments. Returns only if that fails.
    pub fn restart(&self) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let failed = std::process::Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).env(LAST, now.to_string()).exec();
        Err(Error::io("restart the server", failed))
    }
}

/// The time since the last restart of this kind.
fn since_last() -> Duration {
    let last = std::env::var(LAST).ok().and_then(|t| t.parse().ok()).map(Duration::from_secs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    last.map_or(Duration::MAX, |l| now.saturating_sub(l))
}
