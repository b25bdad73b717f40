//! What functions write and what the platform notes about them: a ring of records in memory.
//!
//! A record is stored in its compact form and made text only when somebody reads it, so logging
//! every invocation costs neither formatting nor a system call.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io::Write;
use std::task::{Context, Poll, Waker};

use serde::{Deserialize, Serialize};

use super::invocation::RequestId;
use crate::limits::{LINE_MAX, LOG_RING};
use crate::wire::room;

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// When, in milliseconds of Unix time.
    pub at_ms: u64,
    /// Whose log.
    pub function: &'a str,
    /// Which invocation it belongs to; all zero for none.
    pub request: [u8; 16],
    /// What.
    pub entry: Entry<'a>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry<'a> {
    /// An invocation was handed to a worker.
    Start {
        /// `$LATEST` or a number.
        version: &'a str,
    },
    /// A line that the function wrote, without its end.
    Output(&'a [u8]),
    /// An invocation is over.
    Report(Report<'a>),
    /// An init phase failed or took too long.
    InitReport {
        /// From spawn to failure.
        duration_us: u64,
        /// `init`, or `invoke` for the second start inside an invocation.
        phase: &'a str,
        /// `timeout` or `error`.
        status: &'a str,
        /// Lambda's error type, or empty.
        error_type: &'a str,
    },
    /// A line of the platform's own.
    Platform(&'a str),
}

/// What the REPORT line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report<'a> {
    /// From hand-over to answer.
    pub duration_us: u64,
    /// From spawn to ready, if the worker was started for this invocation.
    pub init_us: Option<u64>,
    /// As configured.
    pub memory_mb: u32,
    /// The most the worker had so far.
    pub memory_used_mb: u32,
    /// `timeout`, `error`, or empty for success.
    pub status: &'a str,
    /// Lambda's error type, or empty.
    pub error_type: &'a str,
}

/// Bytes of the length in front of a stored record.
const PREFIX: usize = 2;

/// Most bytes of a stored record: the longest line, the longest name, and the rest.
const RECORD_MAX: usize = LINE_MAX + 256;

const _: () = assert!(RECORD_MAX <= u16::MAX as usize && RECORD_MAX + PREFIX < LOG_RING);

/// The records, oldest first, as many as fit.
pub struct Logs {
    ring: RefCell<Ring>,
    /// Who waits for the next record, by serial.
    readers: RefCell<Vec<(u64, Waker)>>,
    serial: Cell<u64>,
    /// Nothing more will be waited for.
    closed: Cell<bool>,
}

/// A reader that waits, and leaves nothing behind when it no longer does.
struct Reader<'a> {
    logs: &'a Logs,
    serial: u64,
}

struct Ring {
    bytes: Vec<u8>,
    /// Where the oldest record begins, counted in bytes since the start of time.
    begin: u64,
    /// Where the next record goes.
    end: u64,
    scratch: Vec<u8>,
}

impl Default for Logs {
    fn default() -> Logs {
        let ring = Ring { bytes: Vec::new(), begin: 0, end: 0, scratch: Vec::new() };
        Logs {
            ring: RefCell::new(ring),
            readers: RefCell::default(),
            serial: Cell::new(0),
            closed: Cell::new(false),
        }
    }
}

impl Logs {
    /// Appends a record; the oldest ones make room.
    pub fn push(&self, record: &Record<'_>) {
        self.ring.borrow_mut().push(record);
        self.wake_readers();
    }

    fn wake_readers(&self) {
        for (_, reader) in self.readers.borrow_mut().drain(..) {
            reader.wake();
        }
    }

    /// Lets nobody wait for records any more.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake_readers();
    }

    /// Where the next record will stand.
    pub fn end(&self) -> u64 {
        self.ring.borrow().end
    }

    /// Reads the records from position `from` on, oldest first, until `take` says no. Returns the
    /// position behind the last one taken.
    pub fn read(&self, from: u64, mut take: impl FnMut(&Record<'_>) -> bool) -> u64 {
        let ring = self.ring.borrow();
        let mut at = from.max(ring.begin);
        let mut record = Vec::new();
        while at < ring.end {
            let length = ring.length_at(at);
            record.resize(length, 0);
            ring.copy_out(at + PREFIX as u64, &mut record);
            if let Ok(record) = postcard::from_bytes(&record)
                && !take(&record)
            {
                break;
            }
            at += (PREFIX + length) as u64;
        }
        at
    }

    /// Waits until there is a record at `position` or behind it, or no more will come.
    pub async fn reached(&self, position: u64) {
        let serial = self.serial.replace(self.serial.get() + 1);
        let reader = Reader { logs: self, serial };
        poll_fn(|cx| reader.poll_reached(cx, position)).await;
    }
}

impl Reader<'_> {
    fn poll_reached(&self, cx: &Context<'_>, position: u64) -> Poll<()> {
        if self.logs.end() > position || self.logs.closed.get() {
            return Poll::Ready(());
        }
        let mut readers = self.logs.readers.borrow_mut();
        match readers.iter_mut().find(|(serial, _)| *serial == self.serial) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => readers.push((self.serial, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.logs.readers.borrow_mut().retain(|(serial, _)| *serial != self.serial);
    }
}

impl Ring {
    fn push(&mut self, record: &Record<'_>) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; LOG_RING];
            self.scratch = vec![0; RECORD_MAX];
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        // Lines and names are bounded by their sources; a record that does not fit is not kept.
        if let Ok(length) = room::write(record, &mut scratch) {
            let encoded = &scratch[..length];
            let needed = (PREFIX + encoded.len()) as u64;
            while self.end + needed - self.begin > LOG_RING as u64 {
                self.begin += (PREFIX + self.length_at(self.begin)) as u64;
            }
            let length = u16::try_from(length).expect("RECORD_MAX fits");
            self.copy_in(self.end, &length.to_le_bytes());
            self.copy_in(self.end + PREFIX as u64, encoded);
            self.end += needed;
        }
        self.scratch = scratch;
    }

    fn length_at(&self, at: u64) -> usize {
        let mut prefix = [0; PREFIX];
        self.copy_out(at, &mut prefix);
        usize::from(u16::from_le_bytes(prefix))
    }

    fn index(at: u64) -> usize {
        usize::try_from(at % LOG_RING as u64).expect("below LOG_RING")
    }

    fn copy_in(&mut self, at: u64, from: &[u8]) {
        let start = Ring::index(at);
        let first = from.len().min(LOG_RING - start);
        room::copy(&mut self.bytes[start..start + first], &from[..first]);
        room::copy(&mut self.bytes[..from.len() - first], &from[first..]);
    }

    fn copy_out(&self, at: u64, to: &mut [u8]) {
        let start = Ring::index(at);
        let first = to.len().min(LOG_RING - start);
        let length = to.len();
        room::copy(&mut to[..first], &self.bytes[start..start + first]);
        room::copy(&mut to[first..], &self.bytes[..length - first]);
    }
}

impl Record<'_> {
    /// Appends the record as Lambda prints it, with line ends.
    pub fn print(&self, out: &mut Vec<u8>) {
        let request = RequestId(self.request);
        let printed = match &self.entry {
            Entry::Start { version } => {
                writeln!(out, "START RequestId: {request} Version: {version}")
            }
            Entry::Output(line) => {
                // One record may hold several lines, joined by carriage returns.
                out.extend(line.iter().map(|b| if *b == b'\r' { b'\n' } else { *b }));
                out.write_all(b"\n")
            }
            Entry::Report(report) => {
                writeln!(out, "END RequestId: {request}\nREPORT RequestId: {request}\t{report}")
            }
            Entry::InitReport { duration_us, phase, status, error_type } => {
                let ms = Millis(*duration_us);
                let tail = ErrorType(error_type);
                writeln!(
                    out,
                    "INIT_REPORT Init Duration: {ms} ms\tPhase: {phase}\tStatus: {status}{tail}"
                )
            }
            Entry::Platform(text) => writeln!(out, "{text}"),
        };
        printed.expect("a vector takes everything");
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the duration as it is shown: whoever reads the line rounds that up.
        let billed = (self.duration_us / 10).div_ceil(100).max(1);
        write!(
            f,
            "Duration: {} ms\tBilled Duration: {billed} ms\tMemory Size: {} MB\t\
             Max Memory Used: {} MB\t",
            Millis(self.duration_us),
            self.memory_mb,
            self.memory_used_mb
        )?;
        if let Some(init) = self.init_us {
            write!(f, "Init Duration: {} ms\t", Millis(init))?;
        }
        if !self.status.is_empty() {
            write!(f, "Status: {}{}\t", self.status, ErrorType(self.error_type))?;
        }
        Ok(())
    }
}

/// Microseconds, printed as milliseconds with two decimals.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

struct ErrorType<'a>(&'a str);

