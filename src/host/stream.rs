//! Replies that reach their caller while the handler still writes them.
//!
//! The worker's side adds pieces, the caller's side takes them away. A worker whose caller is slow
//! is not read, so it waits with its next write, and its function's timeout goes on. A caller that
//! takes replies whole gets the pieces as one, within the limit for such replies; what comes for
//! one that is gone is dropped.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Host;
use super::invocation::{Answer, Invocation, Mishap, Payload};
use super::worker::Worker;
use crate::io::buffer::NoRoom;
use crate::io::{Buffer, Buffers};
use crate::limits::{CONTENT_TYPE_MAX, REPLY_MAX, STREAM_WAITING_MAX, STREAMED_MAX};

/// A reply, as far as it came.
pub struct Stream {
    content_type: Box<str>,
    /// What the caller has not taken.
    waiting: Option<Buffer>,
    /// Bytes so far, taken or not.
    length: usize,
    /// There were more than may be.
    too_large: bool,
    /// Who reads the worker, while it must wait.
    writer: Option<Waker>,
}

impl Stream {
    /// The next piece, if there is one.
    pub fn take(&mut self) -> Option<Buffer> {
        let piece = self.waiting.take()?;
        self.wake_writer();
        Some(piece)
    }

    /// Lets the worker be read again.
    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    fn add(&mut self, buffers: &Rc<Buffers>, bytes: &[u8]) -> Result<(), NoRoom> {
        let waiting = match &mut self.waiting {
            Some(waiting) => waiting,
            none => none.insert(buffers.take()?),
        };
        waiting.extend(bytes)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.wake_writer();
    }
}

impl Invocation {
    /// The longest reply in pieces that its caller may get.
    fn stream_max(&self) -> usize {
        if self.pieces { STREAMED_MAX } else { REPLY_MAX }
    }

    /// The longest reply that it may get at all, for the error that says so.
    pub(super) fn reply_max(&self) -> usize {
        if self.stream.is_some() { self.stream_max() } else { REPLY_MAX }
    }

    /// The type of what comes in pieces, if anything does.
    pub(super) fn content_type(&self) -> Option<String> {
        self.stream.as_ref().map(|stream| stream.content_type.to_string())
    }

    fn add_piece(&mut self, buffers: &Rc<Buffers>, bytes: &[u8]) {
        let (most, whole, over) = (self.stream_max(), !self.pieces, self.is_over());
        let Some(stream) = self.stream.as_mut().filter(|_| !over) else { return };
        stream.length = stream.length.saturating_add(bytes.len());
        stream.too_large |= stream.length > most;
        // Memory that cannot be had is the same to a reply as one that may not be.
        if bytes.is_empty() || stream.too_large || stream.add(buffers, bytes).is_err() {
            stream.too_large |= !bytes.is_empty();
            if stream.too_large && whole {
                stream.waiting = None;
            }
            return;
        }
        if self.pieces {
            self.wake_caller();
        }
    }

    /// The reply is complete.
    pub(super) fn end_stream(&mut self, buffers: &Rc<Buffers>) {
        let Some(stream) = &mut self.stream else { return };
        if stream.too_large {
            self.mishap = Some(Mishap::ReplyTooLarge);
        } else if !self.pieces {
            match stream.waiting.take().map_or_else(|| buffers.take(), Ok) {
                Ok(buffer) => {
                    let length = buffer.len();
                    let payload = Payload::new(buffer, 0..length);
                    self.answer = Some(Answer { ok: true, payload });
                }
                Err(NoRoom) => self.mishap = Some(Mishap::ReplyTooLarge),
            }
        }
    }
}

impl Host {
    /// A worker begins to stream its reply; returns how long that may be.
    pub fn stream_begins(&self, worker: &Worker, content_type: &[u8]) -> usize {
        let content_type = std::str::from_utf8(content_type).ok();
        let content_type = content_type.filter(|text| text.len() <= CONTENT_TYPE_MAX);
        let begin = |invocation: &mut Invocation| {
            if invocation.stream.is_none() && !invocation.is_over() {
                invocation.stream = Some(Box::new(Stream {
                    content_type: content_type.unwrap_or_default().into(),
                    waiting: None,
                    length: 0,
                    too_large: false,
                    writer: None,
                }));
            }
            invocation.stream_max()
        };
        let id = worker.running.get();
        id.and_then(|id| self.with_running(id, begin)).unwrap_or(STREAMED_MAX)
    }

    /// The next bytes of a worker's reply.
    pub fn streamed(&self, worker: &Worker, bytes: &[u8]) {
        if let Some(id) = worker.running.get() {
            self.with_running(id, |invocation| invocation.add_piece(&self.buffers, bytes));
        }
    }

    /// Waits until the caller has taken so much of a worker's reply that more of it can be read.
    pub fn poll_room(&self, cx: &Context<'_>, worker: &Worker) -> Poll<()> {
        let Some(id) = worker.running.get() else { return Poll::Ready(()) };
        let full = self.with_running(id, |invocation| {
            let bounded = invocation.pieces && !invocation.is_over();
            let Some(stream) = invocation.stream.as_mut().filter(|_| bounded) else { return false };
            let waiting = stream.waiting.as_deref().map_or(0, <[u8]>::len);
            let full = waiting > STREAM_WAITING_MAX;
            if full {
                stream.writer = Some(cx.waker().clone());
            }
            full
        });
        if full == Some(true) { Poll::Pending } else { Poll::Ready(()) }
    }
}
