//! The SDK for native workers: a handler is one function.
//!
//! On Linux, [`run`] is all there is to it:
//!
//! ```no_run
//! fn main() -> std::io::Result<()> {
//!     hob::handler::run(|event, _context| Ok(event.to_vec()))
//! }
//! ```
//!
//! A handler that has something to say before it is done writes its reply bit by bit:
//!
//! ```no_run
//! use std::io::Write;
//!
//! fn main() -> std::io::Result<()> {
//!     hob::handler::run_streams(|_event, _context, reply| {
//!         for n in (0..10).rev() {
//!             writeln!(reply, "{n}")?;
//!             // What is flushed is on its way to the caller.
//!             reply.flush()?;
//!             std::thread::sleep(std::time::Duration::from_secs(1));
//!         }
//!         Ok(())
//!     })
//! }
//! ```
//!
//! The core, [`serve`] and [`serve_streams`], needs no operating system, no heap and no clock:
//! anything that implements the `embedded-io` traits carries the conversation.

mod stream;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
mod zygote;

use embedded_io::{Read, Write};

pub use super::{Context, Error};
use super::{FRAME_MAX, FromWorker, HEADER_MAX, PIPES, ToWorker, decode, encode};
pub use stream::{Stream, serve_streams};
#[cfg(unix)]
pub use unix::{Failure, ReplyStream, run, run_streams, run_streams_with, run_with};

/// An error that a handler reports, before it is made JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// Lambda's `errorType`, a name without spaces.
    pub error_type: &'a str,
    /// Lambda's `errorMessage`.
    pub message: &'a str,
}

/// Runs `handler` for every invocation that comes over `io`, until the host hangs up.
///
/// `input` holds one frame at a time: its size limits the events (plus about 300 bytes of header).
/// The handler writes its reply into `output` and returns its length. Answers an event that is
/// too long for `input` with [`Error::TooLong`], which ends the conversation.
pub fn serve<T, H>(
    io: &mut T,
    input: &mut [u8],
    output: &mut [u8],
    mut handler: H,
) -> Result<(), Error>
where
    T: Read + Write,
    H: for<'a> FnMut(&'a [u8], &Context<'a>, &mut [u8]) -> Result<usize, Report<'a>>,
{
    converse(io, input, |io, event, context| match handler(event, context, output) {
        Ok(length) => {
            let reply = output.get(..length).ok_or(Error::TooLong)?;
            send(io, &FromWorker::Reply { id: context.id }, reply).map(Ok)
        }
        Err(report) => Ok(Err(report)),
    })
}

/// What [`serve`] speaks: its `io` is one for both directions, while with later protocols events come by
/// a pipe of their own.
const BOTH_WAYS: u8 = PIPES - 1;

/// The conversation, until the host hangs up: `answer` replies to an invocation, or says what went
/// wrong with it.
fn converse<T, A>(io: &mut T, input: &mut [u8], mut answer: A) -> Result<(), Error>
where
    T: Read + Write,
    A: for<'a> FnMut(&mut T, &'a [u8], &Context<'a>) -> Result<Result<(), Report<'a>>, Error>,
{
    send(io, &FromWorker::Hello { protocol: BOTH_WAYS }, &[])?;
    loop {
        send(io, &FromWorker::Ready, &[])?;
        let Some(filled) = receive(io, input)? else { return Ok(()) };
        let frame = decode(&input[..filled], FRAME_MAX)?.ok_or(Error::Truncated)?;
        let ToWorker::Invoke(context) = frame.message else { return Err(Error::OutOfOrder) };
        let event = &input[frame.payload_at..frame.end];
        if let Err(report) = answer(io, event, &context)? {
            let mut json = [0; 512];
            let length = report.to_json(&mut json);
            send(io, &FromWorker::Error { id: context.id }, &json[..length])?;
        }
    }
}

/// Tells the host, in place of [`serve`], that this worker cannot start. Exit after it.
pub fn init_failed<T: Write>(io: &mut T, report: Report<'_>) -> Result<(), Error> {
    let mut json = [0; 512];
    let length = report.to_json(&mut json);
    send(io, &FromWorker::Hello { protocol: BOTH_WAYS }, &[])?;
    send(io, &FromWorker::InitError, &json[..length])
}

fn send<T: Write>(io: &mut T, message: &FromWorker, payload: &[u8]) -> Result<(), Error> {
    let mut header = [0; 16];
    let length = encode(message, payload.len(), &mut header)?;
    io.write_all(&header[..length]).map_err(|_| Error::Io)?;
    io.write_all(payload).map_err(|_| Error::Io)?;
    io.flush().map_err(|_| Error::Io)
}

/// Reads one frame to the start of `input` and returns how many bytes are there; `None` if the
/// stream ends before it.
fn receive<T: Read>(io: &mut T, input: &mut [u8]) -> Result<Option<usize>, Error> {
    let mut filled = 0;
    while decode::<ToWorker<'_>>(&input[..filled], FRAME_MAX.min(input.len()))?.is_none() {
        match io.read(&mut input[filled..]).map_err(|_| Error::Io)? {
            0 if filled == 0 => return Ok(None),
            0 if filled == input.len() => return Err(Error::TooLong),
            0 => return Err(Error::Truncated),
            n => filled += n,
        }
    }
    Ok(Some(filled))
}

