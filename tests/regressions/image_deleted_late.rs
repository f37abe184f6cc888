//! The late deletion of an image deleted the volume of a new image of the same name.

use crate::support::{At, eventually, host_with};
use hoody_state::{Caller, Code, Error};
use hoody_state_workspace::assert_clean;
use std::time::{Duration, Instant};

#[test]
fn a_new_image_keeps_its_volume_when_an_old_one_of_its_name_is_deleted_late() {
    let at = At::default();
    let (h, _) = host_with(&at);
    let me = Caller::default();
    let import = || h.import_image(&me, "x", &mut &hoody_state_workspace::tiny_image()[..]);
    import().unwrap();
    at.set(|s| if s == "volume.delete:delete" { Err(Error::new(Code::VolumeInUse, "it is being sent")) } else { Ok(()) });
    h.delete_image(&me, "x").unwrap();
    // The upkeep has the name for a moment; then the old volume is in the way, and goes with the first attempt.
    let end = Instant::now() + Duration::from_secs(5);
    while import().is_err() {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    at.set(|_| Ok(()));
    eventually("the deletion is closed", || {
        h.expire_due().unwrap();
        h.operations(&hoody_state::model::PageRequest::first()).unwrap().rows.iter().all(|o| o.finished_at.is_some())
    });
    assert_clean(&h, "after an image of the same name");
}
