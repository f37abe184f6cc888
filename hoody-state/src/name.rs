//! Names that people choose. Parsing is the check: a value of these types is a good name.

use crate::error::{Code, Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
                let s = String::deserialize(d)?;
                s.parse().map_err(|e: Error| serde::de::Error::custom(e.message().to_owned()))
            }
        }
    };
}

name!(
    /// A container's name: 1–100 of `[A-Za-z0-9_-]` (at creation at least 3), unique in its project.
    ContainerName
);
name!(
    /// A project's alias: 1–100 characters without control characters, unique on the server.
    ProjectAlias
);
name!(
    /// A snapshot's canonical name: 1–100 of `[A-Za-z0-9_-]`, no leading `-`. It is the snapshot's directory too.
    SnapshotName
);
name!(
    /// What people call a snapshot: 1–100 characters without control characters; may be changed.
    Alias
);
name!(
    /// An image's name: one or more segments of `[A-Za-z0-9._-]` joined by `/`, at most 100 characters, none of the segments `.`, `..` or empty.
    ImageName
);

fn shown(s: &str) -> String {
    let mut t: String = s.chars().take(40).collect();
    if t.len() < s.len() {
        t.push('…');
    }
    format!("{t:?}")
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

impl FromStr for ContainerName {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        if (1..=100).contains(&s.len()) && s.bytes().all(is_word) {
            return Ok(Self(s.to_owned()));
        }
        Err(Error::new(Code::InvalidContainerName, format!("{} is no container name: it must be 3 to 100 of A-Z a-z 0-9 _ -", shown(s))))
    }
}

impl ContainerName {
    /// A name for a container that is being created: at least 3 characters.
    ///
    /// # Errors
    /// `invalid_container_name`.
    pub fn for_creation(s: &str) -> Result<Self> {
        if s.len() < 3 {
            return Err(Error::new(Code::InvalidContainerName, format!("{} is no container name: it must be 3 to 100 of A-Z a-z 0-9 _ -", shown(s))));
        }
        s.parse()
    }

    /// A made-up name, such as `brisk-otter-3fa9`.
    #[must_use]
    pub fn made_up() -> Self {
        const A: [&str; 16] =
            ["brisk", "calm", "clear", "deft", "early", "fair", "glad", "keen", "light", "mild", "neat", "quiet", "ready", "sharp", "still", "warm"];
        const B: [&str; 16] =
            ["otter", "heron", "maple", "comet", "finch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "lark", "meadow", "raven", "tide"];
        let mut r = [0u8; 4];
        let _ = getrandom::fill(&mut r);
        Self(format!("{}-{}-{:02x}{:02x}", A[usize::from(r[0] & 15)], B[usize::from(r[1] & 15)], r[2], r[3]))
    }
}

impl FromStr for ProjectAlias {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let n = s.chars().count();
        if (1..=100).contains(&n) && !s.chars().any(char::is_control) && !s.trim().is_empty() {
            return Ok(Self(s.to_owned()));
        }
        Err(Error::new(Code::InvalidAliasFormat, format!("{} is no project alias: it must be 1 to 100 characters, not blank, no control characters", shown(s))))
    }
}

impl FromStr for Alias {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let n = s.chars().count();
        if (1..=100).contains(&n) && !s.chars().any(char::is_control) {
            return Ok(Self(s.to_owned()));
        }
        Err(Error::new(Code::InvalidAlias, format!("{} is no snapshot alias: it must be 1 to 100 characters, no control characters ({n} given)", shown(s))))
    }
}

impl FromStr for SnapshotName {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        if (1..=100).contains(&s.len()) && s.bytes().all(is_word) && !s.starts_with('-') {
            return Ok(Self(s.to_owned()));
        }
        Err(Error::new(Code::SnapshotNotFound, format!("there is no snapshot {}: names are 1 to 100 of A-Z a-z 0-9 _ -", shown(s))))
    }
}

impl SnapshotName {
    /// The canonical name: the alias reduced to `[A-Za-z0-9_-]` with leading `-` dropped; `snap-YYYYMMDD-HHMMSS` when nothing is left.
    #[must_use]
    pub fn canonical(alias: Option<&Alias>, now: Timestamp) -> Self {
        let reduced: String = alias.map_or("", Alias::as_str).chars().filter(|c| c.is_ascii() && is_word(*c as u8)).collect();
        let reduced = reduced.trim_start_matches('-');
        if reduced.is_empty() { Self(now.strftime("snap-%Y%m%d-%H%M%S").to_string()) } else { Self(reduced.to_owned()) }
    }

