//! SSH host keys.
//!
//! A machine gets one new Ed25519 key, whatever kinds it had: every OpenSSH since 6.5 (2014) has that kind, sshd takes what host keys there are, and an RSA key
//! would cost a second of computing each. The format of the file is that of OpenSSH (PROTOCOL.key): forty lines here, where a crate brings thirty-six others.

use super::files::{Found, base_name};
use super::random;
use crate::error::{Error, Result};
use crate::tree::Root;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_compact::{KeyPair, Seed};

const KEY: &str = "etc/ssh/ssh_host_ed25519_key";
const KIND: &[u8] = b"ssh-ed25519";

/// Whether a file in `/etc/ssh` is one of a host key: `ssh_host_rsa_key`, its `.pub` or its certificate.
pub(super) fn is_host_key(name: &[u8]) -> bool {
    let stem = [b".pub".as_slice(), b"-cert.pub"].iter().find_map(|end| name.strip_suffix(*end)).unwrap_or(name);
    let stem = stem.strip_suffix(b"-cert").unwrap_or(stem);
    stem.starts_with(b"ssh_host_") && stem.ends_with(b"_key") && !stem.contains(&b'/')
}

/// Replaces the keys `stale` among all keys `found`; the paths of those that are gone without a new one.
pub(super) fn exchange(root: &Root, found: &[Found], stale: &[&Found], hostname: &str) -> Result<Vec<String>> {
    let is_private = |f: &&Found| !f.path.ends_with(".pub");
    let is_stale = |f: &Found| stale.iter().any(|s| s.path == f.path);
    let own = found.iter().filter(is_private).any(|f| !is_stale(f));
    let mut kept: Vec<String> = Vec::new();
    if let (false, Some(like)) = (own, stale.iter().copied().find(is_private)) {
        let key = generate(&format!("root@{hostname}"))?;
        like.put(root, KEY, 0o600, key.private.as_bytes())?;
        let public = format!("{KEY}.pub");
        like.put(root, &public, 0o644, key.public.as_bytes())?;
        kept.extend([KEY.to_owned(), public]);
    }
    let gone: Vec<&Found> = stale.iter().copied().filter(|f| !kept.contains(&f.path)).collect();
    gone.iter().try_for_each(|f| f.remove(root))?;
    Ok(gone.iter().map(|f| format!("/etc/ssh/{}", base_name(&f.path))).collect())
}

/// A key pair as OpenSSH writes it.
struct HostKey {
    private: String,
    public: String,
}

fn generate(comment: &str) -> Result<HostKey> {
    let seed: [u8; 32] = random(32)?.try_into().map_err(|_| Error::internal("32 bytes are 32"))?;
    let check: [u8; 4] = random(4)?.try_into().map_err(|_| Error::internal("4 bytes are 4"))?;
    Ok(write(&KeyPair::from_seed(Seed::new(seed)), check, comment))
}

fn write(pair: &KeyPair, check: [u8; 4], comment: &str) -> HostKey {
    let mut blob = Vec::new();
    string(&mut blob, KIND);
    string(&mut blob, &*pair.pk);
    // The same number twice: whoever decrypts sees that it went well.
    let mut secret = [check, check].concat();
    string(&mut secret, KIND);
    string(&mut secret, &*pair.pk);
    string(&mut secret, &*pair.sk);
    string(&mut secret, comment.as_bytes());
    (1..).take((8 - secret.len() % 8) % 8).for_each(|n: u8| secret.push(n));
    let mut file = b"openssh-key-v1\0".to_vec();
    string(&mut file, b"none");
    string(&mut file, b"none");
    string(&mut file, b"");
    file.extend(1u32.to_be_bytes());
    string(&mut file, &blob);
    string(&mut file, &secret);
    let text = STANDARD.encode(file);
    let lines: Vec<&str> = (0..text.len()).step_by(70).map(|i| &text[i..text.len().min(i + 70)]).collect();
    HostKey {
        private: format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", lines.join("\n")),
        public: format!("ssh-ed25519 {} {comment}\n", STANDARD.encode(blob)),
    }
}

/// A length and as many bytes.
fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// `tests.rs` asks ssh-keygen itself.
    #[test]
    fn a_key_has_the_form_that_openssh_writes() {
        let key = write(&KeyPair::from_seed(Seed::new([7; 32])), [1, 2, 3, 4], "root@dev");
        let bytes = STANDARD.decode(key.private.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
        assert!(bytes.starts_with(b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01\0\0\0\x33\0\0\0\x0bssh-ed25519"));
        let secret = bytes.len() - (15 + 8 + 8 + 4 + 4 + 4 + 51 + 4);
        assert_eq!(secret % 8, 0, "padded to the block");
        assert!(key.private.lines().all(|l| l.len() <= 70));
        assert!(key.public.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI") && key.public.ends_with(" root@dev\n"), "{}", key.public);
    }

    #[test]
    fn host_keys_are_known_by_their_names() {
        for name in ["ssh_host_rsa_key", "ssh_host_rsa_key.pub", "ssh_host_ed25519_key-cert.pub"] {
            assert!(is_host_key(name.as_bytes()), "{name}");
        }
        for name in ["sshd_config", "ssh_host_", "ssh_host_key/x_key", "moduli", "my_ssh_host_rsa_key"] {
            assert!(!is_host_key(name.as_bytes()), "{name}");
        }
    }
}
