//! Waiting for descriptors, time and signals on one thread: the ground under the host.
//!
//! `smol` brings the executor and the futures; the reactor here replaces `async-io` in the server
//! because it registers a descriptor once (edge-triggered) instead of re-arming it at every wait,
//! and needs no second thread. ARCHITECTURE.md has the figures.

pub mod buffer;
pub mod clock;
pub mod pass;
pub mod reactor;
pub mod signal;
pub mod text;

pub use buffer::{Buffer, Buffers};
pub use clock::Clock;
pub use reactor::{Io, Reactor};
pub use text::{Put, Text};
