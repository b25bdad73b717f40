//! Workers that poll the AWS Lambda Runtime API: the listener, and one seat for each worker.
//!
//! One listening socket serves all of them. Each worker is told an address of its own in
//! 127.0.0.0/8, and the address that a connection came in on says whose it is; ports and paths
//! cannot do that, since runtime clients take `host:port` and nothing else. A request belongs to
//! the worker and never to the connection it came on: clients open several and poll on any.

mod calls;
mod extension;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use crate::host::Host;
use crate::host::settle::Reply;
use crate::host::worker::Worker;
use crate::http::listener::{Limits, Peers};
use crate::http::{Connection, Listener};
use crate::limits::{
    EXTENSION_CONNECTIONS_MAX, EXTENSIONS_MAX, HEAD_MS, RUNTIME_CONNECTIONS_MAX, RUNTIME_HEAD_MAX,
};
use crate::pool::{InvocationId, WorkerId};
use extension::{Extension, invoke_event};

/// The Runtime API's listener, once there is need for one.
#[derive(Default)]
pub struct Api {
    port: Cell<Option<u16>>,
}

impl Api {
    /// The address that the worker `id` is to poll. Starts the listener with the first call.
    pub fn address(&self, host: &Rc<Host>, id: WorkerId) -> std::io::Result<SocketAddrV4> {
        let port = match self.port.get() {
            Some(port) => port,
            None => {
                let port = listen(host)?;
                self.port.set(Some(port));
                port
            }
        };
        Ok(SocketAddrV4::new(address(id), port))
    }
}

/// Slots in the third and fourth byte, generations in the second: what a worker left behind does
/// not poll in the name of the next one.
fn address(id: WorkerId) -> Ipv4Addr {
    const PER_BYTE: u16 = 250;
    let byte = |n: u32| u8::try_from(n).expect("below 256");
    let generation = byte(64 + id.generation % 128);
    let (high, low) = (id.slot / PER_BYTE, id.slot % PER_BYTE);
    Ipv4Addr::new(127, generation, byte(high.into()), byte(low.into()) + 1)
}

/// Listens on all of 127.0.0.0/8: a wildcard socket, tied to the loopback device.
fn listen(host: &Rc<Host>) -> std::io::Result<u16> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    if let Err(error) = socket.bind_device(Some(b"lo")) {
        // Before Linux 5.7 that takes a privilege. Whoever connects from elsewhere reaches no
        // worker's address, and is hung up on.
        log::debug!("tie the runtime API to the loopback device: {error}");
    }
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.listen(128)?;
    let port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
    let slots = host.look(|pool| pool.view().len());
    let limits = Limits {
        connections: usize::from(connections_max(EXTENSIONS_MAX)) * slots,
        head_max: RUNTIME_HEAD_MAX,
        head_ms: HEAD_MS,
        // A runtime may keep a connection idle while its handler runs: 15 minutes at the most.
        idle_ms: 1_000_000,
        modest: false,
    };
    let peers = Peers::new(&host.reactor, &host.buffers, limits);
    let listener = Listener::new(&host.reactor, socket.into(), &peers)?;
    let host = Rc::clone(host);
    let executor = Rc::clone(&host.executor);
    let accept = async move {
        listener.run(&host.executor, |connection| serve(Rc::clone(&host), connection)).await;
    };
    executor.spawn(accept).detach();
    log::debug!("runtime API listens on 127.0.0.0/8 port {port}");
    Ok(port)
}

/// Connections of a worker with so many external extensions.
fn connections_max(extensions: usize) -> u8 {
    let extensions = u8::try_from(extensions).unwrap_or(u8::MAX);
    RUNTIME_CONNECTIONS_MAX.saturating_add(EXTENSION_CONNECTIONS_MAX.saturating_mul(extensions))
}

/// Serves one connection of whichever worker it belongs to.
async fn serve(host: Rc<Host>, connection: Connection) {
    let Some(worker) = caller(&host, &connection) else { return };
    let Some(_place) = Place::take(&worker) else { return };
    calls::serve(&host, &worker, connection).await;
}

