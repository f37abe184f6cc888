//! What a container sees of ids: a host's id less the base of the container's ids. Pure.

/// How many ids a container has, and what it sees in the place of others.
const IDS: u32 = 65_536;
const NOBODY: u32 = 65_534;

const CAPABILITY: &[u8] = b"security.capability";
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// The ids of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The host's id that containers see as 0.
    pub id_base: u32,
}

impl View {
    /// A host's id as a container sees it; 65534 for one that it does not have.
    #[must_use]
    pub fn id(self, host: u32) -> u32 {
        host.checked_sub(self.id_base).filter(|id| *id < IDS).unwrap_or(NOBODY)
    }

    /// A container's id on the host; `None` for one that it does not have.
    #[must_use]
    pub fn on_host(self, id: u32) -> Option<u32> {
        (id < IDS).then(|| self.id_base + id)
    }

    /// An extended attribute as a container sees it: `user.*`, POSIX ACLs and file capabilities. `None` for the others, which it does not see or which mean
    /// nothing elsewhere, and for values that are malformed.
    #[must_use]
    pub fn attribute(self, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        match name {
            CAPABILITY => self.capability(value),
            _ if ACLS.contains(&name) => self.acl(value),
            _ if name.starts_with(b"user.") => Some(value.to_vec()),
            _ => None,
        }
    }

    /// A header of 4 bytes, then entries of tag (2), permissions (2) and id (4); named users and groups have ids.
    fn acl(self, value: &[u8]) -> Option<Vec<u8>> {
        if value.len() < 4 || value[..4] != 2u32.to_le_bytes() || !value[4..].len().is_multiple_of(8) {
            return None;
        }
        let mut out = value.to_vec();
        for entry in out[4..].chunks_exact_mut(8) {
            if matches!(u16::from_le_bytes([entry[0], entry[1]]), 0x02 | 0x08) {
                let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
                entry[4..].copy_from_slice(&self.id(id).to_le_bytes());
            }
        }
        Some(out)
    }

    /// Version 3 names the root of the user namespace in which it holds. What holds in the container is version 2 there.
    fn capability(self, value: &[u8]) -> Option<Vec<u8>> {
        let magic = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
        match (magic & 0xff00_0000, value.len()) {
            (0x0300_0000, 24) if value[20..] == self.id_base.to_le_bytes() => {
                let mut out = (0x0200_0000 | magic & 0x00ff_ffff).to_le_bytes().to_vec();
                out.extend(&value[4..20]);
                Some(out)
            }
            (0x0200_0000, 20) if self.id_base == 0 => Some(value.to_vec()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_those_of_the_container() {
        let v = View { id_base: 100_000 };
        assert_eq!((v.id(100_000), v.id(165_535), v.id(165_536), v.id(0)), (0, 65_535, NOBODY, NOBODY));
        assert_eq!((v.on_host(5), v.on_host(65_536)), (Some(100_005), None));
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &7u16.to_le_bytes(), &id.to_le_bytes()].concat();
        let acl = |id| [&2u32.to_le_bytes()[..], &entry(1, u32::MAX), &entry(2, id), &entry(0x20, u32::MAX)].concat();
        assert_eq!(v.attribute(ACLS[0], &acl(101_000)).unwrap(), acl(1000));
        let v3 = [&0x0300_0001u32.to_le_bytes()[..], &[1; 16], &100_000u32.to_le_bytes()].concat();
        let v2 = [&0x0200_0001u32.to_le_bytes()[..], &[1; 16]].concat();
        assert_eq!(v.attribute(CAPABILITY, &v3).unwrap(), v2);
        assert_eq!((v.attribute(CAPABILITY, &v2), v.attribute(b"trusted.x", b"v"), v.attribute(b"security.selinux", b"v")), (None, None, None));
        assert_eq!(v.attribute(b"user.k", b"v").unwrap(), b"v");
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..64), id_base: u32) {
            let v = View { id_base };
            let _ = (v.attribute(CAPABILITY, &value), v.attribute(ACLS[0], &value), v.id(id_base));
        }
    }
}
