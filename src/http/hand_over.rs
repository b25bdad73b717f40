//! Connections that go from one server to the next without their clients' knowledge: between two
//! requests, all that there is of one is its socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::AddressFamily;
use smol::LocalExecutor;

use super::connection::{Connection, Peer};
use super::listener::Peers;
use crate::io::reactor::Interest;
use crate::io::{Io, pass};
use crate::limits::HAND_OVER_LOOK_MS;
use crate::pool::Instant;

/// The message that a connection goes with: one that is empty would be the end.
const CONNECTION: &[u8] = b"connection";

impl Peers {
    /// From here on, no connection reads a request that had not begun.
    pub fn leave(&self) {
        self.leaving.set(true);
    }

    /// Hands each connection over as soon as it idles between two requests, until there are none.
    /// An error: nobody takes them any more, and those that are left stay here.
    pub async fn hand_over(&self, channel: &Io<OwnedFd>) -> io::Result<()> {
        while self.count() > 0 {
            let idle = self.peers.borrow().iter().flatten().find(|peer| peer.idle.get()).cloned();
            let Some(peer) = idle else {
                self.reactor.sleep_ms(HAND_OVER_LOOK_MS).await;
                continue;
            };
            let socket = peer.io.get();
            let sent = channel.attempt(Interest::Write, |channel| {
                pass::send(channel, CONNECTION, &[socket.as_fd()])
            });
            match sent {
                Ok(Some(())) => peer.hand_over(),
                Ok(None) => channel.ready(Interest::Write).await,
                // So many are on their way at one time, and no more.
                Err(error) if error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error()) => {
                    self.reactor.sleep_ms(HAND_OVER_LOOK_MS).await;
                }
                Err(error) => {
                    self.leaving.set(false);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// True while a client is sending a request that is going to be served here.
    pub fn are_asking(&self) -> bool {
        self.peers.borrow().iter().flatten().any(|peer| peer.asking.get())
    }

    /// Takes over what another server hands over, until that has ended.
    pub async fn take_over<'a, F>(
        self: &Rc<Self>,
        executor: &LocalExecutor<'a>,
        channel: &Io<OwnedFd>,
        serve: impl Fn(Connection) -> F,
    ) where
        F: Future<Output = ()> + 'a,
    {
        let mut message = [0; 16];
        loop {
            let receive = |channel: &OwnedFd| pass::receive(channel, &mut message);
            let sockets = match channel.run(Interest::Read, receive).await {
                Ok((0, _)) => return,
                Ok((_, sockets)) => sockets,
                Err(error) => {
                    log::warn!("take connections over: {error}");
                    return;
                }
            };
            for socket in sockets {
                let Ok(source) = source(&socket) else { continue };
                if let Some(connection) = self.admit(executor, socket, source) {
                    executor.spawn(serve(connection)).detach();
                }
            }
        }
    }
}

impl Peer {
    /// Its task learns of it at its next turn, before it reads anything. Until then the sweeper
    /// must not end what is another server's.
    fn hand_over(&self) {
        self.handed_over.set(true);
        self.idle.set(false);
        self.deadline.set(Instant::NEVER);
        self.io.leave();
    }
}

/// Who is at the other end; `None` on a Unix socket. One that nobody is at must not pass for that.
fn source(socket: &OwnedFd) -> io::Result<Option<IpAddr>> {
    if rustix::net::sockopt::socket_domain(socket)? == AddressFamily::UNIX {
        return Ok(None);
    }
    let address = rustix::net::getpeername(socket)?.ok_or(Errno::NOTCONN)?;
    Ok(Some(SocketAddr::try_from(address)?.ip()))
}
