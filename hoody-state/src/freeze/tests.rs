//! The contract suite on the kernel's freezers with real processes, and the cost of freezing.

use super::cgroup1::Cgroup1Freezer;
use super::cgroup2::Cgroup2Freezer;
use super::*;
use crate::cgroup::Layout;
use crate::cgroup::testing::TestTree;

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
        // One process that is busy, one that sleeps.
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
    // A machine with v2 alone has no v1 freezer, so there is nothing to test.
    if let Some(w) = v1() {
        suite::run(&w);
    }
}

#[test]
fn the_factory_prefers_v2() {
    let tree = TestTree::new(Layout::detect().unwrap());
    let c = ContainerId::generate();
    tree.spawn(&c, &["sleep", "1000"]);
    let f = crate::machine::freezer(&tree.cgroups).unwrap();
    assert_eq!(f.freeze(&c, Duration::from_secs(5)).unwrap(), FreezeState::Thawed);
    // A frozen group can be killed.
    tree.cgroups.kill(&c, Duration::from_secs(5)).unwrap();
    assert_eq!(f.state(&c).unwrap(), FreezeState::Thawed);
}
