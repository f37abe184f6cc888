//! What makes a machine a machine of its own: its id, its SSH host keys, its random seed. A copy has those of its source, and gets its own before it boots.
//!
//! Two machines with one machine id get one DHCP lease; with one host key each can pose as the other; with one seed they may draw the same random numbers. So a
//! copy's files of that kind are exchanged before its first boot. What they held is remembered by its hash: a later restore of a snapshot that came from the
//! source brings the source's files back, and the next boot exchanges them again. So does a boot after a power cut that took the new files along.
//!
//! Only what a machine has is exchanged: no file is made where none was, and links, devices and files of another form are left alone. `/etc/hostname` and
//! `/etc/hosts` follow the container's name at every boot (see `services/starter/etc.rs`).

mod files;
mod ssh;

use crate::error::Result;
use crate::model::{CopiedIdentity, IdentityPart};
use crate::tree::Root;
use files::Found;
use std::path::Path;

/// The files of a machine's id. The second is mostly a link to the first.
const MACHINE_IDS: [&str; 2] = ["etc/machine-id", "var/lib/dbus/machine-id"];
/// Where systemd and sysvinit keep what the next boot's random numbers begin from.
const SEEDS: [&str; 2] = ["var/lib/systemd/random-seed", "var/lib/urandom/random-seed"];
/// Where SSH host keys are.
const SSH: &str = "etc/ssh";

/// Whether `path`, as a container sees it, belongs to the machine and not to the work that is done on it: its id, host name, SSH host keys, random seed.
pub(crate) fn is_own(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let fixed = MACHINE_IDS.iter().chain(&SEEDS).any(|p| p.as_bytes() == path);
    let in_ssh = path.strip_prefix(SSH.as_bytes()).and_then(|p| p.strip_prefix(b"/"));
    fixed || path == b"etc/hostname" || in_ssh.is_some_and(ssh::is_host_key)
}

/// Gives copies an identity of their own.
#[derive(Debug, Clone)]
pub(crate) struct Identities {
    /// What is exchanged.
    pub parts: Vec<IdentityPart>,
}

impl Identities {
    /// Exchanges in the volume at `root`, of which nothing runs, what still is its source's; what is known of it then, or nothing if nothing was to be done.
    /// May be repeated. `hostname`: what the container is called inside.
    pub(crate) fn renew(&self, root: &Path, known: &CopiedIdentity, hostname: &str) -> Result<Option<CopiedIdentity>> {
        let root = files::open(root)?;
        let mut now = known.clone();
        let first = known.inherited.is_none();
        let before = now.inherited.take().unwrap_or_default();
        let mut inherited = before.clone();
        let mut done = false;
        for part in &self.parts {
            let found = self.found(&root, *part)?;
            let stale: Vec<&Found> = found.iter().filter(|f| first || before.get(&f.path) == Some(&f.hash)).collect();
            if stale.is_empty() {
                continue;
            }
            done = true;
            inherited.extend(stale.iter().map(|f| (f.path.clone(), f.hash.clone())));
            match part {
                IdentityPart::MachineId => machine_id(&root, &found, &stale)?,
                IdentityPart::RandomSeed => stale.iter().try_for_each(|f| f.replace(&root, &random(f.content.len())?))?,
                IdentityPart::SshHostKeys => {
                    let removed = ssh::exchange(&root, &found, &stale, hostname)?;
                    note(&mut now.removed, removed);
                }
            }
            let kept = stale.iter().map(|f| format!("/{}", f.path)).filter(|p| !now.removed.contains(p));
            note(&mut now.renewed, kept.collect());
        }
        if first && files::text(&root, "etc/hostname")?.is_some_and(|t| t.trim() != hostname) {
            note(&mut now.renewed, vec!["/etc/hostname".into()]);
        }
        now.inherited = Some(inherited);
        Ok((first || done).then_some(now))
    }

    fn found(&self, root: &Root, part: IdentityPart) -> Result<Vec<Found>> {
        let all = match part {
            IdentityPart::MachineId => files::all(root, MACHINE_IDS)?.into_iter().filter(is_machine_id).collect(),
            IdentityPart::RandomSeed => files::all(root, SEEDS)?,
            IdentityPart::SshHostKeys => files::beneath(root, SSH, ssh::is_host_key)?,
        };
        Ok(all.into_iter().filter(|f| !f.content.is_empty()).collect())
    }
}

/// An id, not the word `uninitialized` that systemd replaces at the first boot.
fn is_machine_id(f: &Found) -> bool {
    let text = f.content.trim_ascii();
    text.len() == 32 && text.iter().all(u8::is_ascii_hexdigit)
}

/// Both files say the same afterwards.
fn machine_id(root: &Root, found: &[Found], stale: &[&Found]) -> Result<()> {
    let own = found.iter().find(|f| !stale.iter().any(|s| s.path == f.path));
    let id = match own {
        Some(f) => f.content.clone(),
        None => {
            let id: String = random(16)?.iter().map(|b| format!("{b:02x}")).collect();
            format!("{id}\n").into_bytes()
        }
    };
    stale.iter().try_for_each(|f| f.replace(root, &id))
}

fn note(list: &mut Vec<String>, more: Vec<String>) {
    list.extend(more);
    list.sort();
    list.dedup();
}

fn random(bytes: usize) -> Result<Vec<u8>> {
    let mut all = vec![0; bytes];
    getrandom::fill(&mut all).map_err(|e| crate::error::Error::internal(format!("the kernel gives no random numbers: {e}")))?;
    Ok(all)
}

#[cfg(test)]
mod tests;
