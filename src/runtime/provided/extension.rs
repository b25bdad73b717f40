//! Internal extensions: parts of the runtime's own process that take part in its life cycle.

use std::fmt::Write;

use crate::host::Host;
use crate::host::worker::Worker;
use crate::limits::EXTENSIONS_MAX;
use crate::pool::InvocationId;

/// One registered extension.
pub struct Extension {
    /// What it must name itself by.
    pub id: String,
    /// It wants to hear of invocations.
    invoke: bool,
    /// It asked for its next event and waits.
    waiting: bool,
    /// The event that it has not fetched yet.
    event: Option<InvocationId>,
}

/// Why a registration is refused: Lambda's error type.
pub type Refusal = &'static str;

impl Extension {
    /// Registers an extension that asks for the events in `body`, as JSON.
    pub fn register(
        list: &mut Vec<Extension>,
        name: Option<&[u8]>,
        body: &[u8],
        id: u128,
    ) -> Result<String, Refusal> {
        #[derive(serde::Deserialize)]
        struct Wish {
            events: Option<Vec<String>>,
        }
        if name.is_none_or(<[u8]>::is_empty) {
            return Err("Extension.InvalidExtensionName");
        }
        let wish: Wish = serde_json::from_slice(body).map_err(|_| "InvalidRequestFormat")?;
        let events = wish.events.unwrap_or_default();
        // Only extensions with a process of their own are told of the shutdown.
        if events.iter().any(|event| event != "INVOKE") {
            return Err("Extension.InvalidEventType");
        }
        if list.len() >= EXTENSIONS_MAX {
            return Err("Extension.TooManyExtensions");
        }
        let hex = format!("{id:032x}");
        let id = format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        );
        let invoke = !events.is_empty();
        list.push(Extension { id: id.clone(), invoke, waiting: false, event: None });
        Ok(id)
    }

    /// True if nothing is owed by it.
    pub fn is_waiting(&self) -> bool {
        self.waiting && self.event.is_none()
    }

    /// It asks for its next event.
    pub fn wait(&mut self) {
        self.waiting = true;
    }

    /// An invocation begins.
    pub fn announce(&mut self, id: InvocationId) {
        if self.invoke {
            self.event = Some(id);
        }
    }

    /// Its next event, if there is one.
    pub fn take(&mut self) -> Option<InvocationId> {
        let event = self.event.take();
        if event.is_some() {
            self.waiting = false;
        }
        event
    }
}

/// The INVOKE event, as JSON.
pub fn invoke_event(host: &Host, worker: &Worker, id: InvocationId) -> String {
    let mut event = "{\"eventType\":\"INVOKE\"".to_owned();
    host.with_running(id, |invocation| {
        let arn = host.facts.home.arn(&worker.version.name, invocation.qualifier.as_deref());
        let written = write!(
            event,
            ",\"deadlineMs\":{},\"requestId\":\"{}\",\"invokedFunctionArn\":\"{arn}\",\"tracing\":\
             {{\"type\":\"X-Amzn-Trace-Id\",\"value\":{}}}",
            invocation.deadline_ms,
            invocation.request,
            serde_json::Value::from(invocation.trace.to_string()),
        );
        written.expect("a string takes everything");
    });
    event.push('}');
    event
}
