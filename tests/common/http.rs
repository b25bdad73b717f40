//! A plain HTTP client that sends what it is told, byte by byte if need be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

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

const PATIENCE: Duration = Duration::from_secs(30);

impl Conn {
    pub fn tcp(address: &str) -> Conn {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let tcp = Some(stream.try_clone().unwrap());
        Conn { stream: BufReader::new(Box::new(stream)), tcp }
    }

    pub fn unix(path: &Path) -> Conn {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
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
        self.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        self.reply()
    }

    pub fn post(&mut self, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Reply {
        self.request("POST", path, fields, body);
        self.reply()
    }

    /// Sends a request with a counted body and does not wait for the reply.
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: t\r\n");
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
        let mut reply = Reply { status, head, body: Vec::new() };
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
