//! The Lambda Runtime API and the Extensions API, as unmodified clients use them: recorded
//! connections replayed by real workers, and every rule of the protocol one by one.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;
#[path = "handlers/recorded.rs"]
mod recorded;
#[path = "runtime_api/replay.rs"]
mod replay;
#[path = "runtime_api/stream.rs"]
mod stream;
#[path = "runtime_api/workers.rs"]
mod workers;
