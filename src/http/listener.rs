//! Accepting connections, never more than a fixed number, and ending those that take too long.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags};
use smol::LocalExecutor;

use super::connection::{Connection, Peer};
use super::reply::{Opening, ReplyHead};
use crate::io::reactor::Interest;
use crate::io::{Buffers, Io, Reactor, Text};
use crate::limits::{ACCEPT_PAUSE_MS, DRAIN_MS, REPLIED_LOOK_MS, TURNED_AWAY_MAX};
use crate::pool::Instant;

/// What a listener grants its connections. Times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Bytes of a request head.
    pub head_max: usize,
    /// From the first byte of a head to its last.
    pub head_ms: u32,
    /// Between two requests.
    pub idle_ms: u32,
    /// Their bodies leave some of the memory of all buffers to others.
    pub modest: bool,
}

/// The connections of one or more listeners.
pub struct Peers {
    pub(super) buffers: Rc<Buffers>,
    pub(super) limits: Limits,
    /// Where heads of replies are written, one after the other.
    pub(super) head: Cell<Text>,
    /// Their first lines.
    pub(super) opening: Opening,
    pub(super) reactor: Rc<Reactor>,
    pub(super) peers: RefCell<Vec<Option<Rc<Peer>>>>,
    unused: RefCell<Vec<u32>>,
    count: Cell<usize>,
    /// Clients beyond the limit that are just being told so.
    turned_away: Cell<usize>,
    sweeping: Cell<bool>,
    /// They are being handed over to another server.
    pub(super) leaving: Cell<bool>,
    /// When the sweeper looks next.
    next_look: Cell<Instant>,
    sweeper: Cell<Option<Waker>>,
}

