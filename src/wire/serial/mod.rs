//! The wire on a serial line: a small device calls functions of the board that it is wired to.
//! `SPEC.md`, "On a serial line", is the definition; [`Client`] is the device's side of it.
//!
//! A pure codec, for both sides: a frame is written into the caller's buffer, and read byte by byte
//! into another. A line loses bytes and invents some, so nothing is believed before its checksum,
//! and whatever came before a zero byte has no effect on what comes after it. Nothing here waits,
//! allocates or panics on what it reads.

mod client;

use cobs::{CobsEncoder, DecodeResult, DecoderState};
use serde::{Deserialize, Serialize};

use super::{Error, room};

pub use client::{Client, Failure};

/// Most bytes of a frame as it is before COBS, header and checksum included: 1.4 s of a line at
/// 115,200 baud. A host has two such buffers for a line, a device as much as it likes.
pub const FRAME_MAX: usize = 16 * 1024;

/// Most bytes of a function's name with its qualifier: 64, a colon, 128.
pub const FUNCTION_MAX: usize = 64 + 1 + 128;

/// Most bytes of a header: the number, two integers, and the function with its length.
pub const HEADER_MAX: usize = 1 + 5 + 5 + 2 + FUNCTION_MAX;

/// Bytes of the checksum at the end of a frame.
pub const CHECKSUM: usize = 4;

/// Bytes of a frame to the device that are not payload, at most: number, id, checksum.
pub const ANSWER_OVERHEAD: usize = 1 + 5 + CHECKSUM;

/// What a device tells the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost<'a> {
    /// Invoke a function; the event is the payload. Sent again with the same id it is the same
    /// call, and no second invocation.
    Call {
        /// Echoed in the answer, and never that of the call before.
        id: u32,
        /// The largest payload of an answer that the device can hold.
        reply_max: u32,
        /// `NAME` or `NAME:QUALIFIER`; empty for the only function of this line.
        function: &'a str,
    },
}

/// What the host tells a device. Replies and errors are the frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHost {
    /// The function's reply is the payload.
    Reply {
        /// Of the call that it answers.
        id: u32,
    },
    /// The function failed; its error, as JSON, is the payload.
    Error {
        /// Of the call that it answers.
        id: u32,
    },
    /// There is no reply, and why.
    Refused {
        /// Of the call that it answers.
        id: u32,
        /// Why.
        reason: Reason,
    },
}

impl FromHost {
    /// The call that this answers.
    pub fn id(&self) -> u32 {
        match *self {
            FromHost::Reply { id } | FromHost::Error { id } | FromHost::Refused { id, .. } => id,
        }
    }
}

/// Why a call has no reply. All but [`Reason::ReplyTooLong`] mean that nothing was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Reason {
    /// No worker came free in time, or the function's concurrency is used up: try later.
    Throttled,
    /// No function of this name may be called on this line.
    UnknownFunction,
    /// The call is longer than the host takes.
    EventTooLong,
    /// The function ran, and its reply is longer than the call's `reply_max`.
    ReplyTooLong,
    /// The event is not JSON.
    InvalidEvent,
    /// The server stops: try later.
    Stopping,
    /// The host does not know this message.
    Unsupported,
    /// The host is to blame; its log says why.
    Internal,
    /// A reason of a later version, by its number.
    Other(u8),
}

/// The reasons in the order of their numbers.
const REASONS: [Reason; 8] = [
    Reason::Throttled,
    Reason::UnknownFunction,
    Reason::EventTooLong,
    Reason::ReplyTooLong,
    Reason::InvalidEvent,
    Reason::Stopping,
    Reason::Unsupported,
    Reason::Internal,
];

impl From<u8> for Reason {
    fn from(number: u8) -> Reason {
        REASONS.get(usize::from(number)).copied().unwrap_or(Reason::Other(number))
    }
}

impl From<Reason> for u8 {
    fn from(reason: Reason) -> u8 {
        match reason {
            Reason::Throttled => 0,
            Reason::UnknownFunction => 1,
            Reason::EventTooLong => 2,
            Reason::ReplyTooLong => 3,
            Reason::InvalidEvent => 4,
            Reason::Stopping => 5,
            Reason::Unsupported => 6,
            Reason::Internal => 7,
            Reason::Other(number) => number,
        }
    }
}

/// Room for a frame with a payload of `payload` bytes, as it is on the line.
pub const fn encoded_size(payload: usize) -> usize {
    1 + cobs::max_encoding_length(HEADER_MAX + payload + CHECKSUM) + 1
}

