//! A native worker that does what its event says, bad things included.
//!
//! The first argument says how it starts: nothing (well), `slow MS`, `never`, `exit STATUS`,
//! `init-error`, `garbage`, `protocol N`, `abort`, or `streams` or `memory`, well and with the protocol
//! that first had replies in pieces, or in which workers first told their memory.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::zombie_processes, reason = "it misbehaves")]

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio, exit};
use std::time::Duration;

use hob::wire::{Context, FRAME_MAX, FromWorker, ToWorker, decode, encode};
use serde_json::{Value, json};

/// The socket, where events come from, and what is still to be said: an answer and the request for
/// more go out together, as a well-behaved worker sends them.
struct Wire(UnixStream, Box<dyn Read>, Vec<u8>);

impl Wire {
    fn say(&mut self, message: FromWorker, payload: &[u8]) {
        let mut head = [0; 32];
        let length = encode(&message, payload.len(), &mut head).unwrap();
        self.2.extend([&head[..length], payload].concat());
    }

    fn flush(&mut self) {
        self.0.write_all(&std::mem::take(&mut self.2)).unwrap();
    }

    fn next(&mut self, input: &mut Vec<u8>) -> bool {
        input.clear();
        while decode::<ToWorker<'_>>(input, FRAME_MAX).unwrap().is_none() {
            let mut chunk = [0; 65536];
            let n = self.1.read(&mut chunk).unwrap();
            if n == 0 {
                return false;
            }
            input.extend_from_slice(&chunk[..n]);
        }
        true
    }
}

fn main() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let socket = UnixStream::from(socket);
    let events = Box::new(socket.try_clone().unwrap());
    let mut wire = Wire(socket, events, Vec::new());
    start(&mut wire);
    let (mut input, mut count) = (Vec::new(), 0);
    while wire.next(&mut input) {
        let frame = decode::<ToWorker<'_>>(&input, FRAME_MAX).unwrap().unwrap();
        let ToWorker::Invoke(context) = frame.message else { panic!("no zygote") };
        let event = input[frame.payload_at..frame.end].to_vec();
        let mut event: Value = serde_json::from_slice(&event).unwrap();
        // Whoever calls its URL says in the body what to do.
        let inner =
            event["body"].as_str().and_then(|body| serde_json::from_str::<Value>(body).ok());
        if let Some(inner) = inner.filter(|inner| inner.get("do").is_some()) {
            event = inner;
        }
        count += 1;
        serve(&mut wire, &context, &event, count);
        wire.say(FromWorker::Ready, b"");
        wire.flush();
        if let Some(ms) = event["then_exit_ms"].as_u64() {
            pause(ms);
            exit(0);
        }
    }
    if let Ok(path) = std::env::var("CLEANUP_FILE") {
        std::fs::write(path, "the stream ended").unwrap();
    }
}

fn start(wire: &mut Wire) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = || arguments[1].parse::<u64>().unwrap();
    println!("starting");
    if let Ok(path) = std::env::var("STARTS_FILE") {
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        file.write_all(b"x").unwrap();
    }
    let first = arguments.first().map_or("", String::as_str);
    let mut protocol = match first {
        "streams" => 3,
        "memory" => 4,
        _ => 5,
    };
    match first {
        "" | "streams" | "memory" => {}
        "slow" => pause(number()),
        "never" => {
            wire.say(FromWorker::Hello { protocol }, b"");
            wire.flush();
            hang();
        }
        "exit" => exit(i32::try_from(number()).unwrap()),
        "abort" => std::process::abort(),
        "garbage" => {
            wire.0.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            hang();
        }
        "protocol" => {
            protocol = u8::try_from(number()).unwrap();
        }
        "init-error" => {
            wire.say(FromWorker::Hello { protocol }, b"");
            wire.say(FromWorker::InitError, br#"{"errorType":"Oops","errorMessage":"no luck"}"#);
            wire.flush();
            exit(1);
        }
        other => panic!("{other}"),
    }
    if protocol >= 5 {
        wire.1 = Box::new(std::fs::File::open("/proc/self/fd/3").unwrap());
    }
    wire.say(FromWorker::Hello { protocol }, b"");
    wire.say(FromWorker::Ready, b"");
    wire.flush();
}

fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn hang() -> ! {
    loop {
        pause(1_000_000);
    }
}

