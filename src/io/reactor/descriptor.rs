//! Descriptors that do not block: what is tried on them, and how that is waited for.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::buffer::{SpareCapacity, spare_capacity};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{CHANGES, Interest, Reactor, key};

/// A descriptor that does not block, registered with the reactor until it is dropped.
pub struct Io<T: AsFd> {
    fd: T,
    index: u32,
    reactor: Rc<Reactor>,
}

impl Io<OwnedFd> {
    /// Two stream sockets that are connected: ours, and one for a process that we start.
    pub fn pair(reactor: &Rc<Reactor>) -> io::Result<(Io<OwnedFd>, OwnedFd)> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let (ours, theirs) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
        // Theirs blocks, as programs expect it.
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Io::new(reactor, ours)?, theirs))
    }
}

impl<T: AsFd> Io<T> {
    /// Registers `fd`, which must be non-blocking.
    pub fn new(reactor: &Rc<Reactor>, fd: T) -> io::Result<Io<T>> {
        let (index, _) = reactor.register(&fd)?;
        Ok(Io { fd, index, reactor: Rc::clone(reactor) })
    }

    /// The descriptor.
    pub fn get(&self) -> &T {
        &self.fd
    }

    /// The reactor it is registered with.
    pub fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Waits until `interest` is worth trying.
    pub async fn ready(&self, interest: Interest) {
        poll_fn(|cx| self.poll_ready(cx, interest)).await;
    }

    /// As [`Io::ready`], for those who wait for several things in one place.
    pub fn poll_ready(&self, cx: &Context<'_>, interest: Interest) -> Poll<()> {
        self.reactor.with(self.index, |source| {
            let (ready, waker) = match interest {
                Interest::Read => (source.readable, &mut source.read),
                Interest::Write => (source.writable, &mut source.write),
                Interest::Ended => (source.ended, &mut source.watch),
                Interest::Gone => (source.gone, &mut source.watch),
            };
            if ready {
                return Poll::Ready(());
            }
            if interest == Interest::Write && !source.tells_writable {
                source.tells_writable = true;
                let key = key(self.index, source.generation);
                // If it may be written to by now, that is told at once.
                epoll::modify(&self.reactor.epoll, &self.fd, key, CHANGES | epoll::EventFlags::OUT)
                    .expect("it is registered, and for that no memory is needed");
            }
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// True if reading is worth trying: something came since it was last read empty.
    pub fn is_readable(&self) -> bool {
        self.reactor.with(self.index, |source| source.readable)
    }

    /// True if the peer is known to send no more.
    pub fn has_ended(&self) -> bool {
        self.reactor.with(self.index, |source| source.ended)
    }

    /// Makes the next read try, whatever the flags say: for the end of a process, which may become
    /// known before the events of what it wrote last.
    pub fn look_again(&self) {
        self.reactor.with(self.index, |source| source.readable = true);
    }

    /// Takes the connection for gone, since it was just shut down: who waits for it learns before
    /// the kernel tells.
    pub fn give_up(&self) {
        let wake = self.reactor.with(self.index, |source| {
            (source.readable, source.writable, source.ended, source.gone) =
                (true, true, true, true);
            [source.read.take(), source.write.take(), source.watch.take()]
        });
        wake.into_iter().flatten().for_each(Waker::wake);
    }

    /// Reads from a socket into the spare capacity of `bytes`, which must have some. 0 is the end.
    pub async fn receive_into(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            if let Some(n) = self.try_receive_into(bytes)? {
                return Ok(n);
            }
            self.ready(Interest::Read).await;
        }
    }

    /// As [`Io::receive_into`], for any file, or `None` if there is nothing to read yet.
    pub fn try_read_into(&self, bytes: &mut Vec<u8>) -> io::Result<Option<usize>> {
        self.take_into(bytes, |fd, space| rustix::io::read(fd, space))
    }

    /// As [`Io::try_read_into`], for a socket: the kernel has less to look at than for any file.
    pub fn try_receive_into(&self, bytes: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let receive = |fd: &T, space: SpareCapacity<'_, u8>| {
            rustix::net::recv(fd, space, RecvFlags::empty()).map(|(n, _)| n)
        };
        self.take_into(bytes, receive)
    }

    fn take_into(
        &self,
        bytes: &mut Vec<u8>,
        take: impl Fn(&T, SpareCapacity<'_, u8>) -> rustix::io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        if !self.is_readable() {
            return Ok(None);
        }
        let space = bytes.capacity() - bytes.len();
        loop {
            match take(&self.fd, spare_capacity(bytes)) {
                Ok(n) => {
                    // A read that leaves room took all there was; the next byte is a new edge.
                    // The end is not, if it was told already.
                    if n > 0 && n < space {
                        self.reactor.with(self.index, |source| source.readable = source.ended);
                    }
                    return Ok(Some(n));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.reactor.with(self.index, |source| source.readable = false);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Runs `operation` as soon and as often as `interest` allows, until it does not block.
    pub async fn run<R>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(&T) -> rustix::io::Result<R>,
    ) -> io::Result<R> {
        loop {
            self.ready(interest).await;
            if let Some(result) = self.attempt(interest, &mut operation)? {
                return Ok(result);
            }
        }
    }

    /// Runs `operation` once; `None` if it would block.
    pub fn attempt<R>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(&T) -> rustix::io::Result<R>,
    ) -> io::Result<Option<R>> {
        loop {
            match operation(&self.fd) {
                Ok(result) => return Ok(Some(result)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.reactor.with(self.index, |source| match interest {
                        Interest::Read => source.readable = false,
                        Interest::Write => source.writable = false,
                        Interest::Ended | Interest::Gone => {}
                    });
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes as much of the parts as goes without waiting; returns how much that was.
    pub fn try_write(&self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let operation = |fd: &T| rustix::io::writev(fd, parts);
        Ok(self.attempt(Interest::Write, operation)?.unwrap_or(0))
    }

    /// As [`Io::try_write`], for a socket. One part is less work for the kernel than several.
    pub fn try_send(&self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let [part] = parts else { return self.try_write(parts) };
        let operation = |fd: &T| rustix::net::send(fd, part, SendFlags::NOSIGNAL);
        Ok(self.attempt(Interest::Write, operation)?.unwrap_or(0))
    }

    /// Writes all parts.
    pub async fn write_all(&self, mut parts: &mut [io::IoSlice<'_>]) -> io::Result<()> {
        io::IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let n = self.run(Interest::Write, |fd| rustix::io::writev(fd, parts)).await?;
            io::IoSlice::advance_slices(&mut parts, n);
        }
        Ok(())
    }

    /// Ends the registration of a descriptor that has a duplicate, in another process or here:
    /// closing ours does not. Whoever waits to read is woken, and must look why.
    pub fn leave(&self) {
        if let Err(error) = epoll::delete(&self.reactor.epoll, &self.fd) {
            log::debug!("take a descriptor out of the event loop: {error}");
        }
        let wake = self.reactor.with(self.index, |source| {
            source.readable = true;
            // There is nobody to ask for that any more.
            source.tells_writable = true;
            source.read.take()
        });
        if let Some(waker) = wake {
            waker.wake();
        }
    }
}

impl<T: AsFd> Drop for Io<T> {
    fn drop(&mut self) {
        // Closing the descriptor takes it out of the epoll set; the generation covers events that
        // were fetched already.
        self.reactor.with(self.index, |source| {
            source.used = false;
            (source.read, source.write, source.watch) = (None, None, None);
        });
        self.reactor.unused.borrow_mut().push(self.index);
    }
}
