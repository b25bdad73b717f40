//! The conversation with a zygote: the wire's, with a message that carries descriptors.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::host::spawn::Exit;
use crate::io::reactor::Interest;
use crate::io::{Io, Reactor};
use crate::limits::ZYGOTE_FRAME_MAX;
use crate::wire::{Error, FromWorker, HEADER_MAX, PIPES, PROTOCOL, ToWorker, decode, encode};

/// Where it stands.
#[derive(Debug)]
enum Stage {
    /// It has not said hello.
    Silent,
    /// It initialises.
    Starting,
    /// It forks.
    Ready,
    /// It does not, and says why; it waits to become a worker.
    Unforkable(String),
    /// It was asked to become one.
    Becoming,
    /// It could not initialise.
    Failed(Vec<u8>),
    /// It is a worker.
    Worker,
    /// It ended while it initialised.
    Ended(Exit),
    /// There is nobody to ask any more.
    Gone,
}

/// What a worker that waits for a zygote learns.
pub enum Answer {
    /// It forks.
    Ready,
    /// It does not, and why; whoever learns this gets the zygote itself.
    Unforkable(String),
    /// It could not initialise.
    InitError(Vec<u8>),
    /// It ended while it initialised.
    Ended(Exit),
    /// There is none any more.
    Gone,
}

/// The host's end of a zygote's socket.
pub struct Talk {
    socket: Io<OwnedFd>,
    stage: RefCell<Stage>,
    /// The protocol that it speaks.
    protocol: Cell<u8>,
    unread: RefCell<Vec<u8>>,
    serial: Cell<u32>,
    /// Forks that nobody has taken note of yet: the number of the question, and the process.
    forked: RefCell<Vec<(u32, u32)>>,
    /// Who waits for something to be said.
    waiting: RefCell<Vec<Waker>>,
    waiters: Cell<u32>,
    listener: RefCell<Option<Waker>>,
}

/// Somebody who waits for this zygote.
pub struct Wait<'a>(&'a Talk);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.waiters.set(self.0.waiters.get() - 1);
    }
}

impl Talk {
    /// A new conversation, and the zygote's end of it.
    pub fn open(reactor: &Rc<Reactor>) -> std::io::Result<(Talk, OwnedFd)> {
        let (socket, theirs) = Io::pair(reactor)?;
        let talk = Talk {
            socket,
            stage: RefCell::new(Stage::Silent),
            protocol: Cell::new(0),
            unread: RefCell::default(),
            serial: Cell::new(0),
            forked: RefCell::default(),
            waiting: RefCell::default(),
            waiters: Cell::new(0),
            listener: RefCell::default(),
        };
        Ok((talk, theirs))
    }

