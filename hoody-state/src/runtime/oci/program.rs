//! Why a command could not be started: looked up in the container, because runtimes report it only in words of their own.

use super::spec;
use crate::runtime::ExecSpec;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// What is wrong with a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is no such file.
    NoFile,
    /// No program of this name is in `PATH`.
    NotInPath,
    /// It is a directory, has no execute permission, or is on a file system mounted `noexec`.
    NotExecutable,
}

impl Fault {
    /// The exit code that a shell gives.
    pub(super) fn exit_code(self) -> i32 {
        match self {
            Fault::NoFile | Fault::NotInPath => 127,
            Fault::NotExecutable => 126,
        }
    }

    /// The message that follows the program's name.
    pub(super) fn message(self) -> &'static str {
        match self {
            Fault::NoFile => "not found: there is no such file, or the interpreter or loader that it names is missing",
            Fault::NotInPath => "not found: no program of this name is in PATH",
            Fault::NotExecutable => "permission denied: it is a directory, or not executable",
        }
    }
}

/// What is wrong with the program of `spec` in the container whose root is `root`; `None` if it looks sound from outside.
pub(super) fn fault(root: BorrowedFd<'_>, spec: &ExecSpec) -> Option<Fault> {
    let name = spec.command.first()?;
    let cwd = spec.cwd.as_deref().filter(|d| !d.is_empty()).unwrap_or("/");
    if name.contains('/') {
        let Some(file) = find(root, cwd, name) else { return Some(Fault::NoFile) };
        return if is_executable(&file) { missing_interpreter(root, cwd, &file) } else { Some(Fault::NotExecutable) };
    }
    let path = spec.env.get("PATH").map_or(spec::PATH, String::as_str);
    // An empty entry means the working directory, and so does the name alone.
    let found = path.split(':').find_map(|dir| find(root, cwd, &format!("{}/{name}", if dir.is_empty() { "." } else { dir })).filter(is_executable));
    found.map_or(Some(Fault::NotInPath), |file| missing_interpreter(root, cwd, &file))
}

/// Opens a file of the container as a place only. Symbolic links cannot lead out of it.
fn find(root: BorrowedFd<'_>, cwd: &str, name: &str) -> Option<OwnedFd> {
    let path = if name.starts_with('/') { name.to_owned() } else { format!("{cwd}/{name}") };
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).ok()
}

fn is_executable(file: &OwnedFd) -> bool {
    let Ok(stat) = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH) else { return false };
    let no_exec = rustix::fs::fstatvfs(file).is_ok_and(|v| v.f_flag.contains(StatVfsMountFlags::NOEXEC));
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0 && !no_exec
}

/// [`Fault::NoFile`] if the interpreter of a script or the loader of a program does not exist, which the kernel reports as if the file itself did not.
fn missing_interpreter(root: BorrowedFd<'_>, cwd: &str, file: &OwnedFd) -> Option<Fault> {
    let name = interpreter(file)?;
    find(root, cwd, &name).is_none().then_some(Fault::NoFile)
}

fn interpreter(file: &OwnedFd) -> Option<String> {
    // A regular file was checked for, so that this open does not wait.
    let at = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file.as_fd()));
    let file = File::open(at).ok()?;
    let mut start = Vec::new();
    (&file).take(256).read_to_end(&mut start).ok()?;
    if let Some(line) = start.strip_prefix(b"#!") {
        let line = line.split(|b| *b == b'\n').next()?;
        return String::from_utf8_lossy(line).split_ascii_whitespace().next().map(str::to_owned);
    }
    let number = |bytes: &[u8], at: usize, len: usize| bytes.get(at..at + len).map(|b| b.iter().rev().fold(0_u64, |n, b| n << 8 | u64::from(*b)));
    // A 64-bit little-endian ELF file: its program headers, one of which names the loader.
    if !start.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, size, count) = (number(&start, 32, 8)?, number(&start, 54, 2)?, number(&start, 56, 2)?);
    for i in 0..count {
        let mut header = [0; 40];
        file.read_exact_at(&mut header, headers.checked_add(i * size)?).ok()?;
        if number(&header, 0, 4)? == 3 {
            let mut name = vec![0; usize::try_from(number(&header, 32, 8)?).ok()?.min(4096)];
            file.read_exact_at(&mut name, number(&header, 8, 8)?).ok()?;
            name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
            return String::from_utf8(name).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn put(root: &Path, name: &str, content: &[u8], mode: u32) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_reason_is_found_in_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, "bin/sh", b"\x7fELF but static", 0o755);
        put(root, "bin/script", b"#!/bin/sh -e\n", 0o755);
        put(root, "bin/orphan", b"#! /bin/none\n", 0o755);
        put(root, "bin/data", b"x", 0o644);
        put(root, "work/tool", b"#!/bin/sh\n", 0o755);
        put(root, "bin/dynamic", &std::fs::read("/bin/ls").unwrap(), 0o755);
        std::os::unix::fs::symlink("../../../../bin/sh", root.join("bin/link")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("bin/out")).unwrap();
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let of = |name: &str| fault(root.as_fd(), &ExecSpec { command: vec![name.into()], cwd: Some("/work".into()), ..Default::default() });
        for (name, wanted) in [
            ("sh", None),
            ("/bin/sh", None),
            ("/bin/script", None),
            ("./tool", None),
            ("../bin/link", None),
            ("tool", Some(Fault::NotInPath)),
            ("nope", Some(Fault::NotInPath)),
            ("data", Some(Fault::NotInPath)),
            ("/bin/nope", Some(Fault::NoFile)),
            ("/bin/out/passwd", Some(Fault::NoFile)),
            ("/bin/orphan", Some(Fault::NoFile)),
            ("dynamic", Some(Fault::NoFile)),
            ("/bin/data", Some(Fault::NotExecutable)),
            ("/bin", Some(Fault::NotExecutable)),
        ] {
            assert_eq!(of(name), wanted, "{name}");
        }
        let spec = ExecSpec {
            command: vec!["tool".into()],
            env: [("PATH".to_owned(), "/none::/bin".to_owned())].into(),
            cwd: Some("/work".into()),
            ..Default::default()
        };
        assert_eq!(fault(root.as_fd(), &spec), None);
    }
}
