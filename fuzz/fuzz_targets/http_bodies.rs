//! JSON bodies of requests: the first byte chooses the route, the rest is the body. Every route that reads a body is there.
//!
//! Whatever comes, the server answers: as an error of whoever asks, or with what was done, never with a fault of its own.
#![no_main]

use axum::body::Body;
use axum::http::{Method, Request};
use hoody_state::Host;
use hoody_state_http::auth::Peer;
use hoody_state_http::{Api, Options};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// Method and path; `{p}` and `{c}` stand for a project and a container that are there, `{n}` for one that is not. What would wait for a command is asked of the latter.
const ROUTES: &[(Method, &str)] = &[
    (Method::POST, "/projects"),
    (Method::PUT, "/projects/{p}"),
    (Method::DELETE, "/projects/{n}"),
    (Method::POST, "/projects/{p}/containers"),
    (Method::PUT, "/containers/{c}"),
    (Method::POST, "/containers/{c}/start"),
    (Method::POST, "/containers/{n}/stop"),
    (Method::POST, "/containers/{c}/pause"),
    (Method::PUT, "/containers/{c}/env"),
    (Method::PATCH, "/containers/{c}/env"),
    (Method::POST, "/containers/{n}/exec"),
    (Method::POST, "/containers/{c}/snapshots"),
    (Method::PATCH, "/containers/{c}/snapshots/x"),
    (Method::PATCH, "/containers/{c}/snapshots/x/alias"),
    (Method::PUT, "/containers/{c}/snapshots/x/pin"),
    (Method::PUT, "/containers/{c}/snapshots/x/expiry"),
    (Method::POST, "/containers/{c}/undo"),
    (Method::POST, "/containers/{c}/copy"),
    (Method::POST, "/containers/{c}/fork"),
    (Method::POST, "/containers/{c}/sync"),
    (Method::POST, "/containers/{c}/move"),
    (Method::POST, "/containers/{c}/storage/shares"),
    (Method::PATCH, "/containers/{c}/storage/shares/{n}"),
    (Method::PATCH, "/containers/{c}/storage/incoming/{n}/mount"),
    (Method::POST, "/images/x/from-snapshot"),
    (Method::POST, "/events/cleanup"),
    (Method::POST, "/peers"),
    (Method::POST, "/users/auth/login"),
    (Method::POST, "/replication/call"),
    (Method::POST, "/replication/stream"),
];

const NOT_THERE: &str = "65f0c0ffee000000000000ff";
/// A server has so many inputs, then another takes its place: what they made must not fill the memory.
const INPUTS: usize = 500;

struct World {
    runtime: Runtime,
    router: axum::Router,
    project: String,
    container: String,
    used: usize,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let router = Api::new(Host::in_memory().expect("a host"), Options::default()).router();
        let mut world = World { runtime, router, project: String::new(), container: String::new(), used: 0 };
        world.project = world.made("/api/v1/projects", r#"{"alias":"p"}"#);
        world.container = world.made(&format!("/api/v1/projects/{}/containers", world.project), r#"{"name":"box"}"#);
        world
    }

    fn made(&self, path: &str, body: &'static str) -> String {
        let (status, bytes) = self.answer(Method::POST, path, body.into());
        assert_eq!(status, 201);
        let answer: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        answer["data"]["id"].as_str().expect("an id").to_owned()
    }

    fn answer(&self, method: Method, path: &str, body: Body) -> (u16, Vec<u8>) {
        let mut request = Request::builder().method(method).uri(path).header("prefer", "wait=0").body(body).expect("a request");
        request.extensions_mut().insert(Peer::Unix { uid: 0 });
        self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.expect("it never fails");
            let status = answer.status().as_u16();
            let bytes = axum::body::to_bytes(answer.into_body(), 16 << 20).await.map(|b| b.to_vec()).unwrap_or_default();
            (status, bytes)
        })
    }
}

thread_local!(static WORLD: RefCell<Option<World>> = const { RefCell::new(None) });

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let (method, path) = &ROUTES[usize::from(*first) % ROUTES.len()];
    WORLD.with_borrow_mut(|slot| {
        let world = slot.get_or_insert_with(World::new);
        let path = path.replace("{p}", &world.project).replace("{c}", &world.container).replace("{n}", NOT_THERE);
        let (status, answer) = world.answer(method.clone(), &format!("/api/v1{path}"), body.to_vec().into());
        assert_ne!(status, 500, "{method} {path}: {}", String::from_utf8_lossy(&answer));
        world.used += 1;
        if world.used >= INPUTS {
            *slot = None;
        }
    });
});
