//! Workers on the wire: a pipe with frames to the worker, and a socket with its own.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;
use rustix::net::Shutdown;

use crate::function::config::Runtime;
use crate::function::name::Arn;
use crate::host::Host;
use crate::host::invocation::{Mishap, Payload};
use crate::host::settle::Reply;
use crate::host::worker::Worker;
use crate::io::buffer::NoRoom;
use crate::io::reactor::Interest;
use crate::io::{Buffer, Io, Reactor};
use crate::limits::{BUFFER_SIZE, EXIT_MS};
use crate::pool::InvocationId;
use crate::wire::{
    self, Error, FRAME_MAX, FromWorker, HEADER_MAX, MEMORY, PIECE_MAX, PIPES, PREFIX, PROTOCOL,
    STREAMS, ToWorker, decode, encode,
};

/// Where the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was said yet.
    Silent,
    /// It said hello and initialises.
    Starting,
    /// It asked for work.
    Ready,
    /// It has an invocation, under this number.
    Running(u32),
    /// Its reply to that comes in pieces.
    Streaming(u32),
    /// It answered and has not asked for more.
    Answered,
    /// It could not initialise, and has nothing more to say.
    Failed,
}

/// The host's ends of a worker's socket and pipe.
pub struct Talk {
    socket: Io<OwnedFd>,
    /// What it is told goes this way, unless its protocol knows of sockets alone.
    pipe: Cell<Option<OwnedFd>>,
    stage: Cell<Stage>,
    /// The protocol that the worker speaks.
    protocol: Cell<u8>,
    /// It is gone: what it said last does not wait for anybody.
    last: Cell<bool>,
    serial: Cell<u32>,
    /// What was not taken at once. On the heap: it is rare, and workers are many.
    unsent: Cell<Option<Box<Unsent>>>,
    writer: Cell<Option<Waker>>,
    /// The start of a frame.
    unread: Cell<Option<Buffer>>,
}

/// What a worker is started with.
pub struct Ends {
    /// Frames both ways, or where there is a pipe the worker's own.
    pub socket: OwnedFd,
    /// The pipe with what it is told.
    pub events: Option<OwnedFd>,
}

struct Unsent {
    header: Vec<u8>,
    payload: Option<Payload>,
    sent: usize,
    /// The worker's pipe, which the reactor knows only while somebody waits for it.
    pipe: Option<Io<OwnedFd>>,
}

impl Unsent {
    /// Sends as much as goes; true if that was all.
    fn send(&mut self, socket: &Io<OwnedFd>) -> std::io::Result<bool> {
        let event = self.payload.as_deref().unwrap_or(EMPTY);
        let mut parts = [IoSlice::new(&self.header), IoSlice::new(event)];
        let mut parts = &mut parts[..];
        IoSlice::advance_slices(&mut parts, self.sent);
        self.sent += self.pipe.as_ref().unwrap_or(socket).try_write(parts)?;
        Ok(self.sent == self.header.len() + event.len())
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(pipe) = &self.pipe {
            // The pipe stays open by the descriptor that this is a duplicate of: the registration
            // would stay as well, and refuse the next duplicate of the same number.
            pipe.leave();
        }
    }
}

impl Talk {
    /// A new conversation, and the worker's ends of it.
    pub fn open(reactor: &Rc<Reactor>, runtime: &Runtime) -> std::io::Result<(Talk, Ends)> {
        let (socket, theirs) = Io::pair(reactor)?;
        let (mut pipe, mut events) = (None, None);
        // Node's event loop has one descriptor for both ways, and is not woken in vain by it.
        if !matches!(runtime, Runtime::Node(_)) {
            let (theirs, ours) = std::io::pipe()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            pipe = Some(ours.into());
            events = Some(theirs.into());
        }
        let talk = Talk {
            socket,
            pipe: Cell::new(pipe),
            stage: Cell::new(Stage::Silent),
            protocol: Cell::new(0),
            last: Cell::new(false),
            serial: Cell::new(0),
            unsent: Cell::default(),
            writer: Cell::default(),
            unread: Cell::default(),
        };
        Ok((talk, Ends { socket: theirs, events }))
    }

