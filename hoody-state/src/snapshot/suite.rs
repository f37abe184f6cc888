//! The cases every [`SnapshotStore`](super::SnapshotStore) passes.
