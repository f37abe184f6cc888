//! Finds the runtime, and checks whether it works.

use crate::error::{Code, Error, IoContext, Result};
use nix::unistd::{AccessFlags, access};
use std::path::{Path, PathBuf};
use std::process::Command;

const KNOWN: [&str; 3] = ["runc", "crun", "youki"];
/// The PATH for a server that was started without one.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The runtime's path. Error: `runtime_not_found`.
pub(super) fn runtime(wanted: Option<&Path>) -> Result<PathBuf> {
    let usable = |p: &Path| p.is_file() && access(p, AccessFlags::X_OK).is_ok();
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let in_path = |name: &Path| std::env::split_paths(&path).filter(|d| d.is_absolute()).map(|d| d.join(name)).find(|p| usable(p));
    let found = match wanted {
        Some(p) if p.components().count() > 1 => Some(p.to_path_buf()).filter(|p| usable(p)),
        Some(name) => in_path(name),
        None => KNOWN.iter().find_map(|n| in_path(Path::new(n))),
    };
    found.ok_or_else(|| {
        let what = wanted.map_or_else(|| "none of runc, crun and youki".to_owned(), |w| format!("no {}", w.display()));
        Error::new(
            Code::RuntimeNotFound,
            format!("{what} was found to run containers: install one (apt-get install runc, dnf install crun), or name it with --runtime"),
        )
    })
}

/// Checks that the runtime prints its version. Errors: `runtime_not_found`, `runtime_unusable`.
pub(super) fn probe(wanted: Option<&Path>) -> Result<()> {
    let path = runtime(wanted)?;
    let out = Command::new(&path).arg("--version").output().io(|| format!("run {} --version", path.display()))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().chars().take(500).collect::<String>();
    Err(Error::new(Code::RuntimeUnusable, format!("{} --version failed ({}): {said}", path.display(), out.status)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_missing_runtime_says_what_to_install() {
        for wanted in ["/nonexistent/runc", "no-such-runtime", "/etc/passwd"] {
            let e = runtime(Some(Path::new(wanted))).unwrap_err();
            assert_eq!((e.kind(), e.code()), (Kind::Unavailable, Code::RuntimeNotFound));
            assert!(e.message().contains("apt-get install runc"), "{e}");
        }
        assert!(probe(None).is_ok(), "this test needs an OCI runtime: apt-get install runc");
        assert_eq!(probe(Some(Path::new("/bin/false"))).unwrap_err().code(), Code::RuntimeUnusable);
    }
}
