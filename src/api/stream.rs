//! `POST /2021-11-15/functions/NAME/response-streaming-invocations`: the reply goes to the caller
//! while the handler writes it, in the messages of `application/vnd.amazon.eventstream`.

use std::rc::Rc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Crc;

use super::auth::Claimed;
use super::error::ApiError;
use super::invoke::{Target, cancelled, read, wait};
use super::{Api, End};
use crate::host::invocation::Settled;
use crate::host::{Claim, Host};
use crate::http::connection::ReplyPieces;
use crate::http::{Closed, Connection, Head};
use crate::io::Buffer;
use crate::pool::Outcome;

/// Serves one invocation.
pub async fn serve(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    target: &Target,
    claimed: &mut Option<Claimed<'_>>,
) -> Result<(), End> {
    let read = read(api, connection, head, target, (claimed, true)).await?;
    let Some((mut claim, version)) = read else { return Ok(()) };
    let first = first(&api.host, &mut claim, connection).await?;
    let (request, trace) = match &first {
        First::Piece(_) => claim.names(),
        First::End(settled) => (settled.request, settled.trace.clone()),
    };
    let reply = connection
        .reply(200)
        .field("Content-Type", "application/vnd.amazon.eventstream")
        .field("x-amzn-RequestId", request)
        .field("X-Amzn-Trace-Id", &trace)
        .field("X-Amz-Executed-Version", &*version.label);
    let reply = connection.begin_reply(reply, head).await?;
    let settled = match first {
        First::Piece(piece) => {
            send_chunk(&reply, &piece).await?;
            drop(piece);
            while let Some(piece) = wait(&mut claim, connection, Claim::poll_piece).await? {
                send_chunk(&reply, &piece).await?;
            }
            wait(&mut claim, connection, Claim::poll_settled).await?
        }
        First::End(settled) => {
            if let (Some(answer), Outcome::Done) = (&settled.answer, settled.outcome) {
                send_chunk(&reply, &answer.payload).await?;
            }
            *settled
        }
    };
    let told = complete(&settled);
    let end = Message::new("InvokeComplete", "application/json", told.as_bytes());
    end.send(&reply).await?;
    if reply.finish().await? { Ok(()) } else { Err(End::Closed) }
}

/// What comes first of an invocation whose caller takes pieces.
pub enum First {
    /// A piece of its reply.
    Piece(Buffer),
    /// Its end: the reply, if there is one, is whole.
    End(Box<Settled>),
}

/// Waits for a piece of the reply or for the end; an error if the invocation was not taken.
pub async fn first(
    host: &Host,
    claim: &mut Claim<'_>,
    connection: &Connection,
) -> Result<First, End> {
    if let Some(piece) = wait(claim, connection, Claim::poll_piece).await? {
        return Ok(First::Piece(piece));
    }
    let settled = wait(claim, connection, Claim::poll_settled).await?;
    match settled.outcome {
        Outcome::Rejected(refusal) => Err(ApiError::refused(refusal).into()),
        Outcome::Cancelled => Err(cancelled(host).into()),
        Outcome::Done
        | Outcome::Failed
        | Outcome::Crashed
        | Outcome::TimedOut
        | Outcome::InitFailed => Ok(First::End(Box::new(settled))),
    }
}

/// What the last message says of an invocation's end.
fn complete(settled: &Settled) -> String {
    let mut told = serde_json::Map::new();
    if settled.outcome != Outcome::Done || settled.error.is_some() {
        let error: &[u8] = match (&settled.error, &settled.answer) {
            (Some(error), _) => error.as_bytes(),
            (None, Some(answer)) => &answer.payload,
            (None, None) => b"",
        };
        let kind: Option<serde_json::Value> = serde_json::from_slice(error).ok();
        let kind = kind.as_ref().and_then(|error| error.get("errorType")?.as_str());
        told.insert("ErrorCode".into(), kind.unwrap_or("Unhandled").into());
        told.insert("ErrorDetails".into(), String::from_utf8_lossy(error).into());
    }
    if let Some(tail) = &settled.tail {
        told.insert("LogResult".into(), BASE64_STANDARD.encode(tail).into());
    }
    serde_json::Value::from(told).to_string()
}

