//! One connection: requests in, replies out, in order.
//!
//! An idle connection holds no buffer. A request's head and body stand in one buffer, which can
//! be taken away whole, so that a payload is never copied on its way to a worker.

mod end;
mod pieces;

use std::cell::Cell;
use std::io::IoSlice;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::Refused;
use super::body::Chunked;
use super::head::{self, BodyKind, Head};
use super::listener::{Limits, Peers};
use super::reply::{self, ReplyHead};
use crate::io::buffer::NoRoom;
use crate::io::reactor::Interest;
use crate::io::{Buffer, Buffers, Io, Reactor};
use crate::limits::{BUFFER_SIZE, PAYLOAD_MAX, TURN_BYTES};
use crate::pool::Instant;
pub use pieces::{Pieces, ReplyPieces};

/// The part of a connection that the sweeper sees.
pub struct Peer {
    pub(super) io: Io<OwnedFd>,
    /// When the sweeper ends it.
    pub(super) deadline: Cell<Instant>,
    /// Between two requests: may be ended to make room.
    pub(super) idle: Cell<bool>,
    /// No request came on it yet: its client is about to send one.
    pub(super) fresh: Cell<bool>,
    /// Its client has not taken the whole of a reply yet.
    pub(super) replying: Cell<bool>,
    /// Its client is sending a request, or has sent one ahead.
    pub(super) asking: Cell<bool>,
    /// It is another server's: nothing of it may be read here.
    pub(super) handed_over: Cell<bool>,
}

/// The word to a client that waits with its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// There will be no further request, and nobody to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Why a request could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client is gone.
    Closed,
    /// The client must be told, with [`Connection::refuse`].
    Refused(Refused),
}

impl From<Refused> for Broken {
    fn from(refused: Refused) -> Broken {
        Broken::Refused(refused)
    }
}

impl From<NoRoom> for Broken {
    fn from(_: NoRoom) -> Broken {
        Broken::Refused(Refused::NoRoom)
    }
}

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Broken {
        Broken::Closed
    }
}

impl From<std::io::Error> for Closed {
    fn from(_: std::io::Error) -> Closed {
        Closed
    }
}

/// Where a body stands in the connection's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The payload.
    pub payload: Range<usize>,
    /// The trailers, field lines like a head's; empty without chunks.
    pub trailers: Range<usize>,
}

/// How far the present request's body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Not at all.
    Untouched,
    /// In part, perhaps with an error: where the next request begins is not known any more.
    Begun,
    /// To its end, or there is none.
    Whole,
}

/// A client's connection.
pub struct Connection {
    peer: Rc<Peer>,
    peers: Rc<Peers>,
    index: u32,
    /// Head and body of the present request, then whatever was read beyond it.
    buffer: Option<Buffer>,
    /// Bytes of the buffer that belong to the present request.
    used: usize,
    /// How far the present request's body was read.
    progress: Progress,
    /// Bytes read since others had their turn.
    turn: u32,
    /// Who called; `None` on a Unix socket.
    source: Option<IpAddr>,
}

impl Connection {
    pub(super) fn new(
        peer: Rc<Peer>,
        peers: Rc<Peers>,
        index: u32,
        source: Option<IpAddr>,
    ) -> Connection {
        let progress = Progress::Whole;
        Connection { peer, peers, index, buffer: None, used: 0, progress, turn: 0, source }
    }

    /// Who called; `None` on a Unix socket.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// The descriptor.
    pub fn io(&self) -> &Io<OwnedFd> {
        &self.peer.io
    }

    /// Its request is with whoever answers it.
    pub fn asked(&self) {
        self.peer.asking.set(self.bytes().len() > self.used);
    }

    /// True if its next request will be another server's.
    pub fn moves_on(&self) -> bool {
        self.peers.leaving.get()
    }

    fn reactor(&self) -> &Rc<Reactor> {
        self.peer.io.reactor()
    }

    fn buffers(&self) -> &Rc<Buffers> {
        &self.peers.buffers
    }

