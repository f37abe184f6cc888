//! Send streams made by hand, for tests.

/// Whether a stream has its end command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    Cut,
}

/// A command: its number and its attributes, packed.
pub(super) type Packed = (u16, Vec<u8>);

pub(super) fn text(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, value) in attributes {
        out.extend(kind.to_le_bytes());
        out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend(*value);
    }
    out
}

pub(super) fn command(number: u16, attributes: &[(u16, &[u8])]) -> Packed {
    (number, text(attributes))
}

/// A whole stream, with checksums that are right.
pub(super) fn stream(version: u32, commands: &[Packed], end: End) -> Vec<u8> {
    let mut out = b"btrfs-stream\0".to_vec();
    out.extend(version.to_le_bytes());
    let last = (21, Vec::new());
    for (number, payload) in commands.iter().chain((end == End::Whole).then_some(&last)) {
        let mut header = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        header.extend(number.to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c_append(!0, &header), &[0; 4]), payload);
        header.extend((!sum).to_le_bytes());
        out.extend(header);
        out.extend(payload);
    }
    out
}
