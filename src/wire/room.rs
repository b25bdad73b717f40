//! Writing into room that is there, a few bytes at a time: postcard's messages, and much else.

use serde::Serialize;

use super::Error;

/// Writes a message to the start of `room`, and returns its length.
///
/// # Errors
/// [`Error::TooLong`] if it does not fit.
pub fn write<M: Serialize>(message: &M, room: &mut [u8]) -> Result<usize, Error> {
    let written = postcard::serialize_with_flavor(message, Room { room, length: 0 });
    written.map_err(|_| Error::TooLong)
}

/// Copies `from` over all of `to`, which is as long. Up to 64 bytes by its two ends, which may
/// overlap: musl's `memcpy` for x86-64 begins with 40 ns, whatever the length.
pub fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        0 => {}
        1..=2 => ends::<1>(to, from),
        3..=4 => ends::<2>(to, from),
        5..=8 => ends::<4>(to, from),
        9..=16 => ends::<8>(to, from),
        17..=32 => ends::<16>(to, from),
        33..=64 => ends::<32>(to, from),
        _ => to.copy_from_slice(from),
    }
}

fn ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
        *to = *from;
    }
}

struct Room<'a> {
    room: &'a mut [u8],
    length: usize,
}

impl postcard::ser_flavors::Flavor for Room<'_> {
    type Output = usize;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        let place = self.room.get_mut(self.length);
        *place.ok_or(postcard::Error::SerializeBufferFull)? = byte;
        self.length += 1;
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        // Lengths and small numbers, which are half of what comes.
        if let [byte] = bytes {
            return self.try_push(*byte);
        }
        let end = self.length.checked_add(bytes.len());
        let place = end.and_then(|end| self.room.get_mut(self.length..end));
        copy(place.ok_or(postcard::Error::SerializeBufferFull)?, bytes);
        self.length += bytes.len();
        Ok(())
    }

    fn finalize(self) -> postcard::Result<usize> {
        Ok(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole() {
        let mut from = [0; 100];
        for (byte, number) in from.iter_mut().zip(1..) {
            *byte = number;
        }
        for length in 0..=from.len() {
            let mut to = [0; 100];
            copy(&mut to[..length], &from[..length]);
            assert_eq!(to[..length], from[..length]);
            assert!(to[length..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let message = (300u32, "text");
        let mut room = [0; 7];
        assert_eq!(write(&message, &mut room), Ok(7));
        assert_eq!(&room, b"\xAC\x02\x04text");
        for size in 0..7 {
            assert_eq!(write(&message, &mut room[..size]), Err(Error::TooLong), "{size}");
        }
    }
}
