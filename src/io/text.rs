//! Text that is put together on every request, in a space that is used again and again.
//!
//! `fmt` goes through a formatter, a table of arguments and the C library's copy for each piece, and
//! was an eighth of the server's own work in a warm invocation. What is put in here writes itself.

use crate::wire::room;

/// Bytes by which the space grows: more than most texts have.
const SPACE: usize = 512;

/// A text under construction.
#[derive(Default)]
pub struct Text {
    /// What is there of it, and room.
    space: Vec<u8>,
    length: usize,
}

/// What can be put into a [`Text`].
pub trait Put {
    /// Appends itself to `text`.
    fn put_into(&self, text: &mut Text);
}

impl Text {
    /// Empties it; its space stays.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Appends something. Returns where it ends.
    pub fn put(&mut self, what: impl Put) -> usize {
        what.put_into(self);
        self.length
    }

    /// Appends text that stands in bytes: digits, a date.
    pub fn put_ascii(&mut self, ascii: &[u8]) {
        let end = self.length + ascii.len();
        while end > self.space.len() {
            self.space.extend_from_slice(&[0; SPACE]);
        }
        if let Some(place) = self.space.get_mut(self.length..end) {
            room::copy(place, ascii);
            self.length = end;
        }
    }

    /// As [`Text::put_ascii`], for the few bytes between others: they are stored, and not copied.
    pub fn put_few<const FEW: usize>(&mut self, ascii: &[u8; FEW]) {
        let place = self.space.get_mut(self.length..).and_then(<[u8]>::first_chunk_mut);
        let Some(place) = place else { return self.put_ascii(ascii) };
        *place = *ascii;
        self.length += FEW;
    }

    /// Where it ends: its length in bytes.
    pub fn end(&self) -> usize {
        self.length
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.space[..self.length]
    }

    /// As a string; empty if bytes were put in that are no text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

impl Put for str {
    fn put_into(&self, text: &mut Text) {
        text.put_ascii(self.as_bytes());
    }
}

impl Put for u64 {
    fn put_into(&self, text: &mut Text) {
        const PART: u64 = 1_000_000_000;
        let u32_of = |part| u32::try_from(part).unwrap_or_default();
        let mut digits = [b'0'; 20];
        let (mut end, mut rest) = (digits.len(), *self);
        // Nine digits are 32 bits; a 32-bit board divides more by a long call for each digit.
        while rest >= PART {
            put_digits(&mut digits[..end], u32_of(rest % PART));
            (end, rest) = (end - 9, rest / PART);
        }
        let begin = put_digits(&mut digits[..end], u32_of(rest));
        text.put_ascii(&digits[begin..]);
    }
}

/// Writes a number to the end of `digits`. Returns where it begins.
fn put_digits(digits: &mut [u8], mut rest: u32) -> usize {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            return at;
        }
    }
}

impl<P: Put + ?Sized> Put for &P {
    fn put_into(&self, text: &mut Text) {
        (**self).put_into(text);
    }
}

/// Compares eight bytes at once. musl's `memcmp`, which `==` calls, takes them one by one.
pub fn same(left: &[u8], right: &[u8]) -> bool {
    let ((words, rest), (others, end)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    left.len() == right.len()
        && words.iter().zip(others).all(|(left, right)| word(left) == word(right))
        && rest.iter().zip(end).all(|(left, right)| left == right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_makes_a_difference_wherever_it_is() {
        for length in 0..20 {
            let bytes = vec![b'a'; length];
            assert!(same(&bytes, &bytes.clone()));
            assert!(!same(&bytes, &[&bytes[..], b"a"].concat()));
            for at in 0..length {
                let mut other = bytes.clone();
                other[at] = b'b';
                assert!(!same(&bytes, &other), "{at} of {length}");
            }
        }
    }

    #[test]
    fn a_few_bytes_find_room_at_the_end_of_the_space() {
        let mut text = Text::default();
        for _ in 0..300 {
            text.put_few(b"abc");
        }
        assert_eq!(text.as_str(), "abc".repeat(300));
    }

    #[test]
    fn what_is_put_in_is_what_comes_out() {
        let mut text = Text::default();
        for number in [0, 9, 10, 999_999_999, 1_000_000_000, 1_030_000_000_040, u64::MAX] {
            text.clear();
            assert_eq!(text.put(number), text.end());
            assert_eq!(text.as_str(), number.to_string());
        }
        let long = "ä".repeat(1000);
        text.clear();
        let middle = text.put("begin ");
        assert_eq!((middle, text.put(&*long)), (6, 2006));
        assert_eq!(text.as_str(), format!("begin {long}"));
    }
}