impl Report<'_> {
    /// Writes `{"errorType":...,"errorMessage":...}` and returns its length. What does not fit is
    /// cut, at a character, from the message.
    pub fn to_json(&self, out: &mut [u8]) -> usize {
        let mut json = Json { out, length: 0, reserve: 2 };
        json.raw("{\"errorType\":\"");
        json.text(self.error_type);
        json.raw("\",\"errorMessage\":\"");
        json.text(self.message);
        json.reserve = 0;
        json.raw("\"}");
        json.length
    }
}

/// Writes JSON into a slice, keeping `reserve` bytes for what must come last.
struct Json<'a> {
    out: &'a mut [u8],
    length: usize,
    reserve: usize,
}

impl Json<'_> {
    fn raw(&mut self, text: &str) -> bool {
        let end = self.length + text.len();
        let fits = end + self.reserve <= self.out.len();
        if fits {
            self.out[self.length..end].copy_from_slice(text.as_bytes());
            self.length = end;
        }
        fits
    }

    fn text(&mut self, text: &str) {
        for c in text.chars() {
            let fits = match c {
                '"' => self.raw("\\\""),
                '\\' => self.raw("\\\\"),
                '\n' => self.raw("\\n"),
                '\u{0}'..='\u{1f}' => self.raw(" "),
                _ => self.raw(c.encode_utf8(&mut [0; 4])),
            };
            if !fits {
                return;
            }
        }
    }
}

/// Most bytes of a frame that carries an event of `payload` bytes to a worker.
pub const fn input_size(payload: usize) -> usize {
    payload + HEADER_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A stream whose other end was recorded before: one frame follows another only once it was
    /// read whole, as a host waits for Ready.
    pub(super) struct Recorded {
        host: Vec<Vec<u8>>,
        step: usize,
        pub(super) worker: Vec<u8>,
    }

    impl Recorded {
        pub(super) fn new(host: &[Vec<u8>], step: usize) -> Recorded {
            Recorded { host: host.to_vec(), step, worker: Vec::new() }
        }
    }

    impl embedded_io::ErrorType for Recorded {
        type Error = core::convert::Infallible;
    }

    impl Read for Recorded {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize, Self::Error> {
            let Some(frame) = self.host.first_mut() else { return Ok(0) };
            let n = buf.len().min(self.step).min(frame.len());
            buf[..n].copy_from_slice(&frame[..n]);
            frame.drain(..n);
            if frame.is_empty() {
                self.host.remove(0);
            }
            Ok(n)
        }
    }

    impl Write for Recorded {
        fn write(&mut self, buf: &[u8]) -> Result<usize, Self::Error> {
            self.worker.extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    pub(super) fn invoke(id: u32, event: &[u8]) -> Vec<u8> {
        let context = Context {
            id,
            deadline_ms: 0,
            request_id: "r",
            function_arn: "a",
            trace_id: "",
            client_context: "",
            identity: "",
        };
        let mut out = [0; 128];
        let n = encode(&ToWorker::Invoke(context), event.len(), &mut out).expect("fits");
        [&out[..n], event].concat()
    }

    pub(super) fn said(mut bytes: &[u8]) -> Vec<(FromWorker, Vec<u8>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let frame = decode::<FromWorker>(bytes, FRAME_MAX).expect("valid").expect("whole");
            all.push((frame.message, bytes[frame.payload_at..frame.end].to_vec()));
            bytes = &bytes[frame.end..];
        }
        all
    }

    #[test]
    fn serves_until_the_host_hangs_up_whatever_the_reads_return() {
        for step in [1, 2, 7, 1000] {
            let mut io = Recorded::new(&[invoke(1, b"good"), invoke(2, b"bad")], step);
            serve(&mut io, &mut [0; 256], &mut [0; 256], |event, _, out| {
                if event == b"bad" {
                    return Err(Report { error_type: "Bad", message: "said \"no\"\n" });
                }
                out[..event.len()].copy_from_slice(event);
                Ok(event.len())
            })
            .expect("a clean end");
            let said = said(&io.worker);
            assert_eq!(said[0].0, FromWorker::Hello { protocol: BOTH_WAYS });
            assert_eq!(said[1].0, FromWorker::Ready);
            assert_eq!(said[2], (FromWorker::Reply { id: 1 }, b"good".to_vec()));
            assert_eq!(said[3].0, FromWorker::Ready);
            let json = br#"{"errorType":"Bad","errorMessage":"said \"no\"\n"}"#.to_vec();
            assert_eq!(said[4], (FromWorker::Error { id: 2 }, json));
            assert_eq!(said.len(), 6);
        }
    }

    #[test]
    fn an_event_that_does_not_fit_ends_the_conversation() {
        let mut io = Recorded::new(&[invoke(1, &[b'x'; 300])], 64);
        let ended = serve(&mut io, &mut [0; 128], &mut [0; 16], |_, _, _| Ok(0));
        assert_eq!(ended, Err(Error::TooLong));
    }

    #[test]
    fn half_a_frame_is_not_a_clean_end() {
        let mut frame = invoke(1, b"event");
        frame.truncate(frame.len() - 1);
        let mut io = Recorded::new(&[frame], 64);
        let ended = serve(&mut io, &mut [0; 128], &mut [0; 16], |_, _, _| Ok(0));
        assert_eq!(ended, Err(Error::Truncated));
    }

    #[test]
    fn a_long_message_is_cut_to_valid_json() {
        let mut out = [0; 64];
        let message = "é".repeat(100);
        let n = Report { error_type: "T", message: &message }.to_json(&mut out);
        let text = core::str::from_utf8(&out[..n]).expect("cut at a character");
        assert!(text.ends_with("é\"}"), "{text}");
    }
}
