//! Socket.IO and Engine.IO packets, as somebody without a token sends them: the input is the body of one POST to an open session.
//!
//! Whatever comes, the server answers without a fault of its own, and the next session works.
#![no_main]

use axum::body::Body;
use axum::http::{Method, Request};
use hoody_state::Host;
use hoody_state_http::limits::Limits;
use hoody_state_http::{Api, Options};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::time::Duration;
use tokio::runtime::Runtime;
use tower::ServiceExt;

const PATH: &str = "/api/v1/events/?EIO=4&transport=polling";

struct World {
    runtime: Runtime,
    router: axum::Router,
    session: Option<String>,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let limits = Limits { pending_sessions: 1 << 16, session_timeout: Duration::from_millis(200), ..Limits::default() };
        let options = Options { limits, ..Options::default() };
        // Its service starts tasks.
        let router = runtime.block_on(async { Api::new(Host::in_memory().expect("a host"), options).router() });
        World { runtime, router, session: None }
    }

    /// Status and text; nothing when there is nothing to fetch.
    fn answer(&self, method: Method, path: &str, body: Body) -> Option<(u16, String)> {
        let request = Request::builder().method(method).uri(path).body(body).expect("a request");
        self.runtime.block_on(async {
            let answer = tokio::time::timeout(Duration::from_millis(5), self.router.clone().oneshot(request)).await.ok()?.expect("it never fails");
            let status = answer.status().as_u16();
            let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.map(|b| b.to_vec()).unwrap_or_default();
            Some((status, String::from_utf8_lossy(&bytes).into_owned()))
        })
    }

    fn session(&mut self) -> Option<String> {
        if self.session.is_none() {
            let (status, text) = self.answer(Method::GET, PATH, Body::empty())?;
            assert_eq!(status, 200, "{text}");
            let hello: serde_json::Value = serde_json::from_str(text.strip_prefix('0')?).expect("JSON");
            self.session = hello["sid"].as_str().map(str::to_owned);
        }
        self.session.clone()
    }
}

thread_local!(static WORLD: RefCell<Option<World>> = const { RefCell::new(None) });

fuzz_target!(|data: &[u8]| {
    WORLD.with_borrow_mut(|slot| {
        let world = slot.get_or_insert_with(World::new);
        let Some(session) = world.session() else { return };
        let path = format!("{PATH}&sid={session}");
        for (method, body) in [(Method::POST, Body::from(data.to_vec())), (Method::GET, Body::empty())] {
            if let Some((status, text)) = world.answer(method, &path, body) {
                assert_ne!(status, 500, "{text}");
                if status != 200 {
                    world.session = None;
                    return;
                }
            }
        }
    });
});
