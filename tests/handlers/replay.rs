//! The bootstrap of a `provided` function that speaks the Runtime API as its environment says.
//!
//! - `REPLAY=FOLDER`: replays the recorded connections there, `ROUNDS` times, each round cut into
//!   other pieces, and checks every reply of the server. With `LIVES=FILE` every process replays one
//!   round, and the file's length says which.
//! - `PUPPET=FILE`: writes the server's address into that file and leaves the talking to a test.
//! - neither: gives every event back, framed as `ECHO` says: `length`, `chunked` or `expect`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[allow(dead_code, reason = "a worker needs a part of it")]
#[path = "../common/http.rs"]
mod http;
mod recorded;
#[path = "../common/sockets.rs"]
mod sockets;

use std::io::Write;
use std::path::Path;

use http::{Conn, Reply};
use recorded::{Kind, Request, substitute};

fn main() {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
    if let Ok(folder) = std::env::var("REPLAY") {
        return replay(&address, Path::new(&folder));
    }
    if let Ok(file) = std::env::var("PUPPET") {
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        writeln!(file, "{address}").unwrap();
        loop {
            std::thread::park();
        }
    }
    echo(&address, &std::env::var("ECHO").unwrap_or_else(|_| "length".into()));
}

/// How this round cuts requests: whole, byte by byte, or at certain places.
fn pieces(bytes: &[u8], round: usize) -> Vec<&[u8]> {
    match round {
        0 => vec![bytes],
        1 => bytes.chunks(1).collect(),
        _ => {
            let first = (round - 2) % recorded::STRIDE + 1;
            let (start, rest) = bytes.split_at(first.min(bytes.len()));
            std::iter::once(start).chain(rest.chunks(recorded::STRIDE)).collect()
        }
    }
}

/// One round: the connections of the recording, and what the server said so far.
struct Round<'a> {
    address: &'a str,
    number: usize,
    conns: Vec<Option<Conn>>,
    /// The connection on which an event was asked for and not read yet.
    asked: Option<usize>,
    /// Events so far, over all rounds.
    events: usize,
    request_id: String,
    extension_id: String,
}

fn replay(address: &str, folder: &Path) {
    let requests = recorded::read(folder);
    // The last poll of a round is the first one of the next.
    let polls = |request: &&Request| request.kind == Kind::Next;
    let (last, rest) = requests.split_last().unwrap();
    let (used, last) = if polls(&last) { (rest, Some(last)) } else { (&requests[..], None) };
    let rounds = match std::env::var("LIVES") {
        Ok(file) => {
            let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
            let lives = usize::try_from(file.metadata().unwrap().len()).unwrap();
            file.write_all(b"x").unwrap();
            lives..lives + 1
        }
        Err(_) => 0..std::env::var("ROUNDS").unwrap().parse().unwrap(),
    };
    let mut round = Round {
        address,
        number: 0,
        conns: Vec::new(),
        asked: None,
        events: 0,
        request_id: String::new(),
        extension_id: String::new(),
    };
    for number in rounds {
        round.number = number;
        used.iter().for_each(|request| round.send(request));
        round.conns.clear();
    }
    match last {
        Some(last) => round.send(last),
        None => std::process::exit(1),
    }
    println!("all rounds are done");
    loop {
        std::thread::park();
    }
}

impl Round<'_> {
    fn send(&mut self, request: &Request) {
        if matches!(request.kind, Kind::Response | Kind::Error) {
            self.event();
        }
        if self.conns.len() <= request.conn {
            self.conns.resize_with(request.conn + 1, || None);
        }
        let bytes = match (&request.id, request.kind) {
            (Some(id), Kind::ExtensionNext) => substitute(&request.bytes, id, &self.extension_id),
            (Some(id), _) => substitute(&request.bytes, id, &self.request_id),
            (None, _) => request.bytes.clone(),
        };
        let conn = self.conns[request.conn].get_or_insert_with(|| Conn::tcp(self.address));
        conn.send_pieces(pieces(&bytes, self.number));
        match request.kind {
            Kind::Next => self.asked = Some(request.conn),
            // This one is never answered to those who asked for no events.
            Kind::ExtensionNext => {}
            Kind::Response | Kind::Error | Kind::InitError => accepted(&conn.reply()),
            Kind::Register => {
                let reply = conn.reply();
                assert_eq!(reply.status, 200, "{}", reply.text());
                assert_eq!(reply.json()["functionName"], "demo");
                assert_eq!(reply.json()["functionVersion"], "$LATEST");
                let id = reply.field("lambda-extension-identifier").unwrap();
                id.clone_into(&mut self.extension_id);
            }
        }
    }

    /// Reads the event that was asked for.
    fn event(&mut self) {
        let conn = self.asked.take().expect("an answer follows an event");
        let reply = self.conns[conn].as_mut().unwrap().reply();
        check_event(&reply);
        assert_eq!(reply.text(), format!("{{\"n\":{}}}", self.events));
        self.events += 1;
        reply.field("lambda-runtime-aws-request-id").unwrap().clone_into(&mut self.request_id);
    }
}

/// Every field that some client cannot work without, in the one form that all of them take.
fn check_event(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.field("content-type"), Some("application/json"));
    let id = reply.field("lambda-runtime-aws-request-id").unwrap();
    assert_eq!(id.len(), 36, "{id}");
    let deadline: u64 = reply.field("lambda-runtime-deadline-ms").unwrap().parse().unwrap();
    assert!(deadline > 0);
    let arn = reply.field("lambda-runtime-invoked-function-arn").unwrap();
    assert_eq!(arn, "arn:aws:lambda:us-east-1:000000000000:function:demo");
    assert!(reply.field("lambda-runtime-trace-id").unwrap().starts_with("Root=1-"));
    assert_eq!(reply.field("connection"), None);
}

/// The one answer that Go takes for an answer.
fn accepted(reply: &Reply) {
    assert_eq!((reply.status, reply.text().as_str()), (202, "{\"status\":\"OK\"}\n"));
    assert_eq!(reply.field("connection"), None);
}

fn echo(address: &str, framing: &str) {
    let mut conn = Conn::tcp(address);
    loop {
        let event = conn.get("/2018-06-01/runtime/invocation/next");
        let id = event.field("lambda-runtime-aws-request-id").unwrap();
        let path = format!("/2018-06-01/runtime/invocation/{id}/response");
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n");
        let length = format!("Content-Length: {}\r\n", event.body.len());
        match framing {
            "chunked" => {
                conn.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
                // As large as Go makes them.
                for chunk in event.body.chunks(32_768) {
                    conn.send(format!("{:x}\r\n", chunk.len()));
                    conn.send([chunk, b"\r\n"].concat());
                }
                conn.send("0\r\n\r\n");
            }
            "expect" => {
                conn.send(format!("{head}{length}Expect: 100-continue\r\n\r\n"));
                assert_eq!(conn.reply().status, 100);
                conn.send(&event.body);
            }
            _ => {
                conn.send(format!("{head}{length}\r\n"));
                conn.send(&event.body);
            }
        }
        accepted(&conn.reply());
    }
}