/// One of the connections that a worker may have at one time: more of them would be taken from
/// the others.
struct Place(Weak<Worker>);

impl Place {
    fn take(worker: &Weak<Worker>) -> Option<Place> {
        let held = worker.upgrade()?;
        let seat = held.seat()?;
        if seat.connections.get() >= connections_max(held.version.extensions.len()) {
            log::warn!("function {}: a worker opens too many connections", held.version.name);
            return None;
        }
        seat.connections.set(seat.connections.get() + 1);
        Some(Place(Weak::clone(worker)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(worker) = self.0.upgrade()
            && let Some(seat) = worker.seat()
        {
            seat.connections.set(seat.connections.get() - 1);
        }
    }
}

/// The worker that polls the address on which this connection came in. Weak: a connection that
/// outlives its worker must not keep it.
fn caller(host: &Host, connection: &Connection) -> Option<Weak<Worker>> {
    let local = rustix::net::getsockname(connection.io().get()).ok()?;
    let SocketAddr::V4(local) = SocketAddr::try_from(local).ok()? else { return None };
    let worker = host.workers().into_iter().find(|worker| address(worker.id) == *local.ip())?;
    worker.seat().is_some().then(|| Rc::downgrade(&worker))
}

/// Where a worker stands in the Runtime API's state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has not asked for work yet.
    Init,
    /// It asks for work.
    Idle,
    /// It has an event and owes an answer.
    Running,
    /// Its answer is on its way, in pieces.
    Answering,
    /// It answered and has not asked for more.
    Answered,
}

/// One worker's side of the Runtime API.
pub struct Seat {
    phase: Cell<Phase>,
    /// The event that it runs.
    event: Cell<Option<InvocationId>>,
    /// The event is still to be handed out.
    pending: Cell<bool>,
    /// It asked for more before its answer was there.
    ahead: Cell<bool>,
    /// The pool knows that it is ready.
    told: Cell<bool>,
    /// No further event will come for the runtime.
    closing: Cell<bool>,
    /// Nor for anybody else: the worker is gone.
    over: Cell<bool>,
    extensions: RefCell<Vec<Extension>>,
    /// Its open connections.
    connections: Cell<u8>,
    /// Who waits for something to happen, each under a number of its own.
    parked: RefCell<Vec<(u32, Waker)>>,
    next_number: Cell<u32>,
}

impl Default for Seat {
    fn default() -> Seat {
        Seat {
            phase: Cell::new(Phase::Init),
            event: Cell::new(None),
            pending: Cell::new(false),
            ahead: Cell::new(false),
            told: Cell::new(false),
            closing: Cell::new(false),
            over: Cell::new(false),
            extensions: RefCell::default(),
            connections: Cell::new(0),
            parked: RefCell::default(),
            next_number: Cell::new(0),
        }
    }
}

impl Seat {
    /// Hands an event to the runtime, and word of it to the extensions.
    pub fn dispatch(&self, host: &Host, worker: &Worker, id: InvocationId) {
        self.event.set(Some(id));
        self.pending.set(true);
        self.announce(host, worker, id);
    }

    /// Tells the extensions of an event that the runtime gets.
    pub fn announce(&self, host: &Host, worker: &Worker, id: InvocationId) {
        self.phase.set(Phase::Running);
        self.told.set(false);
        let mut list = self.extensions.borrow_mut();
        if list.iter().any(Extension::hears_of_invocations) {
            // Made while the invocation runs: its caller may have the answer before they fetch it.
            let event = invoke_event(host, worker, id);
            list.iter_mut().for_each(|extension| extension.announce(&event));
        }
        drop(list);
        self.wake();
    }

    /// A runtime on the wire asks for work.
    pub fn rest(&self, host: &Rc<Host>, worker: &Worker) {
        self.phase.set(Phase::Idle);
        self.tell(host, worker);
    }

