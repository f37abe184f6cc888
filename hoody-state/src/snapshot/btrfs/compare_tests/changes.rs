//! Random changes of a tree.

use super::super::random_trees::{Rng, contents};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{FallocateFlags, IFlags, XattrFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A name: short, so that they meet; sometimes of 255 bytes, not UTF-8, or with odd characters.
fn name(rng: &mut Rng) -> Vec<u8> {
    match rng.below(12) {
        0 => vec![b'n' + u8::try_from(rng.below(5)).unwrap(); 255],
        1 => [b"\xff\xfe", &[b'a' + u8::try_from(rng.below(5)).unwrap()][..]].concat(),
        2 => [b"new\nline%20 ", &[b'a' + u8::try_from(rng.below(5)).unwrap()][..]].concat(),
        _ => {
            let word = [b'a' + u8::try_from(rng.below(26)).unwrap(), b'a' + u8::try_from(rng.below(3)).unwrap()];
            word[..1 + rng.below(2)].to_vec()
        }
    }
}

fn data(rng: &mut Rng) -> Vec<u8> {
    let len = [0, 3, 100, 1900, 4096, 6000, 40_000][rng.below(7)];
    let byte = u8::try_from(rng.below(256)).unwrap();
    (0..len).map(|i| if i % 8192 < 4096 { byte } else { u8::try_from(rng.below(256)).unwrap() }).collect()
}

/// An access control list with an entry for one more user.
fn acl(rng: &mut Rng) -> Vec<u8> {
    let entry = |tag: u16, may: u16, id: u32| [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat();
    let who = 100_000 + u32::try_from(rng.below(5)).unwrap();
    [&2u32.to_le_bytes()[..], &entry(1, 6, u32::MAX), &entry(2, 4, who), &entry(4, 4, u32::MAX), &entry(0x10, 6, u32::MAX), &entry(0x20, 4, u32::MAX)].concat()
}

/// Makes `count` changes. Files that are open and have no name any more are added to `open`.
pub(super) fn changes(rng: &mut Rng, root: &Path, count: usize, open: &mut Vec<File>) {
    let mut done = 0;
    while done < count {
        done += usize::from(change(rng, root, open));
    }
}

struct Tree {
    dirs: Vec<PathBuf>,
    files: Vec<PathBuf>,
    any: Vec<PathBuf>,
}

/// One change; whether it was possible.
fn change(rng: &mut Rng, root: &Path, open: &mut Vec<File>) -> bool {
    let (dirs, files, others) = contents(root);
    let any: Vec<PathBuf> = dirs[1..].iter().chain(&files).chain(&others).cloned().collect();
    let tree = Tree { dirs, files, any };
    let new = rng.pick(&tree.dirs).join(OsStr::from_bytes(&name(rng)));
    if tree.any.len() < 60 || tree.files.is_empty() || tree.dirs.len() < 2 || rng.below(4) == 0 {
        return create(rng, &tree, &new).is_ok();
    }
    match rng.below(3) {
        0 => rename(rng, root, &tree, &new).is_ok(),
        1 => remove(rng, &tree, &new, open).is_ok(),
        _ => modify(rng, &tree).is_ok(),
    }
}

fn create(rng: &mut Rng, tree: &Tree, new: &Path) -> std::io::Result<()> {
    match rng.below(12) {
        0..4 => std::fs::create_dir(new),
        4 => std::os::unix::fs::symlink(if rng.below(2) == 0 { "somewhere/else" } else { "/etc/passwd" }, new),
        5 => nix::unistd::mkfifo(new, Mode::S_IRUSR).map_err(Into::into),
        6 => mknod(new, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(7, 1 + rng.below(3) as u64)).map_err(Into::into),
        7 if !tree.files.is_empty() => std::fs::hard_link(rng.pick(&tree.files), new),
        8 if new.as_os_str().len() < 3000 && rng.below(4) == 0 => {
            let (dir, name) = (File::open(new.parent().unwrap())?, std::ffi::CString::new(new.file_name().unwrap().as_bytes()).unwrap());
            Ok(btrfs_uapi::subvolume::subvolume_create(std::os::fd::AsFd::as_fd(&dir), &name, &[])?)
        }
        _ => File::create_new(new).and_then(|f| f.write_all_at(&data(rng), 0)),
    }
}

fn rename(rng: &mut Rng, root: &Path, tree: &Tree, new: &Path) -> std::io::Result<()> {
    let (thing, other) = (rng.pick(&tree.any).clone(), rng.pick(&tree.any).clone());
    match rng.below(6) {
        0 | 1 => std::fs::rename(&thing, new),
        // Over another, as editors do.
        2 => std::fs::rename(&thing, &other),
        3 => Ok(rustix::fs::renameat_with(rustix::fs::CWD, &thing, rustix::fs::CWD, &other, rustix::fs::RenameFlags::EXCHANGE)?),
        4 => {
            let temporary = root.join("temporary");
            std::fs::write(&temporary, data(rng))?;
            std::fs::rename(&temporary, rng.pick(&tree.files))
        }
        // A directory is replaced by one with the same entries.
        _ => {
            let dir = rng.pick(&tree.dirs[1..]);
            let aside = root.join("aside");
            std::fs::create_dir(&aside)?;
            for e in std::fs::read_dir(dir)? {
                let e = e?;
                let _ = std::fs::rename(e.path(), aside.join(e.file_name()));
            }
            let done = std::fs::remove_dir(dir).and_then(|()| std::fs::rename(&aside, dir));
            let _ = std::fs::rename(&aside, root.join("left"));
            done
        }
    }
}

fn remove(rng: &mut Rng, tree: &Tree, new: &Path, open: &mut Vec<File>) -> std::io::Result<()> {
    let thing = rng.pick(&tree.any);
    match rng.below(8) {
        0 => {
            let file = rng.pick(&tree.files);
            open.push(File::open(file)?);
            std::fs::remove_file(file)
        }
        1 => {
            let file = rng.pick(&tree.files);
            std::fs::remove_file(file)?;
            std::fs::write(file, data(rng))
        }
        2 => {
            let file = rng.pick(&tree.files);
            std::fs::remove_file(file)?;
            std::fs::create_dir(file)
        }
        // A link that is made and removed.
        3 => std::fs::hard_link(rng.pick(&tree.files), new).and_then(|()| std::fs::remove_file(new)),
        4 if tree.any.len() > 120 => std::fs::remove_dir_all(rng.pick(&tree.dirs[1..])),
        _ => std::fs::remove_file(thing).or_else(|_| std::fs::remove_dir(thing)),
    }
}

fn modify(rng: &mut Rng, tree: &Tree) -> std::io::Result<()> {
    let file = rng.pick(&tree.files).clone();
    let thing = rng.pick(&tree.any);
    let writable = || File::options().read(true).write(true).open(&file);
    let place = |rng: &mut Rng| [rng.below(12) as u64 * 4096, rng.below(50_000) as u64][rng.below(2)];
    match rng.below(14) {
        0..3 => writable()?.write_all_at(&data(rng), place(rng)),
        3 => writable()?.set_len(place(rng)),
        4 => Ok(rustix::fs::fallocate(writable()?, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, place(rng), 1 + place(rng))?),
        5 => Ok(rustix::fs::fallocate(writable()?, FallocateFlags::KEEP_SIZE, place(rng), 1 + place(rng))?),
        6 | 7 => Ok(rustix::fs::lsetxattr(
            thing,
            *rng.pick(&["user.a", "user.b", "trusted.c"]),
            &data(rng)[..].iter().take(1500).copied().collect::<Vec<_>>(),
            XattrFlags::empty(),
        )?),
        8 => Ok(rustix::fs::lremovexattr(thing, *rng.pick(&["user.a", "user.b"]))?),
        9 => {
            let (list, dir) = (acl(rng), rng.pick(&tree.dirs));
            match rng.below(3) {
                0 => Ok(rustix::fs::lsetxattr(dir, "system.posix_acl_default", &list, XattrFlags::empty())?),
                1 => Ok(rustix::fs::lremovexattr(&file, "system.posix_acl_access")?),
                _ => Ok(rustix::fs::lsetxattr(&file, "system.posix_acl_access", &list, XattrFlags::empty())?),
            }
        }
        10 => {
            let which = *rng.pick(&[IFlags::NODUMP, IFlags::NOATIME, IFlags::COMPRESSED]);
            let f = File::open(if rng.below(2) == 0 { &file } else { rng.pick(&tree.dirs) })?;
            let flags = rustix::fs::ioctl_getflags(&f)? ^ which;
            Ok(rustix::fs::ioctl_setflags(&f, flags)?)
        }
        11 => {
            let from = File::open(rng.pick(&tree.files))?;
            let block = |rng: &mut Rng| rng.below(5) as u64 * 4096;
            let (at, len, to) = (block(rng), block(rng), block(rng));
            let to_file = writable()?;
            Ok(btrfs_uapi::send_receive::clone_range(std::os::fd::AsFd::as_fd(&to_file), std::os::fd::AsFd::as_fd(&from), at, len, to)?)
        }
        12 => std::fs::set_permissions(&file, std::fs::Permissions::from_mode(u32::try_from(rng.below(0o10_000)).unwrap())),
        _ => std::os::unix::fs::lchown(thing, Some(100_000 + u32::try_from(rng.below(3)).unwrap()), Some(100_000 + u32::try_from(rng.below(3)).unwrap())),
    }
}
