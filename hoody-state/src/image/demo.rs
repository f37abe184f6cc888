//! A small root file system made from a static busybox, for demonstrations and tests.
//!
//! The same busybox always gives the same bytes. No program is started.

use crate::error::{Code, Error, IoContext, Result};
use std::io::Write;
use std::path::Path;
use tar::{EntryType, Header};

/// 2026-01-01, so that the archive depends on nothing but busybox.
const MTIME: u64 = 1_767_225_600;
/// The number of small files in `/usr/lib/demo`, so that `rm -rf /usr` has a visible effect.
const LIBRARIES: usize = 300;

/// Applets that busybox may contain. Those that it does contain are found in its table of names.
const APPLETS: &str = "[ [[ ash awk base64 basename bc cat chgrp chmod chown chroot chrt cksum clear cmp comm cp cpio cut date dc dd df diff dirname \
    dmesg dos2unix du echo ed egrep env expand expr factor false fallocate fgrep find flock fold free fsync fuser getopt grep groups gunzip gzip head hexdump \
    hostid hostname httpd id install ionice ip ipcalc kill killall less link ln logger login ls lsof md5sum mesg microcom mkdir mkfifo mknod mktemp more mount \
    mountpoint mv nc netstat nice nl nohup nproc nsenter nslookup od paste patch pgrep pidof ping pivot_root pkill printenv printf ps pwd readlink realpath \
    renice reset rev rm rmdir run-parts sed seq setsid sh sha1sum sha256sum sha512sum shred shuf sleep sort split stat strings stty su sum sync tac tail tar tee \
    telnet test time timeout top touch tr tree true truncate tty umount uname uniq unlink unshare unxz unzip uptime usleep uudecode uuencode vi watch wc wget \
    which who whoami xargs xxd xz xzcat yes zcat";
const SYSTEM_APPLETS: &str = "adjtimex halt ifconfig init mdev mkswap poweroff reboot route swapoff swapon switch_root sysctl syslogd udhcpc";

/// Writes a tar of a root file system whose programs are all `busybox`: a path to a static binary, on Debian `/bin/busybox` of
/// the package `busybox-static`.
///
/// # Errors
/// `io` if busybox cannot be read or `out` cannot be written; `demo_busybox` if it is not a static busybox.
pub fn busybox_rootfs(busybox: &Path, out: &mut dyn Write) -> Result<()> {
    let binary = std::fs::read(busybox).io(|| format!("read {}", busybox.display()))?;
    let has = |word: &[u8]| binary.windows(word.len()).any(|w| w == word);
    if !binary.starts_with(b"\x7fELF") || !has(b"BusyBox v") || has(b"/lib64/ld-linux") || has(b"/lib/ld-") {
        return Err(Error::new(Code::DemoBusybox, format!("{} is not a statically linked busybox: install the package busybox-static", busybox.display())));
    }
    let names = table_of_names(&binary);
    let mut tar = Tar(tar::Builder::new(out));
    tar.tree(&binary, &names).io(|| "write the demo image")
}

/// The names of the applets are stored one after the other, sorted, each followed by a NUL.
fn table_of_names(binary: &[u8]) -> Vec<&'static str> {
    const START: &[u8] = b"\0[\0[[\0";
    let table = binary.windows(START.len()).position(|w| w == START).map_or(&[][..], |at| &binary[at..binary.len().min(at + 8192)]);
    let has = |name: &&str| {
        let word = [b"\0", name.as_bytes(), b"\0"].concat();
        table.windows(word.len()).any(|w| w == word)
    };
    let found: Vec<&str> = APPLETS.split_ascii_whitespace().chain(SYSTEM_APPLETS.split_ascii_whitespace()).filter(has).collect();
    // A busybox with a different table still has the applets that every build has.
    if found.len() > 10 { found } else { vec!["sh", "cat", "cp", "echo", "ls", "mkdir", "mv", "rm", "sleep", "true"] }
}

struct Tar<W: Write>(tar::Builder<W>);

impl<W: Write> Tar<W> {
    fn header(kind: EntryType, mode: u32, size: u64) -> Header {
        let mut h = Header::new_gnu();
        h.set_entry_type(kind);
        h.set_mode(mode);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(MTIME);
        h.set_size(size);
        h
    }

    fn dir(&mut self, path: &str, mode: u32) -> std::io::Result<()> {
        self.0.append_data(&mut Self::header(EntryType::Directory, mode, 0), format!("{path}/"), std::io::empty())
    }

    fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> std::io::Result<()> {
        self.0.append_data(&mut Self::header(EntryType::Regular, mode, data.len() as u64), path, data)
    }

    fn link(&mut self, path: &str, target: &str) -> std::io::Result<()> {
        self.0.append_link(&mut Self::header(EntryType::Symlink, 0o777, 0), path, target)
    }

    fn tree(&mut self, busybox: &[u8], names: &[&str]) -> std::io::Result<()> {
        for dir in
            ["dev", "etc", "home", "mnt", "proc", "run", "srv", "sys", "usr", "usr/bin", "usr/lib", "usr/lib/demo", "usr/sbin", "usr/share", "var", "var/log"]
        {
            self.dir(dir, 0o755)?;
        }
        self.dir("root", 0o700)?;
        self.dir("tmp", 0o1777)?;
        for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("var/run", "../run")] {
            self.link(link, target)?;
        }
        self.file("usr/bin/busybox", 0o755, busybox)?;
        for name in names {
            let system = SYSTEM_APPLETS.split_ascii_whitespace().any(|s| s == *name);
            if system { self.link(&format!("usr/sbin/{name}"), "../bin/busybox")? } else { self.link(&format!("usr/bin/{name}"), "busybox")? }
        }
        self.etc()?;
        for i in 0..LIBRARIES {
            let text = format!("demo library {i}\n").repeat(1 + i % 40);
            self.file(&format!("usr/lib/demo/lib{i:03}.so"), 0o644, text.as_bytes())?;
        }
        self.0.finish()
    }

    fn etc(&mut self) -> std::io::Result<()> {
        let files: [(&str, u32, &str); 9] = [
            ("passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
            ("group", 0o644, "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"),
            ("shadow", 0o600, "root:*:20454:0:99999:7:::\nnobody:*:20454:0:99999:7:::\n"),
            ("hostname", 0o644, "demo\n"),
            ("hosts", 0o644, "127.0.0.1 localhost demo\n::1 localhost\n"),
            ("os-release", 0o644, "ID=hoody-demo\nNAME=\"Hoody demo\"\nPRETTY_NAME=\"Hoody demo (busybox)\"\nVERSION_ID=1\n"),
            ("profile", 0o644, "export PATH=/usr/sbin:/usr/bin\nexport PS1='\\u@\\h:\\w\\$ '\n"),
            ("resolv.conf", 0o644, ""),
            ("inittab", 0o644, "::sysinit:/bin/true\n::respawn:/bin/sleep 2147483647\n"),
        ];
        for (name, mode, text) in files {
            self.file(&format!("etc/{name}"), mode, text.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_static_busybox_will_do() {
        let e = busybox_rootfs(Path::new("/bin/ls"), &mut Vec::new()).unwrap_err();
        assert_eq!(e.code(), Code::DemoBusybox);
    }

    #[test]
    fn the_same_busybox_gives_the_same_archive() {
        let busybox = Path::new("/bin/busybox");
        if !busybox.exists() {
            return;
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        busybox_rootfs(busybox, &mut a).unwrap();
        busybox_rootfs(busybox, &mut b).unwrap();
        assert!(a == b);
        assert!(table_of_names(&std::fs::read(busybox).unwrap()).contains(&"sha256sum"));
    }
}