    /// True once this many programs have registered.
    pub fn has_all(&self, programs: usize) -> bool {
        let registered = |extension: &&Extension| extension.program.is_some();
        self.extensions.borrow().iter().filter(registered).count() == programs
    }

    /// The events that a program asked for.
    pub fn events(&self, program: usize) -> &'static str {
        let list = self.extensions.borrow();
        list.iter().find(|other| other.program == Some(program)).map_or("", Extension::events)
    }

    /// True if a part of the runtime has registered.
    pub fn has_internal(&self) -> bool {
        self.extensions.borrow().iter().any(|extension| extension.program.is_none())
    }

    /// Tells the extensions that want to know of the worker's end; which programs these are.
    pub fn part(&self, event: &Rc<str>) -> Vec<usize> {
        let told = |extension: &mut Extension| extension.program.filter(|_| extension.part(event));
        let told = self.extensions.borrow_mut().iter_mut().filter_map(told).collect();
        self.wake();
        told
    }

    /// Ends the polls that are held: a runtime blocked in one runs its cleanup only then.
    pub fn hang_up(&self) {
        self.closing.set(true);
        self.wake();
    }

    /// Ends all polls: there is no worker any more.
    pub fn end(&self) {
        self.over.set(true);
        self.hang_up();
    }

    fn wake(&self) {
        self.parked.borrow_mut().drain(..).for_each(|(_, waker)| waker.wake());
    }

    /// Waits until this many programs have registered; false if the worker goes before.
    pub async fn all_registered(&self, programs: usize) -> bool {
        self.wait(&self.closing, || self.has_all(programs).then_some(())).await.is_some()
    }

    /// Waits for what `take` finds, or `None` once the conversation is `over`.
    async fn wait<T>(&self, over: &Cell<bool>, mut take: impl FnMut() -> Option<T>) -> Option<T> {
        let number = self.next_number.get();
        self.next_number.set(number.wrapping_add(1));
        let parked = Parked { seat: self, number };
        poll_fn(|cx| {
            if let Some(found) = take() {
                return Poll::Ready(Some(found));
            }
            if over.get() {
                return Poll::Ready(None);
            }
            parked.leave();
            self.parked.borrow_mut().push((number, cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// The runtime asks for work.
    fn ask(&self, host: &Rc<Host>, worker: &Worker) {
        match self.phase.get() {
            Phase::Init | Phase::Answered => {
                self.phase.set(Phase::Idle);
                self.tell(host, worker);
            }
            Phase::Idle => {}
            Phase::Running | Phase::Answering => self.ahead.set(true),
        }
    }

    /// The answer is there; whoever asked for more while it came has asked now.
    fn answered(&self, host: &Rc<Host>, worker: &Worker, reply: Reply) {
        self.phase.set(Phase::Answered);
        host.replied(worker, reply);
        if self.ahead.replace(false) {
            self.ask(host, worker);
        }
    }

    /// Tells the pool that the worker is ready, once the runtime and all extensions are.
    fn tell(&self, host: &Rc<Host>, worker: &Worker) {
        let quiet = self.extensions.borrow().iter().all(Extension::is_waiting);
        if self.phase.get() == Phase::Idle && quiet && !self.told.replace(true) {
            host.ready(worker);
        }
    }
}

/// Somebody who waits at a seat: gone, and not only woken, when it waits no more.
struct Parked<'a> {
    seat: &'a Seat,
    number: u32,
}

impl Parked<'_> {
    fn leave(&self) {
        self.seat.parked.borrow_mut().retain(|(number, _)| *number != self.number);
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SLOTS_MAX;

    #[test]
    fn every_slot_has_an_address_and_the_next_worker_another() {
        let mut seen = Vec::new();
        for slot in 0..u16::try_from(SLOTS_MAX).expect("small") {
            for generation in [1, 2, 127] {
                let address = address(WorkerId { slot, generation });
                assert!(address.is_loopback() && address != Ipv4Addr::LOCALHOST);
                seen.push(address);
            }
        }
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