    fn limits(&self) -> &Limits {
        &self.peers.limits
    }

    /// Lets the sweeper end the connection once so much time is over.
    fn limit_ms(&self, ms: u32) {
        let deadline = self.reactor().now().after_ms(ms);
        self.peer.deadline.set(deadline);
        self.peers.note(deadline);
    }

    /// Keeps the sweeper away.
    fn unlimited(&self) {
        self.peer.deadline.set(Instant::NEVER);
    }

    /// The bytes read for the present request: head, body, and perhaps the start of the next.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }

    /// Waits for the next request's head.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        self.forget_request();
        if self.bytes().is_empty() {
            self.rest().await?;
        } else {
            self.peer.asking.set(true);
            // A client that sends many requests ahead must not keep the others waiting.
            // What it sent was just moved to the buffer's start, and counts as if read again.
            self.worked(self.bytes().len());
            if !self.take_turns().await {
                smol::future::yield_now().await;
            }
        }
        let mut seen = 0;
        loop {
            if let Some(end) = head::end(self.bytes(), seen) {
                if end > self.limits().head_max {
                    return Err(Refused::HeadTooLong.into());
                }
                let head = head::parse(&self.bytes()[..end])?;
                self.used = end;
                self.progress = match head.body {
                    BodyKind::Length(0) => Progress::Whole,
                    BodyKind::Length(_) | BodyKind::Chunked => Progress::Untouched,
                };
                self.peer.fresh.set(false);
                // The handler's time is its own; the sweeper comes back with the next read.
                self.unlimited();
                return Ok(head);
            }
            if seen == 0 {
                self.limit_ms(self.limits().head_ms);
            }
            seen = self.bytes().len();
            if seen >= self.limits().head_max {
                return Err(Refused::HeadTooLong.into());
            }
            if self.fill(BUFFER_SIZE / 2).await? == 0 {
                return Err(Broken::Closed);
            }
        }
    }

    /// Idles without a buffer until the client sends something.
    async fn rest(&mut self) -> Result<(), Broken> {
        self.buffer = None;
        let peer = Rc::clone(&self.peer);
        peer.idle.set(true);
        peer.asking.set(false);
        self.limit_ms(self.limits().idle_ms);
        if peer.io.is_readable() {
            smol::future::yield_now().await;
        }
        let read = loop {
            peer.io.ready(Interest::Read).await;
            if self.is_handed_over().await {
                return Err(Broken::Closed);
            }
            let mut buffer = self.buffers().take()?;
            // Nothing there: the last read happened to end with the last byte there was.
            if let Some(read) = peer.io.try_receive_into(buffer.vec())? {
                self.buffer = Some(buffer);
                break read;
            }
        };
        peer.idle.set(false);
        peer.asking.set(true);
        if read == 0 { Err(Broken::Closed) } else { Ok(()) }
    }

    /// Drops the last request's bytes and keeps what was read beyond it.
    fn forget_request(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            if self.used >= buffer.len() {
                self.buffer = None;
            } else {
                buffer.vec().drain(..self.used);
            }
        }
        self.used = 0;
    }

    /// Reads once, into room for at least `room` bytes.
    async fn fill(&mut self, room: usize) -> Result<usize, Broken> {
        self.buffer()?.reserve(room)?;
        self.receive().await
    }

    /// As [`Connection::fill`], for a body that ends at `most` or before.
    async fn fill_body(&mut self, room: usize, most: usize) -> Result<usize, Broken> {
        let modest = self.limits().modest;
        let buffer = self.buffer()?;
        if modest {
            buffer.reserve_for_client(room, most)?;
        } else {
            buffer.reserve_up_to(room, most)?;
        }
        self.receive().await
    }

    fn worked(&mut self, bytes: usize) {
        self.turn = self.turn.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Lets the others have their turn if it is time; false if not.
    async fn take_turns(&mut self) -> bool {
        let due = self.turn >= TURN_BYTES;
        if due {
            self.turn = 0;
            self.reactor().give_way().await;
        }
        due
    }

    fn buffer(&mut self) -> Result<&mut Buffer, NoRoom> {
        if self.buffer.is_none() {
            self.buffer = Some(self.buffers().take()?);
        }
        Ok(self.buffer.as_mut().expect("just taken"))
    }

    /// Reads once. A client that sends as fast as it is read must not keep the others waiting.
    async fn receive(&mut self) -> Result<usize, Broken> {
        self.take_turns().await;
        let buffer = self.buffer.as_mut().expect("there is room");
        let read = self.peer.io.receive_into(buffer.vec()).await?;
        self.worked(read);
        Ok(read)
    }

    /// Reads the body of the request whose head was just returned. Says `100 Continue` first if
    /// the client waits for it.
    pub async fn body(&mut self, head: &Head, payload_max: usize) -> Result<Body, Broken> {
        let begin = head.length;
        let length = match head.body {
            BodyKind::Length(0) => return Ok(Body { payload: begin..begin, trailers: 0..0 }),
            BodyKind::Length(length) => Some(length),
            BodyKind::Chunked => None,
        };
        let length = match length.map(usize::try_from) {
            Some(Ok(length)) if length <= payload_max => Some(length),
            Some(_) => return Err(Refused::BodyTooLong.into()),
            None => None,
        };
        if !self.has_room_for(begin + length.unwrap_or(0)) {
            return Err(Refused::NoRoom.into());
        }
        let is_here = length.is_some_and(|length| self.bytes().len() >= begin + length);
        if !is_here {
            self.begin_body(head, length.unwrap_or(payload_max)).await?;
        }
        let body = match length {
            Some(length) => self.counted(begin, length).await?,
            None => self.chunked(begin, payload_max).await?,
        };
        self.used = body.payload.end.max(body.trailers.end);
        self.progress = Progress::Whole;
        self.unlimited();
        Ok(body)
    }

    /// False if a request of `length` bytes would not find room now. What is hopeless is refused
    /// before it is sent, and what others send meanwhile is served.
    fn has_room_for(&self, length: usize) -> bool {
        let taken = self.buffer.as_ref().map_or(0, Buffer::capacity);
        length <= taken
            || !self.limits().modest
            || self.buffers().has_room_for_client(length - taken)
    }

    /// Gives the client its time for a body of `longest` bytes, and the word to send it.
    async fn begin_body(&mut self, head: &Head, longest: usize) -> Result<(), Broken> {
        self.limit_ms(self.limits().head_ms + reply::too_slow_ms(longest));
        self.progress = Progress::Begun;
        if head.expects_continue && self.bytes().len() == head.length {
            self.peer.io.write_all(&mut [IoSlice::new(CONTINUE)]).await?;
        }
        Ok(())
    }

    async fn counted(&mut self, begin: usize, length: usize) -> Result<Body, Broken> {
        let end = begin + length;
        while self.bytes().len() < end {
            // A length is only a claim: memory grows with what really came.
            let (here, missing) = (self.bytes().len(), end - self.bytes().len());
            if self.fill_body(missing.min(here.max(BUFFER_SIZE)), end).await? == 0 {
                return Err(Broken::Closed);
            }
        }
        Ok(Body { payload: begin..end, trailers: 0..0 })
    }

    async fn chunked(&mut self, begin: usize, payload_max: usize) -> Result<Body, Broken> {
        let mut chunked = Chunked::new(payload_max);
        let mut fresh = begin;
        loop {
            let buffer = self.buffer.as_mut().expect("holds the head");
            let bytes = &mut buffer.vec()[begin..];
            let rest = begin + chunked.decode(bytes, fresh - begin)?;
            // What follows the payload moves up to it: garbage of the framing goes.
            let kept = begin + chunked.payload() + chunked.trailers();
            buffer.vec().drain(kept..rest);
            if chunked.is_done() {
                let payload = begin..begin + chunked.payload();
                return Ok(Body { trailers: payload.end..kept, payload });
            }
            fresh = kept;
            let room = self.bytes().len().clamp(BUFFER_SIZE, 256 * 1024);
            if self.fill_body(room, begin + payload_max).await? == 0 {
                return Err(Broken::Closed);
            }
        }
    }

    /// Reads and drops what is left of the request, so that another one can follow on the
    /// connection; false if that is not possible. A client that waits to be asked for its body is
    /// not asked any more.
    pub async fn discard(&mut self, head: &Head) -> bool {
        let held_back = head.expects_continue && self.bytes().len() == head.length;
        match self.progress {
            Progress::Whole => true,
            Progress::Untouched => !held_back && self.body(head, PAYLOAD_MAX).await.is_ok(),
            Progress::Begun => false,
        }
    }

    /// Takes the present request's bytes away from the connection, without copying them.
    pub fn detach(&mut self) -> Result<Buffer, NoRoom> {
        let Some(mut buffer) = self.buffer.take() else { return self.buffers().take() };
        if buffer.len() > self.used {
            let mut beyond = self.buffers().take()?;
            beyond.extend(&buffer[self.used..])?;
            buffer.vec().truncate(self.used);
            self.buffer = Some(beyond);
        }
        self.used = 0;
        Ok(buffer)
    }

    /// The head of a reply.
    pub fn reply<'a>(&self, status: u16) -> ReplyHead<'a> {
        let Peers { head, opening, reactor, .. } = &*self.peers;
        ReplyHead::new(head.take(), status, opening, reactor.unix_ms())
    }

    /// Sends a reply: at once as far as the client takes it, the rest as it goes.
    pub fn send<'a>(
        &'a self,
        mut head: ReplyHead<'_>,
        body: &'a [u8],
    ) -> impl Future<Output = Result<(), Closed>> + use<'a> {
        let body = head.take_in(body);
        let sent = self.send_parts(&head.parts(), body);
        self.peers.head.set(head.into_space());
        sent
    }

    /// Sends a part of a reply.
    pub fn send_part<'a>(
        &'a self,
        part: &'a [u8],
    ) -> impl Future<Output = Result<(), Closed>> + use<'a> {
        self.send_parts(&[], part)
    }

    /// The future holds what the client did not take at once, and not the heads of all replies
    /// that it did: it is a part of every connection's task, and moved there with each reply.
    fn send_parts<'a>(
        &'a self,
        head: &[&[u8]],
        body: &'a [u8],
    ) -> impl Future<Output = Result<(), Closed>> + use<'a> {
        let mut parts = [IoSlice::new(&[]); reply::PARTS + 1];
        let there = head.iter().chain([&body]).filter(|part| !part.is_empty());
        let mut count = 0;
        for (part, bytes) in parts.iter_mut().zip(there) {
            *part = IoSlice::new(bytes);
            count += 1;
        }
        let head_length: usize = head.iter().map(|part| part.len()).sum();
        let length = head_length + body.len();
        let sent = self.peer.io.try_send(&parts[..count]).map_err(|_| Closed);
        let unsent = sent.map(|sent| {
            let head = if sent < head_length { head.concat().split_off(sent) } else { Vec::new() };
            let body = &body[sent.saturating_sub(head_length)..];
            (sent < length).then(|| Box::pin(self.send_rest(head, body, length)))
        });
        async move {
            match unsent? {
                Some(rest) => rest.await,
                None => Ok(()),
            }
        }
    }

    /// Sends what is left of a reply of so many bytes.
    async fn send_rest(&self, head: Vec<u8>, body: &[u8], length: usize) -> Result<(), Closed> {
        // A client that reads slower than the minimum is as good as gone.
        self.limit_ms(self.limits().head_ms + reply::too_slow_ms(length));
        self.peer.replying.set(true);
        self.peer.io.write_all(&mut [IoSlice::new(&head), IoSlice::new(body)]).await?;
        self.peer.replying.set(false);
        self.unlimited();
        Ok(())
    }

    /// Waits until the client has hung up, at least its sending side.
    pub async fn ended(&self) {
        self.peer.io.ready(Interest::Ended).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peers.remove(self.index);
    }
}
