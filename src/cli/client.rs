//! Talking to a server: one request at a time, over its Unix socket or a TCP port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crate::error::Error;
use crate::server::settings::{check_makeshift, default_socket};

/// Which server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// `HOB_URL`, `HOB_SOCKET`, or the usual socket.
    #[default]
    Usual,
    /// The server that listens on this socket.
    Socket(PathBuf),
    /// The server at this URL.
    Url(String),
}

/// What a request carries.
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes from here.
    Stream(&'a mut dyn Read, u64),
}

/// A connection, for one request after the other.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
    host: String,
}

/// A reply whose body was not read yet.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    head: Vec<(String, String)>,
    connection: Connection,
    left: Left,
}

enum Left {
    Bytes(u64),
    Chunks,
    ToEnd,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Longest head and chunk line that is read.
const LINE_MAX: u64 = 64 * 1024;

/// A body of fewer bytes leaves with its head.
const FIRST_MAX: usize = 16 * 1024;

impl Target {
    fn resolve(&self) -> Target {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        match self {
            Target::Usual => match (variable("HOB_URL"), variable("HOB_SOCKET")) {
                (Some(url), _) => Target::Url(url),
                (None, Some(path)) => Target::Socket(path.into()),
                (None, None) => Target::Socket(default_socket()),
            },
            Target::Socket(_) | Target::Url(_) => self.clone(),
        }
    }

    /// Connects; `send` does so for one request.
    pub fn connect(&self) -> Result<Connection, Error> {
        let refused = |place: &str, error: std::io::Error| {
            Error::refused(format!(
                "reach the server at {place}: {error} (is `hob serve` running?)"
            ))
        };
        let (stream, host): (Box<dyn Stream>, String) = match self.resolve() {
            Target::Url(url) => {
                let Some(rest) = url.strip_prefix("http://") else {
                    return Err(Error::usage(format!("{url}: allowed: http://HOST:PORT")));
                };
                let address = rest.split('/').next().unwrap_or_default().to_owned();
                let stream = TcpStream::connect(&address).map_err(|error| refused(&url, error))?;
                let _ = stream.set_nodelay(true);
                (Box::new(stream), address)
            }
            Target::Socket(path) => {
                let place = path.display().to_string();
                // What is sent may be secret, and so may be what a function does with it.
                let stream = check_makeshift(&path).and_then(|()| UnixStream::connect(&path));
                let stream = stream.map_err(|error| refused(&place, error))?;
                (Box::new(stream), "hob".to_owned())
            }
            Target::Usual => unreachable!("resolved"),
        };
        Ok(Connection { stream: BufReader::new(stream), host })
    }

    /// Sends a request and reads the head of its reply.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Body<'_>,
    ) -> Result<Reply, Error> {
        let fields = [&[("Connection", "close")], fields].concat();
        self.connect()?.send(method, path, &fields, body)
    }

    /// Sends a request and reads all of its reply; a status above 299 is an error.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: Body<'_>,
    ) -> Result<serde_json::Value, Error> {
        let mut reply = self.send(method, path, &[], body)?;
        let bytes = reply.bytes()?;
        if reply.status > 299 {
            return Err(reply.error(&bytes));
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::refused(format!("understand the server: {error}")))
    }
}

impl Connection {
    /// Sends a request and reads the head of its reply, which has the connection back in the end.
    pub fn send(
        mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: Body<'_>,
    ) -> Result<Reply, Error> {
        let length = match &body {
            Body::Empty => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Stream(_, length) => *length,
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        if let Ok(token) = std::env::var("HOB_TOKEN") {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        head += &format!("Content-Length: {length}\r\n\r\n");
        let mut first = head.into_bytes();
        let body = match body {
            // It takes no packet of its own.
            Body::Bytes(bytes) if bytes.len() < FIRST_MAX => {
                first.extend(bytes);
                Body::Empty
            }
            body @ (Body::Empty | Body::Bytes(_) | Body::Stream(..)) => body,
        };
        let broken = |error: std::io::Error| Error::refused(format!("talk to the server: {error}"));
        let stream = self.stream.get_mut();
        stream.write_all(&first).map_err(broken)?;
        // A server that refuses early answers before it has read everything.
        let _ = match body {
            Body::Empty => Ok(0),
            Body::Bytes(bytes) => stream.write_all(bytes).map(|()| 0),
            Body::Stream(from, length) => std::io::copy(&mut from.take(length), stream),
        };
        Reply::read(self).map_err(broken)
    }
}

impl Reply {
    fn read(mut connection: Connection) -> std::io::Result<Reply> {
        let stream = &mut connection.stream;
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            let n = stream.take(LINE_MAX).read_until(b'\n', &mut text)?;
            if n == 0 || text.len() as u64 > LINE_MAX {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidData);
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        response.parse(&text).map_err(invalid)?;
        let status = response.code.unwrap_or(0);
        let head: Vec<(String, String)> = response
            .headers
            .iter()
            .map(|f| (f.name.to_ascii_lowercase(), String::from_utf8_lossy(f.value).into_owned()))
            .collect();
        let mut reply = Reply { status, head, connection, left: Left::ToEnd };
        reply.left = match (reply.field("transfer-encoding"), reply.field("content-length")) {
            (Some("chunked"), _) => Left::Chunks,
            (_, Some(length)) => Left::Bytes(length.parse().unwrap_or(0)),
            _ if status == 204 => Left::Bytes(0),
            _ => Left::ToEnd,
        };
        Ok(reply)
    }

    /// The value of a header field, by its name in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Reads the whole body.
    pub fn bytes(&mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece()? {
            all.extend(piece);
        }
        Ok(all)
    }

    /// Reads the next piece of the body as it comes; `None` at its end.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.read_piece().map_err(|error| Error::refused(format!("read the reply: {error}")))
    }

    /// The connection, once the whole body was read.
    pub fn done(self) -> Connection {
        self.connection
    }

    fn read_piece(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let stream = &mut self.connection.stream;
        let length = match self.left {
            Left::Bytes(0) => return Ok(None),
            Left::Bytes(left) => left.min(64 * 1024),
            Left::ToEnd => 64 * 1024,
            Left::Chunks => {
                let mut line = String::new();
                stream.take(LINE_MAX).read_line(&mut line)?;
                let size = u64::from_str_radix(line.trim(), 16)
                    .map_err(|_| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?;
                let mut chunk = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(1 << 24)];
                stream.read_exact(&mut chunk)?;
                stream.read_exact(&mut [0; 2])?;
                if size == 0 {
                    self.left = Left::Bytes(0);
                    return Ok(None);
                }
                return Ok(Some(chunk));
            }
        };
        let mut piece = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let n = stream.read(&mut piece)?;
        match &mut self.left {
            Left::Bytes(_) if n == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Left::Bytes(left) => *left -= n as u64,
            Left::ToEnd if n == 0 => return Ok(None),
            Left::ToEnd | Left::Chunks => {}
        }
        piece.truncate(n);
        Ok(Some(piece))
    }

    /// The error that a reply with this body stands for.
    pub fn error(&self, body: &[u8]) -> Error {
        let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        let message = json.as_ref().and_then(|json| {
            json.get("message").or_else(|| json.get("Message")).and_then(|text| text.as_str())
        });
        let name = self.field("x-amzn-errortype").unwrap_or("error");
        let status = self.status;
        Error::refused(format!("{name} ({status}): {}", message.unwrap_or("no message")))
    }
}

/// A text as one segment of a path.
pub fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
