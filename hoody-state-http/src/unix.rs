//! The UNIX socket.

use hoody_state::error::IoContext;
use hoody_state::{Code, Error, Result};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;
use tokio::net::UnixListener;

/// Listens on `path`, for its owner only. An old socket without a listener is replaced; any other file is left as it is.
///
/// # Errors
/// `socket_in_use` if another server listens on it, `not_a_socket` if it is another kind of file.
pub fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).io(|| format!("make {}", dir.display()))?;
    }
    clear(path)?;
    let listener = UnixListener::bind(path).io(|| format!("listen on {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).io(|| format!("protect {}", path.display()))?;
    Ok(listener)
}

fn clear(path: &Path) -> Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(Error::new(Code::NotASocket, format!("{} exists and is not a socket: choose another --socket", path.display())));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::new(Code::SocketInUse, format!("another server listens on {}: stop it or choose another --socket", path.display())));
    }
    fs::remove_file(path).io(|| format!("remove the old socket {}", path.display()))
}
