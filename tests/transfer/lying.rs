//! A source that lies: about identities, order, names and bases, or that answers something else than it was asked. The copy fails and says so, or is what it should
//! be; in either case nothing half is in a list, the other containers are untouched, and the operation ends.

use super::{A, B, idle, names, settled, sync_when_free};
use hoody_state::Code;
use hoody_state::HostBuilder;
use hoody_state::host::Settings;
use hoody_state::id::ContainerId;
use hoody_state::model::{CopyRequest, NewPeer, PageRequest, Rights, Status, SyncRequest};
use hoody_state::transfer::memory::MemoryNet;
use hoody_state::transfer::{Answer, PeerAddress, Request, StreamRequest, Transport};
use hoody_state::{Caller, Host, Result};
use hoody_state_workspace::{MemoryWorld, assert_clean, container, furnish, picture, snapshot};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Lie = Box<dyn FnMut(&Request, Answer) -> Answer + Send>;

/// The network as it is, but for what the source answers.
struct Liar(MemoryNet, Mutex<Lie>);

impl std::fmt::Debug for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a network with a liar")
    }
}

impl Transport for Liar {
    fn call(&self, peer: &PeerAddress, request: &Request, timeout: Duration) -> Result<Answer> {
        let answer = self.0.call(peer, request, timeout)?;
        Ok((self.1.lock().unwrap())(request, answer))
    }

    fn stream(&self, peer: &PeerAddress, request: &StreamRequest) -> Result<Box<dyn Read + Send>> {
        self.0.stream(peer, request)
    }
}

struct Lied {
    a: MemoryWorld,
    b: MemoryWorld,
    here: Host,
    there: Host,
    source: ContainerId,
    liar: Arc<Liar>,
    _catalog: tempfile::TempDir,
}

impl Lied {
    fn new() -> Self {
        let net = MemoryNet::new();
        let (a, b) = (MemoryWorld::on(&net, "a"), MemoryWorld::on(&net, "b"));
        let here = a.host();
        let liar = Arc::new(Liar(net.clone(), Mutex::new(Box::new(|_, answer| answer))));
        let catalog = tempfile::tempdir().unwrap();
        let there = HostBuilder::new(Some(catalog.path()), b.store.clone(), b.freezer.clone(), b.runtime.clone())
            .unwrap()
            .server(b.server.clone())
            .settings(Settings { transfer_pause: Duration::from_millis(1), ..Settings::default() })
            .transport(liar.clone())
            .open()
            .unwrap();
        net.add(B, there.clone());
        for (host, other, url) in [(&here, &there, B), (&there, &here, A)] {
            let token = other.create_token("peer", None, Rights::Replication).unwrap().1;
            host.add_peer(&Caller::default(), NewPeer { url: url.into(), token, ..Default::default() }).unwrap();
        }
        let p = furnish(&here);
        let source = container(&here, &p, "agent").unwrap();
        for name in ["first", "second"] {
            a.write(&source, "state", name);
            snapshot(&here, &source, name).unwrap();
        }
        Lied { a, b, here, there, source, liar, _catalog: catalog }
    }

    fn lie(&self, lie: impl FnMut(&Request, Answer) -> Answer + Send + 'static) {
        *self.liar.1.lock().unwrap() = Box::new(lie);
    }

    fn copy(&self) -> ContainerId {
        let request = CopyRequest {
            target_project_id: Some(self.here.container(&self.source).unwrap().project_id.to_string()),
            target_server_id: Some(self.b.server.id.to_string()),
            name: Some("standby".into()),
            source_snapshot: Some("second".into()),
            ..Default::default()
        };
        self.here.copy_container(&Caller::default(), &self.source, request).unwrap().id
    }
}

fn inventory(answer: Answer, change: impl Fn(&mut Vec<hoody_state::transfer::Offered>)) -> Answer {
    match answer {
        Answer::Inventory { mut snapshots } => {
            change(&mut snapshots);
            Answer::Inventory { snapshots }
        }
        other => other,
    }
}

