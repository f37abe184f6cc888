//! Paths in a volume, as they come from outside. Pure.

use crate::error::{Code, Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// The longest path that the kernel takes in one call, its end not counted.
const LONGEST_PATH: usize = 4095;
/// The longest name that the kernel allows.
const LONGEST_NAME: usize = 255;

/// What is not encoded in a path: the unreserved characters of RFC 3986, and `/`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// A path in a volume, absolute as the container sees it: plain names of any bytes, without `.`, `..`, empty names and NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root of the volume.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a path of plain bytes. A `/` at its beginning and one at its end are optional.
    ///
    /// # Errors
    /// `invalid_path`: with an empty name, `.`, `..` or NUL; a name over 255 bytes, or more than 4095 in all.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let refuse = |why: &str| Err(Error::new(Code::InvalidPath, format!("{} is not a path in a container: {why}", shorten(&shown(bytes)))));
        let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(bytes);
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes.len() > LONGEST_PATH {
            return refuse("it is longer than 4095 bytes");
        }
        for name in bytes.split(|b| *b == b'/') {
            match name {
                b"" => return refuse("it has an empty name (`//`)"),
                b"." | b".." => return refuse("it has a `.` or `..`; give the path itself"),
                _ if name.contains(&0) => return refuse("it has a NUL"),
                _ if name.len() > LONGEST_NAME => return refuse("a name in it is longer than 255 bytes"),
                _ => {}
            }
        }
        Ok(TreePath(bytes.to_owned()))
    }

    /// Reads a percent-encoded path, as it stands in a URL. What it decodes to need not be UTF-8.
    ///
    /// # Errors
    /// `invalid_path`, also if a `%` is not followed by two hex digits.
    pub fn decode(text: &str) -> Result<Self> {
        let malformed = text.split('%').skip(1).any(|after| !after.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)));
        if malformed {
            return Err(Error::new(Code::InvalidPath, format!("{} is not percent-encoded: write a % as %25", shorten(text))));
        }
        Self::new(&percent_decode_str(text).collect::<Vec<u8>>())
    }

    /// The path relative to the root; nothing for the root itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path with its `/` at the beginning.
    #[must_use]
    pub fn absolute(&self) -> Vec<u8> {
        [b"/", &self.0[..]].concat()
    }

    /// Whether it is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its names, from the root on.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|n| !n.is_empty())
    }

    /// The path of its directory and its last name; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(TreePath, &[u8])> {
        let name = self.names().next_back()?;
        let parent = &self.0[..self.0.len() - name.len()];
        Some((TreePath(parent.strip_suffix(b"/").unwrap_or(parent).to_owned()), name))
    }

    /// The path of `name` in this directory. `name` is one plain name, such as a directory has; the length of the whole is not limited.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> TreePath {
        if self.is_root() { TreePath(name.to_owned()) } else { TreePath([&self.0[..], b"/", name].concat()) }
    }

    /// What is left of it beneath `dir`; `None` if it is not there. Of `dir` itself the root is left.
    #[must_use]
    pub fn beneath(&self, dir: &TreePath) -> Option<TreePath> {
        if dir.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&dir.0[..])? {
            b"" => Some(Self::root()),
            rest => Some(TreePath(rest.strip_prefix(b"/")?.to_owned())),
        }
    }

    /// The absolute path for people and for JSON: what is not UTF-8 is replaced by U+FFFD.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.absolute())
    }

    /// The absolute path percent-encoded, if it is not UTF-8: then [`TreePath::shown`] does not say which it is.
    #[must_use]
    pub fn encoded(&self) -> Option<String> {
        encoded(&self.absolute())
    }
}

/// Bytes for people and for JSON: what is not UTF-8 is replaced by U+FFFD.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes percent-encoded, if they are not UTF-8.
#[must_use]
pub fn encoded(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).err().map(|_| percent_encoded(bytes))
}

