//! The files of a volume, beneath its root and nowhere else: reading, copying and removing them.
//!
//! Whoever is root in a container owns every name in its volume, and changes them while they are read. So a path is never put together and handed to the
//! kernel as a path of the host: [`Root`] has the kernel resolve it as if the volume were `/` (`openat2` with `RESOLVE_IN_ROOT`), takes what was found by
//! descriptor, and opens it only after the descriptor turned out to be a regular file or a directory. A FIFO, a device or a socket is never opened.
//!
//! | file | what |
//! | --- | --- |
//! | `path` | [`TreePath`]: the one parser of paths that come from outside |
//! | `root` | [`Root`]: looking up a path |
//! | `list` | the names of a directory, sorted and in pages |
//! | `node` | [`Node`] and [`Meta`]: what was found, and reading it |
//! | `dir_id` | directories found again by their inode numbers |
//! | `attributes` | owner, mode, times, extended attributes and flags of a file |
//! | `copy` | copying a name with everything in it, by reflink |
//! | `equal` | comparing what has two names |
//! | `place` | a name in an open directory; putting something finished there in one step |
//! | `remove` | removing a name with everything in it |
//! | `archive`, `tar` | a directory with everything in it as a tar |
//! | `view` | what a container sees of ids |
//! | `write` | a file that is written whole before anybody sees it |
//! | [`staged`] | names of a snapshot that go into a volume in use |

#[cfg(feature = "host")]
mod archive;
mod attributes;
mod copy;
#[cfg(test)]
mod copy_tests;
mod dir_id;
mod equal;
mod list;
mod node;
mod path;
mod place;
mod remove;
mod root;
pub mod staged;
#[cfg(feature = "host")]
mod tar;
#[cfg(test)]
mod tests;
mod view;
mod write;

#[cfg(feature = "host")]
pub use archive::{Archive, LeftOut};
pub use attributes::copy_attributes;
pub use copy::Copier;
pub use dir_id::DirId;
pub use equal::equal;
pub use list::Page;
pub use node::{Directory, Kind, Meta, Node, Time};
pub use path::{TreePath, encoded, percent_encoded, shown};
pub use place::{Place, Put};
pub use remove::remove;
pub use root::{Last, Root};
pub use view::View;
pub use write::{Ownership, Staged, sync_directory};
