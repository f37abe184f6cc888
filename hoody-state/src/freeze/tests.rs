//! The contract suite on the kernel's freezers, with real processes, and what they cost.

use super::cgroup1::Cgroup1Freezer;
use super::cgroup2::Cgroup2Freezer;
use super::*;
use crate::cgroup::Layout;
use crate::cgroup::testing::TestTree;
use std::time::Instant;

struct World {
    tree: TestTree,
    freezer: Box<dyn Freezer>,
}

impl suite::World for World {
    fn freezer(&self) -> &dyn Freezer {
        &*self.freezer
    }
    fn make(&self) -> ContainerId {
        let c = ContainerId::generate();
        // One that works, one that sleeps.
        self.tree.spawn(&c, &["sh", "-c", "while :; do :; done"]);
        self.tree.spawn(&c, &["sleep", "1000"]);
        c
    }
    fn remove(&self, container: &ContainerId) {
        self.tree.destroy(container);
    }
    fn progress(&self, container: &ContainerId) -> Option<u64> {
        self.tree.cgroups.stats(container).unwrap().cpu_ns
    }
    /// A parent inside vfork sleeps uninterruptibly until its child execs or ends. (v2 freezes it all the same since 6.x where the wait is
    /// marked freezable: then there is nothing to test.)
    fn make_stuck(&self) -> Option<ContainerId> {
        None
    }
}

fn v2() -> World {
    let tree = TestTree::new(Layout::detect().unwrap());
    let freezer = Box::new(Cgroup2Freezer::new(tree.cgroups.clone()));
    World { tree, freezer }
}

fn v1() -> Option<World> {
    let layout = Layout::detect().unwrap().without_v2();
    layout.v1("freezer")?;
    let tree = TestTree::new(layout);
    let freezer = Box::new(Cgroup1Freezer::new(tree.cgroups.clone()));
    Some(World { tree, freezer })
}

#[test]
fn contract_of_cgroup2() {
    suite::run(&v2());
}

#[test]
fn contract_of_cgroup1() {
    // A machine with v2 alone has no such freezer; nothing to hold to the contract.
    if let Some(w) = v1() {
        suite::run(&w);
    }
}

#[test]
fn the_factory_takes_v2_where_it_is() {
    let tree = TestTree::new(Layout::detect().unwrap());
    let c = ContainerId::generate();
    tree.spawn(&c, &["sleep", "1000"]);
    let f = freezer(&tree.cgroups).unwrap();
    assert_eq!(f.freeze(&c, Duration::from_secs(5)).unwrap(), FreezeState::Thawed);
    // A frozen group can be killed.
    tree.cgroups.kill(&c, Duration::from_secs(5)).unwrap();
    assert_eq!(f.state(&c).unwrap(), FreezeState::Thawed);
}

/// Not a promise of the suite, since the machine may be busy: `cargo test -- --ignored --nocapture freezing_costs`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn freezing_costs() {
    fn median(mut times: Vec<Duration>) -> Duration {
        times.sort_unstable();
        times[times.len() / 2]
    }
    for (name, world) in [("cgroup2", Some(v2())), ("cgroup1", v1())] {
        let Some(w) = world else { continue };
        let c = ContainerId::generate();
        for _ in 0..3 {
            w.tree.spawn(&c, &["sleep", "1000"]);
        }
        let (mut freeze, mut thaw, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..100 {
            let t = Instant::now();
            w.freezer.freeze(&c, Duration::from_secs(5)).unwrap();
            freeze.push(t.elapsed());
            let t = Instant::now();
            w.freezer.thaw(&c).unwrap();
            thaw.push(t.elapsed());
            let (file, value) = match name {
                "cgroup2" => (w.tree.cgroups.v2_dir(&c).unwrap().join("cgroup.freeze"), ["1", "0"]),
                _ => (w.tree.cgroups.v1_dir("freezer", &c).unwrap().join("freezer.state"), ["FROZEN", "THAWED"]),
            };
            std::thread::sleep(Duration::from_millis(1));
            let t = Instant::now();
            std::fs::write(&file, value[0]).unwrap();
            bare.push(t.elapsed());
            std::fs::write(&file, value[1]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("{name}: freeze {:?}, thaw {:?}, bare write {:?} (medians of 100)", median(freeze), median(thaw), median(bare));
    }
}
