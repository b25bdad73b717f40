//! One process per invocation: the event on its standard input, the reply on its standard output.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{IoSlice, PipeReader, PipeWriter};
use std::rc::Rc;

use crate::host::Host;
use crate::host::catalog::exit_message;
use crate::host::invocation::{Mishap, Payload};
use crate::host::settle::Reply;
use crate::host::spawn::Exit;
use crate::host::worker::Worker;
use crate::io::{Buffer, Buffers, Io, Reactor};
use crate::limits::{BUFFER_SIZE, ERROR_TEXT_MAX, REPLY_MAX};

/// The host's ends of a process's pipes.
pub struct Talk {
    stdin: RefCell<Option<Io<PipeWriter>>>,
    stdout: Io<PipeReader>,
    reply: RefCell<Option<Buffer>>,
    too_large: Cell<bool>,
    /// The last lines of standard error, as many as an error message takes.
    errors: RefCell<VecDeque<u8>>,
}

/// The process's ends.
pub struct Ends {
    /// Its standard input.
    pub stdin: PipeReader,
    /// Its standard output.
    pub stdout: PipeWriter,
}

impl Talk {
    /// Pipes for a new process.
    pub fn open(reactor: &Rc<Reactor>) -> std::io::Result<(Talk, Ends)> {
        let (stdin, writer) = std::io::pipe()?;
        let (reader, stdout) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let talk = Talk {
            stdin: RefCell::new(Some(Io::new(reactor, writer)?)),
            stdout: Io::new(reactor, reader)?,
            reply: RefCell::default(),
            too_large: Cell::new(false),
            errors: RefCell::default(),
        };
        Ok((talk, Ends { stdin, stdout }))
    }

    /// Writes the event and reads the reply, until the process closes its output.
    pub async fn run(&self, host: &Rc<Host>, worker: &Worker) {
        let write = async {
            self.send(host, worker).await;
            std::future::pending().await
        };
        smol::future::or(self.receive(host, worker), write).await;
    }

    async fn send(&self, host: &Host, worker: &Worker) {
        let Some(stdin) = self.stdin.take() else { return };
        let Some(id) = worker.running.get() else { return };
        let payload = host.with_invocation(id, |invocation| invocation.payload.take());
        let event = payload.as_deref().unwrap_or(b"{}");
        // A program that does not read its input is none the worse for it.
        if let Err(error) = stdin.write_all(&mut [IoSlice::new(event)]).await {
            log::debug!("write an event: {error}");
        }
    }

    async fn receive(&self, host: &Rc<Host>, worker: &Worker) {
        loop {
            self.stdout.ready(crate::io::reactor::Interest::Read).await;
            if !self.read(&host.buffers) {
                break;
            }
            if self.too_large.get() {
                worker.process.kill();
                break;
            }
        }
    }

    /// Reads what is there; false at the end.
    fn read(&self, buffers: &Rc<Buffers>) -> bool {
        let mut reply = self.reply.borrow_mut();
        while self.stdout.is_readable() {
            if reply.is_none() {
                *reply = buffers.take().ok();
            }
            let Some(buffer) = reply.as_mut() else { return self.give_up() };
            let room = buffer.len().clamp(BUFFER_SIZE / 2, 256 * 1024);
            if buffer.len() > REPLY_MAX || buffer.reserve(room).is_err() {
                return self.give_up();
            }
            match self.stdout.try_read_into(buffer.vec()) {
                Ok(Some(1..)) => {}
                Ok(None) => return true,
                Ok(Some(0)) | Err(_) => return false,
            }
        }
        true
    }

    fn give_up(&self) -> bool {
        self.too_large.set(true);
        true
    }

    /// Keeps a line of standard error for the error message.
    pub fn remember_error(&self, line: &[u8]) {
        let mut errors = self.errors.borrow_mut();
        if !errors.is_empty() {
            errors.push_back(b'\n');
        }
        errors.extend(line);
        let surplus = errors.len().saturating_sub(ERROR_TEXT_MAX);
        errors.drain(..surplus);
    }
}

/// What the process's end says about its invocation.
pub fn answer(talk: &Talk, buffers: &Rc<Buffers>, exit: Exit) -> Reply {
    talk.stdout.look_again();
    talk.read(buffers);
    if talk.too_large.get() {
        return Reply::Mishap(Mishap::ReplyTooLarge);
    }
    let payload = |buffer: Buffer| {
        let end = buffer.len();
        Payload::new(buffer, 0..end)
    };
    if exit.status == Some(0) {
        let reply = talk.reply.take().or_else(|| buffers.take().ok());
        return match reply {
            Some(buffer) => Reply::Done(payload(buffer)),
            None => Reply::Mishap(Mishap::Exited(exit)),
        };
    }
    let mut errors = talk.errors.take();
    let text = String::from_utf8_lossy(errors.make_contiguous());
    if exit.status.is_none() || text.trim().is_empty() {
        return Reply::Mishap(Mishap::Exited(exit));
    }
    let json = serde_json::json!({
        "errorType": "Runtime.ExitError",
        "errorMessage": text.trim(),
        "exitStatus": exit.status,
    });
    let mut buffer = match buffers.take() {
        Ok(buffer) => buffer,
        Err(_) => return Reply::Mishap(Mishap::Exited(exit)),
    };
    match buffer.extend(json.to_string().as_bytes()) {
        Ok(()) => Reply::Error(payload(buffer)),
        Err(_) => {
            log::warn!("{}", exit_message(exit));
            Reply::Mishap(Mishap::Exited(exit))
        }
    }
}
