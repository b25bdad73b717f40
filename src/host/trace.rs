//! X-Ray's trace header on its way to a function, and the passes through functions that it counts.
//!
//! SDKs hand the header of the invocation that they run in on to what they call. So a chain of
//! invocations that leads through a function again and again has counted that in the header's
//! `Lineage`: a list of functions, by a hash of their names, and how often each has been passed.

use std::fmt;

use sha2::{Digest, Sha256};

use super::invocation::{RequestId, hex};
use crate::io::{Put, Text};
use crate::limits::TRACE_MAX;

/// The X-Ray header that goes on to the function: the caller's, or one made from the request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// As the caller sent it.
    Given {
        /// The text; with the lineage if it had one.
        text: Box<str>,
        /// The function that the lineage begins with, if there was none.
        first: Option<Lineage>,
    },
    /// Ours, not sampled.
    Made {
        /// When, in seconds of Unix time.
        epoch: u32,
        /// From what.
        request: RequestId,
        /// The function that the lineage begins with.
        first: Lineage,
    },
}

/// What a function is called in a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage(u32);

/// The part of a header that is the lineage.
const LINEAGE: &str = "Lineage=";
/// Longest entry of a lineage: `a87bd80c:4294967295`, and what is around it.
const ENTRY_MAX: usize = LINEAGE.len() + 1 + 8 + 1 + 10;

