//! The program that works inside a guest for the tests in `tests/guests/`: it serves the guest's shell, files and sockets to the test on the host, and it is
//! the program that commits to SQLite databases, in containers and outside of them.
//!
//! Usage: `guest-agent serve PORT`, `guest-agent commit WRITER DATABASE:MODE…`, `guest-agent look DATABASE…`, `guest-agent disk
//! HOST:PORT DEVICE BYTES`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "nbd.rs"]
mod nbd;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A guest has one processor, and the writers shall not be all that it does.
const BETWEEN_COMMITS: Duration = Duration::from_millis(200);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args[0].as_str() {
        "serve" => serve(args[1].parse().unwrap()),
        "commit" => commit(&args[1], &args[2..]),
        "disk" => nbd::attach(&args[1], Path::new(&args[2]), args[3].parse().unwrap()),
        "look" => args[1..].iter().for_each(|path| look(path)),
        other => panic!("unknown command {other}"),
    }
}

/// Serves one request a line; each connection has a thread of its own.
fn serve(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    println!("agent listening");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            // A connection ends when the test closes it.
            let _ = converse(stream);
        });
    }
}

fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let request: Value = serde_json::from_str(&line).map_err(std::io::Error::other)?;
        let path = request["path"].as_str().unwrap_or_default();
        match request["op"].as_str().unwrap_or_default() {
            "unix" => {
                let mut inside = UnixStream::connect(path)?;
                // What came with the line belongs to the other side.
                inside.write_all(lines.buffer())?;
                return splice(stream, inside);
            }
            "follow" => return follow(Path::new(path), &mut stream),
            "run" => answer(&mut stream, &run(&request))?,
            "spawn" => answer(&mut stream, &spawn(&request))?,
            "read" => answer(&mut stream, &json!({ "text": std::fs::read_to_string(path).ok() }))?,
            "write" => {
                answer(&mut stream, &json!({ "error": write_durably(Path::new(path), request["text"].as_str().unwrap()).err().map(|e| e.to_string()) }))?
            }
            other => panic!("unknown request {other}"),
        }
        line.clear();
    }
    Ok(())
}

fn answer(stream: &mut TcpStream, value: &Value) -> std::io::Result<()> {
    stream.write_all(format!("{value}\n").as_bytes())
}

/// Joins the connection with a UNIX socket of the guest.
fn splice(outside: TcpStream, inside: UnixStream) -> std::io::Result<()> {
    let (mut from, mut to) = (outside.try_clone()?, inside.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut from, mut to) = (inside, outside);
    std::io::copy(&mut from, &mut to)?;
    to.shutdown(std::net::Shutdown::Write)
}

fn command(request: &Value) -> Command {
    let words: Vec<&str> = request["command"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
}

fn run(request: &Value) -> Value {
    match command(request).output() {
        Ok(out) => json!({ "code": out.status.code(), "out": String::from_utf8_lossy(&out.stdout), "err": String::from_utf8_lossy(&out.stderr) }),
        Err(e) => json!({ "code": null, "out": "", "err": e.to_string() }),
    }
}

/// Starts a program whose output goes to a file, and reaps it when it ends.
fn spawn(request: &Value) -> Value {
    let open = |name: &str| std::fs::File::options().create(true).append(true).open(request[name].as_str().unwrap()).unwrap();
    match command(request).stdout(open("stdout")).stderr(open("stderr")).spawn() {
        Ok(mut child) => {
            let pid = child.id();
            std::thread::spawn(move || child.wait());
            json!({ "pid": pid })
        }
        Err(e) => json!({ "error": e.to_string() }),
    }
}

/// Replaces a file so that after a power cut it has its old or its new text, and the new one for certain once this has returned.
fn write_durably(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(path.parent().unwrap())?.sync_all()
}

/// Sends what is added to a file, also when it does not exist yet or is replaced by a shorter one.
fn follow(path: &Path, to: &mut TcpStream) -> std::io::Result<()> {
    let mut at = 0;
    loop {
        if let Ok(mut file) = std::fs::File::open(path) {
            let length = file.metadata()?.len();
            if length < at {
                at = 0;
            }
            if length > at {
                file.seek(std::io::SeekFrom::Start(at))?;
                let mut new = Vec::new();
                file.take(length - at).read_to_end(&mut new)?;
                // Whole lines only: the rest comes next time.
                let end = new.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
                to.write_all(&new[..end])?;
                at += end as u64;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Commits ever higher numbers to each database in turn, each made durable by SQLite, and says on stdout what has been committed. Nothing is retried: a
/// refused transaction ends the program with an error.
fn commit(writer: &str, databases: &[String]) {
    let mut open: Vec<(String, rusqlite::Connection, i64)> = databases.iter().map(|d| connect(writer, d)).collect();
    loop {
        for (name, connection, last) in &mut open {
            *last += 1;
            connection.execute("INSERT INTO commits VALUES(?1, ?2, randomblob(200))", (writer, *last)).unwrap_or_else(|e| panic!("{writer} on {name}: {e}"));
            println!("committed {writer} {name} {last}");
        }
        std::thread::sleep(BETWEEN_COMMITS);
    }
}

fn connect(writer: &str, database: &str) -> (String, rusqlite::Connection, i64) {
    let (path, mode) = database.split_once(':').unwrap();
    let fail = |e: rusqlite::Error| -> ! { panic!("{writer} on {path}: {e}") };
    let connection = rusqlite::Connection::open(path).unwrap_or_else(|e| fail(e));
    connection.busy_timeout(Duration::ZERO).unwrap_or_else(|e| fail(e));
    connection.pragma_update(None, "journal_mode", mode).unwrap_or_else(|e| fail(e));
    // A commit in rollback mode is the deletion of the journal, and with FULL SQLite does not sync the directory after it: a power cut may bring the journal
    // back, which undoes the last commit, on any file system. EXTRA syncs it.
    connection.pragma_update(None, "synchronous", if mode == "delete" { "EXTRA" } else { "FULL" }).unwrap_or_else(|e| fail(e));
    let table = "CREATE TABLE IF NOT EXISTS commits(writer TEXT, n INTEGER, filler, PRIMARY KEY(writer, n))";
    connection.execute_batch(table).unwrap_or_else(|e| fail(e));
    let last = connection.query_row("SELECT coalesce(max(n), 0) FROM commits WHERE writer = ?1", [writer], |r| r.get(0)).unwrap_or_else(|e| fail(e));
    let name = Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
    (name, connection, last)
}

/// Prints for each writer how many commits there are and which is the last. They must be the same number: none may be missing in between.
fn look(path: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    let mut statement = connection.prepare("SELECT writer, count(*), max(n) FROM commits GROUP BY writer").unwrap();
    let writers: Vec<Value> = statement
        .query_map([], |r| Ok(json!({ "writer": r.get::<_, String>(0)?, "count": r.get::<_, i64>(1)?, "last": r.get::<_, i64>(2)? })))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    println!("{}", json!({ "integrity": sound, "writers": writers }));
}
