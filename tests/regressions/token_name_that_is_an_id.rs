//! Revoking a token by a name that is the id of another token revoked the wrong one.

use hoody_state::Code;
use hoody_state_workspace::MemoryWorld;

#[test]
fn a_name_that_is_the_id_of_another_revokes_neither() {
    let w = MemoryWorld::new();
    let h = w.host();
    let (first, _) = h.create_token("first", None, hoody_state::model::Rights::Full).unwrap();
    h.create_token(first.id.as_str(), None, hoody_state::model::Rights::Full).unwrap();
    assert_eq!(h.revoke_token(first.id.as_str()).unwrap_err().code(), Code::NameAmbiguous);
    assert_eq!(h.tokens().unwrap().len(), 2);
}
