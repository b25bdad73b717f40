//! Recorded connections of runtime clients, cut into requests. See `tests/recorded/README.md`.

#![allow(dead_code, reason = "the worker and the tests use different parts")]

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes between two cuts of a request. After a whole round and one byte by byte, each round cuts
/// one byte further on, so that this many rounds more have cut at every position.
pub const STRIDE: usize = 256;

/// What a recorded request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Next,
    Response,
    Error,
    InitError,
    Register,
    ExtensionNext,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number of its connection.
    pub conn: usize,
    pub kind: Kind,
    /// As it was sent.
    pub bytes: Vec<u8>,
    /// The request id in its path, or the extension's identifier in its head.
    pub id: Option<String>,
    /// Its body without the framing.
    pub payload: Vec<u8>,
    /// The trailers behind it.
    pub trailers: String,
}

/// Where the recordings of a client are.
pub fn folder(client: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(client)
}

/// All requests of a client, in the order of their coming.
pub fn read(folder: &Path) -> Vec<Request> {
    let order = fs::read_to_string(folder.join("order")).unwrap();
    let mut rest: Vec<Vec<u8>> = Vec::new();
    let order = order.split_whitespace().map(|number| number.parse::<usize>().unwrap());
    let requests = order
        .map(|conn| {
            while rest.len() < conn {
                let name = format!("conn-{:02}.raw", rest.len() + 1);
                rest.push(fs::read(folder.join(name)).unwrap());
            }
            let mut request = cut(&rest[conn - 1]);
            rest[conn - 1].drain(..request.bytes.len());
            request.conn = conn;
            request
        })
        .collect();
    assert!(rest.iter().all(Vec::is_empty), "every recorded byte belongs to a request");
    requests
}

/// The first request of these bytes.
fn cut(bytes: &[u8]) -> Request {
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let target = head.split(' ').nth(1).unwrap();
    let kind = match target.rsplit('/').next().unwrap() {
        "next" if target.contains("/extension/") => Kind::ExtensionNext,
        "next" => Kind::Next,
        "response" => Kind::Response,
        "error" if target.contains("/init/") => Kind::InitError,
        "error" => Kind::Error,
        "register" => Kind::Register,
        other => panic!("{other}"),
    };
    let id = match kind {
        Kind::Response | Kind::Error => target.split('/').nth(4).map(str::to_owned),
        Kind::ExtensionNext => field(&head, "lambda-extension-identifier"),
        Kind::Next | Kind::InitError | Kind::Register => None,
    };
    let body = &bytes[end..];
    let (payload, trailers, length) = if field(&head, "transfer-encoding").is_some() {
        chunks(body)
    } else {
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        (body[..length].to_vec(), String::new(), length)
    };
    Request { conn: 0, kind, bytes: bytes[..end + length].to_vec(), id, payload, trailers }
}

/// The payload and the trailers of a body in chunks, and how long it is with its framing.
fn chunks(body: &[u8]) -> (Vec<u8>, String, usize) {
    let line = |at: usize| {
        let length = body[at..].windows(2).position(|end| end == b"\r\n").unwrap();
        (std::str::from_utf8(&body[at..at + length]).unwrap(), at + length + 2)
    };
    let (mut payload, mut at) = (Vec::new(), 0);
    loop {
        let (size, data) = line(at);
        let size = usize::from_str_radix(size, 16).unwrap();
        payload.extend_from_slice(&body[data..data + size]);
        at = data + size + 2;
        if size == 0 {
            at = data;
            break;
        }
    }
    let mut trailers = String::new();
    loop {
        let (text, next) = line(at);
        at = next;
        if text.is_empty() {
            return (payload, trailers, at);
        }
        trailers += &format!("{text}\r\n");
    }
}

/// The value of a field, in lines of `name: value`.
pub fn field(lines: &str, name: &str) -> Option<String> {
    lines.lines().find_map(|line| {
        let (n, value) = line.split_once(':')?;
        n.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// Puts one text in the place of another of the same length, wherever it stands.
pub fn substitute(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len(), "lengths are part of the recording");
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(old.len()).position(|part| part == old.as_bytes()) {
        at += found;
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
        at += old.len();
    }
    bytes
}
