//! What a container runs, and what it is called inside, when nobody says.

use std::path::Path;

/// What init is when neither the caller nor the image says: a shell that waits and ends on TERM.
const WAITING_SHELL: [&str; 3] = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"];

/// A host name of the container's name: `_` is not allowed in one, 63 characters are the most.
pub(super) fn hostname(name: &str) -> String {
    let h: String = name.chars().map(|c| if c == '_' { '-' } else { c }).take(63).collect();
    let h = h.trim_matches('-');
    if h.is_empty() { "container".into() } else { h.to_owned() }
}

/// The image's own init if it has one, else a shell that waits. Links are resolved inside the root, whatever they say.
pub(super) fn default_command(root: Option<&Path>) -> Vec<String> {
    let Some(root) = root else { return vec!["/sbin/init".into()] };
    for init in ["sbin/init", "init"] {
        if exists_in_root(root, init) {
            return vec![format!("/{init}")];
        }
    }
    WAITING_SHELL.map(String::from).to_vec()
}

fn exists_in_root(root: &Path, path: &str) -> bool {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let Ok(dir) = std::fs::File::open(root) else { return false };
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(&dir, path, how).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_made_of_any_container_name() {
        assert_eq!(hostname("web_1"), "web-1");
        assert_eq!(hostname("---"), "container");
        assert_eq!(hostname(&"a".repeat(100)).len(), 63);
    }
}