impl fmt::Display for ErrorType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "\tError Type: {}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64, text: &[u8]) -> Record<'_> {
        Record { at_ms: n, function: "demo", request: [0; 16], entry: Entry::Output(text) }
    }

    #[test]
    fn the_ring_keeps_the_newest_records_whole() {
        let logs = Logs::default();
        for n in 0..5000 {
            logs.push(&line(n, &vec![b'x'; usize::try_from(n % 600).expect("small")]));
        }
        let mut seen = Vec::new();
        logs.read(0, |record| {
            let Entry::Output(text) = record.entry else { panic!("only lines were written") };
            assert_eq!(text.len() as u64, record.at_ms % 600);
            seen.push(record.at_ms);
            true
        });
        assert_eq!(seen.last(), Some(&4999));
        assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "none is missing");
        assert!(seen.len() > LOG_RING / 700);
    }

    #[test]
    fn a_reader_goes_on_where_it_stopped() {
        let logs = Logs::default();
        logs.push(&line(1, b"a"));
        let at = logs.read(0, |_| true);
        assert_eq!(at, logs.end());
        logs.push(&line(2, b"b"));
        logs.push(&line(3, b"c"));
        let mut seen = Vec::new();
        let at = logs.read(at, |record| {
            seen.push(record.at_ms);
            record.at_ms != 2
        });
        assert_eq!(seen, [2]);
        logs.read(at, |record| {
            seen.push(record.at_ms);
            true
        });
        assert_eq!(seen, [2, 2, 3], "a record that was not taken comes again");
    }

    #[test]
    fn readers_that_leave_are_forgotten_and_the_end_wakes_the_others() {
        let logs = Logs::default();
        for _ in 0..3 {
            let gone = smol::future::poll_once(logs.reached(0));
            assert_eq!(smol::block_on(gone), None);
            assert!(logs.readers.borrow().is_empty());
        }
        let mut waits = Box::pin(logs.reached(0));
        assert_eq!(smol::block_on(smol::future::poll_once(&mut waits)), None);
        assert_eq!(logs.readers.borrow().len(), 1);
        logs.close();
        assert!(logs.readers.borrow().is_empty());
        assert_eq!(smol::block_on(smol::future::poll_once(&mut waits)), Some(()));
    }

    #[test]
    fn records_print_as_on_lambda() {
        let request = [0xAB; 16];
        let id = "abababab-abab-abab-abab-abababababab";
        let report = Report {
            duration_us: 3014,
            init_us: Some(110_100),
            memory_mb: 128,
            memory_used_mb: 36,
            status: "",
            error_type: "",
        };
        let failed = Report {
            init_us: None,
            status: "error",
            error_type: "Runtime.ExitError",
            duration_us: 0,
            ..report
        };
        let even = Report { init_us: None, duration_us: 4001, ..report };
        for (entry, text) in [
            (
                Entry::Start { version: "$LATEST" },
                format!("START RequestId: {id} Version: $LATEST\n"),
            ),
            (Entry::Output(b"one\rtwo"), "one\ntwo\n".into()),
            (
                Entry::Report(report),
                format!(
                    "END RequestId: {id}\nREPORT RequestId: {id}\tDuration: 3.01 ms\t\
                     Billed Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t\
                     Init Duration: 110.10 ms\t\n"
                ),
            ),
            (
                Entry::Report(even),
                format!(
                    "END RequestId: {id}\nREPORT RequestId: {id}\tDuration: 4.00 ms\t\
                     Billed Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t\n"
                ),
            ),
            (
                Entry::Report(failed),
                format!(
                    "END RequestId: {id}\nREPORT RequestId: {id}\tDuration: 0.00 ms\t\
                     Billed Duration: 1 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t\
                     Status: error\tError Type: Runtime.ExitError\t\n"
                ),
            ),
        ] {
            let mut out = Vec::new();
            Record { at_ms: 0, function: "demo", request, entry }.print(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}
