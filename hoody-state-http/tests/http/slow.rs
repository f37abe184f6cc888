//! Clients that are too slow: seconds for a head and for a body, as long as it takes for an upload while bytes flow.

use crate::support::{Server, read_answer, read_head};
use hoody_state::host::Host;
use hoody_state_http::limits::Limits;
use hoody_state_http::tls::Identity;
use hoody_state_http::{Api, Options, serve};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn quick() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(600),
        body_timeout: Duration::from_millis(600),
        progress_timeout: Duration::from_millis(600),
        progress_bytes: 100,
        ..Limits::default()
    }
}

fn connect(s: &Server) -> TcpStream {
    let stream = TcpStream::connect(s.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// How long the server keeps a connection to which one byte is sent every 100 ms.
fn drip(mut stream: TcpStream, head: &[u8], bytes: &[u8]) -> Duration {
    let began = Instant::now();
    stream.write_all(head).unwrap();
    for b in bytes.iter().cycle() {
        std::thread::sleep(Duration::from_millis(100));
        // The first write after the end is answered by a reset, the next fails.
        if stream.write_all(&[*b]).is_err() || began.elapsed() > Duration::from_secs(8) {
            break;
        }
    }
    began.elapsed()
}

#[test]
fn a_head_that_drips_in_is_cut_off_and_so_is_a_silent_connection() {
    let s = Server::limited(quick());
    assert!(drip(connect(&s), b"GET /healthz HTTP/1.1\r\n", b"X-A: b\r\n") < Duration::from_secs(3));
    let began = Instant::now();
    assert_eq!(connect(&s).read(&mut [0; 10]).unwrap(), 0, "closed");
    assert!(began.elapsed() < Duration::from_secs(3));
    // Between two requests too, as long as nobody knows who it is.
    let mut idle = connect(&s);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let began = Instant::now();
    idle.read_to_end(&mut all).unwrap();
    assert!(all.starts_with(b"HTTP/1.1 200") && began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_connection_that_has_shown_a_token_may_be_idle_for_longer() {
    let s = Server::limited(quick());
    let stream = connect(&s);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..2 {
        write!(&stream, "GET /api/v1/realms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", s.token).unwrap();
        let (status, headers) = read_head(&mut reader).unwrap();
        assert_eq!(status, 200);
        let length: usize = headers.iter().find(|(n, _)| n == "content-length").unwrap().1.parse().unwrap();
        reader.read_exact(&mut vec![0; length]).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
    }
    // Once a head has begun, it has seconds to end like any other.
    assert!(drip(stream, b"GET /healthz HTTP/1.1\r\n", b"X-A: b\r\n") < Duration::from_secs(3));
}

#[test]
fn a_tls_handshake_has_a_deadline_too() {
    let dir = tempfile::tempdir().unwrap();
    let own = Identity::own(dir.path());
    own.make(&["localhost".to_owned()]).unwrap();
    let (ready, address) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let api = Api::new(Host::in_memory().unwrap(), Options { limits: quick(), ..Options::default() });
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            ready.send(tcp.local_addr().unwrap()).unwrap();
            serve::serve(&api, Some(tcp), Some(own.acceptor().unwrap()), None, async { drop(stopped.await) }).await;
        });
    });
    let stream = TcpStream::connect(address.recv().unwrap()).unwrap();
    // The beginning of a ClientHello.
    assert!(drip(stream, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &[0]) < Duration::from_secs(3));
    drop(stop);
    thread.join().unwrap();
}

#[test]
fn a_body_that_does_not_come_is_answered_408_and_one_without_a_token_must_be_small() {
    let s = Server::limited(quick());
    for (path, token) in [("/api/v1/projects", s.token.as_str()), ("/api/v1/users/auth/login", "hdy_x")] {
        let stream = connect(&s);
        write!(&stream, "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n{{").unwrap();
        let began = Instant::now();
        let answer = read_answer(&mut BufReader::new(stream));
        assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"), "{path}");
        assert!(began.elapsed() < Duration::from_secs(3), "{path}");
    }
    let large = format!(r#"{{"username":"{}"}}"#, "x".repeat(9000));
    assert_eq!(s.bare("POST", "/api/v1/users/auth/login").body(&large).send().code(), "request_too_large");
    assert_eq!(s.bare("POST", "/api/v1/users/auth/login").body(r#"{"username":"x"}"#).send().code(), "invalid_credentials");
    // With chunks, whose sum nobody announces.
    let mut stream = connect(&s);
    stream.write_all(b"POST /api/v1/users/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..3 {
        stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes()).unwrap();
    }
    assert_eq!(read_head(&mut BufReader::new(stream)).unwrap().0, 413);
}

#[test]
fn an_upload_may_take_long_while_bytes_flow_and_ends_when_they_do_not() {
    let s = Server::limited(quick());
    let tar = crate::shapes::tar();
    let head = |stream: &TcpStream, name: &str| {
        let mut stream = stream;
        write!(stream, "PUT /api/v1/images/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n", s.token, tar.len()).unwrap();
    };
    let mut steady = connect(&s);
    head(&steady, "steady");
    let began = Instant::now();
    for piece in tar.chunks(tar.len().div_ceil(10)) {
        steady.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(read_head(&mut BufReader::new(steady)).unwrap().0, 201);
    assert!(began.elapsed() > Duration::from_secs(2));

    let mut stalled = connect(&s);
    head(&stalled, "stalled");
    stalled.write_all(&tar[..50]).unwrap();
    let began = Instant::now();
    let mut reader = BufReader::new(stalled);
    assert_eq!(read_head(&mut reader).unwrap().0, 408);
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(s.get("/api/v1/images/stalled").code(), "image_not_found");
}

#[test]
fn somebody_unknown_who_reads_nothing_is_cut_off() {
    let s = Server::limited(quick());
    let mut stream = connect(&s);
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    let began = Instant::now();
    // More answers than the sockets' buffers hold.
    while began.elapsed() < Duration::from_secs(8) && stream.write_all(&request.repeat(10)).is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