#[test]
fn a_lying_source_creates_no_incomplete_or_wrong_copy() {
    type Change = fn(&mut Vec<hoody_state::transfer::Offered>);
    let lies: [(&str, Change); 5] = [
        ("an identity of nothing", |s| s[1].identity = "00000000-0000-0000-0000-00000000000a".parse().unwrap()),
        ("the identities of others", |s| {
            let (a, b) = (s[0].identity, s[1].identity);
            (s[0].identity, s[1].identity) = (b, a);
        }),
        ("no snapshots", Vec::clear),
        ("a name that is not there", |s| s[1].snapshot.name = "elsewhere".parse().unwrap()),
        ("databases that are not there", |s| s[1].databases = Some(s[1].identity)),
    ];
    for (what, change) in lies {
        let w = Lied::new();
        w.lie(move |_, answer| inventory(answer, change));
        let copy = w.copy();
        let c = idle(&w.there, &copy);
        assert_eq!(c.status, Status::Failed, "{what}: {c:?}");
        assert!(c.status_message.is_some_and(|m| m.len() > 20), "{what}");
        assert_clean(&w.there, what);
        // What was received is what the source has; told the truth, the copy is finished.
        w.lie(|_, answer| answer);
        sync_when_free(&w.there, &copy, &SyncRequest::default()).unwrap();
        assert_eq!(idle(&w.there, &copy).status, Status::Running, "{what}");
        assert_eq!(w.b.read(&copy, "state").as_deref(), Some("second"), "{what}");
        assert_clean(&w.there, what);
    }
}

#[test]
fn snapshots_out_of_order_or_twice_in_the_list_are_received_once() {
    let w = Lied::new();
    w.lie(|_, answer| {
        inventory(answer, |s| {
            s.reverse();
            s.extend(s.clone());
        })
    });
    let copy = w.copy();
    assert_eq!(idle(&w.there, &copy).status, Status::Running);
    let mut all = names(&w.there, &copy);
    all.sort();
    assert_eq!(all, ["first", "second"]);
    assert_clean(&w.there, "out of order");
}

#[test]
fn a_source_that_lies_in_a_sync_leaves_the_copy_as_it_was() {
    let w = Lied::new();
    let copy = w.copy();
    idle(&w.there, &copy);
    let other = "00000000-0000-0000-0000-00000000000b".parse().unwrap();
    let lies: Vec<(&str, Lie)> = vec![
        ("something else", Box::new(|request, answer| if matches!(request, Request::Fresh { .. }) { Answer::Possible {} } else { answer })),
        (
            "nothing has changed, on a base that nobody has",
            Box::new(move |_, answer| match answer {
                Answer::Fresh { .. } => Answer::Fresh { snapshot: None, base: Some("first".parse().unwrap()), base_identity: Some(other) },
                answer => answer,
            }),
        ),
        (
            "a snapshot with another identity",
            Box::new(move |_, answer| match answer {
                Answer::Fresh { snapshot: Some(mut s), base, base_identity } => {
                    s.identity = other;
                    Answer::Fresh { snapshot: Some(s), base, base_identity }
                }
                answer => answer,
            }),
        ),
    ];
    for (what, lie) in lies {
        w.a.write(&w.source, "state", what);
        *w.liar.1.lock().unwrap() = lie;
        let before = picture(&w.there)["snapshots"].clone();
        let e = sync_when_free(&w.there, &copy, &SyncRequest::default()).unwrap_err();
        assert!([Code::PeerRefused, Code::StreamCorrupt].contains(&e.code()), "{what}: {e}");
        settled(&w.there);
        assert_eq!(picture(&w.there)["snapshots"], before, "{what}");
        let c = w.there.container(&copy).unwrap();
        assert_eq!((c.status, w.b.read(&copy, "state").as_deref()), (Status::Running, Some("second")), "{what}");
        assert_clean(&w.there, what);
    }
    w.lie(|_, answer| answer);
    sync_when_free(&w.there, &copy, &SyncRequest::default()).unwrap();
    assert_eq!(w.b.read(&copy, "state"), w.a.read(&w.source, "state"));
    assert_eq!(w.there.containers(&PageRequest::first(), None, None).unwrap().rows.len(), 1);
}
