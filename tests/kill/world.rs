//! A server with bystanders, and what must hold of it after every restart.

use crate::leftovers;
use crate::server::{Answer, Request, Server};
use hoody_state_workspace::fingerprint;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long nothing may have happened in a container that nobody touches.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_OPERATION: Duration = Duration::from_secs(20);

/// A container as it is seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub status: String,
    /// What its file `/state` says.
    pub state: String,
    /// The snapshots by name, with their aliases and what `/state` says in them.
    pub snapshots: BTreeMap<String, (Option<String>, String)>,
}

impl View {
    /// The snapshots that `before` had not.
    pub fn new_since<'a>(&'a self, before: &View) -> Vec<&'a (Option<String>, String)> {
        self.snapshots.iter().filter(|(n, _)| !before.snapshots.contains_key(*n)).map(|(_, s)| s).collect()
    }
}

pub struct World {
    pub server: Server,
    pub project: String,
    bystanders: [String; 3],
    before: BTreeMap<String, View>,
    still: BTreeMap<PathBuf, String>,
    counter: Option<Counter>,
    counting: Option<(u64, u64)>,
}

/// A container that runs a shell which waits, unless told otherwise.
pub fn new_container(name: &str) -> Value {
    json!({ "name": name, "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"] })
}

impl World {
    /// A server with an image, a project, and three containers that nothing touches: one that counts, one paused, one stopped.
    pub fn new(name: &str) -> Self {
        Self::with(Server::new(name))
    }

    /// The same on a server that has not started yet.
    pub fn with(mut server: Server) -> Self {
        server.start();
        let mut w = World {
            server,
            project: String::new(),
            bystanders: Default::default(),
            before: BTreeMap::new(),
            still: BTreeMap::new(),
            counter: None,
            counting: None,
        };
        let mut import = Request::new("PUT", "/images/busybox");
        import.body = image();
        w.must(&import);
        w.project = w.must(&Request::new("POST", "/projects").json(&json!({ "alias": "p" })))["id"].as_str().unwrap().to_owned();
        let count = "i=0; while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.1; done";
        let counter = w.create(&json!({ "name": "counter", "command": ["/bin/sh", "-c", count] }));
        let (paused, stopped) = (w.create(&new_container("paused")), w.create(&new_container("stopped")));
        for c in [&counter, &paused, &stopped] {
            w.write(c, "bystander");
            w.snapshot(c, "kept");
        }
        w.bring(&paused, "paused");
        w.bring(&stopped, "stopped");
        w.still = fingerprint(&w.home(&paused).join("snapshots"));
        w.before = [&counter, &paused, &stopped].map(|c| (c.clone(), w.view(c).unwrap())).into();
        w.counting = Some(w.init_of(&counter));
        w.counter = Some(Counter::start(w.home(&counter).join("live/count")));
        w.bystanders = [counter, paused, stopped];
        w
    }

    pub fn send(&self, r: &Request, key: Option<&str>) -> Option<Answer> {
        r.send(&self.server.socket(), key)
    }

    /// Sends what must succeed; its data.
    pub fn must(&self, r: &Request) -> Value {
        let Some(a) = self.send(r, None) else { panic!("{} {}: no answer\n{}", r.method, r.path, self.server.log_tail()) };
        assert!(a.status < 300, "{} {}: {} {}\n{}", r.method, r.path, a.status, a.data, self.server.log_tail());
        a.data["data"].clone()
    }

    pub fn get(&self, path: &str) -> Value {
        self.must(&Request::new("GET", path))
    }

    pub fn create(&self, new: &Value) -> String {
        self.create_in(&self.project, new)
    }

    pub fn create_in(&self, project: &str, new: &Value) -> String {
        let id = self.must(&Request::new("POST", format!("/projects/{project}/containers")).json(new))["id"].as_str().unwrap().to_owned();
        self.await_status(&id, "running");
        id
    }