    /// Sends an invocation: at once as far as it is taken, the rest as it goes.
    pub fn dispatch(&self, host: &Host, worker: &Worker, id: InvocationId) {
        let serial = self.serial.get().wrapping_add(1);
        self.serial.set(serial);
        self.stage.set(Stage::Running(serial));
        let (mut header, mut texts) = (host.header.borrow_mut(), host.texts.borrow_mut());
        let encoded = host.with_invocation(id, |invocation| {
            let arn = Arn::of(&worker.version.arn, invocation.qualifier.as_deref());
            texts.clear();
            let request = texts.put(invocation.request);
            let trace = texts.put(&invocation.trace);
            texts.put(arn);
            let texts = texts.as_str();
            let context = wire::Context {
                id: serial,
                deadline_ms: invocation.deadline_ms,
                request_id: &texts[..request],
                function_arn: &texts[trace..],
                trace_id: &texts[request..trace],
                client_context: invocation.client_context.as_deref().unwrap_or_default(),
                identity: "",
            };
            let payload = invocation.payload.take();
            let length = payload.as_ref().map_or(EMPTY.len(), |payload| payload.len());
            encode(&ToWorker::Invoke(context), length, &mut header[..]).map(|n| (n, payload))
        });
        let Ok((length, payload)) = encoded else {
            // The doors bound everything that goes in here.
            log::error!("an invocation's context exceeds {HEADER_MAX} bytes");
            worker.process.kill();
            return;
        };
        let event = payload.as_deref().unwrap_or(EMPTY);
        let whole = length + event.len();
        // A failure shows itself as the end of the process.
        let sent = self.try_tell(&mut header[..], length, event).unwrap_or(whole);
        if sent < whole {
            let Ok(pipe) = self.watched_pipe() else {
                log::error!("a worker's pipe cannot be waited for");
                worker.process.kill();
                return;
            };
            let header = header[..length].to_vec();
            self.unsent.set(Some(Box::new(Unsent { header, payload, sent, pipe })));
            if let Some(waker) = self.writer.take() {
                waker.wake();
            }
        }
    }

    /// Writes what goes without waiting, of a header of `length` bytes and an event; how much that was.
    /// A short event is put behind the header: one piece is less work for the kernel than two.
    fn try_tell(&self, header: &mut [u8], length: usize, event: &[u8]) -> std::io::Result<usize> {
        let whole = length + event.len();
        if event.len() <= JOINED_MAX
            && let Some(room) = header.get_mut(length..whole)
        {
            room.copy_from_slice(event);
            return self.try_write(&[IoSlice::new(&header[..whole])]);
        }
        self.try_write(&[IoSlice::new(&header[..length]), IoSlice::new(event)])
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> std::io::Result<usize> {
        let Some(pipe) = self.pipe.take() else { return self.socket.try_send(parts) };
        let written = loop {
            match rustix::io::writev(&pipe, parts) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(0),
                written => break written,
            }
        };
        self.pipe.set(Some(pipe));
        Ok(written?)
    }

    /// The pipe as something to wait for; `None` if it is the socket.
    fn watched_pipe(&self) -> std::io::Result<Option<Io<OwnedFd>>> {
        let Some(pipe) = self.pipe.take() else { return Ok(None) };
        let copy = pipe.try_clone();
        self.pipe.set(Some(pipe));
        Io::new(self.socket.reactor(), copy?).map(Some)
    }

    /// Ends the host's side: the worker reads the end of the stream.
    pub fn hang_up(&self) {
        self.pipe.set(None);
        self.unsent.set(None);
        if self.socket.has_ended() {
            // It hung up itself, or is gone.
            return;
        }
        if let Err(error) = rustix::net::shutdown(self.socket.get(), Shutdown::Write) {
            log::debug!("hang up on a worker: {error}");
        }
    }

    /// Makes [`Talk::poll`] read what the worker said last, once it is gone.
    pub fn look_again(&self) {
        self.last.set(true);
        self.socket.look_again();
    }

