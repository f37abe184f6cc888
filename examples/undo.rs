//! Snapshot before a risky command, undo it if it fails: no server, no HTTP. Needs root, runc, btrfs-progs and busybox-static.
//!
//! `cargo run --example undo -- 'rm -rf /usr /etc; exit 1'`

use hoody_state::model::{NewContainer, NewSnapshot, ProjectInput};
use hoody_state::runtime::ExecSpec;
use hoody_state::{Caller, Host, HostConfig, Result};

fn main() -> Result<()> {
    let command = std::env::args().nth(1).unwrap_or_else(|| "rm -rf /usr /etc; echo 'all done!'; exit 1".into());
    let config = HostConfig::new("/var/tmp/hoody-undo", "/run/hoody-undo");
    let host = Host::open(&config)?;
    let done = risky(&host, &command);
    host.close();
    drop(host);
    // An orchestrator would leave the container running; an example leaves nothing but its pool's image.
    Host::unmount(&config)?;
    done
}

fn risky(host: &Host, command: &str) -> Result<()> {
    let me = Caller::default();
    if host.image("busybox").is_err() {
        let mut tar = Vec::new();
        hoody_state::image::demo::busybox_rootfs("/bin/busybox".as_ref(), &mut tar)?;
        host.import_image(&me, "busybox", &mut &tar[..])?;
    }
    let project = host.create_project(&me, ProjectInput { alias: Some(format!("agents-{}", std::process::id())), ..Default::default() })?;
    let agent = host.create_container(&me, &project.id, NewContainer::default())?.id;

    let before = host.create_snapshot(&me, &agent, NewSnapshot { alias: Some("before".into()), ..Default::default() })?.snapshot;
    let out = host.exec(&agent, &shell(command))?;
    print!("{}", String::from_utf8_lossy(&out.stdout));
    if out.exit_code != 0 {
        let restored = host.restore(&me, &agent, before.name.as_str(), Default::default())?;
        println!("it failed with {}: {}", out.exit_code, restored.message);
    }
    let ls = host.exec(&agent, &shell("ls /etc"))?;
    println!("/etc holds {} files", ls.stdout.split(|b| *b == b'\n').count() - 1);
    host.delete_project(&me, &project.id, false).map(|_| ())
}

fn shell(line: &str) -> ExecSpec {
    ExecSpec { command: vec!["/bin/sh".into(), "-c".into(), line.into()], output_limit: 1 << 20, ..Default::default() }
}
