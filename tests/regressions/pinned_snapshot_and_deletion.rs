//! A container with a pinned snapshot could be deleted.

use hoody_state::Caller;
use hoody_state::Code;
use hoody_state::model::Status;
use hoody_state_workspace::{MemoryWorld, container, furnish, snapshot};

#[test]
fn a_pinned_snapshot_keeps_its_container_and_project_from_being_deleted() {
    let w = MemoryWorld::new();
    let host = w.host();
    let p = furnish(&host);
    let c = container(&host, &p, "dev").unwrap();
    snapshot(&host, &c, "kept").unwrap();
    let me = Caller::default();
    host.pin_snapshot(&me, &c, "kept", Some("audit".into())).unwrap();
    let e = host.delete_container(&me, &c).unwrap_err();
    assert_eq!(e.code(), Code::SnapshotPinned);
    assert!(e.message().contains("kept") && e.message().contains("audit"), "{e}");
    assert_eq!(host.delete_project(&me, &p, false).unwrap_err().code(), Code::SnapshotPinned);
    assert_eq!(host.container(&c).unwrap().status, Status::Running);
    host.pin_snapshot(&me, &c, "kept", None).unwrap();
    host.delete_container(&me, &c).unwrap();
}
