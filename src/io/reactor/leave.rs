//! Descriptors whose files live on when they are closed.

use std::os::fd::AsFd;

use rustix::event::epoll;

use super::Io;

impl<T: AsFd> Io<T> {
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
