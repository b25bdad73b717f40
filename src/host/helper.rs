//! Helper processes: hob itself under a hidden verb, for work that would make the server wait for
//! a disk, or grow.

use std::ffi::CString;
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::Rc;

use super::Host;
use super::output::Output;
use super::spawn::{Launch, Seat};
use crate::io::Io;
use crate::io::reactor::Interest;
use crate::limits::HELPER_REPLY_MAX;

impl Host {
    /// Runs `hob helper ARGUMENTS` and returns what it printed. The error is one line for people.
    pub async fn helper(self: &Rc<Self>, arguments: &[&str]) -> Result<String, String> {
        let name = format!("helper {}", arguments.first().unwrap_or(&""));
        let fail = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let words = [&["hob", "helper"], arguments].concat();
        let words: Result<Vec<CString>, _> = words.into_iter().map(CString::new).collect();
        let launch = Launch {
            program: CString::from(c"/proc/self/exe"),
            arguments: words.map_err(|error| fail(&error))?,
            environment: Vec::new(),
            directory: CString::from(c"/"),
            namespace: None,
        };
        let (reply, reply_end) = self.pipe().map_err(|error| fail(&error))?;
        let (errors, errors_end) = self.pipe().map_err(|error| fail(&error))?;
        let null = std::fs::File::open("/dev/null").map_err(|error| fail(&error))?;
        let stdio = [null.as_fd(), reply_end.as_fd(), errors_end.as_fd()];
        let process = self
            .processes
            .spawn(&launch, &Seat { environment: &[], stdio: &stdio, join: None, cgroup: None })
            .map_err(|error| fail(&error))?;
        drop((reply_end, errors_end));
        let mut text = Vec::new();
        let mut complaint = String::new();
        let read = async {
            // Closed as soon as it is not read any more: the helper must not wait for that.
            let reply = reply;
            while text.len() < HELPER_REPLY_MAX {
                text.reserve(4096);
                match reply.try_read_into(&mut text) {
                    Ok(Some(0)) | Err(_) => break,
                    Ok(Some(_)) => {}
                    Ok(None) => reply.ready(Interest::Read).await,
                }
            }
        };
        let errors = Output::new(errors);
        let complain = poll_fn(|cx| {
            errors.poll(cx, |line| complaint = String::from_utf8_lossy(line).into_owned())
        });
        smol::future::zip(read, complain).await;
        let exit = poll_fn(|cx| process.poll_exited(cx)).await;
        if exit.status == Some(0) {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        if complaint.is_empty() {
            complaint = super::catalog::exit_message(exit);
        }
        Err(complaint)
    }

    fn pipe(&self) -> std::io::Result<(Io<std::io::PipeReader>, std::io::PipeWriter)> {
        let (reader, writer) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((Io::new(&self.reactor, reader)?, writer))
    }
}
