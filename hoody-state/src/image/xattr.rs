//! Which extended attributes of an archive an image keeps, and how their ids are shifted. No I/O.
//!
//! Kept: `user.*` on files and directories, `security.capability` and POSIX ACLs, their ids shifted. Not kept: `trusted.*` (used by
//! overlayfs and the like; a container could not see it), other `security.*` (labels of another host's policy),
//! other `system.*`, and `user.*` where the kernel has none (symlinks, devices, FIFOs).

use super::ids::shifted;
use super::path::shown;
use crate::error::{Code, Error, Result};

/// The largest attribute that fits into a leaf of 4 KiB: 4096 − 101 (header) − 25 (item) − 30 (entry), name and value together.
pub(super) const LARGEST: usize = 3940;

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

/// The value to set; `None` for an attribute that is not kept.
///
/// # Errors
/// `image_xattr`: too large, or malformed; `image_id_range` for an ACL.
pub(super) fn translate(path: &[u8], name: &[u8], value: &[u8], on_file: bool, id_base: u32) -> Result<Option<Vec<u8>>> {
    let out = match name {
        CAPABILITY if on_file => capability(value, id_base).ok_or_else(|| bad(path, name, "it is not a file capability"))?,
        ACL_ACCESS | ACL_DEFAULT => acl(path, value, id_base)?.ok_or_else(|| bad(path, name, "it is not a POSIX ACL of version 2"))?,
        _ if on_file && name.starts_with(b"user.") && name.len() > 5 => value.to_vec(),
        _ => return Ok(None),
    };
    if name.contains(&0) || name.len() > 255 {
        return Err(bad(path, name, "its name is longer than 255 bytes or contains a NUL"));
    }
    if name.len() + out.len() > LARGEST {
        return Err(bad(path, name, &format!("its name and value are {} bytes long, the most is {LARGEST}", name.len() + out.len())));
    }
    Ok(Some(out))
}

/// Whether new files in the directory inherit this attribute.
pub(super) fn is_default_acl(name: &[u8]) -> bool {
    name == ACL_DEFAULT
}

/// The ACLs that new files in such a directory inherit.
pub(super) const INHERITED: [&[u8]; 2] = [ACL_ACCESS, ACL_DEFAULT];

fn bad(path: &[u8], name: &[u8], why: &str) -> Error {
    Error::new(Code::ImageXattr, format!("the extended attribute {} of {} cannot be kept: {why}; remove it from the archive", shown(name), shown(path)))
}

/// Version 3 of the kernel's `vfs_ns_cap_data`: valid in the user namespace whose root is `id_base`, and nowhere else.
fn capability(value: &[u8], id_base: u32) -> Option<Vec<u8>> {
    const REVISION_MASK: u32 = 0xff00_0000;
    let magic = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    let sets = match (magic & REVISION_MASK, value.len()) {
        (0x0100_0000, 12) => [&value[4..12], &[0; 8]].concat(),
        (0x0200_0000, 20) | (0x0300_0000, 24) => value[4..20].to_vec(),
        _ => return None,
    };
    let revision = if id_base == 0 { 0x0200_0000 } else { 0x0300_0000 };
    let mut out = (revision | magic & !REVISION_MASK).to_le_bytes().to_vec();
    out.extend(sets);
    if id_base != 0 {
        out.extend(id_base.to_le_bytes());
    }
    Some(out)
}

/// A header of 4 bytes (version 2), then entries of tag (2), permissions (2) and id (4); named users and groups have ids.
fn acl(path: &[u8], value: &[u8], id_base: u32) -> Result<Option<Vec<u8>>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    if value.len() < 4 || value[..4] != 2u32.to_le_bytes() || !value[4..].len().is_multiple_of(8) {
        return Ok(None);
    }
    let mut out = value.to_vec();
    for entry in out[4..].chunks_exact_mut(8) {
        if matches!(u16::from_le_bytes([entry[0], entry[1]]), USER | GROUP) {
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            entry[4..].copy_from_slice(&shifted(path, "ACL", i64::from(id), id_base)?.to_le_bytes());
        }
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn capabilities_become_those_of_the_user_namespace() {
        let v2 = [&0x0200_0001u32.to_le_bytes()[..], &[1; 16]].concat();
        let v3 = translate(b"ping", CAPABILITY, &v2, true, 100_000).unwrap().unwrap();
        assert_eq!(v3, [&0x0300_0001u32.to_le_bytes()[..], &[1; 16], &100_000u32.to_le_bytes()].concat());
        assert_eq!(translate(b"ping", CAPABILITY, &v3, true, 100_000).unwrap().unwrap(), v3);
        assert_eq!(translate(b"ping", CAPABILITY, &v3, true, 0).unwrap().unwrap(), v2);
        assert_eq!(translate(b"ping", CAPABILITY, b"xxxx", true, 0).unwrap_err().code(), Code::ImageXattr);
    }

    #[test]
    fn acls_are_shifted_and_the_rest_is_chosen() {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &7u16.to_le_bytes(), &id.to_le_bytes()].concat();
        let of = |a: u32| [&2u32.to_le_bytes()[..], &entry(1, u32::MAX), &entry(2, a), &entry(4, u32::MAX), &entry(0x20, u32::MAX)].concat();
        assert_eq!(translate(b"f", ACL_ACCESS, &of(1000), true, 100_000).unwrap().unwrap(), of(101_000));
        assert_eq!(translate(b"f", ACL_ACCESS, &of(70_000), true, 100_000).unwrap_err().code(), Code::ImageIdRange);
        for dropped in ["trusted.overlay.opaque", "security.selinux", "system.nfs4_acl", "user.", "weird"] {
            assert_eq!(translate(b"f", dropped.as_bytes(), b"v", true, 1).unwrap(), None, "{dropped}");
        }
        assert_eq!(translate(b"f", b"user.k", b"v", false, 1).unwrap(), None);
        assert!(translate(b"f", b"user.k", &[0; LARGEST - 6], true, 1).unwrap().is_some());
        let e = translate(b"some/file", b"user.k", &[0; LARGEST - 5], true, 1).unwrap_err();
        assert!(e.code() == Code::ImageXattr && e.message().contains("some/file"), "{e}");
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = translate(b"f", CAPABILITY, &value, true, 100_000);
            let _ = translate(b"f", ACL_ACCESS, &value, true, 100_000);
        }
    }
}