impl Peers {
    /// No connections yet.
    pub fn new(reactor: &Rc<Reactor>, buffers: &Rc<Buffers>, limits: Limits) -> Rc<Peers> {
        Rc::new(Peers {
            buffers: Rc::clone(buffers),
            limits,
            head: Cell::default(),
            opening: Opening::default(),
            reactor: Rc::clone(reactor),
            peers: RefCell::default(),
            unused: RefCell::default(),
            count: Cell::new(0),
            turned_away: Cell::new(0),
            sweeping: Cell::new(false),
            leaving: Cell::new(false),
            next_look: Cell::new(Instant::NEVER),
            sweeper: Cell::default(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Lets a connection in, if there is room for one more.
    pub(super) fn admit(
        self: &Rc<Self>,
        executor: &LocalExecutor<'_>,
        socket: OwnedFd,
        source: Option<IpAddr>,
    ) -> Option<Connection> {
        let io = match Io::new(&self.reactor, socket) {
            Ok(io) => io,
            Err(error) => {
                log::warn!("register a connection: {error}");
                return None;
            }
        };
        let full = self.count.get() >= self.limits.connections;
        if !full || self.end_idle() {
            self.keep_sweeping(executor);
            return Some(self.add(io, source));
        }
        let peers = Rc::clone(self);
        // Beyond these few, the end alone says it.
        if peers.turned_away.get() < TURNED_AWAY_MAX {
            peers.turned_away.set(peers.turned_away.get() + 1);
            let task = async move {
                turn_away(&peers, io).await;
                peers.turned_away.set(peers.turned_away.get() - 1);
            };
            executor.spawn(task).detach();
        }
        None
    }

    fn keep_sweeping(self: &Rc<Self>, executor: &LocalExecutor<'_>) {
        if !self.sweeping.replace(true) {
            let peers = Rc::clone(self);
            executor.spawn(async move { peers.sweep().await }).detach();
        }
    }

    fn add(self: &Rc<Self>, io: Io<OwnedFd>, source: Option<IpAddr>) -> Connection {
        let deadline = self.reactor.now().after_ms(self.limits.head_ms);
        self.note(deadline);
        let peer = Rc::new(Peer {
            io,
            deadline: Cell::new(deadline),
            idle: Cell::new(false),
            fresh: Cell::new(true),
            replying: Cell::new(false),
            asking: Cell::new(true),
            handed_over: Cell::new(false),
        });
        let mut peers = self.peers.borrow_mut();
        let index = self.unused.borrow_mut().pop().unwrap_or_else(|| {
            peers.push(None);
            u32::try_from(peers.len() - 1).expect("fewer connections than that")
        });
        peers[index as usize] = Some(Rc::clone(&peer));
        self.count.set(self.count.get() + 1);
        Connection::new(peer, Rc::clone(self), index, source)
    }

    pub(super) fn remove(&self, index: u32) {
        self.peers.borrow_mut()[index as usize] = None;
        self.unused.borrow_mut().push(index);
        self.count.set(self.count.get() - 1);
    }

    /// Ends the connection that has been idle for the longest time; false if none is idle.
    fn end_idle(&self) -> bool {
        let peers = self.peers.borrow();
        let idle = peers.iter().flatten().filter(|peer| peer.idle.get());
        let Some(oldest) = idle.min_by_key(|peer| peer.deadline.get()) else { return false };
        oldest.idle.set(false);
        end(oldest);
        true
    }

    /// Ends all connections that idle between two requests: for drain. The others end with their
    /// present request, or with the first that they were opened for.
    pub fn end_all_idle(&self) {
        let peers = self.peers.borrow();
        for peer in peers.iter().flatten().filter(|peer| peer.idle.get() && !peer.fresh.get()) {
            peer.idle.set(false);
            end(peer);
        }
    }

    /// Waits until no client is in the middle of a reply: for the end of the server, which would
    /// cut it off.
    pub async fn replied(&self) {
        while self.peers.borrow().iter().flatten().any(|peer| peer.replying.get()) {
            self.reactor.sleep_ms(REPLIED_LOOK_MS).await;
        }
    }

    /// Takes note of a deadline: the sweeper looks then, if not before.
    pub(super) fn note(&self, deadline: Instant) {
        if deadline < self.next_look.get() {
            self.next_look.set(deadline);
            if let Some(waker) = self.sweeper.take() {
                waker.wake();
            }
        }
    }

    /// Ends connections at their deadlines, for ever. A deadline that was put off is found out at
    /// the look that it asked for: one look too early, now and then, costs less than a timer for
    /// each request.
    async fn sweep(&self) {
        loop {
            let look = self.next_look.get();
            let earlier = poll_fn(|cx| {
                if self.next_look.get() < look {
                    return Poll::Ready(());
                }
                self.sweeper.set(Some(cx.waker().clone()));
                Poll::Pending
            });
            if look == Instant::NEVER {
                earlier.await;
            } else {
                smol::future::or(earlier, self.reactor.sleep_until(look)).await;
            }
            if self.next_look.get() <= self.reactor.now() {
                self.end_due();
            }
        }
    }

    fn end_due(&self) {
        let now = self.reactor.now();
        let mut nearest = Instant::NEVER;
        for peer in self.peers.borrow().iter().flatten() {
            let deadline = peer.deadline.get();
            if deadline <= now {
                end(peer);
                peer.deadline.set(Instant::NEVER);
            } else {
                nearest = nearest.min(deadline);
            }
        }
        self.next_look.set(nearest);
    }
}

/// Its task reads the end and goes by itself, as its next turn.
fn end(peer: &Peer) {
    if let Err(error) = rustix::net::shutdown(peer.io.get(), Shutdown::Both) {
        log::debug!("shut down a connection: {error}");
    }
    peer.io.give_up();
}

/// Tells a client that there is no room, and stays until it has read that.
async fn turn_away(peers: &Peers, io: Io<OwnedFd>) {
    let told = {
        let unix_ms = peers.reactor.unix_ms();
        let head = ReplyHead::new(Text::default(), 503, &peers.opening, unix_ms);
        let head = head.field("Retry-After", "1").closing().body(0);
        io.try_write(&head.parts().map(IoSlice::new))
    };
    if told.is_err() || rustix::net::shutdown(io.get(), Shutdown::Write).is_err() {
        return;
    }
    let until = io.reactor().now().after_ms(DRAIN_MS);
    let ended = async {
        let mut sink = Vec::with_capacity(1024);
        while let Ok(1..) = io.receive_into(&mut sink).await {
            sink.clear();
            io.reactor().give_way().await;
        }
    };
    io.reactor().by(until, ended).await;
}

/// A listening socket, TCP or Unix.
pub struct Listener {
    io: Io<OwnedFd>,
    peers: Rc<Peers>,
}

impl Listener {
    /// Listens on `socket`, which is bound, listening and non-blocking.
    pub fn new(
        reactor: &Rc<Reactor>,
        socket: OwnedFd,
        peers: &Rc<Peers>,
    ) -> std::io::Result<Listener> {
        Ok(Listener { io: Io::new(reactor, socket)?, peers: Rc::clone(peers) })
    }

    /// Accepts for ever, handing each connection to a task made by `serve`.
    pub async fn run<'a, F>(&self, executor: &LocalExecutor<'a>, serve: impl Fn(Connection) -> F)
    where
        F: Future<Output = ()> + 'a,
    {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let accept = |fd: &OwnedFd| rustix::net::acceptfrom_with(fd, flags);
            match self.io.run(Interest::Read, accept).await {
                Ok((socket, address)) => {
                    let source = address
                        .and_then(|address| std::net::SocketAddr::try_from(address).ok())
                        .map(|address| address.ip());
                    if let Some(connection) = self.peers.admit(executor, socket, source) {
                        executor.spawn(serve(connection)).detach();
                    }
                    // In a crowd, each one is looked at before the next one is let in: until then
                    // it is not idle, and those that were ended for it are not gone.
                    smol::future::yield_now().await;
                }
                Err(error) if error.raw_os_error() == Some(Errno::CONNABORTED.raw_os_error()) => {}
                Err(error) => {
                    log::warn!("accept a connection: {error}");
                    self.io.reactor().sleep_ms(ACCEPT_PAUSE_MS).await;
                }
            }
        }
    }

    /// Accepts no more, and closes the socket here: it lives on in another process.
    pub fn leave(&self) {
        self.io.leave();
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.io.get().as_fd()
    }
}
