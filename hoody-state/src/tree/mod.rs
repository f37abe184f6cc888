//! Reading the files of a volume, beneath its root and nowhere else.
//!
//! Whoever is root in a container owns every name in its volume, and changes them while they are read. So a path is never put together and handed to the
//! kernel as a path of the host: [`Root`] has the kernel resolve it as if the volume were `/` (`openat2` with `RESOLVE_IN_ROOT`), takes what was found by
//! descriptor, and opens it only after the descriptor turned out to be a regular file or a directory. A FIFO, a device or a socket is never opened.
//!
//! | file | what |
//! | --- | --- |
//! | `path` | [`TreePath`]: the one parser of paths that come from outside |
//! | `root` | [`Root`]: looking up a path |
//! | `node` | [`Node`] and [`Meta`]: what was found, and reading it |

mod node;
mod path;
mod root;
#[cfg(test)]
mod tests;

pub use node::{Directory, Kind, Meta, Node, Time};
pub use path::{TreePath, encoded, shown};
pub use root::{Last, Root};
