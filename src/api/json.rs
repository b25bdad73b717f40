//! Writing and checking JSON without building it.

use hifijson::token::{Expect, Lex as _};
use hifijson::{Error, SliceLexer, str::Lex as _};

use crate::io::Buffer;
use crate::io::buffer::NoRoom;

/// Levels of nesting that are checked without the heap; few events have more than ten.
const LEVELS: u32 = 64;

/// Checks that `bytes` is one JSON value in UTF-8; the error says what is wrong.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut lexer = SliceLexer::new(bytes);
    if lexer.exactly_one(SliceLexer::ws_peek, |next, lexer| value(next, lexer, LEVELS)).is_ok() {
        return Ok(());
    }
    // Nested deeper, or wrong: this one takes any depth, and says where and why.
    let checked: Result<serde::de::IgnoredAny, _> = serde_json::from_str(text);
    checked.map(|_| ()).map_err(|error| error.to_string())
}

fn value(next: u8, lexer: &mut SliceLexer<'_>, levels: u32) -> Result<(), Error> {
    let inner = || levels.checked_sub(1).ok_or(Error::Depth);
    match next {
        b'[' => {
            let inner = inner()?;
            let item = |next, lexer: &mut SliceLexer<'_>| value(next, lexer, inner);
            lexer.discarded().seq(b']', SliceLexer::ws_peek, item)
        }
        b'{' => {
            let inner = inner()?;
            lexer.discarded().seq(b'}', SliceLexer::ws_peek, |next, lexer| {
                lexer.expect(|_| Some(next), b'"').ok_or(Expect::String)?;
                lexer.str_ignore().map_err(Error::Str)?;
                lexer.expect(SliceLexer::ws_peek, b':').ok_or(Expect::Colon)?;
                let next = lexer.ws_peek().ok_or(Expect::Value)?;
                value(next, lexer, inner)
            })
        }
        _ => hifijson::ignore::parse(next, lexer),
    }
}

/// Writes JSON into a buffer.
pub struct Writer {
    buffer: Buffer,
    full: bool,
}

impl Writer {
    /// Appends to `buffer`.
    pub fn new(buffer: Buffer) -> Writer {
        Writer { buffer, full: false }
    }

    /// Text that is JSON already.
    pub fn raw(&mut self, text: &str) -> &mut Writer {
        self.full |= self.buffer.extend(text.as_bytes()).is_err();
        self
    }

    /// A string, quoted and escaped.
    pub fn text(&mut self, text: &str) -> &mut Writer {
        self.full |= serde_json::to_writer(&mut *self, text).is_err();
        self
    }

    /// `"name":"value"`
    pub fn pair(&mut self, name: &str, value: &str) -> &mut Writer {
        self.text(name).raw(":").text(value)
    }

    /// A string of base64.
    pub fn base64(&mut self, bytes: &[u8]) -> &mut Writer {
        use base64::Engine;
        self.raw("\"");
        // Multiples of three encode without padding, so the pieces join.
        for piece in bytes.chunks(3 * 1024) {
            let mut text = [0; 4 * 1024];
            let encoded = base64::prelude::BASE64_STANDARD.encode_slice(piece, &mut text);
            let length = encoded.expect("4 bytes for 3");
            self.full |= self.buffer.extend(&text[..length]).is_err();
        }
        self.raw("\"")
    }

    /// The buffer, unless something did not fit.
    pub fn finish(self) -> Result<Buffer, NoRoom> {
        if self.full { Err(NoRoom) } else { Ok(self.buffer) }
    }
}

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.buffer.extend(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(NoRoom) => Err(std::io::ErrorKind::OutOfMemory.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Buffers;

    #[test]
    fn only_whole_json_passes() {
        for good in ["{}", " [1, 2.5e3] ", "null", "\"é\"", "0"] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [&b""[..], b"{", b"{} {}", b"nul", b"\"\xff\"", b"{'a':1}", b"NaN"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(check(deep.as_bytes()).is_err(), "and no stack overflow");
    }

    #[test]
    fn what_is_written_reads_back() {
        let buffers = Buffers::new(1 << 20);
        let mut writer = Writer::new(buffers.take().expect("room"));
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        writer.raw("{").pair("a\"", "\u{1}\né").raw(",\"b\":").base64(&bytes).raw("}");
        let buffer = writer.finish().expect("room");
        let json: serde_json::Value = serde_json::from_slice(&buffer).expect("JSON");
        assert_eq!(json["a\""], "\u{1}\né");
        use base64::Engine;
        let decoded = base64::prelude::BASE64_STANDARD.decode(json["b"].as_str().expect("text"));
        assert_eq!(decoded.expect("base64"), bytes);
    }

    #[test]
    fn a_buffer_that_is_full_is_an_error() {
        let buffers = Buffers::new(8192);
        let mut writer = Writer::new(buffers.take().expect("room"));
        writer.text(&"x".repeat(10_000));
        assert!(writer.finish().is_err());
    }

    #[test]
    fn values_of_any_depth_are_json() {
        for levels in [1, LEVELS as usize, LEVELS as usize + 1, 100_000] {
            let text = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            assert_eq!(check(text.as_bytes()), Ok(()), "{levels} levels");
            assert!(check(&text.as_bytes()[1..]).is_err(), "{levels} levels, one not closed");
        }
        assert!(check(b"{\"a\":[1,]}").is_err_and(|why| why.contains("column 9")));
    }

    /// Two parsers must not disagree on what goes to a function.
    #[test]
    fn mutated_json_is_judged_as_the_reference_does() {
        let reference = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).unwrap_or("not even UTF-8");
            serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        };
        let seeds: [&[u8]; 4] = [
            b"{\"a\":[1,-2.5e+3,{}],\"b\":\"\\u00e9\\n\\\"\",\"c\":null} ",
            "[[\"\u{e9}\u{1f600}\",true,false],{\"k\":{\"k\":[]}}]".as_bytes(),
            b"  -0.0e-0\t\r\n",
            b"\"\\ud83d\\ude00 \\ud800\"",
        ];
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 0..100_000 {
            let mut bytes = seeds[round % seeds.len()].to_vec();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                match rng.u8(..4) {
                    0 => bytes[at] = rng.u8(..),
                    1 => bytes.insert(at, rng.choice(*b"[]{}\",:\\e-.0u ").unwrap_or(b' ')),
                    2 if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at + 1),
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(check(&bytes).is_ok(), reference(&bytes), "{text:?}");
        }
    }
}
