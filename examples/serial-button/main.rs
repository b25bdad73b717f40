//! A button on a serial line: every line of standard input is a press.
//!
//!     serial-button /dev/ttyUSB0 FUNCTION
//!
//! `button.rs` is what a microcontroller runs; here is the machine around it, as Linux has it.

// The program has only core, as on a device; the machine around it names std.
#![no_std]

extern crate std;

mod button;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::string::String;

use button::Button;
use embedded_io::{ErrorKind, ErrorType, Read, Write};
use hob::wire::serial::{Client, encoded_size};
use rustix::termios::{OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

/// The line, with reads that end after half a second without a byte.
struct Line(File);

impl Line {
    fn open(path: &str) -> std::io::Result<Line> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut settings = tcgetattr(&file)?;
        settings.make_raw();
        settings.set_speed(115_200)?;
        settings.special_codes[SpecialCodeIndex::VMIN] = 0;
        settings.special_codes[SpecialCodeIndex::VTIME] = 5;
        tcsetattr(&file, OptionalActions::Flush, &settings)?;
        Ok(Line(file))
    }
}

impl ErrorType for Line {
    type Error = ErrorKind;
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.0.read(buffer).map_err(|_| ErrorKind::Other)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.write(bytes).map_err(|_| ErrorKind::Other)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(function)) = (arguments.next(), arguments.next()) else {
        std::eprintln!("usage: serial-button DEVICE FUNCTION");
        std::process::exit(2);
    };
    let mut random = [0; 4];
    File::open("/dev/urandom")?.read_exact(&mut random)?;

    let (mut out, mut reply) = ([0; encoded_size(32)], [0; 256]);
    let client = Client::new(Line::open(&path)?, &mut out, u32::from_le_bytes(random));
    // Each time 10 silences of half a second: 15 s, for functions that take up to 10.
    let mut button = Button::new(client.with_patience(3, 10), &function);
    for press in std::io::stdin().lines() {
        press?;
        let (light, text) = button.pressed(&mut reply);
        std::println!("{light:?} {}", String::from_utf8_lossy(text));
    }
    Ok(())
}
