//! The device's side of a serial line: one call after the other, each repeated until its answer
//! comes or the tries are used up.
//!
//! What it needs of the machine is a [`Read`] and [`Write`] whose reads end. There is no clock: a
//! read that came back without a byte is the unit of time.

use embedded_io::{Error as _, ErrorKind, Read, Write};

use super::{ANSWER_OVERHEAD, Decoder, FRAME_MAX, FromHost, Reason, ToHost, decode, encode};

/// Times that a call is sent, unless [`Client::with_patience`] says otherwise.
const TRIES: u8 = 3;

/// Most bytes heard for one try: enough for late answers to earlier calls, and an end to a line
/// that never falls silent.
const HEARD_MAX: usize = 4 * FRAME_MAX;

/// Calls functions over a line.
///
/// Reads must come back when nothing arrives for some time, with `Ok(0)` or an error of kind
/// [`ErrorKind::TimedOut`]: either is one silence. A write may take its time, but must not return
/// `Ok(0)`, as [`Write`] has it. Bytes are read one by one, so the line should have a buffer below
/// (a UART's driver has one).
#[derive(Debug)]
pub struct Client<'a, T> {
    line: T,
    out: &'a mut [u8],
    id: u32,
    tries: u8,
    silences: u16,
}

/// Why a call has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure<'a, E> {
    /// The function failed: its error, JSON with `errorType` and `errorMessage`.
    Function(&'a [u8]),
    /// The host refused.
    Refused(Reason),
    /// Nothing was sent: the call does not fit the client's buffer, or a frame.
    TooLong,
    /// No answer came. The function may have run all the same, and may run still.
    NoAnswer,
    /// The line failed in the last try, as in [`Failure::NoAnswer`] else.
    Line(E),
}

impl<'a, T: Read + Write> Client<'a, T> {
    /// A client on this line.
    ///
    /// `out` holds one call: see [`encoded_size`](super::encoded_size) for its size. `first_id` must
    /// differ from start to start, or the host takes the first call for a repetition of the last
    /// one before, and answers it from memory: a random number, a clock, a counter in flash.
    pub fn new(line: T, out: &'a mut [u8], first_id: u32) -> Client<'a, T> {
        Client { line, out, id: first_id, tries: TRIES, silences: 1 }
    }

    /// Sends a call up to `tries` times (otherwise 3), and each time waits for as many silences
    /// (otherwise 1). Together they should last longer than the function's timeout.
    #[must_use]
    pub fn with_patience(self, tries: u8, silences: u16) -> Client<'a, T> {
        Client { tries, silences, ..self }
    }

