//! Messages with descriptors in them, between a server and its successor.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Descriptors in one message.
pub const PASSED_MAX: usize = 4;

/// Two ends that keep messages apart and tell the end of the other side.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)
}

/// Sends a message, which must not be empty, or nothing at all: it does not wait.
pub fn send(socket: impl AsFd, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED_MAX))];
    let mut passed = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !passed.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut passed, flags).map(drop)
}

/// Takes the next message, if it is there: its length in `message`, 0 at the end, and the
/// descriptors in it.
pub fn receive(socket: impl AsFd, message: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED_MAX))];
    let mut passed = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(message)], &mut passed, flags)?;
    let mut descriptors = Vec::new();
    for part in passed.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = part {
            descriptors.extend(some);
        }
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn messages_carry_descriptors_and_end_with_their_sender() {
        let (here, there) = pair().expect("a pair");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        send(&here, b"first", &[writer.as_fd()]).expect("sent");
        send(&here, b"second", &[]).expect("sent");
        drop((here, writer));
        let mut message = [0; 16];
        let (length, mut passed) = receive(&there, &mut message).expect("there");
        assert_eq!((&message[..length], passed.len()), (&b"first"[..], 1));
        let mut copy = std::fs::File::from(passed.remove(0));
        copy.write_all(b"x").expect("written");
        drop(copy);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).expect("read");
        assert_eq!(text, "x");
        let (length, passed) = receive(&there, &mut message).expect("there");
        assert_eq!((&message[..length], passed.len()), (&b"second"[..], 0));
        assert_eq!(receive(&there, &mut message).expect("the end").0, 0);
    }

    #[test]
    fn nobody_waits() {
        let (here, there) = pair().expect("a pair");
        assert_eq!(receive(&there, &mut [0; 4]).expect_err("nothing there"), Errno::AGAIN);
        let full = (0..100_000).find_map(|_| send(&here, b"x", &[]).err());
        assert_eq!(full, Some(Errno::AGAIN));
        drop(there);
        // The first word is of what was not read.
        let gone = [send(&here, b"x", &[]), send(&here, b"x", &[])];
        assert_eq!(gone, [Err(Errno::CONNRESET), Err(Errno::PIPE)]);
    }
}
