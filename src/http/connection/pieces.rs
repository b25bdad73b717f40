//! Bodies that are read piece by piece, so that they may be longer than memory has room for.

use std::ops::Range;

use super::{Broken, Connection, Progress};
use crate::http::{BodyKind, Head, Refused};

impl Connection {
    /// Reads the body piece by piece instead of whole. A body in chunks comes as one piece.
    pub async fn pieces(&mut self, head: &Head, payload_max: usize) -> Result<Pieces, Broken> {
        let BodyKind::Length(length) = head.body else {
            let body = self.body(head, payload_max).await?;
            return Ok(Pieces { begin: head.length, left: 0, whole: Some(body.payload) });
        };
        let left = usize::try_from(length).ok().filter(|length| *length <= payload_max);
        let left = left.ok_or(Refused::BodyTooLong)?;
        self.begin_body(head, left).await?;
        Ok(Pieces { begin: head.length, left, whole: None })
    }
}

/// A body that is read piece by piece; see [`Connection::pieces`].
pub struct Pieces {
    begin: usize,
    left: usize,
    whole: Option<Range<usize>>,
}

impl Pieces {
    /// Where the next piece stands in the connection's buffer; `None` at the end. The piece
    /// before it is gone then.
    pub async fn next(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<Range<usize>>, Broken> {
        if let Some(whole) = self.whole.take() {
            return Ok(Some(whole));
        }
        // What was given out last goes; what was read beyond the head stays.
        if let Some(buffer) = &mut connection.buffer {
            buffer.vec().drain(self.begin..connection.used.max(self.begin));
        }
        connection.used = self.begin;
        if self.left == 0 {
            connection.progress = Progress::Whole;
            connection.unlimited();
            return Ok(None);
        }
        if connection.bytes().len() == self.begin && connection.fill(16 * 1024).await? == 0 {
            return Err(Broken::Closed);
        }
        let here = (connection.bytes().len() - self.begin).min(self.left);
        self.left -= here;
        connection.used = self.begin + here;
        Ok(Some(self.begin..self.begin + here))
    }
}
