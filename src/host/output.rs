//! What a worker writes to its standard output and error: cut into lines, bounded, never in the
//! worker's way.

use std::cell::RefCell;
use std::io::PipeReader;
use std::task::{Context, Poll};

use crate::io::Io;
use crate::io::reactor::Interest;
use crate::limits::{LINE_MAX, OUTPUT_READ, PIPE_BYTES};

/// One end of a worker's output, and the line that has not ended yet.
pub struct Output {
    pipe: Io<PipeReader>,
    /// On the heap: most workers end their lines, and workers are many.
    line: RefCell<Option<Box<Line>>>,
}

/// The present line.
#[derive(Default)]
struct Line {
    start: Vec<u8>,
    /// Bytes of it that were dropped, because the line is too long.
    dropped: usize,
}

/// How a read of everything there is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing more for now.
    Empty,
    /// Nothing more ever.
    Ended,
}

impl Output {
    /// Reads from `pipe`.
    pub fn new(pipe: Io<PipeReader>) -> Output {
        Output { pipe, line: RefCell::default() }
    }

    /// Reads lines until every writer is gone.
    pub fn poll(&self, cx: &Context<'_>, take: impl FnMut(&[u8])) -> Poll<()> {
        std::task::ready!(self.pipe.poll_ready(cx, Interest::Read));
        // One portion at a time: a flood must not keep the others waiting.
        if self.drain(OUTPUT_READ, take) == Drained::Ended {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads at most `bytes` of what is there, without waiting.
    pub fn drain(&self, bytes: usize, mut take: impl FnMut(&[u8])) -> Drained {
        // Most workers write nothing most of the time.
        if !self.pipe.is_readable() {
            return Drained::Empty;
        }
        // A piece of memory for all of them: to get one and to give it back is more than a read.
        let scratch = &self.pipe.reactor().scratch;
        let mut chunk = scratch.take();
        let drained = self.drain_by(&mut chunk, bytes, &mut take);
        scratch.set(chunk);
        drained
    }

    fn drain_by(&self, chunk: &mut Vec<u8>, bytes: usize, take: &mut impl FnMut(&[u8])) -> Drained {
        let mut read = 0;
        while read < bytes && self.pipe.is_readable() {
            chunk.clear();
            chunk.reserve(OUTPUT_READ);
            match self.pipe.try_read_into(chunk) {
                Ok(Some(0)) => {
                    self.end(take);
                    return Drained::Ended;
                }
                Ok(Some(n)) => {
                    read += n;
                    let mut line = self.line.take().map_or_else(Line::default, |line| *line);
                    line.feed(chunk, take);
                    let rest = !line.start.is_empty();
                    *self.line.borrow_mut() = rest.then(|| Box::new(line));
                }
                Ok(None) => break,
                Err(error) => {
                    log::warn!("read a worker's output: {error}");
                    return Drained::Ended;
                }
            }
        }
        Drained::Empty
    }

    /// Reads the rest once the worker is gone, and gives out a last line without an end.
    pub fn finish(&self, mut take: impl FnMut(&[u8])) {
        self.pipe.look_again();
        // A pipe holds no more than this; a process that escaped may keep it open for ever.
        if self.drain(PIPE_BYTES, &mut take) == Drained::Empty {
            self.end(&mut take);
        }
    }

    fn end(&self, take: &mut impl FnMut(&[u8])) {
        if let Some(mut line) = self.line.take() {
            line.end(take);
        }
    }
}

impl Line {
    fn feed(&mut self, mut bytes: &[u8], take: &mut impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            if self.start.is_empty() && self.dropped == 0 && end <= LINE_MAX {
                take(&bytes[..end]);
            } else {
                self.append(&bytes[..end]);
                self.end(take);
            }
            bytes = &bytes[end + 1..];
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = LINE_MAX - self.start.len();
        let kept = bytes.len().min(room);
        self.start.extend_from_slice(&bytes[..kept]);
        self.dropped += bytes.len() - kept;
    }

    /// Gives out the present line, if there is one.
    fn end(&mut self, take: &mut impl FnMut(&[u8])) {
        if self.dropped > 0 {
            let note = format!(" [{} bytes dropped]", self.dropped);
            self.start.truncate(LINE_MAX - note.len());
            self.start.extend_from_slice(note.as_bytes());
        }
        if !self.start.is_empty() {
            take(&self.start);
        }
        *self = Line::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut line, mut out) = (Line::default(), Vec::new());
        let mut take = |text: &[u8]| out.push(String::from_utf8_lossy(text).into_owned());
        for chunk in chunks {
            line.feed(chunk, &mut take);
        }
        line.end(&mut take);
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_are_cut() {
        assert_eq!(lines(&[b"a\nb\n"]), ["a", "b"]);
        assert_eq!(lines(&[b"a", b"b\n\nc", b"\nd"]), ["ab", "", "c", "d"]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn an_endless_line_is_cut_and_counted() {
        let chunk = [b'x'; 3000];
        let chunks: Vec<&[u8]> =
            std::iter::repeat_n(&chunk[..], 100).chain([&b"\nok\n"[..]]).collect();
        let lines = lines(&chunks);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), LINE_MAX);
        let dropped = 300_000 - LINE_MAX;
        assert!(
            lines[0].ends_with(&format!("x [{dropped} bytes dropped]")),
            "{}",
            &lines[0][8000..]
        );
        assert_eq!(lines[1], "ok");
    }
}
