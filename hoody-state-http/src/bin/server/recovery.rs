//! A server whose pool the kernel has made read-only starts anew when the pool can be mounted anew: it replaces itself by `exec`, under the same process id.

use hoody_state::host::Host;
use hoody_state::{Error, Result};
use std::os::unix::process::CommandExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// When the server last did so, in seconds since 1970; for the server that it became.
const LAST: &str = "HOODY_STATE_REMOUNTED_AT";
/// A pool that becomes read-only again has another trouble than a full disk: its containers are not ended again and again.
const PAUSE: Duration = Duration::from_secs(600);

/// Waits for a read-only pool that can be mounted anew.
pub struct Recovery(watch::Receiver<bool>);

impl Recovery {
    pub fn watch(host: &Host) -> Self {
        let (due, seen) = watch::channel(false);
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
        Recovery(seen)
    }

    /// Returns when it is time.
    pub async fn due(&self) {
        if self.0.clone().wait_for(|due| *due).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub fn is_due(&self) -> bool {
        *self.0.borrow()
    }

    /// Becomes a new server with the same arguments. Returns only if that fails.
    pub fn start_anew(&self) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let failed = std::process::Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).env(LAST, now.to_string()).exec();
        Err(Error::io("start the server anew", failed))
    }
}

/// How long ago this process, as the server it was before, mounted its pool anew.
fn since_last() -> Duration {
    let last = std::env::var(LAST).ok().and_then(|t| t.parse().ok()).map(Duration::from_secs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    last.map_or(Duration::MAX, |l| now.saturating_sub(l))
}