/// Bytes as they stand in a URL, with `/` as it is.
#[must_use]
pub fn percent_encoded(bytes: &[u8]) -> String {
    percent_encode(bytes, ENCODED).to_string()
}

/// A text for an error message: escaped, and short.
pub(super) fn shorten(text: &str) -> String {
    let short: String = text.chars().take(200).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_has_one_form() {
        for (given, is) in [("", ""), ("/", ""), ("etc", "etc"), ("/etc/", "etc"), ("/etc/hosts", "etc/hosts"), ("...", "..."), ("/a b\n", "a b\n")] {
            assert_eq!(TreePath::new(given.as_bytes()).unwrap().as_bytes(), is.as_bytes(), "{given:?}");
        }
        let longest = [b'x'; LONGEST_NAME];
        assert!(TreePath::new(&longest).is_ok());
        let far = b"ab/".repeat(1400);
        for bad in [b"//".as_slice(), b"..", b"/..", b"a/../b", b".", b"a/./b", b"a//b", b"a\0", b"\0", &[b'x'; 256], &far] {
            assert_eq!(TreePath::new(bad).unwrap_err().code(), Code::InvalidPath, "{}", shown(bad));
        }
    }

    #[test]
    fn urls_are_decoded_to_bytes() {
        assert_eq!(TreePath::decode("etc/%68osts").unwrap().as_bytes(), b"etc/hosts");
        assert_eq!(TreePath::decode("/a%2Fb%0A%FF").unwrap().as_bytes(), b"a/b\n\xff");
        assert_eq!(TreePath::decode("a+b%25").unwrap().as_bytes(), b"a+b%");
        for bad in ["%", "%4", "a%zz", "%2e%2e", "a/%2E%2E/b", "a%00", "a%2F%2Fb", "%é"] {
            assert_eq!(TreePath::decode(bad).unwrap_err().code(), Code::InvalidPath, "{bad:?}");
        }
    }

    #[test]
    fn parts_of_paths() {
        let p = TreePath::new(b"/a/b").unwrap();
        assert_eq!(p.split().unwrap(), (TreePath::new(b"a").unwrap(), &b"b"[..]));
        assert_eq!(TreePath::new(b"a").unwrap().split().unwrap(), (TreePath::root(), &b"a"[..]));
        assert_eq!(TreePath::root().split(), None);
        assert_eq!((TreePath::root().join(b"a").join(b"b"), p.absolute()), (p.clone(), b"/a/b".to_vec()));
        let below = |dir: &[u8]| p.beneath(&TreePath::new(dir).unwrap()).map(|r| r.shown());
        assert_eq!((below(b"/"), below(b"/a")), (Some("/a/b".into()), Some("/b".into())));
        assert_eq!((below(b"/a/b"), below(b"/a/b/c"), below(b"/ab"), below(b"x")), (Some("/".into()), None, None, None));
        assert_eq!(TreePath::new(b"ab").unwrap().beneath(&TreePath::new(b"a").unwrap()), None);
        let odd = TreePath::new(b"a /\xff").unwrap();
        assert_eq!((odd.shown(), odd.encoded()), ("/a /\u{fffd}".into(), Some("/a%20/%FF".into())));
        assert_eq!(p.encoded(), None);
    }

    proptest! {
        #[test]
        fn what_is_accepted_has_plain_names_and_survives_a_round_trip(bytes in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..40)) {
            if let Ok(p) = TreePath::new(&bytes) {
                for n in p.names() {
                    prop_assert!(!n.is_empty() && n != b"." && n != b".." && !n.contains(&b'/') && !n.contains(&0));
                }
                prop_assert_eq!(p.names().fold(TreePath::root(), |p, n| p.join(n)), p.clone());
                prop_assert_eq!(TreePath::decode(&percent_encode(&p.absolute(), ENCODED).to_string()).unwrap(), p.clone());
                prop_assert_eq!(TreePath::new(&p.absolute()).unwrap(), p);
            }
        }
    }
}
