//! Chunked bodies, decoded in place: the payload ends up contiguous where the chunks began.
//!
//! Every line ends with carriage return and line feed. A bare line feed is refused: proxies differ
//! on whether it ends a chunk's line or belongs to its extension, and so on where the body ends.

use super::Refused;

/// Bytes of one chunk-size line. Extensions are allowed and ignored, but not without bound.
const LINE_MAX: usize = 256;

/// Bytes of all trailers: an error body in base64, as runtimes send it, and its type.
pub const TRAILERS_MAX: usize = 64 * 1024;

/// Bytes of chunk-size lines and line ends that a body may have beyond as many as its payload may.
/// Chunks of a few bytes fit; a body that is all extensions does not.
const FRAMING_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Inside a chunk-size line, after so many of its bytes.
    Size { value: u64, digits: u8, length: usize, part: Part },
    /// So many bytes of a chunk are still to come.
    Data(u64),
    /// The line end behind a chunk; its carriage return was read, or not.
    DataEnd { cr: bool },
    /// Inside a trailer line: whether it has bytes so far, and whether the last one was a carriage
    /// return.
    Trailer { empty: bool, cr: bool },
    /// All was read.
    Done,
}

/// What the next byte of a chunk-size line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Digits,
    Extension,
    LineFeed,
}

const SIZE: State = State::Size { value: 0, digits: 0, length: 0, part: Part::Digits };

const TRAILER: State = State::Trailer { empty: true, cr: false };

/// Decodes one chunked body, however its bytes are cut into reads.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    /// Payload bytes so far that were not taken away.
    payload: usize,
    /// Those that were.
    taken: usize,
    /// Trailer bytes so far, kept behind the payload.
    trailers: usize,
    /// Bytes so far that were neither.
    framing: usize,
    payload_max: usize,
}

impl Chunked {
    /// A decoder for a body of at most `payload_max` bytes.
    pub fn new(payload_max: usize) -> Chunked {
        Chunked { state: SIZE, payload: 0, taken: 0, trailers: 0, framing: 0, payload_max }
    }

    /// Payload bytes so far; they stand at the start of the bytes.
    pub fn payload(&self) -> usize {
        self.payload
    }

    /// The payload was taken away: what follows stands at the start.
    pub fn take(&mut self) {
        self.taken += std::mem::take(&mut self.payload);
    }

    /// Trailer bytes so far; they stand right behind the payload.
    pub fn trailers(&self) -> usize {
        self.trailers
    }

