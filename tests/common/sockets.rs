//! How much of what a connection received its owner has not read yet, as the kernel tells.
//!
//! Tests that cut a stream into pieces wait for this, so that the pieces come in separate reads.

use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// A netlink message's header.
const HEADER: usize = 16;
/// Where `idiag_rqueue` stands: behind family, state and timer, the socket's id, the expiry.
const RECEIVED_AT: usize = HEADER + 4 + 48 + 4;

/// Bytes that the socket `local`, connected to `remote`, has received and its owner has not read.
/// A socket that is gone has nothing left to read.
pub fn unread(local: SocketAddr, remote: SocketAddr) -> usize {
    let (SocketAddr::V4(local), SocketAddr::V4(remote)) = (local, remote) else {
        panic!("tests use IPv4");
    };
    thread_local! {
        // Emulated kernels have no such protocol; the table of all sockets is slow, but there.
        static DIAG: Option<OwnedFd> = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(SOCK_DIAG),
        )
        .ok();
    }
    DIAG.with(|diag| match diag {
        Some(diag) => ask(diag, local, remote),
        None => look_up(local, remote),
    })
}

fn ask(diag: &OwnedFd, local: SocketAddrV4, remote: SocketAddrV4) -> usize {
    let mut question = Vec::new();
    let (inet, tcp, every_state, any) = (2, 6, u32::MAX, u32::MAX);
    question.extend([inet, tcp, 0, 0]);
    question.extend(every_state.to_ne_bytes());
    question.extend(local.port().to_be_bytes());
    question.extend(remote.port().to_be_bytes());
    for address in [local, remote] {
        question.extend(address.ip().octets());
        question.extend([0; 12]);
    }
    let (interface, cookie) = (0u32, [any, any]);
    question.extend(interface.to_ne_bytes());
    question.extend(cookie.map(u32::to_ne_bytes).concat());
    let length = u32::try_from(HEADER + question.len()).unwrap();
    let (serial, from) = (1u32, 0u32);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend(serial.to_ne_bytes());
    message.extend(from.to_ne_bytes());
    message.extend(question);
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(diag, &message, SendFlags::empty(), &kernel).unwrap();
    let mut answer = [0; 1024];
    rustix::net::recv(diag, &mut answer, RecvFlags::empty()).unwrap();
    if u16::from_ne_bytes([answer[4], answer[5]]) == ERROR {
        return 0;
    }
    let received = answer[RECEIVED_AT..RECEIVED_AT + 4].try_into().unwrap();
    usize::try_from(u32::from_ne_bytes(received)).unwrap()
}

fn look_up(local: SocketAddrV4, remote: SocketAddrV4) -> usize {
    let name = |address: SocketAddrV4| {
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
    };
    let pair = format!(" {} {} ", name(local), name(remote));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().find_map(|row| row.split_once(&pair));
    row.map_or(0, |(_, rest)| {
        let queue = rest.split(' ').nth(1).and_then(|queues| queues.split_once(':')).unwrap().1;
        usize::from_str_radix(queue, 16).unwrap()
    })
}

#[test]
fn both_ways_of_asking_agree() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut one = std::net::TcpStream::connect(address).unwrap();
    let (mut other, _) = listener.accept().unwrap();
    let (SocketAddr::V4(v4), SocketAddr::V4(from)) = (address, one.local_addr().unwrap()) else {
        panic!("IPv4");
    };
    let both = || (unread(address, from.into()), look_up(v4, from));
    assert_eq!(both(), (0, 0));
    one.write_all(b"12345").unwrap();
    assert_eq!(both(), (5, 5));
    other.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(both(), (2, 2));
    drop((one, other));
    assert_eq!(unread("127.0.0.1:1".parse().unwrap(), from.into()), 0);
}
