//! Invocations in flight: what was asked, who asked, and in the end the answer.

use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::catalog::Version;
use super::spawn::Exit;
use super::stream::Stream;
use super::trace::Trace;
use crate::io::text::same;
use crate::io::{Buffer, Put, Text};
use crate::pool::{Instant, InvocationId, Outcome, VersionId};

/// Bytes inside a buffer, moved and never copied.
pub struct Payload {
    buffer: Buffer,
    range: Range<usize>,
}

impl Payload {
    /// The bytes of `buffer` in `range`.
    pub fn new(buffer: Buffer, range: Range<usize>) -> Payload {
        assert!(range.end <= buffer.len() && range.start <= range.end, "a part of the buffer");
        Payload { buffer, range }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

/// Lambda's request id: a random UUID (version 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub [u8; 16]);

impl RequestId {
    fn random(rng: &mut fastrand::Rng) -> RequestId {
        let mut bytes = rng.u128(..).to_be_bytes();
        bytes[6] = bytes[6] & 0x0F | 0x40;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        RequestId(bytes)
    }
}

/// Bytes of a request id as text.
pub const REQUEST_ID_LEN: usize = 36;
/// A request id as text.
pub type IdText = [u8; REQUEST_ID_LEN];

/// Writes bytes in hexadecimal digits, four bytes at once: each half of a byte in a byte of its own,
/// which is moved to the digits, or on to the letters.
pub fn hex(place: &mut [u8], bytes: &[u8]) {
    const ALL: u64 = 0x0101_0101_0101_0101;
    let (places, words) = (place.as_chunks_mut::<8>().0, bytes.as_chunks::<4>().0);
    for (place, word) in places.iter_mut().zip(words) {
        let mut halves = u64::from(u32::from_be_bytes(*word));
        halves = (halves << 16 | halves) & 0x0000_FFFF_0000_FFFF;
        halves = (halves << 8 | halves) & 0x00FF_00FF_00FF_00FF;
        halves = (halves << 4 | halves) & (0x0F * ALL);
        let letters = (halves + 6 * ALL) >> 4 & ALL;
        let digits = halves + u64::from(b'0') * ALL + letters * u64::from(b'a' - b'0' - 10);
        *place = digits.to_be_bytes();
    }
}

impl RequestId {
    /// As text.
    fn text(self) -> IdText {
        let mut digits = [0; 32];
        hex(&mut digits, &self.0);
        let mut text = [b'-'; REQUEST_ID_LEN];
        text[..8].copy_from_slice(&digits[..8]);
        text[9..13].copy_from_slice(&digits[8..12]);
        text[14..18].copy_from_slice(&digits[12..16]);
        text[19..23].copy_from_slice(&digits[16..20]);
        text[24..].copy_from_slice(&digits[20..]);
        text
    }

    /// True if `text` is this id.
    pub fn is(self, text: &IdText) -> bool {
        same(&self.text(), text)
    }
}

impl Put for RequestId {
    fn put_into(&self, text: &mut Text) {
        text.put_ascii(&self.text());
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("hexadecimal digits"))
    }
}

/// What a caller wants.
pub struct Call {
    /// Which version runs.
    pub version: VersionId,
    /// As the caller qualified the function: `None`, or `$LATEST`, a number, an alias.
    pub qualifier: Option<Box<str>>,
    /// The event; empty for none.
    pub payload: Option<Payload>,
    /// Its request id, if the event speaks of it already.
    pub request: Option<RequestId>,
    /// The caller's trace header.
    pub trace: Option<Box<str>>,
    /// The caller's client context, as JSON.
    pub client_context: Option<Box<str>>,
    /// Keep the last 4 KiB of this invocation's log for the answer.
    pub tail: bool,
    /// The caller takes a reply in pieces, as it is written; others get it whole.
    pub pieces: bool,
}

/// What a worker answered.
pub struct Answer {
    /// False: the payload is an error of the handler.
    pub ok: bool,
    /// The reply, or the error as JSON.
    pub payload: Payload,
}

/// The platform's own word on why there is no answer of the handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The process ended.
    Exited(Exit),
    /// The reply is larger than allowed.
    ReplyTooLarge,
    /// The reply was cut off.
    Truncated,
    /// The reply came in a mode that does not exist.
    BadMode,
    /// An external extension is gone: Lambda's error type, and how that came.
    Extension(&'static str, String),
}

/// How an invocation ended, as its caller learns it.
pub struct Settled {
    /// The outcome.
    pub outcome: Outcome,
    /// The handler's reply or error, if it gave one.
    pub answer: Option<Answer>,
    /// The error in its place, as JSON, if it gave none.
    pub error: Option<String>,
    /// The last 4 KiB of its log, if wanted.
    pub tail: Option<Vec<u8>>,
    /// Its request id.
    pub request: RequestId,
    /// Its trace header.
    pub trace: Trace,
}

/// One invocation, from acceptance to settling.
pub struct Invocation {
    id: InvocationId,
    /// Which version runs, or will: a newer one takes over those that wait.
    pub version: Rc<Version>,
    /// As the caller qualified the function.
    pub qualifier: Option<Box<str>>,
    /// The event, while it may still be needed.
    pub payload: Option<Payload>,
    /// Its request id.
    pub request: RequestId,
    /// Its trace header.
    pub trace: Trace,
    /// The caller's client context, as JSON.
    pub client_context: Option<Box<str>>,
    /// The last 4 KiB of its log, if wanted.
    pub tail: Option<Vec<u8>>,
    /// When it came.
    pub accepted: Instant,
    /// When it was handed to a worker.
    pub dispatched: Option<Instant>,
    /// When it times out, in milliseconds of Unix time; 0 before it was handed to a worker.
    pub deadline_ms: u64,
    /// How long its worker took to initialise, if it was started for this.
    pub init_us: Option<u64>,
    /// What the worker answered.
    pub answer: Option<Answer>,
    /// Why there is no answer of the handler.
    pub mishap: Option<Mishap>,
    /// The most memory its worker was seen with.
    pub memory_kib: u64,
    /// What of its reply came so far, if that comes in pieces. On the heap: few do.
    pub(super) stream: Option<Box<Stream>>,
    /// The caller takes pieces.
    pub(super) pieces: bool,
    /// The end, until the caller has taken it.
    settled: Option<Settled>,
    waker: Option<Waker>,
    /// The caller is gone.
    abandoned: bool,
}

/// All invocations in flight.
pub struct Invocations {
    entries: Vec<Option<Invocation>>,
    unused: Vec<u32>,
    serial: u32,
    rng: fastrand::Rng,
}

impl Invocations {
    /// None yet; request ids follow from `seed`.
    pub fn new(seed: u64) -> Invocations {
        Invocations {
            entries: Vec::new(),
            unused: Vec::new(),
            serial: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes a call in, at a time by both clocks.
    pub fn add(
        &mut self,
        call: Call,
        version: Rc<Version>,
        (now, unix_ms): (Instant, u64),
    ) -> InvocationId {
        let request = call.request.unwrap_or_else(|| RequestId::random(&mut self.rng));
        let epoch = u32::try_from(unix_ms / 1000).unwrap_or(u32::MAX);
        let index = self.unused.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("fewer invocations than that")
        });
        // The serial makes an id that is never used twice of an index that is.
        self.serial = self.serial.wrapping_add(1);
        let id = InvocationId(u64::from(self.serial) << 32 | u64::from(index));
        self.entries[index as usize] = Some(Invocation {
            id,
            trace: Trace::new(call.trace, version.lineage, epoch, request),
            version,
            qualifier: call.qualifier,
            payload: call.payload,
            request,
            client_context: call.client_context,
            tail: call.tail.then(Vec::new),
            pieces: call.pieces,
            stream: None,
            accepted: now,
            dispatched: None,
            deadline_ms: 0,
            init_us: None,
            answer: None,
            mishap: None,
            memory_kib: 0,
            settled: None,
            waker: None,
            abandoned: false,
        });
        id
    }

