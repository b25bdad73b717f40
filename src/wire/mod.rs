//! The wire speaks: the protocol between the host and native workers. `SPEC.md` beside this file
//! is its definition for other languages; `tests/golden/wire.txt` holds its bytes.
//!
//! A pure codec: bytes in, messages out. It never waits, allocates, or trusts a length.

mod frame;
#[cfg(feature = "handler")]
pub mod handler;
pub mod room;
#[cfg(feature = "serial")]
pub mod serial;

use serde::{Deserialize, Serialize};

pub use frame::{Frame, HEADER_MAX, PREFIX, decode, encode};

/// The protocol of this build. A worker names its own in [`FromWorker::Hello`].
pub const PROTOCOL: u8 = 5;

/// The first protocol with replies in pieces.
pub const STREAMS: u8 = 3;

/// The first protocol in which workers tell their memory.
pub const MEMORY: u8 = 4;

/// The first protocol in which workers read what they are told from a pipe.
pub const PIPES: u8 = 5;

/// Most bytes of a piece of a reply.
pub const PIECE_MAX: usize = crate::limits::STREAM_PIECE_MAX;

/// Most bytes behind a frame's length: the largest payload, and room for the largest header.
pub const FRAME_MAX: usize = crate::limits::PAYLOAD_MAX + 64 * 1024;

/// Why bytes are not a message, or a message does not fit its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The frame is longer than the receiver takes.
    TooLong,
    /// The header does not decode, or a message without payload has one.
    Malformed,
    /// A message that makes no sense at this point of the conversation.
    OutOfOrder,
    /// The stream ended inside a frame.
    Truncated,
    /// The stream failed.
    Io,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Error::TooLong => "frame too long",
            Error::Malformed => "malformed frame",
            Error::OutOfOrder => "message out of order",
            Error::Truncated => "stream ended inside a frame",
            Error::Io => "stream failed",
        })
    }
}

impl core::error::Error for Error {}

/// What the host tells a worker. The event is the frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker<'a> {
    /// Run the handler once.
    Invoke(#[serde(borrow)] Context<'a>),
    /// Fork a worker. Descriptors come with its first byte: the worker's socket, where it writes its
    /// log, and since [`PIPES`] the pipe that its events come by.
    Fork {
        /// Echoed in the answer.
        id: u32,
        /// What the worker's environment has besides the zygote's: `NAME=value`, with a NUL
        /// character between two of them.
        environment: &'a str,
    },
}

/// What the handler may know about its invocation, as on Lambda.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context<'a> {
    /// Echoed in the answer.
    pub id: u32,
    /// When the invocation times out, milliseconds of Unix time.
    pub deadline_ms: u64,
    /// Lambda's request id, a UUID.
    pub request_id: &'a str,
    /// The function as it was invoked, with the qualifier if one was given.
    pub function_arn: &'a str,
    /// `Root=...;Parent=...;Sampled=...`, or empty.
    pub trace_id: &'a str,
    /// JSON from the caller, or empty.
    pub client_context: &'a str,
    /// JSON from the caller, or empty.
    pub identity: &'a str,
}

/// What a worker tells the host. Replies and errors are the frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The first message: which protocol the worker speaks.
    Hello {
        /// At most [`PROTOCOL`] of the host.
        protocol: u8,
    },
    /// Give me work.
    Ready,
    /// The handler's reply is the payload.
    Reply {
        /// Of the invocation that it answers.
        id: u32,
    },
    /// The handler's error, as JSON, is the payload.
    Error {
        /// Of the invocation that it answers.
        id: u32,
    },
    /// The worker cannot initialise; why, as JSON, is the payload.
    InitError,
    /// A worker was forked.
    Forked {
        /// Of the message that it answers.
        id: u32,
        /// The worker's process; 0 if there is none.
        pid: u32,
    },
    /// This zygote must not fork; why, one line for people, is the payload.
    Unforkable,
    /// The reply comes in pieces; the type of its content, or nothing, is the payload.
    Stream {
        /// Of the invocation that it answers.
        id: u32,
    },
    /// The next piece of the reply is the payload: at most [`PIECE_MAX`] bytes.
    Piece {
        /// Of the invocation that it answers.
        id: u32,
    },
    /// The most memory that this worker had so far.
    Memory {
        /// KiB, as `getrusage` tells them.
        kib: u32,
    },
}