/// Writes a whole frame into `out`, as it goes over the line with a zero byte at either end, and
/// returns its length.
///
/// # Errors
/// [`Error::TooLong`] if it does not fit `out`, or the limits of a frame.
pub fn encode<M: Serialize>(message: &M, payload: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    let mut header = [0; HEADER_MAX];
    let length = room::write(message, &mut header)?;
    let header = &header[..length];
    if payload.len() > FRAME_MAX - CHECKSUM - header.len() {
        return Err(Error::TooLong);
    }
    let sum = !checksum(checksum(CHECKSUM_START, header), payload);
    let (first, rest) = out.split_first_mut().ok_or(Error::TooLong)?;
    *first = 0;
    let mut encoder = CobsEncoder::new(rest);
    for part in [header, payload, &sum.to_le_bytes()] {
        encoder.push(part).map_err(|_| Error::TooLong)?;
    }
    // The encoder may count one byte more than it had room for.
    let length = encoder.finalize();
    *rest.get_mut(length).ok_or(Error::TooLong)? = 0;
    Ok(1 + length + 1)
}

/// The message and the payload of a frame that [`Decoder::feed`] has found to be sound.
pub fn decode<'a, M: Deserialize<'a>>(frame: &'a [u8]) -> Result<(M, &'a [u8]), Error> {
    postcard::take_from_bytes(frame).map_err(|_| Error::Malformed)
}

/// Takes the line's bytes one by one and finds the frames in them.
#[derive(Debug)]
pub struct Decoder {
    state: DecoderState,
    /// Bytes of this frame so far, without those that had no room.
    filled: usize,
    /// Over all of them.
    sum: u32,
    /// Whether some had no room.
    long: bool,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// Before the first byte.
    pub const fn new() -> Decoder {
        Decoder { state: DecoderState::Idle, filled: 0, sum: CHECKSUM_START, long: false }
    }

    /// Takes the next byte. `Some(length)` if it ends a frame: `buffer[..length]` is then what
    /// [`decode`] reads, until the next byte is fed. The buffer must be the same for all bytes of a
    /// frame, and holds its checksum besides.
    ///
    /// # Errors
    /// Only at a zero byte, and the next frame begins with the next byte: [`Error::Malformed`] if
    /// the bytes before it are not a frame, [`Error::TooLong`] if they are one, sound but longer
    /// than `buffer` or [`FRAME_MAX`]. Of that one the buffer holds the beginning (if it has more than
    /// [`CHECKSUM`] bytes; else it counts as malformed).
    pub fn feed(&mut self, byte: u8, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        match self.state.feed(byte) {
            Ok(DecodeResult::NoData) => Ok(None),
            Ok(DecodeResult::DataContinue(byte)) => {
                self.sum = checksum(self.sum, &[byte]);
                match buffer.get_mut(self.filled) {
                    Some(place) if self.filled < FRAME_MAX => {
                        *place = byte;
                        self.filled += 1;
                    }
                    _ => self.long = true,
                }
                Ok(None)
            }
            Ok(DecodeResult::DataComplete) => {
                let Decoder { filled, sum, long, .. } = core::mem::take(self);
                // Four zeros are the sound checksum of nothing, and two flipped bits make them of a
                // payload with zeros: there is no frame without a header.
                let length = filled.checked_sub(CHECKSUM).filter(|length| *length > 0);
                match length.filter(|_| sum == CHECKSUM_SOUND && filled <= buffer.len()) {
                    Some(_) if long => Err(Error::TooLong),
                    Some(length) => Ok(Some(length)),
                    None => Err(Error::Malformed),
                }
            }
            Err(_) => {
                *self = Decoder::new();
                Err(Error::Malformed)
            }
        }
    }
}

/// CRC-32C before the first byte. It is inverted at the end, where a frame is written.
const CHECKSUM_START: u32 = !0;

/// CRC-32C behind the last byte of a frame that ends with its own checksum, whatever is in it.
const CHECKSUM_SOUND: u32 = 0xb798_b438;

