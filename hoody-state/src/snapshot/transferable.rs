//! Volumes on their way between servers.

use super::{SnapshotStore, Volume, VolumeInfo};
use crate::error::{Code, Error, Result};
use crate::id::OperationId;
use std::io::{Read, Write};
use uuid::Uuid;

/// Sends read-only volumes and receives them. What a [`SnapshotStore`] gives whose volumes can be copied to other servers.
///
/// **Vocabulary.** An *identity* is what a read-only volume's content is known by on every server. An *increment* is what changed between two
/// volumes, the *base* and the one that is sent.
///
/// **Guarantee.** A received volume is at its place when all of it is there and durable, and not before. After an error or a crash what is half-made lies under
/// [`Volume::Staging`]; receiving may then begin again.
pub trait Transferable: Send + Sync {
    /// What a read-only volume's content is known by, on whichever host it is: a copy that was received has the identity of what was sent. A snapshot of a
    /// volume that is not [sealed](Volume::is_sealed) has one that never was anywhere before, whatever was written into the volume.
    fn identity(&self, volume: &Volume) -> Result<Option<Uuid>>;

    /// Writes a read-only volume, nested ones included, to `out`: whole, or as an increment on `base`, a read-only volume that the receiver has too.
    /// Errors: `volume_not_found`, `volume_writable`, `path_too_long`, `transfer_cut` when `out` fails. Cost: what is sent is read once; of what
    /// did not change nothing is read.
    fn send(&self, volume: &Volume, base: Option<&Volume>, out: &mut dyn Write) -> Result<()>;

    /// Makes the read-only volume `to` of what [`send`](Transferable::send) wrote, with the identity of what was sent. `base` is this host's volume with the
    /// identity of the sender's. Whatever the bytes say, nothing else in the pool or outside is read or written.
    /// Errors: `volume_exists`, `base_missing`, `stream_corrupt`, `stream_refused`, `transfer_cut` when `input` fails or ends early, `pool_full`.
    fn receive(&self, to: &Volume, base: Option<&Volume>, staging: &OperationId, input: &mut dyn Read) -> Result<VolumeInfo>;

    /// Whether two read-only volumes, one grown from the other, differ in anything: names, data, owners, modes, attributes, times. Cost follows what
    /// changed.
    fn differs(&self, base: &Volume, volume: &Volume) -> Result<bool>;

    /// Whether a volume's identity is not its own by birth. A crash can leave a snapshot of a volume that is not sealed under its place with an identity that
    /// somebody wrote into the volume at that very instant: recovery must not put it into a list.
    fn claims_identity(&self, snapshot: &Volume) -> Result<bool>;
}

/// What the transfers of a store come to. A store that cannot send has no identities.
impl dyn SnapshotStore + '_ {
    fn transferable(&self) -> Result<&dyn Transferable> {
        self.transfer().ok_or_else(|| Error::new(Code::NoTransport, "the volumes of this server cannot be copied to or from other servers"))
    }

    /// As [`Transferable::identity`]; `None` for every volume of a store that cannot send.
    ///
    /// # Errors
    /// Those of the store.
    pub fn identity(&self, volume: &Volume) -> Result<Option<Uuid>> {
        self.transfer().map_or(Ok(None), |t| t.identity(volume))
    }

    /// As [`Transferable::claims_identity`]; `false` for every volume of a store that cannot send.
    ///
    /// # Errors
    /// Those of the store.
    pub fn claims_identity(&self, snapshot: &Volume) -> Result<bool> {
        self.transfer().map_or(Ok(false), |t| t.claims_identity(snapshot))
    }

    /// As [`Transferable::send`].
    ///
    /// # Errors
    /// `no_transport`, and those of [`Transferable::send`].
    pub fn send(&self, volume: &Volume, base: Option<&Volume>, out: &mut dyn Write) -> Result<()> {
        self.transferable()?.send(volume, base, out)
    }

    /// As [`Transferable::receive`].
    ///
    /// # Errors
    /// `no_transport`, and those of [`Transferable::receive`].
    pub fn receive(&self, to: &Volume, base: Option<&Volume>, staging: &OperationId, input: &mut dyn Read) -> Result<VolumeInfo> {
        self.transferable()?.receive(to, base, staging, input)
    }

    /// As [`Transferable::differs`].
    ///
    /// # Errors
    /// `no_transport`, and those of [`Transferable::differs`].
    pub fn differs(&self, base: &Volume, volume: &Volume) -> Result<bool> {
        self.transferable()?.differs(base, volume)
    }
}
