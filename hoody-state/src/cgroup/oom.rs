//! Counts the processes that the kernel killed because a container's memory was used up, and notices when it does.

use super::tree::{CgroupTree, children};
use crate::id::ContainerId;
use nix::sys::epoll::EpollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

impl CgroupTree {
    /// How many processes of the container the kernel has killed for lack of memory since its group was made. 0 where the kernel does not count them.
    #[must_use]
    pub fn killed_for_memory(&self, container: &ContainerId) -> u64 {
        if let Some(dir) = self.v2_dir(container).filter(|_| self.layout().v2_has("memory")) {
            // Includes kills in groups below it.
            return counted(&dir.join("memory.events"));
        }
        // v1 counts only in the group of the process itself, not above.
        self.v1_dir("memory", container).map_or(0, |dir| {
            let below = children(&dir).unwrap_or_default();
            below.iter().chain([&dir]).map(|d| counted(&d.join("memory.oom_control"))).sum()
        })
    }
}

/// What notifies when a container's memory is used up.
pub(crate) struct OomSource(Source);

enum Source {
    /// `memory.events`, which can be polled for changes, and how many were killed when it was last read.
    V2 { events: File, killed: u64 },
    /// An eventfd that is registered with the group.
    V1 { event: EventFd, control: PathBuf },
}

impl CgroupTree {
    /// What notifies when this container's memory is used up; nothing where no memory is counted. Costs one descriptor. The group must exist.
    pub(crate) fn oom_source(&self, container: &ContainerId) -> io::Result<Option<OomSource>> {
        if let Some(dir) = self.v2_dir(container).filter(|_| self.layout().v2_has("memory")) {
            let mut events = File::open(dir.join("memory.events"))?;
            let killed = reread(&mut events)?;
            return Ok(Some(OomSource(Source::V2 { events, killed })));
        }
        let Some(dir) = self.v1_dir("memory", container) else { return Ok(None) };
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let control = dir.join("memory.oom_control");
        let file = File::open(&control)?;
        std::fs::write(dir.join("cgroup.event_control"), format!("{} {}", event.as_fd().as_raw_fd(), file.as_raw_fd()))?;
        Ok(Some(OomSource(Source::V1 { event, control })))
    }
}

impl OomSource {
    /// What to wait for.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::V2 { events, .. } => events.as_fd(),
            Source::V1 { event, .. } => event.as_fd(),
        }
    }

    /// And for which of its events.
    pub(crate) fn flags(&self) -> EpollFlags {
        match &self.0 {
            Source::V2 { .. } => EpollFlags::EPOLLPRI,
            Source::V1 { .. } => EpollFlags::EPOLLIN,
        }
    }

    /// Takes a notification: whether something is killed for lack of memory. `None`: the group has been removed, and nothing more will come.
    pub(crate) fn take(&mut self) -> Option<bool> {
        match &mut self.0 {
            Source::V2 { events, killed } => {
                let now = reread(events).ok()?;
                Some(now > std::mem::replace(killed, now))
            }
            Source::V1 { event, control } => {
                // Read, so that it waits for the next one. The kernel notifies of the removal of the group, too.
                let notified = event.read().is_ok();
                control.exists().then_some(notified)
            }
        }
    }
}

fn reread(events: &mut File) -> io::Result<u64> {
    let mut text = String::new();
    events.seek(SeekFrom::Start(0))?;
    events.read_to_string(&mut text)?;
    Ok(parse(&text).unwrap_or(0))
}

fn counted(file: &Path) -> u64 {
    std::fs::read_to_string(file).ok().and_then(|text| parse(&text)).unwrap_or(0)
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_versions_say_it_by_the_same_key() {
        assert_eq!(super::parse("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(super::parse("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(super::parse("oom_kill_disable 1\n"), None);
    }
}