    /// Invokes `function` (`NAME`, `NAME:QUALIFIER`, or empty for the line's only one) with `event`,
    /// which must be JSON, and returns its reply, which is in `buffer`.
    ///
    /// The reply may be as long as `buffer` without its last [`ANSWER_OVERHEAD`] bytes. However
    /// often the call had to be sent, the function was invoked at most once, as long as host and
    /// device run on.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn call<'b>(
        &mut self,
        function: &str,
        event: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], Failure<'b, T::Error>> {
        let id = self.id;
        self.id = id.wrapping_add(1);
        let room = buffer.len().min(FRAME_MAX).saturating_sub(ANSWER_OVERHEAD);
        let reply_max = u32::try_from(room).unwrap_or(u32::MAX);
        let call = ToHost::Call { id, reply_max, function };
        let length = encode(&call, event, self.out).map_err(|_| Failure::TooLong)?;
        let mut decoder = Decoder::new();
        let mut failure = Failure::NoAnswer;
        for _ in 0..self.tries {
            let sent = self.line.write_all(&self.out[..length]).and_then(|()| self.line.flush());
            match sent.and_then(|()| self.listen(id, &mut decoder, buffer)) {
                Ok(Some((answer, from, to))) => {
                    let payload = &buffer[from..to];
                    return match answer {
                        FromHost::Reply { .. } => Ok(payload),
                        FromHost::Error { .. } => Err(Failure::Function(payload)),
                        FromHost::Refused { reason, .. } => Err(Failure::Refused(reason)),
                    };
                }
                Ok(None) => failure = Failure::NoAnswer,
                Err(error) => failure = Failure::Line(error),
            }
        }
        Err(failure)
    }

    /// Gives the line back.
    pub fn into_inner(self) -> T {
        self.line
    }

    /// Waits for the answer to call `id`: what it is, and where in `buffer` its payload begins and
    /// ends. `None` if the call should be sent again.
    fn listen(
        &mut self,
        id: u32,
        decoder: &mut Decoder,
        buffer: &mut [u8],
    ) -> Result<Option<(FromHost, usize, usize)>, T::Error> {
        let mut silences = 0;
        let mut garbled = false;
        for _ in 0..HEARD_MAX {
            let mut byte = [0];
            match self.line.read(&mut byte) {
                Ok(1..) => match decoder.feed(byte[0], buffer) {
                    Ok(Some(end)) => match decode::<FromHost>(&buffer[..end]) {
                        Ok((answer, payload)) if answer.id() == id => {
                            return Ok(Some((answer, end - payload.len(), end)));
                        }
                        // Late, to an earlier call.
                        Ok(_) => {}
                        Err(_) => garbled = true,
                    },
                    Ok(None) => {}
                    Err(_) => garbled = true,
                },
                Err(error) if error.kind() != ErrorKind::TimedOut => return Err(error),
                Ok(0) | Err(_) => {
                    silences += 1;
                    // What was not understood may have been the answer, so no more patience then;
                    // but it may have been noise, with the answer right behind it.
                    if garbled || silences >= self.silences {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Error, encoded_size};
    use super::*;
    use std::vec::Vec;

    /// What happens on the line when the device has sent a call for the nth time.
    enum Heard {
        Bytes(Vec<u8>),
        TimedOut,
        Broken,
    }

    /// A line whose host says what was written down for it, and remembers what it was told.
    struct Script {
        steps: Vec<Vec<Heard>>,
        sent: Vec<Vec<u8>>,
        reads: usize,
    }

    impl embedded_io::ErrorType for Script {
        type Error = ErrorKind;
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            self.sent.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            self.reads += 1;
            let Some(step) = self.steps.get_mut(self.sent.len() - 1) else { return Ok(0) };
            match step.first_mut() {
                None => Ok(0),
                Some(Heard::Bytes(bytes)) => {
                    buffer[0] = bytes.remove(0);
                    if bytes.is_empty() {
                        step.remove(0);
                    }
                    Ok(1)
                }
                Some(Heard::TimedOut) => {
                    step.remove(0);
                    Err(ErrorKind::TimedOut)
                }
                Some(Heard::Broken) => {
                    step.remove(0);
                    Err(ErrorKind::Other)
                }
            }
        }
    }

    fn frame(message: &FromHost, payload: &[u8]) -> Vec<u8> {
        let mut out = std::vec![0; encoded_size(payload.len())];
        let n = encode(message, payload, &mut out).expect("fits");
        out.truncate(n);
        out
    }

    fn says(message: FromHost, payload: &[u8]) -> Heard {
        Heard::Bytes(frame(&message, payload))
    }

    type Ended = Result<Vec<u8>, (Failure<'static, ErrorKind>, Vec<u8>)>;

    /// The end of call 7, how often it was sent, and how often something was read.
    fn call(steps: Vec<Vec<Heard>>, silences: u16) -> (Ended, usize, usize) {
        let mut out = [0; encoded_size(16)];
        let mut line = Script { steps, sent: Vec::new(), reads: 0 };
        let mut client = Client::new(&mut line, &mut out, 7).with_patience(3, silences);
        let mut buffer = [0; 64];
        let ended = client.call("lamp", b"{}", &mut buffer).map(<[u8]>::to_vec);
        let ended = ended.map_err(|failure| match failure {
            Failure::Function(json) => (Failure::Function(b""), json.to_vec()),
            Failure::Refused(reason) => (Failure::Refused(reason), Vec::new()),
            Failure::TooLong => (Failure::TooLong, Vec::new()),
            Failure::NoAnswer => (Failure::NoAnswer, Vec::new()),
            Failure::Line(error) => (Failure::Line(error), Vec::new()),
        });
        let mut decoder = Decoder::new();
        let mut room = [0; 64];
        for sent in &line.sent {
            let heard = sent.iter().find_map(|byte| decoder.feed(*byte, &mut room).transpose());
            let length = heard.expect("a frame").expect("sound");
            let call = ToHost::Call { id: 7, reply_max: 54, function: "lamp" };
            assert_eq!(decode(&room[..length]), Ok((call, &b"{}"[..])));
        }
        (ended, line.sent.len(), line.reads)
    }

    #[test]
    fn an_answer_is_an_answer_whatever_comes_before_it() {
        let reply = || says(FromHost::Reply { id: 7 }, b"[0]");
        let error = says(FromHost::Error { id: 7 }, b"{\"errorType\":\"E\"}");
        let failed = Err((Failure::Function(&b""[..]), b"{\"errorType\":\"E\"}".to_vec()));
        let refused = FromHost::Refused { id: 7, reason: Reason::Throttled };
        assert_eq!(call(std::vec![std::vec![reply()]], 1).0, Ok(b"[0]".to_vec()));
        assert_eq!(call(std::vec![std::vec![error]], 1).0, failed);
        let no = Err((Failure::Refused(Reason::Throttled), Vec::new()));
        assert_eq!(call(std::vec![std::vec![says(refused, b"")]], 1).0, no);
        // Noise, a late answer, an answer longer than there is room: none of it costs a try.
        let late = says(FromHost::Reply { id: 6 }, b"[6]");
        let noise = Heard::Bytes(b"\x01\xfe\0~".to_vec());
        let long = says(FromHost::Reply { id: 7 }, &[b'1'; 100]);
        let (ended, sent, _) = call(std::vec![std::vec![late, noise, long, reply()]], 1);
        assert_eq!((ended, sent), (Ok(b"[0]".to_vec()), 1));
    }

    #[test]
    fn a_call_is_repeated_when_its_answer_is_missing_or_broken() {
        let answer = frame(&FromHost::Reply { id: 7 }, b"[0]");
        let damaged = |at: usize| {
            let mut bytes = answer.clone();
            bytes[at] ^= 4;
            Heard::Bytes(bytes)
        };
        for at in 1..answer.len() - 1 {
            let whole = Heard::Bytes(answer.clone());
            let (ended, sent, _) = call(std::vec![std::vec![damaged(at)], std::vec![whole]], 9);
            assert_eq!((ended, sent), (Ok(b"[0]".to_vec()), 2), "damaged at {at}");
            // Cut anywhere, the rest of it missing or later.
            let (one, two) = (answer[..at].to_vec(), answer[at..].to_vec());
            let steps = std::vec![std::vec![Heard::Bytes(one)], std::vec![Heard::Bytes(two)]];
            assert_eq!(call(steps, 1).0, Ok(b"[0]".to_vec()), "cut at {at}");
        }
        let steps = std::vec![std::vec![], std::vec![Heard::Broken], std::vec![damaged(4)]];
        let (ended, sent, _) = call(steps, 1);
        assert_eq!((ended, sent), (Err((Failure::NoAnswer, Vec::new())), 3));
        let broken = call(std::vec![std::vec![], std::vec![], std::vec![Heard::Broken]], 1).0;
        assert_eq!(broken, Err((Failure::Line(ErrorKind::Other), Vec::new())));
    }

    #[test]
    fn patience_is_counted_in_silences_and_noise_has_an_end() {
        let wait = || std::vec![Heard::TimedOut, Heard::TimedOut];
        let no = Err((Failure::NoAnswer, Vec::new()));
        assert_eq!(call(std::vec![wait()], 4), (no.clone(), 3, 12));
        let forever = || std::vec![Heard::Bytes(std::vec![1; HEARD_MAX + 1])];
        let (ended, sent, reads) = call(std::vec![forever(), forever(), forever()], 1);
        assert_eq!((ended, sent, reads), (no, 3, 3 * HEARD_MAX));
    }

    #[test]
    fn a_call_that_does_not_fit_is_not_sent() {
        let mut line = Script { steps: Vec::new(), sent: Vec::new(), reads: 0 };
        let mut out = [0; 24];
        let mut client = Client::new(&mut line, &mut out, u32::MAX);
        let mut buffer = [0; 16];
        let long = client.call("lamp", b"{\"presses\":1000}", &mut buffer);
        assert_eq!(long, Err(Failure::TooLong));
        // The next id follows the largest, and a buffer without room for an answer is no panic.
        assert_eq!(client.call("", b"{}", &mut []), Err(Failure::NoAnswer));
        assert_eq!(encode(&0u8, b"", &mut []), Err(Error::TooLong));
        let mut room = [0; 24];
        let mut decoder = Decoder::new();
        let sent = &client.into_inner().sent[0];
        let length = sent.iter().find_map(|byte| decoder.feed(*byte, &mut room).ok().flatten());
        let call = ToHost::Call { id: 0, reply_max: 0, function: "" };
        assert_eq!(decode(&room[..length.expect("a frame")]), Ok((call, &b"{}"[..])));
    }
}
