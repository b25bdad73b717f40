//! A native worker on the SDK that writes its reply bit by bit, as its event says: `bits` are written
//! and flushed one by one, after the first of them `gate` is waited for, then come `n` bytes, and an
//! error if there is `error`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Write;

use hob::handler::{Failure, run_streams};
use serde_json::Value;

fn main() -> std::io::Result<()> {
    run_streams(|event, _context, reply| {
        let event: Value = serde_json::from_slice(event)?;
        if let Some(kind) = event["type"].as_str() {
            reply.content_type(kind)?;
        }
        for (n, bit) in event["bits"].as_array().into_iter().flatten().enumerate() {
            write!(reply, "{}", bit.as_str().unwrap())?;
            if event["gate"].is_string() {
                reply.flush()?;
            }
            if let (0, Some(gate)) = (n, event["gate"].as_str()) {
                std::fs::read(gate)?;
            }
        }
        let rest = vec![b'x'; usize::try_from(event["n"].as_u64().unwrap_or(0))?];
        reply.write_all(&rest)?;
        match event["error"].as_str() {
            Some(error) => Err(Failure::new(error, "halfway")),
            None => Ok(()),
        }
    })
}
