//! Function URLs that reply as the handler writes: `invoke_mode = "response_stream"`.
//!
//! A handler says status and fields in a prelude, and that there is one by the type of its content.
//! What goes wrong behind the head can only be told by cutting the response off.

use serde::Deserialize;

use super::super::invoke::wait;
use super::super::stream::{First, first};
use super::{End, add_field, bad_gateway, head_lines, send};
use crate::host::invocation::RequestId;
use crate::host::{Claim, Host};
use crate::http::{Connection, Head, Refused};
use crate::io::Buffer;
use crate::limits::PRELUDE_MAX;
use crate::pool::Outcome;

/// The type of content that begins with a prelude, ...
const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";
/// ... which these bytes end: in JSON they cannot be.
const END: &[u8] = &[0; 8];

/// What content is that says nothing of itself.
const BYTES: &str = "application/octet-stream";

/// Status, fields and cookies of a response, in front of its body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prelude {
    status_code: Option<u16>,
    headers: Option<serde_json::Map<String, serde_json::Value>>,
    cookies: Option<Vec<String>>,
}

/// Waits for what the invocation replies, and passes it on; `cors` are lines of every head.
pub(super) async fn answer(
    host: &Host,
    mut claim: Claim<'_>,
    connection: &Connection,
    head: &Head,
    cors: &str,
) -> Result<(), End> {
    let first = match first(host, &mut claim, connection).await? {
        First::Piece(first) => first,
        First::End(settled) => {
            if settled.outcome != Outcome::Done || settled.error.is_some() {
                return bad_gateway(connection, head, settled.request, cors).await;
            }
            // A reply that came whole is the body as it stands.
            let body = settled.answer.as_ref().map_or(&b""[..], |answer| &answer.payload);
            return send(connection, head, settled.request, 200, &(typed("") + cors), body).await;
        }
    };
    let (request, _) = claim.names();
    let content_type = claim.content_type().unwrap_or_default();
    if !content_type.eq_ignore_ascii_case(WITH_PRELUDE) {
        let lines = typed(&content_type) + cors;
        return pass_on(claim, connection, head, (request, 200, &lines), (first, 0)).await;
    }
    let Some((prelude, rest)) = prelude(&mut claim, connection, first).await? else {
        return bad_gateway(connection, head, request, cors).await;
    };
    // A status below 200 would announce another response behind this one.
    let status = prelude.status_code.unwrap_or(200);
    if !(200..1000).contains(&status) {
        return bad_gateway(connection, head, request, cors).await;
    }
    let lines = head_lines(prelude.headers.as_ref(), prelude.cookies.as_deref(), BYTES) + cors;
    if status == 204 || status == 304 {
        // These have no body; the handler runs to its end all the same.
        return send(connection, head, request, status, &lines, b"").await;
    }
    pass_on(claim, connection, head, (request, status, &lines), rest).await
}

/// The line that says what the content is.
fn typed(kind: &str) -> String {
    let mut line = String::new();
    add_field(&mut line, "Content-Type", if kind.is_empty() { BYTES } else { kind });
    line
}

/// Reads the prelude, which may come in several pieces; and the last of them, with the place where
/// the body begins in it. `None` if there is none, or none that means anything.
async fn prelude(
    claim: &mut Claim<'_>,
    connection: &Connection,
    mut bytes: Buffer,
) -> Result<Option<(Prelude, (Buffer, usize))>, End> {
    let mut seen: usize = 0;
    loop {
        let fresh = seen.saturating_sub(END.len() - 1);
        if let Some(at) = bytes[fresh..].windows(END.len()).position(|bytes| bytes == END) {
            let length = fresh + at;
            let prelude = serde_json::from_slice(&bytes[..length]).ok();
            return Ok(prelude.map(|prelude| (prelude, (bytes, length + END.len()))));
        }
        seen = bytes.len();
        if seen > PRELUDE_MAX {
            return Ok(None);
        }
        let Some(more) = wait(claim, connection, Claim::poll_piece).await? else {
            return Ok(None);
        };
        bytes.extend(&more).map_err(|_| End::Refused(Refused::NoRoom))?;
    }
}

/// Sends the head, and the body piece by piece; its beginning is there already.
async fn pass_on(
    mut claim: Claim<'_>,
    connection: &Connection,
    head: &Head,
    (request, status, lines): (RequestId, u16, &str),
    (first, begin): (Buffer, usize),
) -> Result<(), End> {
    let reply = connection.reply(status).field("x-amzn-RequestId", request).lines(lines);
    let reply = connection.begin_reply(reply, head).await?;
    reply.send([&first[begin..], b"", b""]).await?;
    drop(first);
    while let Some(piece) = wait(&mut claim, connection, Claim::poll_piece).await? {
        reply.send([&piece, b"", b""]).await?;
    }
    let settled = wait(&mut claim, connection, Claim::poll_settled).await?;
    let is_whole = settled.outcome == Outcome::Done && settled.error.is_none();
    if is_whole && reply.finish().await? { Ok(()) } else { Err(End::Closed) }
}