    /// The invocation, which is in flight.
    pub fn get(&mut self, id: InvocationId) -> &mut Invocation {
        self.find(id).expect("an invocation in flight has its entry")
    }

    /// The invocation, if it is in flight.
    pub fn find(&mut self, id: InvocationId) -> Option<&mut Invocation> {
        let index = usize::try_from(id.0 & 0xFFFF_FFFF).expect("32 bits");
        self.entries.get_mut(index)?.as_mut().filter(|entry| entry.id == id)
    }

    /// Lets those that wait for `old` wait for `new`.
    pub fn move_waiting(&mut self, old: VersionId, new: &Rc<Version>) {
        for entry in self.entries.iter_mut().flatten() {
            if entry.version.id == old && entry.dispatched.is_none() {
                entry.version = Rc::clone(new);
            }
        }
    }

    /// Random bits, for names that must not repeat.
    pub fn random(&mut self) -> u128 {
        self.rng.u128(..)
    }

    /// A random number from 0 up to but not 1.
    pub fn chance(&mut self) -> f64 {
        self.rng.f64()
    }

    /// An id for a request that becomes no invocation.
    pub fn request_id(&mut self) -> RequestId {
        RequestId::random(&mut self.rng)
    }

    /// How many are in flight.
    pub fn count(&self) -> usize {
        self.entries.len() - self.unused.len()
    }

