//! A plain HTTP client that sends what it is told, byte by byte if need be.

#![allow(clippy::disallowed_methods, reason = "tests have a clock of their own")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sockets::unread;

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A connection.
pub struct Conn {
    stream: BufReader<Box<dyn Stream>>,
    tcp: Option<TcpStream>,
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// How many times as long everything takes, as under an emulator: `SLOWER`.
pub fn slower() -> u32 {
    std::env::var("SLOWER").map_or(1, |times| times.parse().expect("a number"))
}

/// Longest wait for a reply.
fn patience() -> Duration {
    Duration::from_secs(30) * slower()
}

impl Conn {
    pub fn tcp(address: &str) -> Conn {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.set_nodelay(true).unwrap();
        let tcp = Some(stream.try_clone().unwrap());
        Conn { stream: BufReader::new(Box::new(stream)), tcp }
    }

    pub fn unix(path: &Path) -> Conn {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        Conn { stream: BufReader::new(Box::new(stream)), tcp: None }
    }

    /// The socket itself, for half-closing and the like.
    pub fn socket(&self) -> &TcpStream {
        self.tcp.as_ref().unwrap()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    pub fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.reply()
    }

    pub fn post(&mut self, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Reply {
        self.request("POST", path, fields, body);
        self.reply()
    }

    /// Sends a request with a counted body and does not wait for the reply.
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat());
    }

    pub fn invoke(&mut self, name: &str, event: &[u8]) -> Reply {
        self.post(&invocations(name), &[], event)
    }

    /// Sends an invocation and does not wait for its reply.
    pub fn begin(&mut self, name: &str, event: &str) {
        self.request("POST", &invocations(name), &[], event.as_bytes());
    }

    /// Reads a reply; panics if the connection ends instead.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply")
    }

    /// Reads a reply, or `None` if the connection ends first.
    pub fn try_reply(&mut self) -> Option<Reply> {
        let mut reply = self.try_head()?;
        let mut line = String::new();
        if reply.field("transfer-encoding") == Some("chunked") {
            loop {
                line.clear();
                self.stream.read_line(&mut line).ok()?;
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk).ok()?;
                if size == 0 {
                    break;
                }
                reply.body.extend_from_slice(&chunk[..size]);
            }
        } else if let Some(length) = reply.field("content-length") {
            reply.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut reply.body).ok()?;
        }
        Some(reply)
    }

    /// Reads the next chunk of a reply whose head was read; empty at the end, `None` if the
    /// connection ends before that.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        Some(chunk)
    }

    /// Begins an invocation whose reply is streamed, and reads the head of the reply.
    pub fn stream(&mut self, name: &str, fields: &[(&str, &str)], event: &str) -> Reply {
        let path = format!("/2021-11-15/functions/{name}/response-streaming-invocations");
        self.request("POST", &path, fields, event.as_bytes());
        self.try_head().expect("a head")
    }

    /// Reads the next message of a stream of events: its type and its payload.
    pub fn message(&mut self) -> Option<(String, Vec<u8>)> {
        let chunk = self.chunk().filter(|chunk| !chunk.is_empty())?;
        let number = |at: usize| {
            usize::try_from(u32::from_be_bytes(chunk[at..at + 4].try_into().unwrap())).unwrap()
        };
        assert_eq!(number(0), chunk.len(), "one message in a chunk");
        let headers = String::from_utf8_lossy(&chunk[12..12 + number(4)]).into_owned();
        assert!(headers.ends_with(":message-type\u{7}\0\u{5}event"), "{headers}");
        let event = ["PayloadChunk", "InvokeComplete"].into_iter().find(|e| headers.contains(e));
        Some((event.unwrap().to_owned(), chunk[12 + number(4)..chunk.len() - 4].to_vec()))
    }

    /// Reads a stream of events to its end: all payload, and what the last message says.
    pub fn messages(&mut self) -> (Vec<u8>, Value) {
        let mut payload = Vec::new();
        loop {
            let (event, bytes) = self.message().expect("the stream is whole");
            if event == "InvokeComplete" {
                assert_eq!(self.chunk().map(|chunk| chunk.len()), Some(0), "the end of the reply");
                return (payload, serde_json::from_slice(&bytes).unwrap());
            }
            payload.extend(bytes);
        }
    }

    /// Reads a reply that has no body, whatever its fields say: the reply to HEAD.
    pub fn try_head(&mut self) -> Option<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut head = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            head.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Some(Reply { status, head, body: Vec::new() })
    }

    /// Everything that still comes until the other side closes; fails if it resets instead.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("an orderly end");
        bytes
    }

    /// Reads exactly so many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Waits until the other side, on this machine, has read all that was sent: what is sent next
    /// comes to it in another read.
    pub fn taken(&self) {
        let socket = self.socket();
        let (theirs, ours) = (socket.peer_addr().unwrap(), socket.local_addr().unwrap());
        let begun = Instant::now();
        while unread(theirs, ours) > 0 {
            assert!(begun.elapsed() < patience(), "nobody reads");
            std::thread::yield_now();
        }
    }

    /// Sends in pieces that the other side reads one by one.
    pub fn send_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        for piece in pieces {
            self.taken();
            self.send(piece);
        }
    }

    /// Ends the connection at once, in both directions: the other side sees a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.socket(), Some(Duration::ZERO)).unwrap();
    }

    /// True if the other side has closed and sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }
}

pub fn invocations(name: &str) -> String {
    format!("/2015-03-31/functions/{name}/invocations")
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }
}
