//! Accepting connections, never more than a fixed number, and ending those that take too long.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketAddrAny, SocketFlags};
use smol::LocalExecutor;

use super::connection::{Connection, Peer};
use super::reply::ReplyHead;
use crate::io::reactor::Interest;
use crate::io::{Buffers, Io, Reactor};
use crate::limits::{ACCEPT_PAUSE_MS, SWEEP_MS};
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
}

/// The connections of one or more listeners.
pub struct Peers {
    pub(super) buffers: Rc<Buffers>,
    pub(super) limits: Limits,
    reactor: Rc<Reactor>,
    peers: RefCell<Vec<Option<Rc<Peer>>>>,
    unused: RefCell<Vec<u32>>,
    count: Cell<usize>,
    sweeping: Cell<bool>,
}

impl Peers {
    /// No connections yet.
    pub fn new(reactor: &Rc<Reactor>, buffers: &Rc<Buffers>, limits: Limits) -> Rc<Peers> {
        Rc::new(Peers {
            buffers: Rc::clone(buffers),
            limits,
            reactor: Rc::clone(reactor),
            peers: RefCell::default(),
            unused: RefCell::default(),
            count: Cell::new(0),
            sweeping: Cell::new(false),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    fn add(self: &Rc<Self>, io: Io<OwnedFd>, source: Option<IpAddr>) -> Connection {
        let deadline = self.reactor.now().after_ms(self.limits.head_ms);
        let peer = Rc::new(Peer { io, deadline: Cell::new(deadline), idle: Cell::new(false) });
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

    /// Ends all idle connections, and every other one with its present request: for drain.
    pub fn end_all_idle(&self) {
        while self.end_idle() {}
    }

    /// Ends connections at their deadlines, as long as there are connections.
    async fn sweep(&self) {
        while self.count.get() > 0 {
            let now = self.reactor.now();
            let mut nearest = now.after_ms(SWEEP_MS);
            for peer in self.peers.borrow().iter().flatten() {
                let deadline = peer.deadline.get();
                if deadline <= now {
                    end(peer);
                    peer.deadline.set(Instant::NEVER);
                } else {
                    nearest = nearest.min(deadline);
                }
            }
            self.reactor.sleep_until(nearest).await;
        }
        self.sweeping.set(false);
    }
}

/// Its task reads the end and goes by itself.
fn end(peer: &Peer) {
    if let Err(error) = rustix::net::shutdown(peer.io.get(), Shutdown::Both) {
        log::debug!("shut down a connection: {error}");
    }
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
                    if let Some(connection) = self.admit(socket, address) {
                        self.keep_sweeping(executor);
                        executor.spawn(serve(connection)).detach();
                    }
                }
                Err(error) if error.raw_os_error() == Some(Errno::CONNABORTED.raw_os_error()) => {}
                Err(error) => {
                    log::warn!("accept a connection: {error}");
                    self.io.reactor().sleep_ms(ACCEPT_PAUSE_MS).await;
                }
            }
        }
    }

    fn admit(&self, socket: OwnedFd, address: Option<SocketAddrAny>) -> Option<Connection> {
        let source = address
            .and_then(|address| std::net::SocketAddr::try_from(address).ok())
            .map(|address| address.ip());
        let full = self.peers.count.get() >= self.peers.limits.connections;
        if full && !self.peers.end_idle() {
            let head = ReplyHead::new(503).field("Retry-After", 1).closing(true).body(0);
            // One try: who does not take it at once does not get it.
            let _ = rustix::io::write(&socket, head.bytes());
            return None;
        }
        match Io::new(self.io.reactor(), socket) {
            Ok(io) => Some(self.peers.add(io, source)),
            Err(error) => {
                log::warn!("register a connection: {error}");
                None
            }
        }
    }

    fn keep_sweeping<'a>(&self, executor: &LocalExecutor<'a>) {
        if !self.peers.sweeping.replace(true) {
            let peers = Rc::clone(&self.peers);
            executor.spawn(async move { peers.sweep().await }).detach();
        }
    }
}