    /// Leaves the end for the caller, or drops it if there is no caller any more.
    pub fn settle(&mut self, id: InvocationId, settled: Settled) {
        let entry = self.get(id);
        if entry.abandoned {
            self.remove(id);
            return;
        }
        entry.settled = Some(settled);
        if let Some(stream) = &mut entry.stream {
            stream.wake_writer();
        }
        entry.wake_caller();
    }

    /// Waits for the end of an invocation, which is gone then.
    pub fn poll_settled(&mut self, cx: &Context<'_>, id: InvocationId) -> Poll<Settled> {
        let entry = self.get(id);
        match entry.settled.take() {
            Some(settled) => {
                self.remove(id);
                Poll::Ready(settled)
            }
            None => {
                entry.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The caller is gone. True if the invocation has not ended yet.
    pub fn abandon(&mut self, id: InvocationId) -> bool {
        let entry = self.get(id);
        if entry.settled.is_some() {
            self.remove(id);
            return false;
        }
        entry.abandoned = true;
        entry.waker = None;
        // What comes now is dropped, and need not wait.
        entry.stream = None;
        true
    }

    /// Waits for the next piece of a reply, which is `None` once there are no more and the end is
    /// there.
    pub fn poll_piece(&mut self, cx: &Context<'_>, id: InvocationId) -> Poll<Option<Buffer>> {
        let entry = self.get(id);
        if let Some(piece) = entry.stream.as_mut().and_then(|stream| stream.take()) {
            return Poll::Ready(Some(piece));
        }
        if entry.settled.is_some() {
            return Poll::Ready(None);
        }
        entry.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn remove(&mut self, id: InvocationId) {
        let index = u32::try_from(id.0 & 0xFFFF_FFFF).expect("32 bits");
        self.entries[index as usize] = None;
        self.unused.push(index);
    }
}

impl Invocation {
    /// True once nothing that comes from its worker matters any more.
    pub(super) fn is_over(&self) -> bool {
        self.abandoned || self.settled.is_some()
    }

    pub(super) fn wake_caller(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        let mut rng = fastrand::Rng::with_seed(1);
        let text = RequestId::random(&mut rng).to_string();
        let parts: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{text}");
        assert_eq!(&text[14..15], "4");
        assert!("89ab".contains(&text[19..20]));
        assert_ne!(text, RequestId::random(&mut rng).to_string());
    }
}
