//! What no decent client sends.

use crate::support::{Server, read_head};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn a_huge_body_is_refused_without_being_read() {
    let s = Server::start();
    let mut stream = TcpStream::connect(s.address).unwrap();
    write!(stream, "POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 104857600\r\n\r\n", s.token).unwrap();
    // Nothing of the body is sent: the answer comes all the same.
    let (status, _) = read_head(&mut BufReader::new(stream)).unwrap();
    assert_eq!(status, 413);
    // A client that sends on without looking still gets the answer, if what it sends is not endless.
    let a = s.request("POST", "/api/v1/projects").bytes(&vec![b' '; 3 << 20]).send();
    assert_eq!((a.status, a.code().as_str()), (413, "request_too_large"));
}

#[test]
fn a_huge_body_of_unknown_length_is_refused_at_the_limit() {
    let s = Server::start();
    let mut stream = TcpStream::connect(s.address).unwrap();
    write!(stream, "POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n", s.token).unwrap();
    let chunk = vec![b' '; 64 << 10];
    for _ in 0..20 {
        write!(stream, "{:x}\r\n", chunk.len()).unwrap();
        stream.write_all(&chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    assert_eq!(read_head(&mut BufReader::new(stream)).unwrap().0, 413);
}

#[test]
fn bodies_that_are_no_json_objects_are_refused_and_the_field_is_named() {
    let s = Server::start();
    let deep = format!(r#"{{"alias":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let deep_ignored = format!(r#"{{"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [(&[u8], &str); 11] = [
        (b"{", "body"),
        (b"[]", "body"),
        (b"[\"a\"]", "body"),
        (b"null", "body"),
        (b"\"alias\"", "body"),
        (b"{\"alias\":\"x\"} trailing", "body"),
        (b"{\"alias\":\"\xff\xfe\"}", "body"),
        (b"{\"alias\":1}", "alias"),
        (b"{\"alias\":\"x\",\"max_containers\":\"many\"}", "max_containers"),
        (deep.as_bytes(), "alias"),
        (b"{\"alias\":\"\\ud800\"}", "alias"),
    ];
    for (body, field) in bodies {
        let a = s.request("POST", "/api/v1/projects").bytes(body).send();
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((a.status, a.code().as_str()), (400, "validation_error"), "{shown}: {}", a.text());
        let v = a.json();
        assert_eq!(v["error"], "VALIDATION_ERROR");
        assert_eq!(v["data"]["field"], field, "{shown}: {v}");
    }
    // However deep: an answer, not a crash.
    let a = s.request("POST", "/api/v1/projects").bytes(deep_ignored.as_bytes()).send();
    assert!(a.status == 400 || a.status == 201, "{}", a.text());
    assert_eq!(s.bare("GET", "/healthz").send().status, 200);
}

#[test]
fn paths_that_are_no_paths_are_refused() {
    let s = Server::start();
    for (path, code) in [
        ("/api/v1/containers/..%2F..%2Fetc%2Fpasswd", "invalid_id_format"),
        ("/api/v1/containers/65F0C0FFEE000000000000FF", "invalid_id_format"),
        ("/api/v1/containers/%ff%fe", "validation_error"),
        ("/api/v1/containers/%zz", "invalid_id_format"),
        ("/api/v1/containers/%00", "invalid_id_format"),
        ("/api/v1/containers//stats", "invalid_id_format"),
        ("/api/v1/containers/65f0c0ffee000000000000ff/../x", "route_not_found"),
        ("/api/v1/../../etc/passwd", "route_not_found"),
        ("/api/v2/projects", "route_not_found"),
        ("/", "route_not_found"),
        ("//", "route_not_found"),
        ("/api/v1/operations/65f0c0ffee000000000000ff", "invalid_id_format"),
        ("/api/v1/containers/65f0c0ffee000000000000ff/copy/x/y", "route_not_found"),
        ("/api/v1/containers/65f0c0ffee000000000000ff/storage/shares", "container_not_found"),
        ("/api/v1/containers/65f0c0ffee000000000000ff/storage/shares/x", "invalid_id_format"),
        ("/api/v1/containers/65f0c0ffee000000000000ff/explode", "route_not_found"),
    ] {
        assert_eq!(s.get(path).code(), code, "{path}");
    }
    assert_eq!(s.call("POST", "/api/v1/containers/65f0c0ffee000000000000ff/explode", "").code(), "route_not_found");
    assert_eq!(s.call("POST", "/api/v1/containers/65f0c0ffee000000000000ff/reticulate", "").code(), "route_not_found");
    assert_eq!(s.call("DELETE", "/api/v1/containers/65f0c0ffee000000000000ff/start", "").code(), "method_not_allowed");
    for name in ["..", "a/../b", "a//b", "%2e%2e", "..%2fx", "a%00b"] {
        let a = s.request("PUT", &format!("/api/v1/images/{name}")).send();
        assert!((400..500).contains(&a.status), "{name}: {}", a.text());
    }
    for name in ["public", "user", "import", "purchase", "rate"] {
        assert_eq!(s.request("PUT", &format!("/api/v1/images/{name}")).send().code(), "reserved_image_name", "{name}");
    }
}

#[test]
fn huge_headers_and_paths_and_nonsense_do_not_hurt() {
    let s = Server::start();
    let long = "x".repeat(1 << 20);
    for head in [
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(500)),
        "nonsense\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}".to_owned(),
        "GET /healthz HTTP/9.9\r\n\r\n".to_owned(),
        "POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n".to_owned(),
        "POST /api/v1/projects HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(s.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.take(4096).read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.starts_with("HTTP/1.1 2") && !text.starts_with("HTTP/1.1 5"), "{text}");
    }
    assert_eq!(s.bare("GET", "/healthz").send().status, 200);
}

#[test]
fn a_client_that_breaks_off_an_upload_leaves_no_image() {
    let s = Server::start();
    let mut stream = TcpStream::connect(s.address).unwrap();
    write!(stream, "PUT /api/v1/images/half HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 1000000\r\n\r\n", s.token).unwrap();
    stream.write_all(&[0; 1000]).unwrap();
    drop(stream);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(s.get("/api/v1/images/half").code(), "image_not_found");
}

#[test]
fn a_small_call_costs_less_than_a_millisecond() {
    let s = Server::start();
    let mut stream = TcpStream::connect(s.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("GET /api/v1/projects?limit=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", s.token);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut times = Vec::new();
    for _ in 0..500 {
        let start = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        let (status, headers) = read_head(&mut reader).unwrap();
        let length: usize = headers.iter().find(|(n, _)| n == "content-length").unwrap().1.parse().unwrap();
        reader.read_exact(&mut vec![0; length]).unwrap();
        assert_eq!(status, 200);
        times.push(start.elapsed());
    }
    times.sort();
    println!("median {:?}, 99 % {:?}", times[250], times[495]);
    // A release build takes a tenth; a loaded test machine with a debug build gets some room.
    assert!(times[250] < Duration::from_millis(5), "median {:?}", times[250]);
}
