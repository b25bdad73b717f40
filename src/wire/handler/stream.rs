//! Replies that leave while the handler writes them.

use embedded_io::{ErrorType, Read, Write};

use super::{Context, Error, Report, converse, send};
use crate::wire::{FromWorker, PIECE_MAX};

/// A reply that the handler writes bit by bit.
///
/// What is written is gathered until the buffer behind it is full, or until
/// [`flush`](Write::flush) says that it is of use by now. A reply that ends before either is sent
/// whole, like those of [`serve`](super::serve). Writing waits while the caller is slow.
pub struct Stream<'a, T> {
    io: &'a mut T,
    id: u32,
    buffer: &'a mut [u8],
    filled: usize,
    begun: bool,
}

impl<'a, T: Write> Stream<'a, T> {
    pub(super) fn new(io: &'a mut T, id: u32, buffer: &'a mut [u8]) -> Stream<'a, T> {
        let room = buffer.len().min(PIECE_MAX);
        Stream { io, id, buffer: &mut buffer[..room], filled: 0, begun: false }
    }

    /// Says what the content is, in at most 256 bytes, before anything is written. With
    /// `application/vnd.awslambda.http-integration-response` it begins with a prelude: JSON with
    /// `statusCode`, `headers` and `cookies`, then 8 zero bytes.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] if something was written already.
    pub fn content_type(&mut self, content_type: &str) -> Result<(), Error> {
        if self.begun || self.filled > 0 {
            return Err(Error::OutOfOrder);
        }
        self.begun = true;
        send(self.io, &FromWorker::Stream { id: self.id }, content_type.as_bytes())
    }

    fn send_piece(&mut self) -> Result<(), Error> {
        if !self.begun {
            self.begun = true;
            send(self.io, &FromWorker::Stream { id: self.id }, b"")?;
        }
        let piece = &self.buffer[..self.filled];
        self.filled = 0;
        send(self.io, &FromWorker::Piece { id: self.id }, piece)
    }

    /// Sends what is left, as the end.
    pub(super) fn finish(self) -> Result<(), Error> {
        send(self.io, &FromWorker::Reply { id: self.id }, &self.buffer[..self.filled])
    }
}

impl<T> ErrorType for Stream<'_, T> {
    type Error = Error;
}

impl<T: Write> Write for Stream<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if self.filled == self.buffer.len() {
            self.send_piece()?;
        }
        let room = &mut self.buffer[self.filled..];
        let here = room.len().min(bytes.len());
        room[..here].copy_from_slice(&bytes[..here]);
        self.filled += here;
        Ok(here)
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.filled > 0 { self.send_piece() } else { Ok(()) }
    }
}

impl embedded_io::Error for Error {
    fn kind(&self) -> embedded_io::ErrorKind {
        embedded_io::ErrorKind::Other
    }
}

/// As [`serve`](super::serve), for handlers that write their replies bit by bit. Up to 16 KiB of
/// `output` hold what is written until it is sent.
pub fn serve_streams<T, H>(
    io: &mut T,
    input: &mut [u8],
    output: &mut [u8],
    mut handler: H,
) -> Result<(), Error>
where
    T: Read + Write,
    H: for<'a> FnMut(&'a [u8], &Context<'a>, &mut Stream<'_, T>) -> Result<(), Report<'a>>,
{
    converse(io, input, |io, event, context| {
        let mut stream = Stream::new(io, context.id, output);
        match handler(event, context, &mut stream) {
            Ok(()) => stream.finish().map(Ok),
            Err(report) => Ok(Err(report)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Recorded, invoke, said};
    use super::*;
    use std::vec::Vec;

    fn serve(events: &[&[u8]], room: usize) -> Vec<(FromWorker, Vec<u8>)> {
        let frames: Vec<_> = (1..).zip(events).map(|(id, event)| invoke(id, event)).collect();
        let mut io = Recorded::new(&frames, 100);
        serve_streams(&mut io, &mut [0; 256], &mut std::vec![0; room], |event, _, stream| {
            let failed = |_| Report { error_type: "Io", message: "" };
            if event == b"typed" {
                stream.content_type("text/plain").map_err(failed)?;
            }
            stream.write_all(b"one").map_err(failed)?;
            assert_eq!(stream.content_type("late"), Err(Error::OutOfOrder));
            if event == b"flushed" {
                stream.flush().map_err(failed)?;
                stream.flush().map_err(failed)?;
            }
            stream.write_all(b"two").map_err(failed)?;
            if event == b"broken" {
                return Err(Report { error_type: "Halfway", message: "" });
            }
            Ok(())
        })
        .expect("a clean end");
        let all = said(&io.worker).into_iter();
        all.filter(|(message, _)| !matches!(message, FromWorker::Ready | FromWorker::Hello { .. }))
            .collect()
    }

    fn told(list: &[(FromWorker, &[u8])]) -> Vec<(FromWorker, Vec<u8>)> {
        list.iter().map(|(message, payload)| (*message, payload.to_vec())).collect()
    }

    #[test]
    fn what_fits_is_one_reply_and_what_is_flushed_leaves() {
        use FromWorker::{Piece, Reply, Stream};
        let id = 1;
        let whole = told(&[(Reply { id }, b"onetwo")]);
        assert_eq!(serve(&[b"plain"], 6), whole);
        let flushed = told(&[(Stream { id }, b""), (Piece { id }, b"one"), (Reply { id }, b"two")]);
        assert_eq!(serve(&[b"flushed"], 6), flushed);
        let typed = told(&[(Stream { id }, b"text/plain"), (Reply { id }, b"onetwo")]);
        assert_eq!(serve(&[b"typed"], 6), typed);
    }

    #[test]
    fn what_does_not_fit_leaves_in_pieces() {
        use FromWorker::{Piece, Reply, Stream};
        let id = 1;
        let cut = [(Stream { id }, &b""[..]), (Piece { id }, b"onet"), (Reply { id }, b"wo")];
        assert_eq!(serve(&[b"plain"], 4), told(&cut));
        let long = serve_streams(
            &mut Recorded::new(&[invoke(1, b"")], 100),
            &mut [0; 256],
            &mut std::vec![0; 2 * PIECE_MAX],
            |_, _, stream| {
                assert_eq!(stream.write(&std::vec![0; 2 * PIECE_MAX]), Ok(PIECE_MAX));
                Ok(())
            },
        );
        assert_eq!(long, Ok(()));
    }

    #[test]
    fn an_error_halfway_is_the_end_and_the_next_event_follows() {
        let said = serve(&[b"broken", b"plain"], 4);
        let error = br#"{"errorType":"Halfway","errorMessage":""}"#.to_vec();
        assert_eq!(said[2], (FromWorker::Error { id: 1 }, error));
        assert_eq!(said[5], (FromWorker::Reply { id: 2 }, b"wo".to_vec()));
    }
}