async fn send_chunk(reply: &ReplyPieces<'_>, payload: &[u8]) -> Result<(), Closed> {
    if payload.is_empty() {
        return Ok(());
    }
    Message::new("PayloadChunk", "application/octet-stream", payload).send(reply).await
}

/// Bytes of lengths and headers in front of a payload: no event has longer ones.
const HEADERS_MAX: usize = 128;

/// One message: lengths, their checksum, headers, payload, and the checksum of all of it.
struct Message<'a> {
    before: heapless::Vec<u8, HEADERS_MAX>,
    payload: &'a [u8],
    checksum: [u8; 4],
}

impl<'a> Message<'a> {
    fn new(event: &str, content_type: &str, payload: &'a [u8]) -> Message<'a> {
        /// The type of a header whose value is text.
        const TEXT: u8 = 7;
        let mut headers = heapless::Vec::<u8, HEADERS_MAX>::new();
        let fields =
            [(":event-type", event), (":content-type", content_type), (":message-type", "event")];
        for (name, value) in fields {
            let name_length = u8::try_from(name.len()).expect("a short name");
            let value_length = u16::try_from(value.len()).expect("a short value").to_be_bytes();
            let parts: [&[u8]; 5] =
                [&[name_length], name.as_bytes(), &[TEXT], &value_length, value.as_bytes()];
            for part in parts {
                headers.extend_from_slice(part).expect("room for all headers of an event");
            }
        }
        let length = |n: usize| u32::try_from(n).expect("payloads are bounded").to_be_bytes();
        let total = length(12 + headers.len() + payload.len() + 4);
        let mut before = heapless::Vec::new();
        let mut crc = Crc::new();
        let mut put = |bytes: &[u8], crc: &mut Crc| {
            crc.update(bytes);
            before.extend_from_slice(bytes).expect("room for what stands before a payload");
        };
        put(&total, &mut crc);
        put(&length(headers.len()), &mut crc);
        let prelude = crc.sum().to_be_bytes();
        put(&prelude, &mut crc);
        put(&headers, &mut crc);
        crc.update(payload);
        Message { before, payload, checksum: crc.sum().to_be_bytes() }
    }

    async fn send(&self, reply: &ReplyPieces<'_>) -> Result<(), Closed> {
        reply.send([&self.before, self.payload, &self.checksum]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Python's `struct` and `zlib` make them, by the definition of the format.
    #[test]
    fn messages_are_framed_as_clients_read_them() {
        let message = Message::new("PayloadChunk", "application/octet-stream", b"hello ");
        let bytes = [&message.before[..], message.payload, &message.checksum].concat();
        let mut expected = Vec::new();
        for (n, text) in [(0x0b, ":event-type"), (0x0d, ":content-type"), (0x0d, ":message-type")] {
            let value = match text {
                ":event-type" => &b"\x07\0\x0cPayloadChunk"[..],
                ":content-type" => b"\x07\0\x18application/octet-stream",
                _ => b"\x07\0\x05event",
            };
            expected.push(n);
            expected.extend(text.as_bytes());
            expected.extend(value);
        }
        assert_eq!(&bytes[12..12 + expected.len()], expected);
        assert_eq!(&bytes[12 + expected.len()..bytes.len() - 4], b"hello ");
        assert_eq!(bytes[..4], u32::try_from(bytes.len()).expect("short").to_be_bytes());
        assert_eq!(bytes[4..8], u32::try_from(expected.len()).expect("short").to_be_bytes());
        assert_eq!(bytes[8..12], PRELUDE);
        assert_eq!(message.checksum, WHOLE);
    }

    const PRELUDE: [u8; 4] = [0x17, 0x4e, 0x87, 0x4c];
    const WHOLE: [u8; 4] = [0x6d, 0x71, 0x1b, 0x04];
}
