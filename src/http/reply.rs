//! Reply heads, written into a space that all connections share.
//!
//! A head is moved into [`Connection::send`](super::Connection::send), which is done with it
//! before it waits: no task holds this space while its client is slow, and the next head has it.

use std::cell::Cell;

use super::Head;
use crate::io::clock::CivilTime;
use crate::io::{Put, Text};
use crate::limits::{BODY_BYTES_PER_S_MIN, CLOCK_SET_S};

/// Parts that a head is sent in: the long text with what is around it.
pub const PARTS: usize = 5;

/// Bytes of a body that is sent in one piece with its head.
const TAKEN_IN_MAX: usize = 512;

/// How nearly all replies begin.
const OK: &[u8; 17] = b"HTTP/1.1 200 OK\r\n";
/// Bytes of that and of the date.
const OPENING: usize = OK.len() + "Date: Thu, 12 Mar 2020 19:03:58 GMT\r\n".len();

/// The first lines of replies. They are made once a second: a date takes two dozen divisions, which a
/// small ARM has no instruction for.
pub(super) struct Opening {
    /// When the date began to be right, in milliseconds of Unix time.
    since_ms: Cell<u64>,
    text: Cell<[u8; OPENING]>,
}

impl Default for Opening {
    fn default() -> Opening {
        Opening { since_ms: Cell::new(0), text: Cell::new([0; OPENING]) }
    }
}

impl Opening {
    /// The first lines at this time. Clients set their clocks by the date, so a clock that was not set
    /// is not told.
    fn at(&self, unix_ms: u64) -> Option<[u8; OPENING]> {
        if unix_ms.wrapping_sub(self.since_ms.get()) >= 1000 {
            self.since_ms.set(unix_ms - unix_ms % 1000);
            let mut text = [0; OPENING];
            let (ok, date) = text.split_at_mut(OK.len());
            ok.copy_from_slice(OK);
            date.copy_from_slice(b"Date: ___, __ ___ ____ __:__:__ GMT\r\n");
            date[6..35].copy_from_slice(&CivilTime::from_unix_ms(unix_ms).to_http());
            self.text.set(text);
        }
        (unix_ms >= CLOCK_SET_S * 1000).then(|| self.text.get())
    }
}

/// A reply head under construction. What may be of any length stands beside its own text.
pub struct ReplyHead<'a> {
    text: Text,
    /// What stands beside the text, ...
    long: [&'a str; 3],
    /// ... and where in it its place is.
    long_at: usize,
}

impl<'a> ReplyHead<'a> {
    /// A head with its status line, and its date if the clock is set, in this space.
    pub(super) fn new(space: Text, status: u16, opening: &Opening, unix_ms: u64) -> ReplyHead<'a> {
        let mut head = ReplyHead { text: space, long: [""; 3], long_at: 0 };
        head.text.clear();
        let opening = opening.at(unix_ms);
        if status == 200
            && let Some(opening) = &opening
        {
            head.text.put_ascii(opening);
            return head;
        }
        match status_line(status) {
            Some(line) => _ = head.text.put(line),
            None => {
                // Functions answer with any status they like; clients read the number.
                head.text.put("HTTP/1.1 ");
                head.text.put(u64::from(status));
                head.text.put(" Status\r\n");
            }
        }
        if let Some(opening) = &opening {
            head.text.put_ascii(&opening[OK.len()..]);
        }
        head
    }

    /// Adds a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Put) -> ReplyHead<'a> {
        self.text.put(name);
        self.text.put_few(b": ");
        self.text.put(value);
        self.text.put_few(b"\r\n");
        self
    }

    /// Says that the body is JSON.
    #[must_use]
    pub fn json(mut self) -> ReplyHead<'a> {
        self.text.put("Content-Type: application/json\r\n");
        self
    }

    /// Adds a field whose value is of any length, if there is a value; once in a head.
    #[must_use]
    pub fn long_field(self, name: &'a str, value: Option<&'a str>) -> ReplyHead<'a> {
        match value {
            Some(value) => self.beside([name, value, "\r\n"]),
            None => self,
        }
    }

    /// Adds whole lines, of any length; once in a head.
    #[must_use]
    pub fn lines(self, lines: &'a str) -> ReplyHead<'a> {
        if lines.is_empty() { self } else { self.beside(["", lines, ""]) }
    }

    fn beside(self, long: [&'a str; 3]) -> ReplyHead<'a> {
        ReplyHead { long, long_at: self.text.end(), ..self }
    }

    /// Says that the connection ends with this reply, or what it takes for it to go on.
    #[must_use]
    pub fn connection(self, request: &Head, keeps: bool) -> ReplyHead<'a> {
        match (keeps, request.old) {
            (false, _) => self.closing(),
            (true, true) => self.field("Connection", "keep-alive"),
            (true, false) => self,
        }
    }

    /// Says that the connection ends with this reply.
    #[must_use]
    pub fn closing(self) -> ReplyHead<'a> {
        self.field("Connection", "close")
    }

    /// Ends the head in front of a body of `length` bytes.
    #[must_use]
    pub fn body(mut self, length: usize) -> ReplyHead<'a> {
        self.text.put("Content-Length: ");
        self.text.put(length as u64);
        self.text.put_few(b"\r\n\r\n");
        self
    }

    /// Ends the head in front of a body in chunks.
    #[must_use]
    pub fn chunked(mut self) -> ReplyHead<'a> {
        self.text.put("Transfer-Encoding: chunked\r\n\r\n");
        self
    }

    /// Ends the head of a reply that has no body by its status (204).
    #[must_use]
    pub fn bare(mut self) -> ReplyHead<'a> {
        self.text.put("\r\n");
        self
    }

    /// The text, in its parts.
    pub fn parts(&self) -> [&[u8]; PARTS] {
        let (before, after) = self.text.bytes().split_at(self.long_at);
        let [name, value, end] = self.long.map(str::as_bytes);
        [before, name, value, end, after]
    }

    /// Takes a short body in: one piece is less work to send than two. Returns what is to be sent
    /// behind the head.
    pub(super) fn take_in<'b>(&mut self, body: &'b [u8]) -> &'b [u8] {
        if body.len() > TAKEN_IN_MAX {
            return body;
        }
        self.text.put_ascii(body);
        b""
    }

    /// The space, for the next head.
    pub(super) fn into_space(self) -> Text {
        self.text
    }
}

