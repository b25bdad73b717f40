//! Reply heads, written into a fixed space on the stack.

use std::io::Write;

use super::Head;

/// Room for a head's own text; long values (a log tail) are separate parts of the write.
const SPACE: usize = 2048;

/// A reply head under construction. What does not fit is a bug of ours, not of the peer's: values
/// of any length are passed to the write as parts of their own.
pub struct ReplyHead {
    space: [u8; SPACE],
    length: usize,
}

impl ReplyHead {
    /// A head with its status line.
    pub fn new(status: u16) -> ReplyHead {
        let mut head = ReplyHead { space: [0; SPACE], length: 0 };
        head.put(format_args!("HTTP/1.1 {status} {}\r\n", reason(status)));
        head
    }

    /// The rest of a head whose first part is sent before it.
    pub fn rest() -> ReplyHead {
        ReplyHead { space: [0; SPACE], length: 0 }
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl std::fmt::Display) -> ReplyHead {
        self.put(format_args!("{name}: {value}\r\n"));
        self
    }

    /// Says that the connection ends with this reply, or what it takes for it to go on.
    #[must_use]
    pub fn connection(self, request: &Head, keeps: bool) -> ReplyHead {
        match (keeps, request.old) {
            (false, _) => self.closing(),
            (true, true) => self.field("Connection", "keep-alive"),
            (true, false) => self,
        }
    }

    /// Says that the connection ends with this reply.
    #[must_use]
    pub fn closing(self) -> ReplyHead {
        self.field("Connection", "close")
    }

    /// Ends the head in front of a body of `length` bytes.
    #[must_use]
    pub fn body(mut self, length: usize) -> ReplyHead {
        self.put(format_args!("Content-Length: {length}\r\n\r\n"));
        self
    }

    /// Ends the head in front of a body in chunks.
    #[must_use]
    pub fn chunked(mut self) -> ReplyHead {
        self.put(format_args!("Transfer-Encoding: chunked\r\n\r\n"));
        self
    }

    /// Ends the head of a reply that has no body by its status (204).
    #[must_use]
    pub fn bare(mut self) -> ReplyHead {
        self.put(format_args!("\r\n"));
        self
    }

    /// The text so far.
    pub fn bytes(&self) -> &[u8] {
        &self.space[..self.length]
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let mut rest = &mut self.space[self.length..];
        let before = rest.len();
        rest.write_fmt(text).expect("reply heads fit their space");
        self.length += before - rest.len();
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Payload Too Large",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        // Functions answer with any status they like; clients read the number.
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_plain_text() {
        let head = ReplyHead::new(429).field("Retry-After", 1).closing().body(2);
        let text = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\n\
                    Content-Length: 2\r\n\r\n";
        assert_eq!(head.bytes(), text.as_bytes());
    }
}