    /// True if the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes what `bytes[fresh..]` adds; before it stand payload and trailers decoded earlier.
    /// Returns where the bytes that do not belong to this body begin: the end of `bytes`, or less
    /// once it is done. The bytes between the trailers and there are garbage.
    pub fn decode(&mut self, bytes: &mut [u8], fresh: usize) -> Result<usize, Refused> {
        let mut at = fresh;
        while at < bytes.len() {
            match self.state {
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    bytes.copy_within(at..at + here, self.payload);
                    self.payload += here;
                    at += here;
                    let left = left - here as u64;
                    self.state =
                        if left == 0 { State::DataEnd { cr: false } } else { State::Data(left) };
                }
                State::Done => break,
                State::Size { .. } | State::DataEnd { .. } | State::Trailer { .. } => {
                    let byte = bytes[at];
                    if let State::Trailer { .. } = self.state {
                        bytes[self.payload + self.trailers] = byte;
                    } else if self.framing < self.payload_max + FRAMING_MAX {
                        self.framing += 1;
                    } else {
                        return Err(Refused::Malformed("more framing than payload"));
                    }
                    self.state = self.step(byte)?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Refused> {
        let bad = Refused::Malformed("malformed chunk");
        match self.state {
            State::Size { value, digits, length, part } => {
                if length >= LINE_MAX {
                    return Err(bad);
                }
                let length = length + 1;
                let go = |part| Ok(State::Size { value, digits, length, part });
                match (byte, part) {
                    (b'\n', Part::LineFeed) => self.size(value),
                    (b'\n', _) | (_, Part::LineFeed) => Err(bad),
                    (b'\r', _) if digits > 0 => go(Part::LineFeed),
                    (b'\r', _) => Err(bad),
                    (_, Part::Extension) => go(Part::Extension),
                    (b';' | b' ' | b'\t', Part::Digits) if digits > 0 => go(Part::Extension),
                    (_, Part::Digits) => {
                        let digit = char::from(byte).to_digit(16).ok_or(bad)?;
                        // 15 digits cannot overflow, and no body is that long.
                        if digits >= 15 {
                            return Err(Refused::BodyTooLong);
                        }
                        let value = value * 16 + u64::from(digit);
                        Ok(State::Size { value, digits: digits + 1, length, part })
                    }
                }
            }
            State::DataEnd { cr } => match byte {
                b'\r' if !cr => Ok(State::DataEnd { cr: true }),
                b'\n' if cr => Ok(SIZE),
                _ => Err(bad),
            },
            State::Trailer { empty, cr } => {
                self.trailers += 1;
                if self.trailers > TRAILERS_MAX {
                    return Err(Refused::HeadTooLong);
                }
                match (byte, cr) {
                    (b'\n', true) if empty => Ok(State::Done),
                    (b'\n', true) => Ok(TRAILER),
                    (b'\n', false) | (_, true) => Err(bad),
                    (b'\r', false) => Ok(State::Trailer { empty, cr: true }),
                    (_, false) => Ok(State::Trailer { empty: false, cr: false }),
                }
            }
            State::Data(_) | State::Done => unreachable!("handled by the caller"),
        }
    }

    fn size(&self, value: u64) -> Result<State, Refused> {
        if value == 0 {
            return Ok(TRAILER);
        }
        if (self.taken + self.payload) as u64 + value > self.payload_max as u64 {
            return Err(Refused::BodyTooLong);
        }
        Ok(State::Data(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `bytes` as they come in reads of `step` bytes: payload, trailers, rest.
    #[allow(clippy::type_complexity, reason = "three parts of one thing")]
    fn decode(
        bytes: &[u8],
        step: usize,
        max: usize,
    ) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>), Refused> {
        let mut chunked = Chunked::new(max);
        let mut buffer: Vec<u8> = Vec::new();
        let mut fed = 0;
        loop {
            let kept = chunked.payload() + chunked.trailers();
            buffer.truncate(kept);
            let next = (fed + step).min(bytes.len());
            buffer.extend_from_slice(&bytes[fed..next]);
            fed = next;
            let rest = chunked.decode(&mut buffer, kept)?;
            if chunked.is_done() || fed == bytes.len() {
                assert!(chunked.is_done(), "not complete");
                let (payload, trailers) = (chunked.payload(), chunked.trailers());
                let left = [&buffer[rest..], &bytes[fed..]].concat();
                let trailers = buffer[payload..payload + trailers].to_vec();
                return Ok((buffer[..payload].to_vec(), trailers, left));
            }
        }
    }

    #[test]
    fn chunks_and_trailers_come_out_however_they_are_cut() {
        let body = b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nA: 1\r\nB: 2\r\n\r\nGET /";
        for step in 1..body.len() {
            let (payload, trailers, left) = decode(body, step, 100).expect("valid");
            assert_eq!(payload, b"hello world", "step {step}");
            assert_eq!(trailers, b"A: 1\r\nB: 2\r\n\r\n");
            assert_eq!(left, b"GET /");
        }
        assert_eq!(decode(b"0\r\n\r\n", 1, 0).expect("empty").0, b"");
    }

    #[test]
    fn bad_chunks_are_refused() {
        for (body, status) in [
            (&b"\r\n"[..], 400),
            (b"g\r\n", 400),
            (b"-1\r\n", 400),
            (b"3\r\nabcd", 400),
            (b"3\rX\nabc", 400),
            (b"3\r\nabc\r\r\n", 400),
            (b"3\nabc\r\n0\r\n\r\n", 400),
            (b"3\r\nabc\n0\r\n\r\n", 400),
            (b"3;x\nabc\r\n0\r\n\r\n", 400),
            (b"0\r\nA: 1\n\r\n", 400),
            (b"0\r\nA: 1\r\r\n\r\n", 400),
            (b"0\r\n\n", 400),
            (b";x\r\n", 400),
            (b"fffffffffffffffff\r\n", 413),
            (b"65\r\n", 413),
        ] {
            let refused = decode(body, 1, 100).expect_err("refused");
            assert_eq!(refused.status(), status, "{}", String::from_utf8_lossy(body));
        }
        let endless = [b"1;".to_vec(), vec![b'x'; 300]].concat();
        assert!(decode(&endless, 64, 100).is_err());
        // 5 bytes around each byte of payload, or 255.
        let small = |line: &str, count| [line.repeat(count).as_bytes(), b"0\r\n\r\n"].concat();
        let framed = small("1\r\nx\r\n", 13_000);
        assert_eq!(decode(&framed, 4096, 13_000).map(|body| body.0.len()), Ok(13_000));
        let padded = small(&format!("1;{}\r\nx\r\n", "x".repeat(248)), 13_000);
        let refused = decode(&padded, 4096, 13_000).expect_err("refused");
        assert_eq!(refused.status(), 400);
        let mut trailers = b"0\r\n".to_vec();
        trailers.extend(vec![b'x'; TRAILERS_MAX + 1]);
        assert_eq!(decode(&trailers, 4096, 100), Err(Refused::HeadTooLong));
    }
}
