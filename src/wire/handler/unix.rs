//! [`run`]: the whole life of a native worker on a Unix system.

extern crate std;

use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::string::{String, ToString};
use std::vec::Vec;

use super::zygote::fork_workers;
use super::{Context, Report};
use crate::wire::{Error, FRAME_MAX, FromWorker, PREFIX, PROTOCOL, ToWorker, decode, encode};

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
    begin(|| handler, false)
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
    begin(make, true)
}

fn begin<M, H>(make: M, sharing: bool) -> std::io::Result<()>
where
    M: FnOnce() -> H,
    H: FnMut(&[u8], &Context<'_>) -> Result<Vec<u8>, Failure>,
{
    let mut socket = take_socket()?;
    if std::env::var_os("HOB_ZYGOTE").is_some() {
        match fork_workers(socket, sharing)? {
            Some(own) => socket = own,
            None => return Ok(()),
        }
    }
    let mut handler = make();
    let mut out = [0; 64];
    let hello = encode(&FromWorker::Hello { protocol: PROTOCOL }, 0, &mut out).map_err(broken)?;
    let ready = encode(&FromWorker::Ready, 0, &mut out[hello..]).map_err(broken)?;
    socket.write_all(&out[..hello + ready])?;
    let mut input = Vec::new();
    loop {
        if !receive(&mut socket, &mut input)? {
            return Ok(());
        }
        let frame = decode::<ToWorker<'_>>(&input, FRAME_MAX).map_err(broken)?.ok_or_else(cut)?;
        let ToWorker::Invoke(context) = frame.message else {
            return Err(broken(Error::OutOfOrder));
        };
        let event = &input[frame.payload_at..frame.end];
        let (message, payload) = match handler(event, &context) {
            Ok(reply) => (FromWorker::Reply { id: context.id }, reply),
            Err(failure) => (FromWorker::Error { id: context.id }, failure.to_json()),
        };
        let header = encode(&message, payload.len(), &mut out).map_err(broken)?;
        let ready = encode(&FromWorker::Ready, 0, &mut out[header..]).map_err(broken)?;
        let (header, ready) = (&out[..header], &out[header..header + ready]);
        write_parts(&mut socket, &mut [header, &payload, ready].map(IoSlice::new))?;
    }
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
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let socket = UnixStream::from(socket);
    // Fails for anything but a socket, with a message that says so.
    socket.peer_addr()?;
    Ok(socket)
}

/// Reads exactly one frame into `input`; false if the stream ends before it.
fn receive(socket: &mut UnixStream, input: &mut Vec<u8>) -> std::io::Result<bool> {
    // Most events come whole with the first read.
    const FIRST: usize = 16 * 1024;
    input.resize(FIRST, 0);
    let mut filled = 0;
    loop {
        let n = socket.read(&mut input[filled..])?;
        if n == 0 && filled == 0 {
            return Ok(false);
        }
        if n == 0 {
            return Err(cut());
        }
        filled += n;
        let Some(prefix) = input[..filled].first_chunk::<PREFIX>() else { continue };
        let whole = usize::try_from(u32::from_le_bytes(*prefix)).map_or(usize::MAX, |n| n + PREFIX);
        if whole > FRAME_MAX + PREFIX {
            return Err(broken(Error::TooLong));
        }
        if filled >= whole {
            input.truncate(filled);
            return Ok(true);
        }
        if whole > input.len() {
            input.resize(whole, 0);
        }
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
