//! Two servers, a network namespace each, and a wire between the two that can be cut.

use crate::server::{Request, Server};
use btrfs_uapi::send_receive::received_subvol_set;
use btrfs_uapi::subvolume::{SubvolumeFlags, subvolume_flags_set, subvolume_info};
use hoody_state_workspace::programs;
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Networks of this process, so that tests side by side have one each.
static NEXT: AtomicU32 = AtomicU32::new(0);

fn ip(args: &str) -> Output {
    Command::new("ip").args(args.split(' ')).output().expect("this test needs ip: apt-get install iproute2")
}

fn must(args: &str) {
    let out = ip(args);
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// One server and its API.
pub struct Node {
    pub server: Server,
    pub id: String,
    pub address: String,
}

/// Two of them.
pub struct Fleet {
    pub a: Node,
    pub b: Node,
    pub project: String,
    names: [String; 2],
}

impl Fleet {
    pub fn new(name: &str) -> Fleet {
        let n = NEXT.fetch_add(1, Ordering::SeqCst);
        let net = (std::process::id() % 60) * 4 + n % 4;
        let names = ["a", "b"].map(|s| format!("hs{s}{}-{n}", std::process::id()));
        let addresses = [format!("10.213.{net}.1"), format!("10.213.{net}.2")];
        for ns in &names {
            must(&format!("netns add {ns}"));
        }
        must(&format!("link add v{} netns {} type veth peer name v{} netns {}", names[0], names[0], names[1], names[1]));
        for (ns, address) in names.iter().zip(&addresses) {
            must(&format!("-n {ns} addr add {address}/30 dev v{ns}"));
            must(&format!("-n {ns} link set lo up"));
            must(&format!("-n {ns} link set v{ns} up"));
        }
        let [a, b] = [0, 1].map(|i| {
            let mut server = Server::new(&format!("{name}-{i}"));
            server.namespace = Some(PathBuf::from("/run/netns").join(&names[i]));
            server.listen = format!("{}:7878", addresses[i]);
            server.start();
            Node { server, id: String::new(), address: addresses[i].clone() }
        });
        let mut f = Fleet { a, b, project: String::new(), names };
        for n in [&mut f.a, &mut f.b] {
            n.id = n.get("/servers")[0]["server_id"].as_str().unwrap().to_owned();
        }
        for (here, there) in [(&f.a, &f.b), (&f.b, &f.a)] {
            let token = there.cli(&["token", "create", "--replication", "--name", "peer"]);
            let data = there.server.dir.join("data");
            let certificate = Command::new(programs::server()).arg("certificate").arg("--data").arg(&data).output().unwrap();
            let ca = String::from_utf8(certificate.stdout).unwrap();
            let peer = json!({ "url": format!("https://{}:7878", there.address), "token": token.trim(), "ca": ca });
            here.post("/peers", &peer);
        }
        let mut tar = Vec::new();
        hoody_state::image::demo::busybox_rootfs(std::path::Path::new("/bin/busybox"), &mut tar).unwrap();
        let mut put = Request::new("PUT", "/images/busybox");
        put.body = tar;
        assert_eq!(put.send(&f.a.server.socket(), None).unwrap().status, 201);
        f.project = f.a.post("/projects", &json!({ "alias": "web" }))["id"].as_str().unwrap().to_owned();
        f
    }

    pub fn container(&self, name: &str) -> String {
        let c = self.a.post(&format!("/projects/{}/containers", self.project), &json!({ "name": name, "container_image": "busybox" }));
        let id = c["id"].as_str().unwrap().to_owned();
        self.a.until(&id, "running");
        id
    }

    /// Orders a copy of the container on the other server.
    pub fn copy(&self, id: &str, more: &Value) -> String {
        let mut body = json!({ "target_project_id": self.project, "target_server_id": self.b.id });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.a.post(&format!("/containers/{id}/copy"), &body)["id"].as_str().unwrap().to_owned()
    }

    /// What has gone over the wire in both directions, frames and all.
    pub fn bytes(&self) -> u64 {
        let name = &self.names[0];
        let out = ip(&format!("-n {name} -j -s link show v{name}"));
        let v: Value = serde_json::from_slice(&out.stdout).unwrap();
        let of = |way: &str| v[0]["stats64"][way]["bytes"].as_u64().unwrap();
        of("rx") + of("tx")
    }

    pub fn cut(&self) {
        must(&format!("-n {} link set v{} down", self.names[0], self.names[0]));
    }

    pub fn mend(&self) {
        must(&format!("-n {} link set v{} up", self.names[0], self.names[0]));
    }

    pub fn clean(&self, when: &str) {
        for n in [&self.a, &self.b] {
            let out = n.server.check();
            let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert!(out.status.success() && said.is_empty(), "{when}: {}: {said}\n{}", n.address, n.server.log_tail());
        }
    }

    pub fn end(mut self) {
        for n in [&mut self.a, &mut self.b] {
            n.server.end();
            n.server.take_down().unwrap();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for n in [&mut self.a, &mut self.b] {
            if let Err(e) = n.server.take_down() {
                println!("{e}");
            }
        }
        for ns in &self.names {
            ip(&format!("netns del {ns}"));
        }
    }
}

impl Node {
    pub fn cli(&self, words: &[&str]) -> String {
        let mut c = Command::new(programs::server());
        let out = c.args(words).arg("--data").arg(self.server.dir.join("data")).arg("--run").arg(self.server.run()).output().unwrap();
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    pub fn get(&self, path: &str) -> Value {
        let a = Request::new("GET", path).send(&self.server.socket(), None).unwrap_or_else(|| panic!("no answer to {path}:\n{}", self.server.log_tail()));
        assert_eq!(a.status, 200, "GET {path}: {}", a.data);
        a.data["data"].clone()
    }

    pub fn try_post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let a = Request::new("POST", path).json(body).send(&self.server.socket(), None)?;
        Some((a.status, a.data))
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, data) = self.try_post(path, body).unwrap_or_else(|| panic!("no answer to {path}:\n{}", self.server.log_tail()));
        assert!((200..300).contains(&status), "POST {path}: {status} {data}\n{}", self.server.log_tail());
        data["data"].clone()
    }

    /// The same, and waits for the end of the operation it begins.
    pub fn post_waiting(&self, path: &str, body: &Value) -> Value {
        let mut answer = self.post(path, body);
        let op = answer["operation_id"].as_str().unwrap().to_owned();
        let o = self.operation(&op);
        assert_eq!(o["status"], "succeeded", "POST {path}: {o}\n{}", self.server.log_tail());
        if answer.get("changed").is_some_and(Value::is_null) {
            // What it came to is in the event that ends it.
            let events = self.get("/events?event_type=container.operation.completed&limit=20");
            let event = events["events"].as_array().unwrap().iter().find(|e| e["payload"]["operation_id"] == op.as_str()).cloned();
            let payload = event.unwrap_or_else(|| panic!("no event of {op}"))["payload"].clone();
            answer["changed"] = payload["changed"].clone();
            answer["kept"] = payload["kept"].clone();
        }
        answer
    }

    fn operation(&self, op: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let o = self.get(&format!("/operations/{op}"));
            if o["status"] != "running" {
                return o;
            }
            assert!(Instant::now() < end, "{o}\n{}", self.server.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn sync(&self, id: &str) -> Value {
        self.post_waiting(&format!("/containers/{id}/sync"), &json!({}))
    }

    pub fn snapshot(&self, id: &str, alias: &str) {
        self.post(&format!("/containers/{id}/snapshots"), &json!({ "alias": alias }));
    }

    pub fn newest(&self, id: &str) -> String {
        self.get(&format!("/containers/{id}/snapshots"))["snapshots"][0]["name"].as_str().unwrap().to_owned()
    }

    pub fn delete(&self, id: &str) {
        let a = Request::new("DELETE", format!("/containers/{id}")).send(&self.server.socket(), None).unwrap();
        assert_eq!(a.status, 200, "{}", a.data);
        self.idle();
    }

    pub fn until(&self, id: &str, status: &str) {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let c = self.get(&format!("/containers/{id}"));
            if c["status"] == status && c["operation_id"].is_null() {
                return;
            }
            assert!(Instant::now() < end && c["status"] != "failed", "waiting for {status}: {c}\n{}", self.server.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until nothing is under way.
    pub fn idle(&self) {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let all = self.get("/operations?limit=100");
            if all["operations"].as_array().unwrap().iter().all(|o| o["status"] != "running") {
                return;
            }
            assert!(Instant::now() < end, "{all}\n{}", self.server.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn sh(&self, id: &str, script: &str) -> String {
        let out = self.post(&format!("/containers/{id}/exec"), &json!({ "command": ["sh", "-c", script], "timeout_ms": 30_000 }));
        assert_eq!(out["exit_code"], 0, "{script}: {out}");
        out["stdout"].as_str().unwrap().to_owned()
    }

    /// Some megabytes of everything.
    pub fn fill(&self, id: &str) {
        let script = "mkdir /data; for d in 1 2 3 4 5; do mkdir /data/dir-$d; for f in 1 2 3 4 5 6 7 8 9; do head -c $((d * f * 4000)) /dev/urandom > /data/dir-$d/$f; done; done; \
             head -c 6000000 /dev/urandom > /data/big; ln /data/big /data/second; chown 7:8 /data/dir-1/1; chmod 4711 /data/dir-1/2; mkfifo /data/pipe; \
             printf x > \"/data/$(printf 'n\\377\\376')\"; echo one > /state";
        self.sh(id, script);
        // A volume in the volume, as a tool in the container makes it.
        let at = self.server.pool().join("containers").join(id).join("live/data/nested");
        let out = Command::new("btrfs").args(["subvolume", "create"]).arg(&at).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        std::fs::write(at.join("in"), "nested").unwrap();
    }

    /// What a volume is known by on every server.
    pub fn identity(&self, id: &str, volume: &str) -> hoody_state::uuid::Uuid {
        let info = subvolume_info(self.open(id, volume).as_fd()).unwrap();
        if info.received_uuid.is_nil() { info.uuid } else { info.received_uuid }
    }

    /// Writes an identity into a live volume and makes it read-only, as its owner may; without one it becomes writable again.
    pub fn forge(&self, id: &str, identity: Option<hoody_state::uuid::Uuid>) {
        let live = self.open(id, "live");
        subvolume_flags_set(live.as_fd(), SubvolumeFlags::empty()).unwrap();
        received_subvol_set(live.as_fd(), &identity.unwrap_or_default(), 7).unwrap();
        if identity.is_some() {
            subvolume_flags_set(live.as_fd(), SubvolumeFlags::RDONLY).unwrap();
        }
    }

    fn open(&self, id: &str, volume: &str) -> File {
        File::open(self.server.pool().join("containers").join(id).join(volume)).unwrap()
    }

    /// Everything of a tree that can be told, in order.
    pub fn tree(&self, id: &str, volume: &str) -> String {
        let root = self.server.pool().join("containers").join(id).join(volume);
        assert!(root.is_dir(), "{}", root.display());
        let script = "find . -printf '%P|%y|%m|%U|%G|%T@|%l|' \\( -type f -printf '%s|%n\\n' -o -printf '\\n' \\) | LC_ALL=C sort; \
             find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
        let out = Command::new("sh").args(["-c", script]).current_dir(&root).env("LC_ALL", "C").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}
