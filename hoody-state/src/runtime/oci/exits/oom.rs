//! Lack of memory in containers that run: the kernel notifies, so nothing is polled.

use super::{Shared, Watcher};
use crate::cgroup::OomSource;
use crate::id::ContainerId;
use crate::runtime::OomListener;
use nix::sys::epoll::EpollEvent;

/// What notifies of one container.
pub(super) struct OomWatch {
    pub container: ContainerId,
    source: OomSource,
}

impl Watcher {
    pub fn set_oom_listener(&self, listener: OomListener) {
        if self.shared.oom_listener.set(listener).is_err() {
            tracing::warn!("the listener for lack of memory was set twice; the first stays");
        }
    }

    /// Reports lack of memory in a container from now on, where the kernel notifies of it. Does nothing if it is watched already.
    pub(super) fn watch_memory(&self, container: &ContainerId) {
        if let Err(e) = self.shared.try_watch_memory(container) {
            tracing::warn!(%container, error = %e, "lack of memory is noticed only when its init ends");
        }
    }
}

impl Shared {
    fn try_watch_memory(&self, container: &ContainerId) -> std::io::Result<()> {
        let mut inner = self.lock();
        if inner.memory.values().any(|w| w.container == *container) {
            return Ok(());
        }
        let Some(source) = self.cgroups.oom_source(container)? else { return Ok(()) };
        inner.last_token += 1;
        let token = inner.last_token;
        self.epoll.add(source.fd(), EpollEvent::new(source.flags(), token))?;
        inner.memory.insert(token, OomWatch { container: container.clone(), source });
        Ok(())
    }

    /// The kernel has notified; whether this token is of a container's memory.
    pub(super) fn memory_ready(&self, token: u64) -> bool {
        let mut inner = self.lock();
        let Some(watch) = inner.memory.get_mut(&token) else { return false };
        let container = watch.container.clone();
        let killed = watch.source.take();
        if killed.is_none() {
            self.drop_memory(&mut inner.memory, |w| w.container == container);
        }
        drop(inner);
        if let (Some(true), Some(listener)) = (killed, self.oom_listener.get()) {
            listener(&container);
        }
        true
    }

    /// Its container has ended.
    pub(super) fn drop_memory(&self, memory: &mut std::collections::HashMap<u64, OomWatch>, gone: impl Fn(&OomWatch) -> bool) {
        memory.retain(|_, w| {
            let keep = !gone(w);
            if !keep {
                let _ = self.epoll.delete(w.source.fd());
            }
            keep
        });
    }
}