/// Time that a body of `length` bytes takes at the least rate that is put up with.
pub fn too_slow_ms(length: usize) -> u32 {
    u32::try_from(length / BODY_BYTES_PER_S_MIN).unwrap_or(u32::MAX / 2000) * 1000
}

fn status_line(status: u16) -> Option<&'static str> {
    Some(match status {
        100 => "HTTP/1.1 100 Continue\r\n",
        200 => "HTTP/1.1 200 OK\r\n",
        201 => "HTTP/1.1 201 Created\r\n",
        202 => "HTTP/1.1 202 Accepted\r\n",
        204 => "HTTP/1.1 204 No Content\r\n",
        400 => "HTTP/1.1 400 Bad Request\r\n",
        403 => "HTTP/1.1 403 Forbidden\r\n",
        404 => "HTTP/1.1 404 Not Found\r\n",
        405 => "HTTP/1.1 405 Method Not Allowed\r\n",
        409 => "HTTP/1.1 409 Conflict\r\n",
        413 => "HTTP/1.1 413 Payload Too Large\r\n",
        417 => "HTTP/1.1 417 Expectation Failed\r\n",
        429 => "HTTP/1.1 429 Too Many Requests\r\n",
        431 => "HTTP/1.1 431 Request Header Fields Too Large\r\n",
        500 => "HTTP/1.1 500 Internal Server Error\r\n",
        501 => "HTTP/1.1 501 Not Implemented\r\n",
        502 => "HTTP/1.1 502 Bad Gateway\r\n",
        503 => "HTTP/1.1 503 Service Unavailable\r\n",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_plain_text() {
        let opening = Opening::default();
        let head = ReplyHead::new(Text::default(), 429, &opening, 1_796_084_335_999)
            .field("Retry-After", "1")
            .closing()
            .body(2);
        let text = "HTTP/1.1 429 Too Many Requests\r\nDate: Tue, 01 Dec 2026 00:18:55 GMT\r\n\
                    Retry-After: 1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(head.parts().concat(), text.as_bytes());
        let long = "x".repeat(5000);
        let head = ReplyHead::new(head.into_space(), 204, &opening, 0)
            .long_field("Long: ", Some(&long))
            .field("A", "1")
            .bare();
        let text = format!("HTTP/1.1 204 No Content\r\nLong: {long}\r\nA: 1\r\n\r\n");
        assert_eq!(head.parts().concat(), text.as_bytes());
    }

    #[test]
    fn the_date_is_that_of_the_second() {
        let opening = Opening::default();
        for (unix_ms, text) in [
            (1_796_084_335_999, "HTTP/1.1 200 OK\r\nDate: Tue, 01 Dec 2026 00:18:55 GMT\r\n"),
            (1_796_084_336_000, "HTTP/1.1 200 OK\r\nDate: Tue, 01 Dec 2026 00:18:56 GMT\r\n"),
            (1_796_084_336_999, "HTTP/1.1 200 OK\r\nDate: Tue, 01 Dec 2026 00:18:56 GMT\r\n"),
            (1_796_084_335_500, "HTTP/1.1 200 OK\r\nDate: Tue, 01 Dec 2026 00:18:55 GMT\r\n"),
            (1_796_084_400_001, "HTTP/1.1 200 OK\r\nDate: Tue, 01 Dec 2026 00:20:00 GMT\r\n"),
            (999, "HTTP/1.1 200 OK\r\n"),
        ] {
            let head = ReplyHead::new(Text::default(), 200, &opening, unix_ms);
            assert_eq!(head.parts().concat(), text.as_bytes());
        }
    }
}
