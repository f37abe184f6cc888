//! Set-user-id and set-group-id bits go where they go natively.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use support::{Mounted, both};

const NOBODY: u32 = 65534;

/// The mode of a file after `code` was done to it (`sys.argv[1]`) by an ordinary user.
fn mode_after(dir: &Path, mode: u32, group: u32, code: &str) -> u32 {
    let path = dir.join("file");
    fs::write(&path, vec![1; 8192]).unwrap();
    fs::write(dir.join("other"), vec![2; 8192]).unwrap();
    std::os::unix::fs::chown(&path, Some(NOBODY), Some(group)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    fs::set_permissions(dir.join("other"), fs::Permissions::from_mode(0o644)).unwrap();
    let script = format!(
        "import os,sys\nd=sys.argv[1]\np=d+'/file'\nos.setgroups([])\nos.setresgid({NOBODY},{NOBODY},{NOBODY})\nos.setresuid({NOBODY},{NOBODY},{NOBODY})\n{code}"
    );
    let done = Command::new("python3").args(["-c", &script]).arg(dir).output().expect("python3");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let after = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    fs::remove_file(path).unwrap();
    after
}

/// The daemon did these with its own rights: the bits stayed on contents of the caller's choosing.
#[test]
fn whoever_changes_a_file_leaves_no_set_id_bits_by_any_way_of_changing_it() {
    let acl = "os.setxattr(p,'system.posix_acl_access',b'\\x02\\0\\0\\0'+b''.join(t.to_bytes(2,'little')+m.to_bytes(2,'little')+b'\\xff'*4 for t,m in [(1,7),(4,5),(32,5)]))";
    let ways = [
        (0o4777, NOBODY, "f=os.open(p,os.O_RDWR)\nassert os.copy_file_range(os.open(d+'/other',os.O_RDONLY),f,100)==100"),
        (0o6777, NOBODY, "os.posix_fallocate(os.open(p,os.O_RDWR),0,16384)"),
        (0o6777, NOBODY, "os.write(os.open(p,os.O_RDWR),b'x')"),
        (0o6777, NOBODY, "os.truncate(p,1)"),
        (0o2755, 1234, acl),
        (0o2755, NOBODY, acl),
    ];
    for options in both() {
        let m = Mounted::new(&options);
        let native = tempfile::tempdir().unwrap();
        for dir in [native.path(), &m.at(), m.dir.path()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (mode, group, code) in ways {
            let natively = mode_after(native.path(), mode, group, code);
            assert_eq!(
                format!("{:o}", mode_after(&m.at(), mode, group, code)),
                format!("{natively:o}"),
                "{mode:o}, {code}, passthrough {}",
                options.passthrough
            );
        }
    }
}
