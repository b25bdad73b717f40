//! Bodies that are read, and replies that are sent, piece by piece: they may be longer than memory
//! has room for.

use std::io::IoSlice;
use std::ops::Range;

use super::{Broken, Closed, Connection, Progress};
use crate::http::body::Chunked;
use crate::http::reply::{ReplyHead, too_slow_ms};
use crate::http::{BodyKind, Head, Method, Refused};
use crate::limits::STREAM_PIECE_MAX;

impl Connection {
    /// Reads the body piece by piece instead of whole.
    pub async fn pieces(&mut self, head: &Head, payload_max: usize) -> Result<Pieces, Broken> {
        let (left, chunked) = match head.body {
            BodyKind::Length(length) => (usize::try_from(length).ok(), None),
            BodyKind::Chunked => (Some(payload_max), Some(Chunked::new(payload_max))),
        };
        let left = left.filter(|length| *length <= payload_max).ok_or(Refused::BodyTooLong)?;
        self.begin_body(head, left).await?;
        Ok(Pieces { begin: head.length, left, chunked, broken: None })
    }

    /// Begins a reply that is sent piece by piece; `head` says nothing yet of how it is framed, or
    /// of what becomes of the connection.
    pub fn begin_reply<'a>(
        &'a self,
        head: ReplyHead<'_>,
        request: &Head,
    ) -> impl Future<Output = Result<ReplyPieces<'a>, Closed>> + use<'a> {
        // A client of HTTP/1.0 knows no chunks: it sees the end of the reply as that of the
        // connection.
        let chunked = !request.old;
        let head = head.connection(request, request.keep_alive && chunked);
        let head = if chunked { head.chunked() } else { head.bare() };
        let reply = ReplyPieces { connection: self, chunked, bare: request.method == Method::Head };
        let sent = self.send(head, b"");
        async move {
            sent.await?;
            // The server does not stop in the middle of it.
            self.peer.replying.set(true);
            Ok(reply)
        }
    }
}

/// A body that is read piece by piece; see [`Connection::pieces`].
pub struct Pieces {
    begin: usize,
    /// Bytes that are still to come, without chunks.
    left: usize,
    chunked: Option<Chunked>,
    /// What is wrong with the chunks behind the present piece.
    broken: Option<Refused>,
}

impl Pieces {
    /// Where the next piece stands in the connection's buffer; `None` at the end. The piece
    /// before it is gone then.
    pub async fn next(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<Range<usize>>, Broken> {
        // What was given out last goes; what was read beyond the head stays.
        if let Some(buffer) = &mut connection.buffer {
            buffer.vec().drain(self.begin..connection.used.max(self.begin));
        }
        connection.used = self.begin;
        if let Some(chunked) = &mut self.chunked {
            chunked.take();
            return self.next_chunks(connection).await;
        }
        if self.left == 0 {
            self.end(connection);
            return Ok(None);
        }
        if connection.bytes().len() == self.begin && connection.fill(STREAM_PIECE_MAX).await? == 0 {
            return Err(Broken::Closed);
        }
        let here = (connection.bytes().len() - self.begin).min(self.left);
        self.left -= here;
        connection.used = self.begin + here;
        Ok(Some(self.begin..self.begin + here))
    }

    async fn next_chunks(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<Range<usize>>, Broken> {
        if let Some(refused) = self.broken {
            return Err(refused.into());
        }
        let mut kept = self.trailers().len();
        loop {
            let chunked = self.chunked.as_mut().expect("its body is in chunks");
            let buffer = connection.buffer()?;
            let decoded = chunked.decode(&mut buffer.vec()[self.begin..], kept);
            let end = buffer.len() - self.begin;
            // What was right before it went wrong is given out.
            let rest = match decoded {
                Ok(rest) => rest,
                Err(refused) if chunked.payload() == 0 => return Err(refused.into()),
                Err(refused) => {
                    self.broken = Some(refused);
                    end
                }
            };
            kept = chunked.payload() + chunked.trailers();
            let payload = self.begin..self.begin + chunked.payload();
            let is_done = chunked.is_done();
            buffer.vec().drain(self.begin + kept..self.begin + rest);
            if !payload.is_empty() {
                connection.used = payload.end;
                return Ok(Some(payload));
            }
            if is_done {
                self.end(connection);
                return Ok(None);
            }
            if connection.fill(STREAM_PIECE_MAX).await? == 0 {
                return Err(Broken::Closed);
            }
        }
    }

    fn end(&self, connection: &mut Connection) {
        connection.used = self.trailers().end;
        connection.progress = Progress::Whole;
        connection.unlimited();
    }

    /// Where the trailers stand in the connection's buffer, at the end.
    pub fn trailers(&self) -> Range<usize> {
        self.begin..self.begin + self.chunked.as_ref().map_or(0, Chunked::trailers)
    }
}

/// A reply that is sent piece by piece; see [`Connection::begin_reply`]. Its client can tell one
/// that was not finished from a whole one.
pub struct ReplyPieces<'a> {
    connection: &'a Connection,
    chunked: bool,
    /// The reply to HEAD: it has no body.
    bare: bool,
}

impl ReplyPieces<'_> {
    /// Sends the next piece, of up to three parts, and waits until its client has taken it.
    pub async fn send(&self, parts: [&[u8]; 3]) -> Result<(), Closed> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 || self.bare {
            return Ok(());
        }
        let size = format!("{length:x}\r\n");
        let (before, after) = if self.chunked { (&*size, "\r\n") } else { ("", "") };
        let [one, two, three] = parts.map(IoSlice::new);
        let frame = [before, after].map(|text| IoSlice::new(text.as_bytes()));
        self.write(&mut [frame[0], one, two, three, frame[1]]).await
    }

    /// Ends the reply. False if the connection ends with it.
    pub async fn finish(self) -> Result<bool, Closed> {
        if self.chunked && !self.bare {
            self.write(&mut [IoSlice::new(b"0\r\n\r\n")]).await?;
        }
        self.connection.peer.replying.set(false);
        Ok(self.chunked)
    }

    async fn write(&self, mut parts: &mut [IoSlice<'_>]) -> Result<(), Closed> {
        let connection = self.connection;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let sent = connection.peer.io.try_write(parts)?;
        if sent < length {
            IoSlice::advance_slices(&mut parts, sent);
            connection.limit_ms(connection.limits().head_ms + too_slow_ms(length));
            connection.peer.io.write_all(parts).await?;
            connection.unlimited();
        }
        Ok(())
    }
}