    fn await_status(&self, id: &str, wanted: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status(id).unwrap_or_default();
            if status == wanted {
                return;
            }
            assert!(Instant::now() < end, "container {id} is {status}, not {wanted}\n{}", self.server.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn status(&self, id: &str) -> Option<String> {
        let a = self.send(&Request::new("GET", format!("/containers/{id}")), None).expect("the server serves");
        (a.status == 200).then(|| a.data["data"]["status"].as_str().unwrap().to_owned())
    }

    pub fn home(&self, id: &str) -> PathBuf {
        self.server.pool().join("containers").join(id)
    }

    /// Changes the live state.
    pub fn write(&self, id: &str, state: &str) {
        std::fs::write(self.home(id).join("live/state"), state).unwrap();
    }

    pub fn snapshot(&self, id: &str, alias: &str) -> String {
        let taken = self.must(&Request::new("POST", format!("/containers/{id}/snapshots")).json(&json!({ "alias": alias })));
        taken["snapshot"]["name"].as_str().unwrap().to_owned()
    }

    pub fn verb(&self, id: &str, verb: &str) -> Request {
        Request::new("POST", format!("/containers/{id}/{verb}"))
    }

    /// Makes it running, stopped or paused, whatever it is.
    pub fn bring(&self, id: &str, wanted: &str) {
        let now = self.status(id).unwrap();
        if now == wanted {
            return;
        }
        match now.as_str() {
            "paused" => drop(self.must(&self.verb(id, "resume"))),
            "stopped" => drop(self.must(&self.verb(id, "start"))),
            _ => {}
        }
        self.await_status(id, "running");
        match wanted {
            "paused" => drop(self.must(&self.verb(id, "pause"))),
            "stopped" => drop(self.must(&self.verb(id, "force-stop"))),
            _ => {}
        }
        self.await_status(id, wanted);
    }

    /// Nothing if there is no such container.
    pub fn view(&self, id: &str) -> Option<View> {
        let status = self.status(id)?;
        let home = self.home(id);
        let read = |p: PathBuf| std::fs::read_to_string(&p).unwrap_or_else(|e| format!("{}: {e}", p.display()));
        let list = self.get(&format!("/containers/{id}/snapshots"));
        let snapshots = list["snapshots"].as_array().unwrap().iter().map(|s| {
            let name = s["name"].as_str().unwrap().to_owned();
            let state = read(home.join("snapshots").join(&name).join("state"));
            (name, (s["alias"].as_str().map(str::to_owned), state))
        });
        Some(View { status, state: read(home.join("live/state")), snapshots: snapshots.collect() })
    }

    /// A command runs in it, and sees the live volume.
    pub fn works(&self, id: &str) {
        let out = self.must(&Request::new("POST", format!("/containers/{id}/exec")).json(&json!({ "command": ["/bin/cat", "/state"] })));
        let live = std::fs::read_to_string(self.home(id).join("live/state")).unwrap_or_default();
        assert_eq!((out["exit_code"].as_i64(), out["stdout"].as_str()), (Some(0), Some(live.as_str())), "container {id} does not work: {out}");
    }

    /// The pid and start time of a container's init.
    pub fn init_of(&self, id: &str) -> (u64, u64) {
        let path = self.server.run().join("oci/containers").join(id).join("run.json");
        let v: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        (v["init"]["pid"].as_u64().unwrap(), v["init"]["start_time"].as_u64().unwrap())
    }

    /// Waits for every operation's end; false when the server dies meanwhile. None takes as long as a commit that BTRFS makes of its own accord (30 s).
    pub fn settle(&mut self) -> bool {
        let end = Instant::now() + LONGEST_OPERATION;
        loop {
            if self.server.is_dead() {
                return false;
            }
            if let Some(a) = self.send(&Request::new("GET", "/operations?limit=100"), None) {
                assert_eq!(a.status, 200, "{}", a.data);
                let open: Vec<&Value> = a.data["data"]["operations"].as_array().unwrap().iter().filter(|o| o["finished_at"].is_null()).collect();
                if open.is_empty() {
                    return true;
                }
                assert!(Instant::now() < end, "still under way after {LONGEST_OPERATION:?}: {open:?}\n{}", self.server.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything that must hold, whatever was killed: `check` is silent, nothing is left over, the bystanders have not noticed.
    pub fn sound(&mut self) {
        assert!(self.settle(), "the server died\n{}", self.server.log_tail());
        self.check();
        self.leftovers();
        for (id, before) in &self.before {
            assert_eq!(&self.view(id).unwrap(), before, "bystander {id}");
        }
        let [counter, paused, _] = &self.bystanders;
        assert_eq!(Some(self.init_of(counter)), self.counting, "the counting container was restarted");
        assert_eq!(fingerprint(&self.home(paused).join("snapshots")), self.still, "a snapshot that nobody touched was changed");
        self.counter.as_ref().unwrap().goes_on();
    }

    pub fn check(&self) {
        let out = self.server.check();
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success() && stdout.is_empty() && stderr.is_empty(), "check: {}: {stdout}{stderr}\n{}", out.status, self.server.log_tail());
    }

    fn leftovers(&self) {
        let machine = leftovers::of_machine(&self.server.dir);
        let pid = format!("process {}:", self.server.pid());
        let (disks, others): (Vec<&String>, Vec<&String>) = machine.iter().filter(|l| !l.starts_with(&pid)).partition(|l| l.contains("/run/ramdisks/"));
        assert_eq!(others.len(), 4, "the pool, its loop device, the databases and their daemon, not {others:#?}");
        let disks: BTreeSet<String> = disks.iter().map(|l| l.split("/run/ramdisks/").nth(1).unwrap().split(' ').next().unwrap().to_owned()).collect();
        let projects: Vec<String> =
            self.get("/projects?limit=100")["projects"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap().to_owned()).collect();

        let images = self.get("/images?limit=100");
        let mut wanted: BTreeSet<String> =
            images["images"].as_array().unwrap().iter().map(|i| format!("images/{}", i["name"].as_str().unwrap().replace('/', "%"))).collect();
        let list = self.get("/containers?limit=100");
        let mut containers = BTreeMap::new();
        for c in list["containers"].as_array().unwrap() {
            let (id, status) = (c["id"].as_str().unwrap(), c["status"].as_str().unwrap());
            assert!(["running", "paused", "stopped"].contains(&status), "container {id} was left {status}: {c}\n{}", self.server.log_tail());
            containers.insert(id.to_owned(), status.to_owned());
            wanted.insert(format!("containers/{id}/live"));
            let snapshots = self.get(&format!("/containers/{id}/snapshots"));
            wanted.extend(snapshots["snapshots"].as_array().unwrap().iter().map(|s| format!("containers/{id}/snapshots/{}", s["name"].as_str().unwrap())));
        }
        let pool = self.server.pool();
        wanted.extend(projects.iter().map(|p| format!("projects/{p}/databases")));
        // Snapshots that took databases along have one of that name.
        let along: Vec<String> = wanted.iter().filter(|w| w.contains("/snapshots/")).map(|w| w.replace("/snapshots/", "/databases/")).collect();
        wanted.extend(along.into_iter().filter(|a| pool.join(a).exists()));
        assert!(disks.is_subset(&containers.keys().cloned().collect()), "RAM disks {disks:?} of {containers:?}");
        assert_eq!(leftovers::subvolumes(&pool), wanted, "subvolumes of the pool, and those in lists");
        let ids: BTreeSet<String> = containers.keys().cloned().collect();
        assert_eq!(leftovers::names(&pool.join("containers")), ids, "homes");
        for dir in ["staging", "trash"] {
            assert_eq!(leftovers::names(&pool.join(dir)), BTreeSet::new(), "{dir}");
        }
        let oci = self.server.run().join("oci");
        let alive: BTreeSet<&str> = containers.iter().filter(|(_, s)| *s != "stopped").map(|(c, _)| c.as_str()).collect();
        let states = leftovers::names(&oci.join("state"));
        assert_eq!(states.iter().map(|s| s.split('-').next().unwrap()).collect::<BTreeSet<_>>(), alive, "states of the runtime");
        assert_eq!(states.len(), alive.len(), "one state of the runtime a container: {states:?}");
        let known = leftovers::names(&oci.join("containers"));
        assert!(known.is_subset(&ids), "{known:?} are kept of {ids:?}");
        for (id, group) in leftovers::cgroups(&pool_id(&pool)) {
            let status = containers.get(&id).unwrap_or_else(|| panic!("a cgroup of {id}, which does not exist: {group:?}"));
            assert_eq!((group.processes.is_empty(), group.frozen), (status == "stopped", status == "paused"), "{id} is {status}: {group:?}");
        }
    }

    /// The end of a test: TERM, `check` without a server, everything down, nothing left.
    pub fn end(mut self) {
        self.sound();
        self.server.end();
        self.check();
        let pool = pool_id(&self.server.pool());
        if let Some(c) = self.counter.take() {
            c.stop();
        }
        self.server.take_down().unwrap();
        assert!(leftovers::cgroups(&pool).is_empty(), "cgroups are left: {:?}", leftovers::cgroups(&pool));
    }
}

fn pool_id(pool: &Path) -> String {
    let record: Value = serde_json::from_slice(&std::fs::read(pool.join("hoody-pool.json")).unwrap()).unwrap();
    record["pool_id"].as_str().unwrap().replace('-', "")[..12].to_owned()
}

/// A small root file system.
pub fn image() -> Vec<u8> {
    let mut tar = Vec::new();
    hoody_state::image::demo::busybox_rootfs(Path::new("/bin/busybox"), &mut tar)
        .unwrap_or_else(|e| panic!("this test needs a static busybox (apt-get install busybox-static): {e}"));
    tar
}

/// Watches the counting container all the time.
struct Counter {
    ending: Arc<AtomicBool>,
    fault: std::thread::JoinHandle<()>,
}

impl Counter {
    fn start(file: PathBuf) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        let fault = std::thread::spawn(move || {
            let mut last = (0u64, Instant::now());
            while !end.load(Ordering::Relaxed) {
                let n: u64 = std::fs::read_to_string(&file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(last.0);
                assert!(n >= last.0, "the counting container went from {} back to {n}", last.0);
                if n > last.0 {
                    last = (n, Instant::now());
                }
                assert!(last.1.elapsed() < LONGEST_PAUSE, "the counting container has stood still at {n} for {LONGEST_PAUSE:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Counter { ending, fault }
    }

    fn goes_on(&self) {
        assert!(!self.fault.is_finished(), "the counting container was disturbed: see above");
    }

    fn stop(self) {
        self.ending.store(true, Ordering::Relaxed);
        self.fault.join().expect("the counting container went on");
    }
}
