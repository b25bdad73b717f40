//! Seeded mutations: the same seed gives the same bytes on every machine, and a seed that fails
//! says how to run it again.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[path = "../sim/rng.rs"]
mod rng;

pub use rng::Rng;

/// Runs `world` with `count` seeds, or only with the one that the variable `name` holds.
pub fn run(name: &str, test: &str, count: u64, mut world: impl FnMut(u64)) {
    let only = std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = only.map_or(1..=count, |seed| seed..=seed);
    for seed in seeds {
        if catch_unwind(AssertUnwindSafe(|| world(seed))).is_err() {
            panic!("rerun: {name}={seed} cargo test --test {test}");
        }
    }
}

/// Changes `bytes` in one to four places, in the ways that parsers get wrong.
pub fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.between(1, 4) {
        let length = bytes.len() as u64;
        let mut place = || usize::try_from(rng.between(0, length)).unwrap();
        let (one, other) = (place(), place());
        let (from, to) = (one.min(other), one.max(other));
        match rng.between(0, 8) {
            0 => {
                if let Some(byte) = bytes.get_mut(from) {
                    *byte = u8::try_from(rng.between(0, 255)).unwrap();
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(from) {
                    *byte ^= 1 << rng.between(0, 7);
                }
            }
            2 => bytes.insert(from, u8::try_from(rng.between(0, 255)).unwrap()),
            3 => {
                bytes.splice(from..from, rng.pick(TOKENS).iter().copied());
            }
            4 => {
                bytes.splice(from..to, rng.pick(TOKENS).iter().copied());
            }
            5 => drop(bytes.drain(from..to)),
            6 => bytes.truncate(to),
            7 => {
                let copy = bytes[from..to].to_vec();
                bytes.splice(to..to, copy);
            }
            _ => {
                // A line twice, or one fewer.
                let line = bytes[..from].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                let end = bytes[from..].iter().position(|b| *b == b'\n');
                let end = end.map_or(bytes.len(), |at| from + at + 1);
                let copy = bytes[line..end].to_vec();
                let twice = if rng.percent(50) { copy.repeat(2) } else { Vec::new() };
                bytes.splice(line..end, twice);
            }
        }
    }
}

const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"/",
    b"?",
    b"%",
    b"%00",
    b"%2f..%2f",
    b"\xff\xfe",
    "\u{e9}".as_bytes(),
    b"0",
    b"ffffffffffffffff",
    b"-1",
    b"99999999999999999999",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 6291456\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"0\r\n\r\n",
    b"{\"a\":[",
    b"\"",
];