    /// The `n`th alternative to this name, for when it is taken: `name-2`, `name-3`, still at most 100 characters.
    #[must_use]
    pub fn numbered(&self, n: u32) -> Self {
        let suffix = format!("-{n}");
        let keep = self.0.len().min(100 - suffix.len());
        Self(format!("{}{suffix}", &self.0[..keep]))
    }
}

/// Image names that are words of the API and cannot be images.
pub const RESERVED_IMAGE_NAMES: [&str; 5] = ["public", "user", "import", "purchase", "rate"];

impl FromStr for ImageName {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let segment = |p: &str| !p.is_empty() && p != "." && p != ".." && p.bytes().all(|b| is_word(b) || b == b'.');
        if !(1..=100).contains(&s.len()) || !s.split('/').all(segment) {
            return Err(Error::new(
                Code::InvalidImageName,
                format!("{} is no image name: it must be segments of A-Z a-z 0-9 . _ - joined by /, at most 100 characters", shown(s)),
            ));
        }
        if RESERVED_IMAGE_NAMES.contains(&s) {
            return Err(Error::new(Code::ReservedImageName, format!("{s:?} is a word of the API and cannot name an image: choose another")));
        }
        Ok(Self(s.to_owned()))
    }
}

impl ImageName {
    /// As the clients write it: `debian-13`, `debian:13` and `debian 13` mean `debian/13`.
    /// The exact name comes first, so that an image that is really called `debian-13` is found.
    #[must_use]
    pub fn candidates(s: &str) -> Vec<ImageName> {
        let mut out: Vec<ImageName> = s.parse().into_iter().collect();
        if let Some(i) = s.find(['-', ':', ' ', '/']) {
            let mut t = s.to_owned();
            t.replace_range(i..=i, "/");
            out.extend(t.parse::<ImageName>().into_iter().filter(|n| !out.contains(n)).collect::<Vec<_>>());
        }
        out
    }

    /// The name as one path segment: `/` becomes `%`, which no name contains.
    #[must_use]
    pub fn dir_name(&self) -> String {
        self.0.replace('/', "%")
    }

    /// The reverse of [`ImageName::dir_name`].
    ///
    /// # Errors
    /// When no image could have that directory.
    pub fn from_dir_name(s: &str) -> Result<Self> {
        s.replace('%', "/").parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_snapshot_takes_its_name_from_its_alias() {
        let now = "2026-11-23T10:05:00Z".parse().unwrap();
        let name = |a: &str| SnapshotName::canonical(Some(&a.parse().unwrap()), now).to_string();
        assert_eq!(name("pre-auth-refactor"), "pre-auth-refactor");
        assert_eq!(name("--before the ÄÖ run!"), "beforetherun");
        assert_eq!(name("日本"), "snap-20261123-100500");
        assert_eq!(SnapshotName::canonical(None, now).to_string(), "snap-20261123-100500");
        assert_eq!("x".repeat(100).parse::<SnapshotName>().unwrap().numbered(12).as_str().len(), 100);
    }

    #[test]
    fn images_are_found_as_the_clients_write_them() {
        for s in ["debian-13", "debian:13", "debian 13", "debian/13"] {
            assert!(ImageName::candidates(s).iter().any(|n| n.as_str() == "debian/13"), "{s}");
        }
        for bad in ["", "../x", "a//b", "/a", "a/", "a/../b", "public", "user", "a b c", &"x".repeat(101)] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_name_is_always_a_good_name(alias in "\\PC{1,100}") {
            if let Ok(alias) = alias.parse::<Alias>() {
                let n = SnapshotName::canonical(Some(&alias), Timestamp::UNIX_EPOCH);
                prop_assert!(n.as_str().parse::<SnapshotName>().is_ok());
                prop_assert!(n.numbered(99).as_str().parse::<SnapshotName>().is_ok());
            }
        }

        #[test]
        fn an_image_directory_is_one_segment_and_reversible(s in "[a-z0-9._/-]{1,30}") {
            if let Ok(n) = s.parse::<ImageName>() {
                let d = n.dir_name();
                prop_assert!(!d.contains('/') && d != "." && d != "..");
                prop_assert_eq!(ImageName::from_dir_name(&d).unwrap(), n);
            }
        }
    }
}