fn serve(wire: &mut Wire, context: &Context<'_>, event: &Value, count: u64) {
    let id = context.id;
    let n = event["n"].as_u64().unwrap_or(0);
    let mut reply = json!({ "pid": std::process::id(), "count": count, "event": event });
    match event["do"].as_str().unwrap_or("echo") {
        "echo" => {}
        "sleep" => pause(n),
        "context" => {
            reply["context"] = json!({
                "deadline_ms": context.deadline_ms,
                "request_id": context.request_id,
                "function_arn": context.function_arn,
                "trace_id": context.trace_id,
                "client_context": context.client_context,
            });
        }
        "env" => {
            reply["env"] = std::env::vars()
                .map(|(n, v)| (n, Value::from(v)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        "crash" => std::process::abort(),
        "exit" => exit(i32::try_from(n).unwrap()),
        "hang" => hang(),
        "stubborn" => {
            // Handled, and then nothing is done about it.
            let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            signal_hook::flag::register(signal_hook::consts::SIGTERM, flag).unwrap();
        }
        "fail" => {
            let error = json!({ "errorType": "TestError", "errorMessage": "as told", "extra": n });
            return wire.say(FromWorker::Error { id }, error.to_string().as_bytes());
        }
        "big" => {
            let text = vec![b'x'; usize::try_from(n).unwrap() - 2];
            return wire.say(FromWorker::Reply { id }, &[b"\"", &text[..], b"\""].concat());
        }
        "raw" => {
            let text = event["text"].as_str().unwrap();
            return wire.say(FromWorker::Reply { id }, text.as_bytes());
        }
        "print" => {
            for line in 0..n {
                println!("out {line}");
                eprintln!("err {line}");
            }
        }
        "flood" => {
            let line = [vec![b'y'; 200], b"\n".to_vec()].concat();
            for _ in 0..n {
                std::io::stderr().write_all(&line).unwrap();
            }
        }
        "long-line" => {
            std::io::stderr().write_all(&vec![b'z'; usize::try_from(n).unwrap()]).unwrap();
            eprintln!();
            eprintln!("after it");
        }
        "grandchild" => reply["grandchild"] = run(&["sleep", "1000"]).into(),
        "runaway" => reply["runaway"] = run(&["setsid", "sleep", "1000"]).into(),
        "memory" => wire.say(FromWorker::Memory { kib: u32::try_from(n).unwrap() }, b""),
        "stream" => return stream(wire, id, event),
        _ => return break_rules(wire, id, event, &reply),
    }
    wire.say(FromWorker::Reply { id }, reply.to_string().as_bytes());
}

/// Starts a program that nobody waits for; its number.
fn run(line: &[&str]) -> u32 {
    Command::new(line[0]).args(&line[1..]).stdin(Stdio::null()).spawn().unwrap().id()
}

/// A reply in pieces: `pieces` as text and then `n` bytes more, waiting for `gate` to be opened after
/// the first one, and ended as `end` says.
fn stream(wire: &mut Wire, id: u32, event: &Value) {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    wire.say(FromWorker::Stream { id }, text("type").as_bytes());
    for piece in event["pieces"].as_array().into_iter().flatten() {
        wire.say(FromWorker::Piece { id }, piece.as_str().unwrap().as_bytes());
        wire.flush();
        if !text("gate").is_empty() && piece == &event["pieces"][0] {
            std::fs::read(text("gate")).unwrap();
        }
    }
    let mut left = usize::try_from(event["n"].as_u64().unwrap_or(0)).unwrap();
    while left > 0 {
        let here = left.min(16_384);
        wire.say(FromWorker::Piece { id }, &vec![b'x'; here]);
        wire.flush();
        left -= here;
    }
    println!("all pieces are written");
    match event["end"].as_str().unwrap_or("reply") {
        "reply" => wire.say(FromWorker::Reply { id }, text("last").as_bytes()),
        "fail" => wire.say(
            FromWorker::Error { id },
            br#"{"errorType":"TestError","errorMessage":"halfway"}"#,
        ),
        "crash" => std::process::abort(),
        "leave" => {
            wire.say(FromWorker::Reply { id }, text("last").as_bytes());
            wire.flush();
            exit(0);
        }
        "hang" => hang(),
        "after" => {
            wire.say(FromWorker::Reply { id }, b"");
            wire.say(FromWorker::Piece { id }, b"late");
        }
        "wrong-id" => wire.say(FromWorker::Piece { id: id + 1 }, b"x"),
        "again" => wire.say(FromWorker::Stream { id }, b""),
        "long" => wire.say(FromWorker::Piece { id }, &[b'x'; 16_385]),
        other => panic!("{other}"),
    }
}

/// What no worker should do to its conversation.
fn break_rules(wire: &mut Wire, id: u32, event: &Value, reply: &Value) {
    let n = event["n"].as_u64().unwrap_or(0);
    match event["do"].as_str().unwrap() {
        "half" => {
            wire.0.write_all(&[200, 0, 0, 0, 2, 1]).unwrap();
            exit(0);
        }
        "garbage" => {
            wire.0.write_all(&[3, 0, 0, 0, 99, 99, 99]).unwrap();
            hang();
        }
        "huge" => {
            wire.0.write_all(&u32::MAX.to_le_bytes()).unwrap();
            hang();
        }
        "wrong-id" => return wire.say(FromWorker::Reply { id: id + 1 }, b"{}"),
        "twice" => wire.say(FromWorker::Reply { id }, b"{}"),
        "linger" => {
            wire.say(FromWorker::Reply { id }, reply.to_string().as_bytes());
            wire.flush();
            return pause(n);
        }
        other => panic!("{other}"),
    }
    wire.say(FromWorker::Reply { id }, reply.to_string().as_bytes());
}
