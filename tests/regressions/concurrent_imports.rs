//! Two imports of one name at the same time: the failing one deleted the volume of the other.

use hoody_state::Code;
use hoody_state::freeze::memory::MemoryFreezer;
use hoody_state::runtime::memory::MemoryRuntime;
use hoody_state::snapshot::memory::MemoryStore;
use hoody_state::{Caller, HostBuilder};
use hoody_state_workspace::assert_clean;
use std::sync::{Arc, Mutex};

/// A clock that does something the next time it is looked at: between an import's first question and its lock.
#[derive(Clone, Default)]
struct Interrupting(Arc<Mutex<Option<Interruption>>>);

type Interruption = Box<dyn FnOnce() + Send>;

impl hoody_state::clock::Clock for Interrupting {
    fn now(&self) -> hoody_state::jiff::Timestamp {
        // Not when the upkeep looks at it.
        let ours = std::thread::current().name() != Some("upkeep");
        let f = self.0.lock().unwrap().take_if(|_| ours);
        f.into_iter().for_each(|f| f());
        hoody_state::jiff::Timestamp::UNIX_EPOCH
    }
}

#[test]
fn an_import_that_fails_keeps_the_volume_of_a_concurrent_import() {
    let clock = Interrupting::default();
    let builder = HostBuilder::new(None, Arc::new(MemoryStore::new()), Arc::new(MemoryFreezer::new()), Arc::new(MemoryRuntime::new())).unwrap();
    let h = builder.clock(Arc::new(clock.clone())).open().unwrap();
    let other = h.clone();
    *clock.0.lock().unwrap() = Some(Box::new(move || {
        other.import_image(&Caller::default(), "x", &mut &hoody_state_workspace::tiny_image()[..]).unwrap();
    }));
    let e = h.import_image(&Caller::default(), "x", &mut &hoody_state_workspace::tiny_image()[..]).unwrap_err();
    assert_eq!(e.code(), Code::ImageExists);
    assert_clean(&h, "after two imports of one name");
}