    /// Listens, and sends what could not be sent at once, until the worker hangs up.
    pub fn poll(&self, cx: &Context<'_>, host: &Rc<Host>, worker: &Worker) -> Poll<()> {
        self.poll_send(cx);
        let result = std::task::ready!(self.poll_listen(cx, host, worker));
        if result.is_ok() && !worker.stopping.get() {
            // Nobody can speak to it any more. If it is on its way out, its status says why.
            let (waiting, id) = (Rc::clone(host), worker.id);
            let task = async move {
                waiting.reactor.sleep_ms(EXIT_MS).await;
                if let Some(worker) = waiting.worker(id) {
                    worker.process.kill();
                }
            };
            host.executor.spawn(task).detach();
        }
        if let Err(broken) = result {
            log::warn!(
                "function {}: worker {}: {broken}",
                worker.version.name,
                worker.process.pid()
            );
            if worker.ready.get().is_none() {
                worker.version.start_failed("Runtime.Protocol", broken.to_string());
            }
            if broken == Error::TooLong {
                host.replied(worker, Reply::Mishap(Mishap::ReplyTooLarge));
            }
            worker.process.kill();
        }
        Poll::Ready(())
    }

    fn poll_send(&self, cx: &Context<'_>) {
        while let Some(mut unsent) = self.unsent.take() {
            let way = unsent.pipe.as_ref().unwrap_or(&self.socket);
            if way.poll_ready(cx, Interest::Write).is_pending() {
                self.unsent.set(Some(unsent));
                return;
            }
            match unsent.send(&self.socket) {
                Ok(true) => {}
                Ok(false) => self.unsent.set(Some(unsent)),
                // The end of its process says more.
                Err(error) => log::debug!("send to a worker: {error}"),
            }
        }
        let writer = self.writer.take().filter(|waker| waker.will_wake(cx.waker()));
        self.writer.set(Some(writer.unwrap_or_else(|| cx.waker().clone())));
    }

