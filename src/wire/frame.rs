//! Frames: a length, a postcard header, a payload.

use serde::{Deserialize, Serialize};

use super::{Error, FRAME_MAX, room};

/// Bytes of the length in front of a frame.
pub const PREFIX: usize = 4;

/// Most bytes of an encoded header with its length: the largest client context (3,583 bytes),
/// identity and ARN, with room to spare.
pub const HEADER_MAX: usize = 8 * 1024;

/// A frame as it stands at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<M> {
    /// The decoded header.
    pub message: M,
    /// Where the payload begins.
    pub payload_at: usize,
    /// Where the frame ends, and the next one begins.
    pub end: usize,
}

/// Writes length and header into `out` and returns how many bytes that took. The payload, of
/// `payload_len` bytes, must follow it on the stream.
pub fn encode<M: Serialize>(
    message: &M,
    payload_len: usize,
    out: &mut [u8],
) -> Result<usize, Error> {
    let (prefix, rest) = out.split_at_mut_checked(PREFIX).ok_or(Error::TooLong)?;
    let header = room::write(message, rest)?;
    let length = header.checked_add(payload_len).filter(|n| *n <= FRAME_MAX);
    let length = length.and_then(|n| u32::try_from(n).ok()).ok_or(Error::TooLong)?;
    prefix.copy_from_slice(&length.to_le_bytes());
    Ok(PREFIX + header)
}

/// Looks at the start of `bytes`: a whole frame, or `None` while more bytes must come. A length
/// above `frame_max` is refused as soon as it is seen.
pub fn decode<'a, M: Deserialize<'a>>(
    bytes: &'a [u8],
    frame_max: usize,
) -> Result<Option<Frame<M>>, Error> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let length = usize::try_from(u32::from_le_bytes(*prefix)).map_err(|_| Error::TooLong)?;
    if length > frame_max {
        return Err(Error::TooLong);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let (message, payload) = postcard::take_from_bytes(body).map_err(|_| Error::Malformed)?;
    let end = PREFIX + length;
    Ok(Some(Frame { message, payload_at: end - payload.len(), end }))
}

#[cfg(test)]
mod tests {
    use super::super::{Context, FromWorker, ToWorker};
    use super::*;

    #[test]
    fn a_frame_is_whole_only_with_its_last_byte() {
        let mut out = [0; 64];
        let n = encode(&FromWorker::Reply { id: 300 }, 3, &mut out).expect("fits");
        out[n..n + 3].copy_from_slice(b"abc");
        let bytes = &out[..n + 3];
        for cut in 0..bytes.len() {
            assert_eq!(decode::<FromWorker>(&bytes[..cut], FRAME_MAX), Ok(None), "cut at {cut}");
        }
        let frame = decode::<FromWorker>(bytes, FRAME_MAX).expect("valid").expect("whole");
        assert_eq!(frame.message, FromWorker::Reply { id: 300 });
        assert_eq!(&bytes[frame.payload_at..frame.end], b"abc");
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
        let length = u32::try_from(FRAME_MAX + 1).expect("small").to_le_bytes();
        assert_eq!(decode::<FromWorker>(&length, FRAME_MAX), Err(Error::TooLong));
        assert_eq!(decode::<FromWorker>(&100u32.to_le_bytes(), 99), Err(Error::TooLong));
        let mut out = [0; 64];
        assert_eq!(encode(&FromWorker::Ready, FRAME_MAX, &mut out), Err(Error::TooLong));
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        assert_eq!(decode::<FromWorker>(&[0, 0, 0, 0], FRAME_MAX), Err(Error::Malformed));
        assert_eq!(decode::<FromWorker>(&[1, 0, 0, 0, 9], FRAME_MAX), Err(Error::Malformed));
        // Text whose length runs past the frame.
        let cut = [3, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode::<ToWorker>(&cut, FRAME_MAX), Err(Error::Malformed));
    }

    #[test]
    fn a_context_comes_back_as_it_went() {
        let context = Context {
            id: 7,
            deadline_ms: 1_764_000_000_123,
            request_id: "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
            function_arn: "arn:aws:lambda:us-east-1:000000000000:function:demo",
            trace_id: "",
            client_context: "{\"custom\":{}}",
            identity: "",
        };
        let mut out = [0; 512];
        let n = encode(&ToWorker::Invoke(context), 0, &mut out).expect("fits");
        let frame = decode::<ToWorker>(&out[..n], FRAME_MAX).expect("valid").expect("whole");
        assert_eq!(frame.message, ToWorker::Invoke(context));
        assert_eq!((frame.payload_at, frame.end), (n, n));
    }
}