impl Lineage {
    /// Of the function with this ARN.
    pub fn of(arn: &str) -> Lineage {
        let digest: [u8; 32] = Sha256::digest(arn.as_bytes()).into();
        Lineage(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
    }

    /// How often the chain of invocations that made this header has passed the function.
    pub fn passes(self, trace: &str) -> u32 {
        lineage(trace).split('|').find_map(|entry| self.count(entry)).unwrap_or(0)
    }

    fn count(self, entry: &str) -> Option<u32> {
        let (name, count) = entry.split_once(':')?;
        let own = name.len() == 8 && u32::from_str_radix(name, 16) == Ok(self.0);
        own.then(|| count.parse().unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The lineage of a header; empty if it has none.
fn lineage(trace: &str) -> &str {
    let mut lineages = trace.split(';').filter_map(|part| part.trim().strip_prefix(LINEAGE));
    lineages.find(|lineage| !lineage.is_empty()).unwrap_or_default()
}

impl Trace {
    /// The header of an invocation of `function`: the caller's, if there is one, or one of ours.
    pub fn new(
        given: Option<Box<str>>,
        function: Lineage,
        epoch: u32,
        request: RequestId,
    ) -> Trace {
        let Some(text) = given else { return Trace::Made { epoch, request, first: function } };
        if !lineage(&text).is_empty() {
            return Trace::Given { text: pass(&text, function), first: None };
        }
        let first = (text.len() + ENTRY_MAX <= TRACE_MAX).then_some(function);
        Trace::Given { text, first }
    }
}

/// A header with a lineage, with one more pass through the function. Where there is no room for
/// another function, the chain goes on to be known by those that are there.
fn pass(trace: &str, function: Lineage) -> Box<str> {
    let mut counted = String::with_capacity(trace.len() + ENTRY_MAX);
    let mut known = false;
    for entry in lineage(trace).split('|') {
        let bar = if counted.is_empty() { "" } else { "|" };
        match function.count(entry) {
            Some(count) if !known => {
                known = true;
                counted += &format!("{bar}{function}:{}", count.saturating_add(1));
            }
            Some(_) => {}
            None => counted.extend([bar, entry]),
        }
    }
    if !known && trace.len() + ENTRY_MAX <= TRACE_MAX {
        counted += &format!("|{function}:1");
    }
    let others = trace.split(';').filter(|part| !part.trim().starts_with(LINEAGE));
    let mut text: String = others.flat_map(|part| [part, ";"]).collect();
    text += LINEAGE;
    text += &counted;
    // A count may have grown by a digit in a header that had no room for it.
    if text.len() > TRACE_MAX { trace.into() } else { text.into() }
}

impl Put for Trace {
    fn put_into(&self, text: &mut Text) {
        match self {
            Trace::Given { text: given, first } => {
                text.put(&**given);
                if let Some(first) = first {
                    text.put(";");
                    text.put(LINEAGE);
                    let mut own = *b"________:1";
                    hex(&mut own[..8], &first.0.to_be_bytes());
                    text.put_ascii(&own);
                }
            }
            Trace::Made { epoch, request, first } => {
                let mut made = *MADE;
                hex(&mut made[7..15], &epoch.to_be_bytes());
                hex(&mut made[16..40], &request.0[..12]);
                hex(&mut made[48..64], &request.0[8..]);
                hex(&mut made[83..91], &first.0.to_be_bytes());
                text.put_ascii(&made);
            }
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::default();
        text.put(self);
        f.write_str(text.as_str())
    }
}

/// A header of ours, with room for its digits.
const MADE: &[u8; 93] =
    b"Root=1-________-________________________;Parent=________________;Sampled=0;\
                          Lineage=________:1";

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Lineage = Lineage(0xa87b_d80c);

    fn given(text: &str) -> String {
        Trace::new(Some(text.into()), OWN, 0, RequestId([0; 16])).to_string()
    }

    #[test]
    fn a_made_trace_has_the_form_of_xray() {
        let trace = Trace::new(None, OWN, 0x5bef_4de7, RequestId([0xAB; 16])).to_string();
        let expected = "Root=1-5bef4de7-abababababababababababab;Parent=abababababababab;Sampled=0;\
                        Lineage=a87bd80c:1";
        assert_eq!(trace, expected);
    }

    #[test]
    fn passes_are_counted_for_each_function_of_a_chain() {
        for (text, expected, passes) in [
            ("Root=1-a-b;Sampled=1", "Root=1-a-b;Sampled=1;Lineage=a87bd80c:1", 0),
            ("Root=1-a-b;Lineage=a87bd80c:1", "Root=1-a-b;Lineage=a87bd80c:2", 1),
            ("Lineage=a87bd80c:9;Root=1", "Root=1;Lineage=a87bd80c:10", 9),
            ("Root=1;Lineage=68fd508a:5", "Root=1;Lineage=68fd508a:5|a87bd80c:1", 0),
            (
                "Lineage=68fd508a:5|A87BD80C:3|c512fbe3:2",
                "Lineage=68fd508a:5|a87bd80c:4|c512fbe3:2",
                3,
            ),
            ("Lineage=a87bd80c:", "Lineage=a87bd80c:4294967295", u32::MAX),
            ("Lineage=a87bd80c:1|a87bd80c:7", "Lineage=a87bd80c:2", 1),
            ("Lineage=|;x", "x;Lineage=|a87bd80c:1", 0),
            ("Lineage=", "Lineage=;Lineage=a87bd80c:1", 0),
            ("Lineage=;Lineage=a87bd80c:1", "Lineage=a87bd80c:2", 1),
            ("Lineage=0a87bd80c:1", "Lineage=0a87bd80c:1|a87bd80c:1", 0),
        ] {
            assert_eq!(OWN.passes(text), passes, "{text}");
            assert_eq!(given(text), expected, "{text}");
        }
    }

    #[test]
    fn a_header_never_outgrows_its_room() {
        let entries = |count: usize| "|12345678:1".repeat(count);
        for length in 300..=TRACE_MAX {
            for text in [
                format!("Root={}", "x".repeat(length - 5)),
                format!("Root={};Lineage=1:1", "x".repeat(length - 17)),
                format!("Root={};Lineage=a87bd80c:9", "x".repeat(length - 24)),
                format!("Root={};Lineage=a87bd80c:9{}", "x".repeat(length - 134), entries(10)),
            ] {
                assert_eq!(text.len(), length);
                assert!(given(&text).len() <= TRACE_MAX, "{length}: {text}");
            }
        }
    }

    #[test]
    fn a_function_is_the_same_in_every_lineage() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:demo";
        assert_eq!(Lineage::of(arn).to_string(), "cd73ce4d");
        assert_ne!(
            Lineage::of(arn),
            Lineage::of("arn:aws:lambda:us-east-1:000000000000:function:d")
        );
    }
}