    fn poll_listen(
        &self,
        cx: &Context<'_>,
        host: &Rc<Host>,
        worker: &Worker,
    ) -> Poll<Result<(), Error>> {
        for _ in 0..READS_MAX {
            loop {
                std::task::ready!(self.poll_room(cx, host, worker));
                let Some(bytes) = self.unread.take() else { break };
                let Some(frame) = decode::<FromWorker>(&bytes, FRAME_MAX)? else {
                    self.unread.set(Some(bytes));
                    break;
                };
                let (payload, rest) = split(host, bytes, frame.payload_at, frame.end)?;
                self.unread.set(rest);
                self.hear(host, worker, frame.message, payload)?;
            }
            std::task::ready!(self.socket.poll_ready(cx, Interest::Read));
            // An idle worker holds no buffer.
            let unread = self.unread.take();
            let room = unread.as_deref().map_or(BUFFER_SIZE / 2, missing);
            let mut bytes = match unread {
                Some(bytes) => bytes,
                None => host.buffers.take().map_err(too_much)?,
            };
            bytes.reserve(room).map_err(too_much)?;
            match self.socket.try_receive_into(bytes.vec()) {
                Ok(Some(0)) | Err(_) if bytes.is_empty() => return Poll::Ready(Ok(())),
                Ok(Some(0)) | Err(_) => return Poll::Ready(Err(Error::Truncated)),
                Ok(None) if bytes.is_empty() => {}
                Ok(_) => self.unread.set(Some(bytes)),
            }
        }
        // The others have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits while the caller of a reply in pieces has not taken enough of it. What a worker left
    /// behind in its socket is bounded by that.
    fn poll_room(&self, cx: &Context<'_>, host: &Host, worker: &Worker) -> Poll<()> {
        if matches!(self.stage.get(), Stage::Streaming(_)) && !self.last.get() {
            return host.poll_room(cx, worker);
        }
        Poll::Ready(())
    }

    /// It said hello, and which protocol it speaks.
    fn greeted(&self, protocol: u8) {
        self.protocol.set(protocol);
        if protocol < PIPES {
            self.pipe.set(None);
        }
    }

    /// Acts on a message, if it is in order.
    fn hear(
        &self,
        host: &Rc<Host>,
        worker: &Worker,
        message: FromWorker,
        payload: Payload,
    ) -> Result<(), Error> {
        let unsent = self.unsent.take();
        let is_behind = unsent.is_some();
        self.unsent.set(unsent);
        if is_behind {
            // It cannot have read what it speaks of.
            return Err(Error::OutOfOrder);
        }
        let before = self.stage.get();
        let streams = self.protocol.get() >= STREAMS;
        let tells_memory = self.protocol.get() >= MEMORY;
        let piece = payload.len() <= PIECE_MAX;
        let stage = match (before, message) {
            (Stage::Silent, FromWorker::Hello { protocol: 1..=PROTOCOL }) => Stage::Starting,
            (Stage::Starting | Stage::Answered, FromWorker::Ready) => Stage::Ready,
            (Stage::Running(serial), FromWorker::Reply { id } | FromWorker::Error { id })
                if id == serial =>
            {
                Stage::Answered
            }
            (Stage::Running(serial), FromWorker::Stream { id }) if id == serial && streams => {
                Stage::Streaming(serial)
            }
            (Stage::Streaming(serial), FromWorker::Piece { id }) if id == serial && piece => before,
            (Stage::Streaming(serial), FromWorker::Reply { id }) if id == serial && piece => {
                Stage::Answered
            }
            (Stage::Streaming(serial), FromWorker::Error { id }) if id == serial => Stage::Answered,
            (Stage::Running(_) | Stage::Streaming(_), FromWorker::Memory { .. })
                if tells_memory =>
            {
                before
            }
            (Stage::Starting, FromWorker::InitError) => Stage::Failed,
            _ => return Err(Error::OutOfOrder),
        };
        self.stage.set(stage);
        match message {
            FromWorker::Hello { protocol } => self.greeted(protocol),
            FromWorker::Ready => host.asked(worker),
            FromWorker::Stream { .. } => {
                host.stream_begins(worker, &payload);
            }
            FromWorker::Piece { .. } => host.streamed(worker, &payload),
            FromWorker::Memory { kib } => worker.tells_memory(kib.into(), host.reactor.now()),
            FromWorker::Reply { .. } if matches!(before, Stage::Streaming(_)) => {
                host.streamed(worker, &payload);
                host.replied(worker, Reply::Streamed);
            }
            FromWorker::Reply { .. } => host.replied(worker, Reply::Done(payload)),
            FromWorker::Error { .. } => host.replied(worker, Reply::Error(payload)),
            FromWorker::InitError => {
                let json = payload.to_vec();
                let error_type = error_type(&json);
                host.init_failed(worker, json, &error_type);
            }
            FromWorker::Forked { .. } | FromWorker::Unforkable => return Err(Error::OutOfOrder),
        }
        Ok(())
    }
}

/// The `errorType` of an error, as far as a log may take it over.
pub fn error_type(json: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Told {
        #[serde(rename = "errorType")]
        error_type: String,
    }
    let told = serde_json::from_slice(json).map(|told: Told| told.error_type);
    known_error_type(&told.unwrap_or_default())
}

/// What Lambda takes over of a type that a runtime named: one of its own, or a general one.
pub fn known_error_type(told: &str) -> String {
    let word = |rest: &str| {
        rest.starts_with(|c: char| c.is_ascii_uppercase())
            && rest.chars().all(|c| c.is_ascii_alphabetic())
    };
    match told.split_once('.') {
        Some(("Runtime" | "Function", rest)) if word(rest) => told.to_owned(),
        Some(_) | None => "Runtime.Unknown".to_owned(),
    }
}

/// Reads of a worker's socket in one turn.
const READS_MAX: u32 = 64;

/// Bytes of an event that is sent in one piece with its header.
const JOINED_MAX: usize = 512;

/// The event of an invocation without a payload.
const EMPTY: &[u8] = b"{}";

/// Bytes that a frame, of which `bytes` is the start, still lacks; memory grows with what came.
fn missing(bytes: &[u8]) -> usize {
    let length = bytes.first_chunk::<PREFIX>().map_or(0, |prefix| u32::from_le_bytes(*prefix));
    let whole = usize::try_from(length).map_or(0, |length| length.saturating_add(PREFIX));
    whole.saturating_sub(bytes.len()).clamp(1, bytes.len().max(BUFFER_SIZE))
}

/// Cuts a frame off a buffer: its payload, and what was read beyond it.
fn split(
    host: &Host,
    mut buffer: Buffer,
    payload_at: usize,
    end: usize,
) -> Result<(Payload, Option<Buffer>), Error> {
    let rest = if buffer.len() > end {
        let mut rest = host.buffers.take().map_err(too_much)?;
        rest.extend(&buffer[end..]).map_err(too_much)?;
        buffer.vec().truncate(end);
        Some(rest)
    } else {
        None
    };
    Ok((Payload::new(buffer, payload_at..end), rest))
}

fn too_much(_: NoRoom) -> Error {
    Error::TooLong
}
