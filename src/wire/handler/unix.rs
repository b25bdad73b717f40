//! [`run`]: the whole life of a native worker on a Unix system.

extern crate std;

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::string::{String, ToString};
use std::vec::Vec;

use rustix::io::Errno;

use super::zygote::{fork_workers, inherited_events, memory_kib_max};
use super::{Context, Report, Stream};
use crate::wire::{
    Error, FRAME_MAX, FromWorker, MEMORY, PIECE_MAX, PIPES, PREFIX, PROTOCOL, ToWorker, decode,
    encode,
};

/// A handler's error: becomes Lambda's `errorType` and `errorMessage`. Anything that implements
/// [`std::error::Error`] converts into it with `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A name without spaces, say `ValueError`.
    pub error_type: String,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure of this type, with this message.
    pub fn new(error_type: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { error_type: error_type.into(), message: message.into() }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        let full = core::any::type_name::<E>();
        let name = full.rsplit("::").next().unwrap_or(full);
        Failure::new(name, error.to_string())
    }
}

/// Takes the inherited socket, then runs `handler` for every invocation until the host hangs up.
///
/// Returns when there is nothing more to do; leave `main` then. Standard input is `/dev/null`
/// from here on, so that programs which the handler starts do not read the host's messages.
///
/// With `zygote = "on"` this forks a process for each worker, so what was done before is done once
/// for all of them. Threads, open files and connections cannot be shared like that: with any of
/// them there, workers are started one by one. See [`run_with`].
///
/// # Errors
/// If standard input is not a socket that speaks the protocol: this was not started by hob.
pub fn run<H>(handler: H) -> std::io::Result<()>
where
    H: FnMut(&[u8], &Context<'_>) -> Result<Vec<u8>, Failure>,
{
    begin(|| whole(handler), false)
}

/// As [`run`], with a handler that `make` makes in each worker, after its fork: the place to open
/// files and connections and to seed random numbers. What is open before is shared by all workers,
/// and is the caller's affair.
///
/// # Errors
/// As [`run`].
pub fn run_with<M, H>(make: M) -> std::io::Result<()>
where
    M: FnOnce() -> H,
    H: FnMut(&[u8], &Context<'_>) -> Result<Vec<u8>, Failure>,
{
    begin(|| whole(make()), true)
}

/// As [`run`], for a handler that writes its reply bit by bit: what it flushes is on its way to the
/// caller.
///
/// # Errors
/// As [`run`].
pub fn run_streams<H>(handler: H) -> std::io::Result<()>
where
    H: FnMut(&[u8], &Context<'_>, &mut ReplyStream<'_>) -> Result<(), Failure>,
{
    begin(|| bit_by_bit(handler), false)
}

/// As [`run_streams`], with a handler that `make` makes in each worker, as in [`run_with`].
///
/// # Errors
/// As [`run`].
pub fn run_streams_with<M, H>(make: M) -> std::io::Result<()>
where
    M: FnOnce() -> H,
    H: FnMut(&[u8], &Context<'_>, &mut ReplyStream<'_>) -> Result<(), Failure>,
{
    begin(|| bit_by_bit(make()), true)
}

/// The protocol that both sides speak: an older host says so, and would not understand more.
pub(super) fn protocol() -> u8 {
    let host = std::env::var("HOB_WIRE").ok().and_then(|number| number.parse().ok());
    host.map_or(PROTOCOL, |host: u8| host.min(PROTOCOL))
}

/// Answers invocations with what `handler` returns.
fn whole<H>(
    mut handler: H,
) -> impl FnMut(&mut UnixStream, &[u8], &Context<'_>) -> std::io::Result<()>
where
    H: FnMut(&[u8], &Context<'_>) -> Result<Vec<u8>, Failure>,
{
    let mut told = protocol() < MEMORY;
    move |socket, event, context| {
        let (message, payload) = match handler(event, context) {
            Ok(reply) => (FromWorker::Reply { id: context.id }, reply),
            Err(failure) => (FromWorker::Error { id: context.id }, failure.to_json()),
        };
        // Later the host looks by itself, now and then; at a first reply that would be dear.
        let first = !std::mem::replace(&mut told, true);
        let memory = first.then(|| FromWorker::Memory { kib: memory_kib_max() });
        say(socket, memory, message, &payload)
    }
}

/// Answers invocations with what `handler` writes.
fn bit_by_bit<H>(
    mut handler: H,
) -> impl FnMut(&mut UnixStream, &[u8], &Context<'_>) -> std::io::Result<()>
where
    H: FnMut(&[u8], &Context<'_>, &mut ReplyStream<'_>) -> Result<(), Failure>,
{
    let mut buffer = std::vec![0; PIECE_MAX];
    move |socket, event, context| {
        let mut io = Socket(socket);
        let mut stream = Stream::new(&mut io, context.id, &mut buffer);
        match handler(event, context, &mut stream) {
            Ok(()) => {
                stream.finish().map_err(broken)?;
                let mut out = [0; 16];
                let ready = encode(&FromWorker::Ready, 0, &mut out).map_err(broken)?;
                socket.write_all(&out[..ready])
            }
            Err(failure) => {
                let message = FromWorker::Error { id: context.id };
                say(socket, None, message, &failure.to_json())
            }
        }
    }
}

/// Says what ends an invocation, after what is to be said before that, and that the worker is ready
/// for another, in one write.
fn say(
    socket: &mut UnixStream,
    before: Option<FromWorker>,
    message: FromWorker,
    payload: &[u8],
) -> std::io::Result<()> {
    let mut out = [0; 64];
    let before = before.map_or(Ok(0), |before| encode(&before, 0, &mut out)).map_err(broken)?;
    let header = encode(&message, payload.len(), &mut out[before..]).map_err(broken)?;
    let header = before + header;
    let ready = encode(&FromWorker::Ready, 0, &mut out[header..]).map_err(broken)?;
    let (header, ready) = (&out[..header], &out[header..header + ready]);
    write_parts(socket, &mut [header, payload, ready].map(IoSlice::new))
}

/// What a handler of [`run_streams`] writes to.
pub type ReplyStream<'a> = Stream<'a, Socket<'a>>;

/// The conversation's socket, as [`Stream`] writes to it.
pub struct Socket<'a>(&'a mut UnixStream);

impl embedded_io::ErrorType for Socket<'_> {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                written => return written.map_err(|_| embedded_io::ErrorKind::BrokenPipe),
            }
        }
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl std::io::Write for ReplyStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        embedded_io::Write::write(self, bytes).map_err(broken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        embedded_io::Write::flush(self).map_err(broken)
    }
}

fn begin<M, A>(make: M, sharing: bool) -> std::io::Result<()>
where
    M: FnOnce() -> A,
    A: FnMut(&mut UnixStream, &[u8], &Context<'_>) -> std::io::Result<()>,
{
    let mut socket = take_socket()?;
    let mut protocol = protocol();
    let pipe = if std::env::var_os("HOB_ZYGOTE").is_some() {
        match fork_workers(socket, sharing)? {
            Some((own, pipe)) => {
                socket = own;
                pipe
            }
            None => return Ok(()),
        }
    } else if protocol >= PIPES {
        inherited_events()
    } else {
        None
    };
    let events = match pipe {
        Some(pipe) => pipe,
        None => {
            protocol = protocol.min(PIPES - 1);
            socket.try_clone()?.into()
        }
    };
    let mut answer = make();
    let mut out = [0; 64];
    let hello = encode(&FromWorker::Hello { protocol }, 0, &mut out).map_err(broken)?;
    let ready = encode(&FromWorker::Ready, 0, &mut out[hello..]).map_err(broken)?;
    socket.write_all(&out[..hello + ready])?;
    let mut input = Vec::with_capacity(FIRST);
    while receive(&events, &mut input)? {
        let frame = decode::<ToWorker<'_>>(&input, FRAME_MAX).map_err(broken)?.ok_or_else(cut)?;
        let ToWorker::Invoke(context) = frame.message else {
            return Err(broken(Error::OutOfOrder));
        };
        answer(&mut socket, &input[frame.payload_at..frame.end], &context)?;
    }
    Ok(())
}

impl Failure {
    fn to_json(&self) -> Vec<u8> {
        let report = Report { error_type: &self.error_type, message: &self.message };
        // Every byte doubles at the most.
        let mut json = std::vec![0; 64 + 2 * (self.error_type.len() + self.message.len())];
        let length = report.to_json(&mut json);
        json.truncate(length);
        json
    }
}

fn take_socket() -> std::io::Result<UnixStream> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let socket = UnixStream::from(socket);
    // Fails for anything but a socket, with a message that says so.
    socket.peer_addr()?;
    Ok(socket)
}

/// Bytes of a first read: most events come whole with it.
const FIRST: usize = 16 * 1024;

/// Reads exactly one frame into `input`, which grows for it; false if the stream ends before it.
fn receive(events: &OwnedFd, input: &mut Vec<u8>) -> std::io::Result<bool> {
    input.clear();
    loop {
        // What is not read into is never touched.
        let n = match rustix::io::read(events, rustix::buffer::spare_capacity(input)) {
            Err(Errno::INTR) => continue,
            read => read?,
        };
        if n == 0 {
            return if input.is_empty() { Ok(false) } else { Err(cut()) };
        }
        let Some(prefix) = input.first_chunk::<PREFIX>() else { continue };
        let size = usize::try_from(u32::from_le_bytes(*prefix)).map_or(usize::MAX, |n| n + PREFIX);
        if size > FRAME_MAX + PREFIX {
            return Err(broken(Error::TooLong));
        }
        if input.len() >= size {
            return Ok(true);
        }
        input.reserve_exact(size - input.len());
    }
}

fn write_parts(socket: &mut UnixStream, mut parts: &mut [IoSlice<'_>]) -> std::io::Result<()> {
    while !parts.is_empty() {
        match socket.write_vectored(parts) {
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn broken(error: Error) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, error)
}

pub(super) fn cut() -> std::io::Error {
    broken(Error::Truncated)
}
