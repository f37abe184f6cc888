//! Checks that names in an archive are safe. No I/O.

use crate::error::{Code, Error, Result};

/// The longest path that `PATH_MAX` allows.
const LONGEST_PATH: usize = 4096;
/// The longest name that the kernel allows.
const LONGEST_NAME: usize = 255;
/// The deepest path. Every directory of the path being written is kept open; real trees have a few dozen levels.
pub(super) const DEEPEST: usize = 200;

/// A path for an error message: escaped, and short.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let short: String = text.chars().take(200).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{:?}{more}", short)
}

/// The error for an unsafe path.
pub(super) fn unsafe_path(path: &[u8], why: &str) -> Error {
    Error::new(Code::ImagePathUnsafe, format!("the archive has an entry {}: {why}; the image was refused", shown(path)))
}

/// The components of a path in an archive, without `.` and empty ones; none for the root itself.
///
/// # Errors
/// `image_path_unsafe`: empty, absolute, with `..` or NUL, too long or too deep.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let refuse = |why| Err(unsafe_path(path, why));
    if path.is_empty() {
        return refuse("the name is empty");
    }
    if path[0] == b'/' {
        return refuse("the path is absolute (make the archive with paths relative to the root)");
    }
    if path.contains(&0) {
        return refuse("the path contains a NUL");
    }
    if path.len() >= LONGEST_PATH {
        return refuse("the path is longer than 4095 bytes");
    }
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.contains(&b"..".as_slice()) {
        return refuse("the path contains `..`");
    }
    if parts.iter().any(|p| p.len() > LONGEST_NAME) {
        return refuse("a name is longer than 255 bytes");
    }
    if parts.len() > DEEPEST {
        return refuse("the path has more than 200 levels");
    }
    Ok(parts)
}

/// The meaning of a name in image layers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whiteout<'a> {
    /// An ordinary name.
    No,
    /// Remove this name.
    Name(&'a [u8]),
    /// Empty the directory.
    Opaque,
    /// Bookkeeping of an old union file system.
    Other,
}

/// Reads `.wh.NAME`.
pub(super) fn whiteout(name: &[u8]) -> Whiteout<'_> {
    match name.strip_prefix(b".wh.") {
        None => Whiteout::No,
        Some(b".wh..opq") => Whiteout::Opaque,
        Some(rest) if rest.starts_with(b".wh.") || rest.is_empty() || rest == b"." || rest == b".." => Whiteout::Other,
        Some(rest) => Whiteout::Name(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn safe_and_unsafe_paths() {
        assert_eq!(components(b"./usr//bin/./sh/").unwrap(), [b"usr".as_slice(), b"bin", b"sh"]);
        assert!(components(b"./").unwrap().is_empty());
        assert!(components(b"a/...").is_ok());
        for bad in [b"".as_slice(), b"/", b"/etc", b"..", b"a/..", b"a/../b", b"./..", b"a\0b", &[b'x'; 256], &b"a/".repeat(201), &b"abc/".repeat(2000)] {
            assert_eq!(components(bad).unwrap_err().code(), Code::ImagePathUnsafe, "{}", shown(bad));
        }
    }

    #[test]
    fn whiteouts() {
        assert_eq!(whiteout(b"wh.x"), Whiteout::No);
        assert_eq!(whiteout(b".wh.x"), Whiteout::Name(b"x"));
        assert_eq!(whiteout(b".wh..wh..opq"), Whiteout::Opaque);
        for other in [b".wh.".as_slice(), b".wh..", b".wh...", b".wh..wh.plnk"] {
            assert_eq!(whiteout(other), Whiteout::Other);
        }
        assert_eq!(whiteout(b".wh..hidden"), Whiteout::Name(b".hidden"));
    }

    proptest! {
        #[test]
        fn components_are_always_plain_names(path in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(0u8), any::<u8>()], 0..40)) {
            if let Ok(parts) = components(&path) {
                for p in parts {
                    prop_assert!(!p.is_empty() && p != b"." && p != b".." && !p.contains(&b'/') && !p.contains(&0));
                    if let Whiteout::Name(n) = whiteout(p) {
                        prop_assert!(!n.is_empty() && n != b"." && n != b".." && !n.contains(&b'/'));
                    }
                }
            }
        }
    }
}
