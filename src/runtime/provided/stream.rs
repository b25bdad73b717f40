//! Answers that a runtime streams: `POST .../response` with the mode `streaming`, read piece by piece.

use std::future::poll_fn;
use std::ops::Range;

use super::Phase;
use super::calls::{Desk, End, OK, broken_off};
use crate::host::invocation::IdText;
use crate::host::settle::Reply;
use crate::http::Connection;
use crate::http::connection::Broken;
use crate::http::head::field;

impl Desk<'_> {
    /// Passes an answer on while it comes. A runtime that is faster than its caller finds that its
    /// connection takes no more.
    pub(super) async fn stream(
        &self,
        connection: &mut Connection,
        id: &IdText,
    ) -> Result<bool, End> {
        if !self.is_current(id, Phase::Running) {
            return self.part(connection, 400, "InvalidRequestID", "Invalid request ID").await;
        }
        self.seat.phase.set(Phase::Answering);
        // Of the head alone: its body may look like a field.
        let content_type = field(&connection.bytes()[..self.head.length], "content-type");
        let most = self.host.stream_begins(self.worker, content_type.unwrap_or_default());
        let trailers = match self.pass_on(connection, most).await {
            Ok(trailers) => trailers,
            Err(broken) => {
                let broken = (broken, most);
                return self.broken_answer(connection, id, Phase::Answering, broken).await;
            }
        };
        if !self.is_current(id, Phase::Answering) {
            // It was too late: its invocation has timed out.
            self.refuse(connection, 400, "InvalidRequestID", "Invalid request ID").await?;
            return Ok(self.head.keep_alive);
        }
        let (failed, told) = broken_off(&connection.bytes()[trailers]);
        let reply = match failed {
            Some(error_type) => self.error_reply(Some(&error_type), told)?,
            None => Reply::Streamed,
        };
        self.seat.answered(self.host, self.worker, reply);
        self.reply(connection, 202, OK).await?;
        Ok(self.head.keep_alive)
    }

    /// Where the trailers are, behind everything else.
    async fn pass_on(
        &self,
        connection: &mut Connection,
        most: usize,
    ) -> Result<Range<usize>, Broken> {
        let mut pieces = connection.pieces(self.head, most).await?;
        while let Some(piece) = pieces.next(connection).await? {
            self.host.streamed(self.worker, &connection.bytes()[piece]);
            poll_fn(|cx| self.host.poll_room(cx, self.worker)).await;
        }
        Ok(pieces.trailers())
    }
}
