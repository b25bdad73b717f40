//! The device's program: core, a fixed buffer and a line, as on a microcontroller. Its UART takes
//! the place of `T`, a pin that of `Light`.

use core::fmt::Write as _;

use embedded_io::{Read, Write};
use hob::wire::serial::{Client, Failure, Reason};

/// What the device shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Light {
    /// The function was run.
    Green,
    /// Not now: press again.
    Yellow,
    /// Something is to be repaired.
    Red,
}

/// A button that invokes a function.
pub struct Button<'a, T> {
    client: Client<'a, T>,
    function: &'a str,
    presses: u32,
}

impl<'a, T: Read + Write> Button<'a, T> {
    pub fn new(client: Client<'a, T>, function: &'a str) -> Button<'a, T> {
        Button { client, function, presses: 0 }
    }

    /// The light after a press, and the reply if there is one.
    pub fn pressed<'b>(&mut self, buffer: &'b mut [u8]) -> (Light, &'b [u8]) {
        self.presses = self.presses.wrapping_add(1);
        let mut event = heapless::String::<32>::new();
        if write!(event, "{{\"presses\":{}}}", self.presses).is_err() {
            return (Light::Red, b"the event is too long");
        }
        match self.client.call(self.function, event.as_bytes(), buffer) {
            Ok(reply) => (Light::Green, reply),
            Err(Failure::Function(error)) => (Light::Red, error),
            Err(Failure::Refused(Reason::Throttled | Reason::Stopping)) => (Light::Yellow, b"busy"),
            Err(Failure::Refused(_)) => (Light::Red, b"refused"),
            Err(Failure::NoAnswer) => (Light::Yellow, b"no answer"),
            Err(Failure::Line(_)) => (Light::Red, b"the line failed"),
            Err(Failure::TooLong) => (Light::Red, b"the event is too long"),
        }
    }
}
