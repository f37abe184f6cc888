//! Identifiers: 24 lower-case hex digits, 32 for operations. The first eight are the second of creation, so that ids sort by age.

use crate::error::{Code, Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

fn random_hex(digits: usize, now_s: u64) -> String {
    let mut bytes = [0u8; 16];
    // The kernel's generator fails only before it is seeded at early boot; time alone then still makes a usable id.
    let _ = getrandom::fill(&mut bytes);
    let mut s = format!("{:08x}", now_s & 0xffff_ffff);
    for b in bytes {
        s.push_str(&format!("{b:02x}"));
    }
    s.truncate(digits);
    s
}

fn check(s: &str, digits: usize, what: &str) -> Result<()> {
    if s.len() == digits && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    let shown: String = s.chars().take(64).collect();
    Err(Error::new(Code::InvalidIdFormat, format!("{shown:?} is no {what} id: it must be {digits} lower-case hex digits")))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $digits:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new id, of this second.
            #[must_use]
            pub fn generate() -> Self {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
                Self(random_hex($digits, now))
            }

            /// The digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(s: &str) -> Result<Self> {
                check(s, $digits, $what)?;
                Ok(Self(s.to_owned()))
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

id!(/** Id of a project. */ ProjectId, 24, "project");
id!(/** Id of a container. */ ContainerId, 24, "container");
id!(/** Id of a server. */ ServerId, 24, "server");
id!(/** Id of an event. */ EventId, 24, "event");
id!(/** Id of a row of a container's status log. */ LogId, 24, "status log");
id!(/** Id of a token (not the token). */ TokenId, 24, "token");
id!(/** Id of the person or program a token belongs to. */ UserId, 24, "user");
id!(/** Id of a share. */ ShareId, 24, "share");
id!(/** Id of a receiver's word on a share. */ OverrideId, 24, "share override");
id!(/** Id of a peer in this server's list. */ PeerId, 24, "peer");
id!(/** Id of an image. */ ImageId, 24, "image");
id!(/** Id of one run of a container, from its start to its exit. */ RunId, 24, "run");
id!(/** Id of an operation. */ OperationId, 32, "operation");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_an_id() {
        assert!("65f0c0ffee00000000000001".parse::<ContainerId>().is_ok());
        for bad in ["", "65f0c0ffee0000000000000", "65F0C0FFEE00000000000001", "65f0c0ffee0000000000000g", "../../etc/passwd00000000"] {
            let e = bad.parse::<ContainerId>().unwrap_err();
            assert_eq!(e.code(), Code::InvalidIdFormat, "{bad}");
        }
        assert_eq!(ContainerId::generate().as_str().len(), 24);
        assert_eq!(OperationId::generate().as_str().len(), 32);
    }
}
