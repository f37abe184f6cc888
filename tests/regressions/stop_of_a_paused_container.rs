//! In memory, a paused container that was stopped started frozen.

use hoody_state::model::Verb;
use hoody_state::{Caller, Host};
use hoody_state_workspace::{assert_clean, container};

#[test]
fn a_paused_container_that_is_stopped_starts_thawed() {
    let h = Host::in_memory().unwrap();
    let c = container(&h, &hoody_state_workspace::project(&h, "p"), "dev").unwrap();
    for v in [Verb::Pause, Verb::Stop, Verb::Start] {
        h.lifecycle(&Caller::default(), &c, v, None).unwrap();
        assert_clean(&h, v.as_str());
    }
}
