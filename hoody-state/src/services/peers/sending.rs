use crate::id::ContainerId;
use crate::name::SnapshotName;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after a stream its snapshots still count as being sent: a copy asks for one snapshot after the other.
const BETWEEN_STREAMS: Duration = Duration::from_secs(600);

type Snapshots = HashMap<(ContainerId, SnapshotName), (usize, Instant)>;

/// Which snapshots are being sent to other servers, or are what an increment to one starts from.
#[derive(Clone, Default)]
pub(crate) struct Sending(Arc<Mutex<Snapshots>>);

/// Snapshots that are being sent until this is dropped.
pub(crate) struct Sent {
    sending: Sending,
    container: ContainerId,
    names: Vec<SnapshotName>,
}

impl Sending {
    fn change(&self, container: &ContainerId, names: &[SnapshotName], change: fn(usize) -> usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|_, (streams, at)| *streams > 0 || now.duration_since(*at) < BETWEEN_STREAMS);
        for name in names {
            let entry = all.entry((container.clone(), name.clone())).or_insert((0, now));
            *entry = (change(entry.0), now);
        }
    }

    /// These are being sent from now on.
    pub(crate) fn begin(&self, container: &ContainerId, names: Vec<SnapshotName>) -> Sent {
        self.change(container, &names, |streams| streams + 1);
        Sent { sending: self.clone(), container: container.clone(), names }
    }

    /// The snapshots of a container that a copy or sync to another server needs now.
    pub(crate) fn needed(&self, container: &ContainerId) -> HashSet<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = all.iter().filter(|((c, _), (streams, at))| c == container && (*streams > 0 || at.elapsed() < BETWEEN_STREAMS));
        needed.map(|((_, name), _)| name.to_string()).collect()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.sending.change(&self.container, &self.names, |streams| streams.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_snapshot_is_being_sent_until_its_last_stream_has_ended() {
        let sending = Sending::default();
        let id = ContainerId::generate();
        let name: SnapshotName = "daily".parse().unwrap();
        let streams = |s: &Sending| s.0.lock().unwrap().get(&(id.clone(), name.clone())).map(|(n, _)| *n);
        let (one, two) = (sending.begin(&id, vec![name.clone()]), sending.begin(&id, vec![name.clone()]));
        assert_eq!(streams(&sending), Some(2));
        drop(one);
        drop(two);
        assert_eq!(streams(&sending), Some(0));
        assert_eq!(sending.needed(&id), HashSet::from(["daily".to_owned()]), "a copy asks for one snapshot after the other");
        assert!(sending.needed(&ContainerId::generate()).is_empty());
    }
}
