//! `hob invoke NAME`

use std::io::{Read, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::arguments::Invoke;
use super::client::{Body, segment};
use super::say;
use crate::error::{Error, ExitCode};

/// Runs a function once: its reply on standard output, its log and its errors on standard error.
pub fn run(invoke: Invoke) -> Result<ExitCode, Error> {
    let payload = payload(invoke.payload.as_deref())?;
    let mut path = format!("/2015-03-31/functions/{}/invocations", segment(&invoke.name));
    if let Some(qualifier) = &invoke.qualifier {
        path += &format!("?Qualifier={}", segment(qualifier));
    }
    let kind = if invoke.asynchronous { "Event" } else { "RequestResponse" };
    let log = if invoke.tail { "Tail" } else { "None" };
    let fields = [("X-Amz-Invocation-Type", kind), ("X-Amz-Log-Type", log)];
    let mut reply = invoke.target.send("POST", &path, &fields, Body::Bytes(&payload))?;
    let body = reply.bytes()?;
    if reply.status > 299 {
        return Err(reply.error(&body));
    }
    if let Some(tail) = reply.field("x-amz-log-result").and_then(|t| BASE64_STANDARD.decode(t).ok())
    {
        for line in String::from_utf8_lossy(&tail).lines() {
            say(line);
        }
    }
    let mut out = std::io::stdout().lock();
    let newline: &[u8] = if body.is_empty() || body.ends_with(b"\n") { b"" } else { b"\n" };
    let written = out.write_all(&body).and_then(|()| out.write_all(newline));
    written.map_err(|error| Error::failed(format!("write the reply: {error}")))?;
    if reply.field("x-amz-function-error").is_some() {
        say(&format!("hob: function {} failed", invoke.name));
        return Ok(ExitCode::Failed);
    }
    Ok(ExitCode::Ok)
}

fn payload(argument: Option<&str>) -> Result<Vec<u8>, Error> {
    let Some(text) = argument else { return Ok(Vec::new()) };
    if let Some(path) = text.strip_prefix('@') {
        return std::fs::read(path)
            .map_err(|error| Error::usage(format!("read payload {path}: {error}")));
    }
    if text == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().read_to_end(&mut bytes);
        read.map_err(|error| Error::usage(format!("read payload from standard input: {error}")))?;
        return Ok(bytes);
    }
    Ok(text.as_bytes().to_vec())
}
