//! The end of a connection, so that its client gets to read the last reply.

use rustix::net::Shutdown;

use super::{Connection, Refused};
use crate::limits::{BUFFER_SIZE, DRAIN_BYTES_MAX, DRAIN_MS, HAND_OVER_LOOK_MS};

impl Connection {
    /// Waits, while connections are handed over, for that to happen to this one: what its client
    /// sends now is not for this server any more.
    pub(super) async fn is_handed_over(&self) -> bool {
        while self.peers.leaving.get() && !self.peer.handed_over.get() {
            // On the heap: it would make the task of every connection larger.
            Box::pin(self.reactor().sleep_ms(HAND_OVER_LOOK_MS)).await;
        }
        self.peer.handed_over.get()
    }

    /// Answers a request that cannot be served with a JSON body, and ends the connection so that
    /// the client gets to read the answer: what it still sends is read for a while, and dropped.
    pub async fn refuse(mut self, refused: Refused) {
        let body = format!("{{\"message\":\"{}\"}}", refused.reason());
        let head = self.reply(refused.status()).json();
        let head = if refused == Refused::NoRoom { head.field("Retry-After", "1") } else { head };
        let head = head.closing().body(body.len());
        if self.send(head, body.as_bytes()).await.is_ok() {
            self.linger().await;
        }
    }

    /// Ends the connection behind its last reply. Bytes that nobody read would make the kernel
    /// reset it, and the client might lose the reply.
    pub async fn close(mut self) {
        if self.bytes().len() > self.used || self.peer.io.is_readable() {
            self.linger().await;
        }
    }

    /// Ends a connection whose request was answered before all of it was read.
    pub async fn linger(&mut self) {
        if rustix::net::shutdown(self.peer.io.get(), Shutdown::Write).is_err() {
            return;
        }
        self.limit_ms(DRAIN_MS);
        self.peer.replying.set(true);
        let mut dropped = 0;
        while dropped < DRAIN_BYTES_MAX {
            if let Some(buffer) = &mut self.buffer {
                buffer.vec().clear();
            }
            match self.fill(BUFFER_SIZE).await {
                Ok(n) if n > 0 => dropped += n,
                Ok(_) | Err(_) => return,
            }
        }
    }
}