    /// Takes note of one who waits, until that is dropped.
    pub fn join(&self) -> Wait<'_> {
        self.waiters.set(self.waiters.get() + 1);
        Wait(self)
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiters.get()
    }

    /// True if it forks.
    pub fn is_ready(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Ready)
    }

    /// True if its process is a worker by now.
    pub fn is_worker(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Worker)
    }

    /// It has become a worker.
    pub fn became_worker(&self) {
        self.enter(Stage::Worker);
        self.wake_listener();
    }

    /// Its process is gone.
    pub fn ended(&self, exit: Exit) {
        let stage = self.stage.replace(Stage::Gone);
        self.enter(match stage {
            Stage::Silent | Stage::Starting => Stage::Ended(exit),
            Stage::Failed(json) => Stage::Failed(json),
            Stage::Ended(exit) => Stage::Ended(exit),
            Stage::Ready | Stage::Unforkable(_) | Stage::Becoming | Stage::Worker | Stage::Gone => {
                Stage::Gone
            }
        });
    }

    fn enter(&self, stage: Stage) {
        *self.stage.borrow_mut() = stage;
        self.wake();
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Has whoever polls this look at everything again.
    pub fn wake_listener(&self) {
        if let Some(waker) = self.listener.take() {
            waker.wake();
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        self.waiting.borrow_mut().push(cx.waker().clone());
    }

    /// Waits until it is known whether it forks.
    pub fn poll_ready(&self, cx: &Context<'_>) -> Poll<Answer> {
        let mut stage = self.stage.borrow_mut();
        let answer = match &mut *stage {
            Stage::Silent | Stage::Starting => {
                self.wait(cx);
                return Poll::Pending;
            }
            Stage::Ready => Answer::Ready,
            Stage::Unforkable(why) => {
                let why = std::mem::take(why);
                *stage = Stage::Becoming;
                Answer::Unforkable(why)
            }
            Stage::Failed(json) => Answer::InitError(json.clone()),
            Stage::Ended(exit) => Answer::Ended(*exit),
            Stage::Becoming | Stage::Worker | Stage::Gone => Answer::Gone,
        };
        Poll::Ready(answer)
    }

    /// Waits until it is known whether it forks, which this tells.
    pub fn poll_known(&self, cx: &Context<'_>) -> Poll<bool> {
        match *self.stage.borrow() {
            Stage::Silent | Stage::Starting => {
                self.wait(cx);
                Poll::Pending
            }
            Stage::Ready => Poll::Ready(true),
            Stage::Unforkable(_)
            | Stage::Becoming
            | Stage::Failed(_)
            | Stage::Worker
            | Stage::Ended(_)
            | Stage::Gone => Poll::Ready(false),
        }
    }

    /// Asks for a fork that gets these descriptors: its socket, its log, and the pipe with its events
    /// if the zygote knows of those. The number of the question.
    pub fn ask(&self, environment: &str, gifts: &[BorrowedFd<'_>]) -> std::io::Result<u32> {
        let id = self.serial.get().wrapping_add(1);
        self.serial.set(id);
        let mut frame = [0; HEADER_MAX];
        let length = encode(&ToWorker::Fork { id, environment }, 0, &mut frame)
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let known = if self.protocol.get() >= PIPES { 3 } else { 2 };
        let gifts = &gifts[..known.min(gifts.len())];
        assert!(beside.push(SendAncillaryMessage::ScmRights(gifts)), "there is room for three");
        let parts = [IoSlice::new(&frame[..length])];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = rustix::net::sendmsg(self.socket.get(), &parts, &mut beside, flags)?;
        if sent < length {
            return Err(std::io::Error::other("it does not listen"));
        }
        Ok(id)
    }

    /// Waits for the process that was asked for; `None` if there will be none.
    pub fn poll_forked(&self, cx: &Context<'_>, serial: u32) -> Poll<Option<i32>> {
        let mut forked = self.forked.borrow_mut();
        if let Some(at) = forked.iter().position(|(id, _)| *id == serial) {
            let (_, pid) = forked.swap_remove(at);
            return Poll::Ready(i32::try_from(pid).ok().filter(|pid| *pid > 0));
        }
        match *self.stage.borrow() {
            Stage::Ended(_) | Stage::Gone | Stage::Failed(_) => Poll::Ready(None),
            Stage::Silent
            | Stage::Starting
            | Stage::Ready
            | Stage::Unforkable(_)
            | Stage::Becoming
            | Stage::Worker => {
                self.wait(cx);
                Poll::Pending
            }
        }
    }

    /// Listens until the zygote hangs up, or says what makes no sense.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        *self.listener.borrow_mut() = Some(cx.waker().clone());
        let end = std::task::ready!(self.poll_listen(cx));
        if end.is_err() {
            self.enter(Stage::Gone);
        }
        Poll::Ready(end)
    }

    fn poll_listen(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let mut unread = self.unread.borrow_mut();
        loop {
            while let Some(frame) = decode::<FromWorker>(&unread, ZYGOTE_FRAME_MAX)? {
                let payload = unread[frame.payload_at..frame.end].to_vec();
                unread.drain(..frame.end);
                self.hear(frame.message, payload)?;
            }
            std::task::ready!(self.socket.poll_ready(cx, Interest::Read));
            unread.reserve(READ);
            match self.socket.try_read_into(&mut unread) {
                Ok(Some(0)) | Err(_) if unread.is_empty() => return Poll::Ready(Ok(())),
                Ok(Some(0)) | Err(_) => return Poll::Ready(Err(Error::Truncated)),
                Ok(Some(_) | None) => {}
            }
        }
    }

    fn hear(&self, message: FromWorker, payload: Vec<u8>) -> Result<(), Error> {
        let stage = match (&*self.stage.borrow(), message) {
            (Stage::Silent, FromWorker::Hello { protocol: protocol @ ZYGOTES..=PROTOCOL }) => {
                self.protocol.set(protocol);
                Stage::Starting
            }
            (Stage::Starting, FromWorker::Ready) => Stage::Ready,
            (Stage::Starting, FromWorker::InitError) => Stage::Failed(payload),
            (Stage::Starting, FromWorker::Unforkable) => {
                Stage::Unforkable(String::from_utf8_lossy(&payload).into_owned())
            }
            (Stage::Ready | Stage::Becoming, FromWorker::Forked { id, pid }) => {
                self.forked.borrow_mut().push((id, pid));
                self.wake();
                return Ok(());
            }
            _ => return Err(Error::OutOfOrder),
        };
        self.enter(stage);
        Ok(())
    }
}

/// The first protocol with zygotes.
const ZYGOTES: u8 = 2;

/// Bytes that are read at one time.
const READ: usize = 1024;
