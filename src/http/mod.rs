//! HTTP/1.1 as far as a function server needs it: heads by `httparse`, bodies by length or in
//! chunks, keep-alive, `Expect: 100-continue`, and nothing kept for a connection that is idle.
//!
//! `head` and `body` are pure: bytes in, facts out. `connection` moves the bytes, `listener`
//! accepts and bounds connections. What is a route or a function is none of its business.

pub mod body;
pub mod connection;
mod hand_over;
pub mod head;
pub mod listener;
pub mod reply;
#[cfg(test)]
mod tests;

pub use connection::{Closed, Connection};
pub use head::{BodyKind, Head, Method};
pub use listener::Listener;

/// Why a request is not served. Each is answered, then the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not HTTP, or HTTP that two readers could understand differently.
    Malformed(&'static str),
    /// The head is longer, or has more fields, than this listener takes.
    HeadTooLong,
    /// The body is longer than this route takes.
    BodyTooLong,
    /// A method that no route knows.
    UnknownMethod,
    /// Neither identity nor chunked.
    UnknownCoding,
    /// An expectation other than `100-continue`.
    UnknownExpectation,
    /// No memory left for its body.
    NoRoom,
}

impl Refused {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Refused::Malformed(_) => 400,
            Refused::HeadTooLong => 431,
            Refused::BodyTooLong => 413,
            Refused::UnknownMethod | Refused::UnknownCoding => 501,
            Refused::UnknownExpectation => 417,
            Refused::NoRoom => 503,
        }
    }

    /// One sentence for people.
    pub fn reason(self) -> &'static str {
        match self {
            Refused::Malformed(what) => what,
            Refused::HeadTooLong => "request head too long",
            Refused::BodyTooLong => "request body too long",
            Refused::UnknownMethod => "method not supported",
            Refused::UnknownCoding => "transfer coding not supported",
            Refused::UnknownExpectation => "expectation not supported",
            Refused::NoRoom => "no memory left for this request",
        }
    }
}