/// One step of CRC-32C (Castagnoli), bit by bit: 1 KiB of table is much for a small device, and
/// eight shifts are few for the time that a line takes for a byte.
fn checksum(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    type Heard = Result<Vec<u8>, Error>;

    fn framed(id: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = std::vec![0; encoded_size(payload.len())];
        let n = encode(&FromHost::Reply { id }, payload, &mut out).expect("fits");
        out.truncate(n);
        out
    }

    fn heard(line: &[u8], room: usize) -> Vec<Heard> {
        let mut decoder = Decoder::new();
        let mut buffer = std::vec![0; room];
        let frames = line.iter().map(|byte| {
            decoder.feed(*byte, &mut buffer).transpose().map(|f| f.map(|n| buffer[..n].to_vec()))
        });
        frames.flatten().collect()
    }

    fn reply(id: u32, payload: &[u8]) -> Vec<Heard> {
        let mut header = [0; 8];
        let header = postcard::to_slice(&FromHost::Reply { id }, &mut header).expect("fits");
        std::vec![Ok([header, payload].concat())]
    }

    #[test]
    fn the_checksum_is_the_one_that_everybody_knows() {
        assert_eq!(!checksum(CHECKSUM_START, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn frames_of_every_length_come_back_and_need_every_byte_of_room() {
        for length in (0..600).chain([FRAME_MAX - CHECKSUM - 2]) {
            for fill in [0, 1, 255] {
                let payload = std::vec![fill; length];
                let line = framed(7, &payload);
                assert!(line.len() <= encoded_size(length));
                assert_eq!(line.iter().filter(|byte| **byte == 0).count(), 2);
                assert_eq!(heard(&line, length + 2 + CHECKSUM), reply(7, &payload));
                assert_eq!(heard(&line, length + 1 + CHECKSUM), [Err(Error::TooLong)]);
                let mut out = std::vec![0; line.len()];
                for room in [0, 1, line.len() / 2, line.len() - 2, line.len() - 1] {
                    let small = encode(&FromHost::Reply { id: 7 }, &payload, &mut out[..room]);
                    assert_eq!(small, Err(Error::TooLong), "{length} bytes into {room}");
                }
                encode(&FromHost::Reply { id: 7 }, &payload, &mut out).expect("fits");
            }
        }
    }

    #[test]
    fn a_frame_has_its_limits() {
        let payload = std::vec![1; FRAME_MAX];
        let mut out = std::vec![0; encoded_size(FRAME_MAX)];
        let encoded = encode(&FromHost::Reply { id: 7 }, &payload[CHECKSUM + 1..], &mut out);
        assert_eq!(encoded, Err(Error::TooLong));
        let name = "f".repeat(FUNCTION_MAX + 1);
        let longest = ToHost::Call { id: u32::MAX, reply_max: u32::MAX, function: &name[1..] };
        encode(&longest, b"", &mut out).expect("fits");
        let longer = ToHost::Call { id: u32::MAX, reply_max: u32::MAX, function: &name };
        assert_eq!(encode(&longer, b"", &mut out), Err(Error::TooLong));
    }

    #[test]
    fn every_flipped_bit_and_every_pair_of_them_is_noticed() {
        for payload in [&b""[..], b"{\"on\":true}", &[0; 9]] {
            let sent = framed(300, payload);
            let bits = sent.len() * 8;
            for (one, other) in (0..bits).flat_map(|one| (one..bits).map(move |other| (one, other)))
            {
                let mut line = sent.clone();
                line[one / 8] ^= 1 << (one % 8);
                // A bit and itself stand for the bit alone.
                line[other / 8] ^= if one == other { 0 } else { 1 << (other % 8) };
                // A flaw of the zero bytes may leave the frame between them as it was.
                let frames = heard(&[&line[..], &[0]].concat(), 64);
                for frame in frames.into_iter().filter(Result::is_ok) {
                    assert_eq!([frame], *reply(300, payload), "bits {one} and {other}");
                }
                let inside = one >= 8 && other < bits - 8;
                assert!(!inside || heard(&line, 64).iter().all(Result::is_err));
            }
        }
    }

    #[test]
    fn what_was_cut_or_is_noise_costs_nothing_behind_the_next_zero() {
        let (cut, whole) = (framed(1, b"[1,0]"), framed(2, b"{}"));
        for from in 0..cut.len() {
            for to in from..=cut.len() {
                let mut line = cut.clone();
                line.drain(from..to);
                let frames = heard(&[&line[..], &whole].concat(), 64);
                assert_eq!(frames.last(), reply(2, b"{}").first(), "without {from}..{to}");
                let sound: Vec<Heard> = frames.into_iter().filter(Result::is_ok).collect();
                assert!(sound.len() == 1 || sound[..1] == *reply(1, b"[1,0]"), "{sound:?}");
            }
        }
        for noise in [&b"\xff"[..], b"\x01", b"~~~\0\0\x05\0", &[0xff; 600], &[1; 600], b"boot\r\n"]
        {
            let frames = heard(&[noise, &whole].concat(), 64);
            assert_eq!(frames.last(), reply(2, b"{}").first());
            assert!(frames[..frames.len() - 1].iter().all(|f| *f == Err(Error::Malformed)));
        }
    }

    #[test]
    fn reasons_keep_their_numbers_and_unknown_ones_are_kept() {
        for number in 0..=u8::MAX {
            let refused = FromHost::Refused { id: 1, reason: Reason::from(number) };
            let mut out = [0; 8];
            let bytes = postcard::to_slice(&refused, &mut out).expect("fits");
            assert_eq!(bytes, [2, 1, number]);
            assert_eq!(decode(bytes), Ok((refused, &b""[..])));
            let known = usize::from(number) < REASONS.len();
            assert_eq!(known, !matches!(Reason::from(number), Reason::Other(_)));
        }
    }
}
