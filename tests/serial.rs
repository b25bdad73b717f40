//! A serial line as it is: the example on a pseudo terminal whose other end answers badly at first,
//! and mutated bytes.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use common::{example, seeds};
use hob::wire::serial::{Client, Decoder, FromHost, Reason, ToHost, decode, encode, encoded_size};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

fn frame(message: &FromHost, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; encoded_size(payload.len())];
    let length = encode(message, payload, &mut out).unwrap();
    out.truncate(length);
    out
}

/// A host that answers each call badly until it was sent for the third time. Returns what was
/// invoked, when the device hangs up.
fn host(mut line: File) -> Vec<(String, String)> {
    let mut decoder = Decoder::new();
    let mut buffer = [0; 512];
    let mut invoked: Vec<(String, String)> = Vec::new();
    let (mut last, mut sent) = (None, 0);
    let mut byte = [0];
    while line.read(&mut byte).is_ok_and(|n| n > 0) {
        let Some(length) = decoder.feed(byte[0], &mut buffer).unwrap() else { continue };
        let (ToHost::Call { id, reply_max, function }, event) = decode(&buffer[..length]).unwrap();
        assert_eq!(reply_max, 246);
        let event = String::from_utf8(event.to_vec()).unwrap();
        if last != Some(id) {
            assert!(last.is_none_or(|last: u32| last.wrapping_add(1) == id));
            (last, sent) = (Some(id), 0);
            invoked.push((function.to_owned(), event.clone()));
        }
        sent += 1;
        let answer = match invoked.len() {
            1 | 2 => frame(&FromHost::Reply { id }, event.as_bytes()),
            3 => frame(&FromHost::Error { id }, b"{\"errorType\":\"E\"}"),
            _ => frame(&FromHost::Refused { id, reason: Reason::Throttled }, b""),
        };
        let mut garbled = answer.clone();
        garbled[9] ^= 1;
        let bytes: &[u8] = match sent {
            1 => &garbled,
            // Noise, an answer to an earlier call, and half of this one's.
            2 => &[b"\x17\xff~", &*frame(&FromHost::Reply { id: id - 1 }, b"0"), &answer[..6]]
                .concat(),
            _ => &answer,
        };
        // The third call's answer is never garbled: one that is in order costs nothing.
        line.write_all(if invoked.len() == 3 { &answer } else { bytes }).unwrap();
    }
    invoked
}

#[test]
fn a_button_on_a_bad_line_gets_its_answers() {
    let end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&end).unwrap();
    unlockpt(&end).unwrap();
    let path = ptsname(&end, Vec::new()).unwrap();
    let mut device = Command::new(example("serial-button"))
        .arg(std::ffi::OsStr::from_bytes(path.as_bytes()))
        .arg("lamp")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let host = std::thread::spawn(|| host(File::from(end)));
    device.stdin.take().unwrap().write_all(b"\n\n\n\n").unwrap();
    let said = device.wait_with_output().unwrap();
    assert!(said.status.success());
    let lines = [
        "Green {\"presses\":1}",
        "Green {\"presses\":2}",
        "Red {\"errorType\":\"E\"}",
        "Yellow busy\n",
    ];
    assert_eq!(String::from_utf8(said.stdout).unwrap(), lines.join("\n"));
    // However often they were sent.
    let events = (1..5).map(|n| ("lamp".to_owned(), format!("{{\"presses\":{n}}}")));
    assert_eq!(host.join().unwrap(), events.collect::<Vec<_>>());
}

/// A line that says what it was given, and swallows what it is told.
struct Recorded<'a>(&'a [u8]);

impl embedded_io::ErrorType for Recorded<'_> {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Read for Recorded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        embedded_io::Read::read(&mut self.0, buffer).map_err(|never| match never {})
    }
}

impl embedded_io::Write for Recorded<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[test]
fn mutated_bytes_are_refused_or_understood_and_the_next_frame_is_heard() {
    seeds::run("SERIAL_SEED", "serial", 5_000, |seed| {
        let mut rng = seeds::Rng::new(seed);
        let length = usize::try_from(rng.between(0, 300)).unwrap();
        let fill = u8::try_from(rng.between(0, 255)).unwrap();
        let payload = vec![fill; length];
        let id = 7;
        let mut bytes = match rng.between(0, 3) {
            0 => frame(&FromHost::Error { id }, &payload),
            1 => frame(&FromHost::Refused { id, reason: Reason::Internal }, b""),
            2 => {
                let mut out = vec![0; encoded_size(length)];
                let call = ToHost::Call { id, reply_max: 300, function: "lamp:1" };
                let length = encode(&call, &payload, &mut out).unwrap();
                out.truncate(length);
                out
            }
            _ => frame(&FromHost::Reply { id }, &payload),
        };
        seeds::mutate(&mut rng, &mut bytes);
        // Both directions, and what is inside a frame without the checksum's protection.
        let _ = decode::<ToHost<'_>>(&bytes);
        let _ = decode::<FromHost>(&bytes);
        let mut out = [0; encoded_size(2)];
        let room = usize::try_from(rng.between(0, 320)).unwrap();
        let mut buffer = vec![0; room];
        let _ = Client::new(Recorded(&bytes), &mut out, id).call("lamp", b"{}", &mut buffer);

        let next = frame(&FromHost::Reply { id: 8 }, b"{}");
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; room.max(8)];
        let mut last = None;
        for byte in bytes.iter().chain(&next) {
            match decoder.feed(*byte, &mut buffer) {
                Ok(None) => {}
                Ok(Some(length)) => {
                    last = Some(decode::<FromHost>(&buffer[..length]).map(|(m, p)| (m, p.to_vec())))
                }
                Err(error) => last = Some(Err(error)),
            }
        }
        assert_eq!(last, Some(Ok((FromHost::Reply { id: 8 }, b"{}".to_vec()))));
    });
}
