//! Extensions: what takes part in a worker's life beside its runtime. Internal ones are parts of
//! the runtime's own process; external ones are programs of the layers, which are told of the end.

use std::fmt::Write;
use std::rc::Rc;

use super::Phase;
use super::calls::{Call, Desk, End, OK};
use crate::function::name::Arn;
use crate::host::Host;
use crate::host::worker::Worker;
use crate::http::Connection;
use crate::limits::{EXTENSIONS_MAX, RUNTIME_BODY_MAX};
use crate::pool::InvocationId;
use crate::runtime::extensions::Program;

/// One registered extension.
pub struct Extension {
    /// What it must name itself by.
    id: String,
    /// What it is called, if it is an internal one: no two have one name.
    name: Box<[u8]>,
    /// Which program of the worker's it is; `None`: an internal one.
    pub program: Option<usize>,
    /// It wants to hear of invocations.
    invoke: bool,
    /// It wants to hear of the end.
    shutdown: bool,
    /// It has asked for events.
    begun: bool,
    /// It asked for its next event and waits.
    waiting: bool,
    /// It reported an error, and nothing more is expected of it.
    failed: bool,
    /// The event that it has not fetched yet, as JSON.
    event: Option<Rc<str>>,
}

/// Why a request is refused: Lambda's error type.
pub type Refusal = &'static str;

impl Extension {
    /// Registers an extension that asks for the events in `body`, as JSON. It is an external one
    /// if it has the name of one of the `programs`.
    pub fn register(
        list: &mut Vec<Extension>,
        name: Option<&[u8]>,
        body: &[u8],
        id: u128,
        programs: &[Program],
    ) -> Result<String, Refusal> {
        #[derive(serde::Deserialize)]
        struct Wish {
            events: Option<Vec<String>>,
        }
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err("Extension.InvalidExtensionName");
        };
        let program = programs.iter().position(|program| program.name.as_bytes() == name);
        let wish: Wish = serde_json::from_slice(body).map_err(|_| "InvalidRequestFormat")?;
        let events = wish.events.unwrap_or_default();
        let (mut invoke, mut shutdown) = (false, false);
        for event in &events {
            match (event.as_str(), program) {
                ("INVOKE", _) => invoke = true,
                // Only extensions with a process of their own are told of it.
                ("SHUTDOWN", Some(_)) => shutdown = true,
                _ => return Err("Extension.InvalidEventType"),
            }
        }
        let own: &[u8] = if program.is_some() { b"" } else { name };
        if list.iter().any(|other| other.program == program && *other.name == *own) {
            return Err("Extension.InvalidExtensionState");
        }
        if list.len() >= EXTENSIONS_MAX {
            return Err("Extension.TooManyExtensions");
        }
        let id = uuid(id);
        list.push(Extension {
            id: id.clone(),
            name: own.into(),
            program,
            invoke,
            shutdown,
            begun: false,
            waiting: false,
            failed: false,
            event: None,
        });
        Ok(id)
    }

    /// Who calls itself `id`: its place in the list.
    fn find(list: &[Extension], id: Option<&[u8]>) -> Result<usize, Refusal> {
        let id = id.ok_or("Extension.MissingExtensionIdentifier")?;
        let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        let fits = |(at, byte): (usize, &u8)| match dash(at) {
            true => *byte == b'-',
            false => byte.is_ascii_hexdigit(),
        };
        if id.len() != 36 || !id.iter().enumerate().all(fits) {
            return Err("Extension.InvalidExtensionIdentifier");
        }
        let found = list.iter().position(|other| other.id.as_bytes().eq_ignore_ascii_case(id));
        found.ok_or("Extension.UnknownExtensionIdentifier")
    }

    /// True if nothing is owed by it.
    pub fn is_waiting(&self) -> bool {
        self.waiting && self.event.is_none()
    }

    /// The events that it asked for.
    pub fn events(&self) -> &'static str {
        match (self.invoke, self.shutdown) {
            (true, true) => "INVOKE,SHUTDOWN",
            (true, false) => "INVOKE",
            (false, true) => "SHUTDOWN",
            (false, false) => "",
        }
    }

    /// True if it is told of invocations.
    pub fn hears_of_invocations(&self) -> bool {
        self.invoke
    }

    /// It asks for its next event.
    fn wait(&mut self) -> Result<(), Refusal> {
        if self.failed {
            return Err("Extension.InvalidExtensionState");
        }
        (self.begun, self.waiting) = (true, true);
        Ok(())
    }

    /// An invocation begins.
    pub fn announce(&mut self, event: &Rc<str>) {
        if self.invoke {
            self.event = Some(Rc::clone(event));
        }
    }

    /// Tells it that the end is near; false if it does not want to know.
    pub fn part(&mut self, event: &Rc<str>) -> bool {
        if self.shutdown {
            self.event = Some(Rc::clone(event));
        }
        self.shutdown
    }

    /// Its next event, if there is one.
    fn take(&mut self) -> Option<Rc<str>> {
        let event = self.event.take_if(|_| self.waiting);
        if event.is_some() {
            self.waiting = false;
        }
        event
    }
}

fn uuid(id: u128) -> String {
    let hex = format!("{id:032x}");
    let (time, rest) = hex.split_at(8);
    format!("{time}-{}-{}-{}-{}", &rest[..4], &rest[4..8], &rest[8..12], &rest[12..])
}

/// The INVOKE event, as JSON.
pub fn invoke_event(host: &Host, worker: &Worker, id: InvocationId) -> Rc<str> {
    let mut event = "{\"eventType\":\"INVOKE\"".to_owned();
    host.with_running(id, |invocation| {
        let arn = Arn::of(&worker.version.arn, invocation.qualifier.as_deref());
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
    event.into()
}

/// The endpoints of extensions, and of telemetry.
impl Desk<'_> {
    /// `POST /extension/register`
    pub(super) async fn register(&self, connection: &mut Connection) -> Result<(), End> {
        let body = connection.body(self.head, RUNTIME_BODY_MAX).await?;
        let bytes = connection.bytes();
        let name = self.header(connection, "lambda-extension-name");
        let id = self.host.random();
        let version = &self.worker.version;
        let registered = if self.seat.phase.get() == Phase::Init && !self.worker.stopping.get() {
            let mut list = self.seat.extensions.borrow_mut();
            let body = &bytes[body.payload.clone()];
            Extension::register(&mut list, name, body, id, &version.extensions)
        } else {
            Err("Extension.RegistrationClosed")
        };
        let id = match registered {
            Ok(id) => id,
            Err(refusal) => {
                return Ok(self.refuse(connection, 403, refusal, "Not registered").await?);
            }
        };
        // The runtime may wait for this.
        self.seat.wake();
        let mut body = serde_json::json!({
            "functionName": &*version.name,
            "functionVersion": &*version.label,
            "handler": version.config.handler,
        });
        let features = self.header(connection, "lambda-extension-accept-feature");
        let mut features = features.unwrap_or_default().split(|b| *b == b',');
        if features.any(|feature| feature.trim_ascii() == b"accountId") {
            body["accountId"] = self.host.facts.home.account.clone().into();
        }
        let body = body.to_string();
        let head = connection
            .reply(200)
            .json()
            .field("Lambda-Extension-Identifier", &*id)
            .connection(self.head, self.head.keep_alive)
            .body(body.len());
        Ok(connection.send(head, body.as_bytes()).await?)
    }

    /// The extension that asks: its place in the list, if it is registered.
    fn asker(&self, connection: &Connection) -> Result<usize, Refusal> {
        let id = self.header(connection, "lambda-extension-identifier");
        Extension::find(&self.seat.extensions.borrow(), id)
    }

    async fn refuse_extension(&self, connection: &Connection, why: Refusal) -> Result<(), End> {
        Ok(self.refuse(connection, 403, why, "Not allowed for this extension").await?)
    }

    /// `GET /extension/event/next`: waits for the next invocation, or for the end.
    pub(super) async fn extension_next(&self, connection: &mut Connection) -> Result<bool, End> {
        connection.body(self.head, RUNTIME_BODY_MAX).await?;
        let list = &self.seat.extensions;
        let asked = self.asker(connection).and_then(|at| list.borrow_mut()[at].wait().map(|()| at));
        let at = match asked {
            Ok(at) => at,
            Err(refusal) => {
                self.refuse_extension(connection, refusal).await?;
                return Ok(self.head.keep_alive);
            }
        };
        self.seat.tell(self.host, self.worker);
        // The runtime's own end with its conversation, the others with the worker.
        let over = match list.borrow()[at].program {
            Some(_) => &self.seat.over,
            None => &self.seat.closing,
        };
        let event =
            smol::future::or(self.seat.wait(over, || list.borrow_mut()[at].take()), async {
                connection.ended().await;
                None
            })
            .await;
        let Some(event) = event else { return Ok(false) };
        let head = connection
            .reply(200)
            .json()
            .field("Lambda-Extension-Event-Identifier", &*uuid(self.host.random()))
            .connection(self.head, self.head.keep_alive)
            .body(event.len());
        connection.send(head, event.as_bytes()).await?;
        Ok(self.head.keep_alive)
    }

    /// `POST /extension/init/error` and `/extension/exit/error`: the worker cannot go on.
    pub(super) async fn extension_error(
        &self,
        connection: &mut Connection,
        call: Call,
    ) -> Result<(), End> {
        connection.body(self.head, RUNTIME_BODY_MAX).await?;
        let told = self.header(connection, "lambda-extension-function-error-type");
        let told = told.map(|told| String::from_utf8_lossy(told).into_owned());
        let known = self.asker(connection).and_then(|at| {
            let told = told.filter(|told| !told.is_empty()).ok_or("Extension.MissingHeader")?;
            let extension = &mut self.seat.extensions.borrow_mut()[at];
            if call == Call::ExtensionInitError && extension.begun {
                return Err("Extension.InvalidExtensionState");
            }
            extension.failed = true;
            Ok(told)
        });
        let told = match known {
            Ok(told) => told,
            Err(refusal) => return self.refuse_extension(connection, refusal).await,
        };
        self.reply(connection, 202, OK).await?;
        let error_type = match call == Call::ExtensionInitError {
            true => "Extension.InitError",
            false => "Extension.ExitError",
        };
        self.host.extension_failed(self.worker, error_type, told);
        Ok(())
    }

    /// `PUT /telemetry` and `/logs`: there is none, as extensions are used to from elsewhere.
    pub(super) async fn telemetry(&self, connection: &mut Connection) -> Result<(), End> {
        connection.body(self.head, RUNTIME_BODY_MAX).await?;
        if let Err(refusal) = self.asker(connection) {
            return self.refuse_extension(connection, refusal).await;
        }
        let message = "Telemetry API is not supported";
        Ok(self.refuse(connection, 202, "Telemetry.NotSupported", message).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::spawn::Launch;

    #[test]
    fn who_registers_is_looked_at() {
        let launch = Launch {
            program: c"/opt/extensions/outer".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: c"/".into(),
            namespace: None,
        };
        let programs = [Program { name: "outer".to_owned(), launch }];
        let mut list = Vec::new();
        for (name, body, refusal) in [
            (None, "{}", Some("Extension.InvalidExtensionName")),
            (Some(""), "{}", Some("Extension.InvalidExtensionName")),
            (Some("inner"), "[", Some("InvalidRequestFormat")),
            (Some("inner"), r#"{"events":["SHUTDOWN"]}"#, Some("Extension.InvalidEventType")),
            (Some("outer"), r#"{"events":["invoke"]}"#, Some("Extension.InvalidEventType")),
            (Some("outer"), r#"{"events":["INVOKE","SHUTDOWN"]}"#, None),
            (Some("outer"), "{}", Some("Extension.InvalidExtensionState")),
            (Some("inner"), r#"{"events":null}"#, None),
            (Some("inner"), "{}", Some("Extension.InvalidExtensionState")),
        ] {
            let name = name.map(str::as_bytes);
            let result = Extension::register(&mut list, name, body.as_bytes(), 7, &programs);
            assert_eq!(result.err(), refusal, "{name:?} {body}");
        }
        assert_eq!(list.iter().map(|e| e.program).collect::<Vec<_>>(), [Some(0), None]);
        for n in 2..EXTENSIONS_MAX {
            let name = Some(n.to_string());
            let name = name.as_ref().map(String::as_bytes);
            assert!(Extension::register(&mut list, name, b"{}", 8, &programs).is_ok());
        }
        let refused = Extension::register(&mut list, Some(b"more"), b"{}", 9, &programs);
        assert_eq!(refused, Err("Extension.TooManyExtensions"));
        for (id, found) in [
            (None, Err("Extension.MissingExtensionIdentifier")),
            (Some("7"), Err("Extension.InvalidExtensionIdentifier")),
            (Some(&*uuid(10)), Err("Extension.UnknownExtensionIdentifier")),
            (Some(&*uuid(7)), Ok(0)),
        ] {
            assert_eq!(Extension::find(&list, id.map(str::as_bytes)), found, "{id:?}");
        }
    }

    #[test]
    fn an_event_is_owed_until_the_next_is_asked_for() {
        let (mut list, event) = (Vec::new(), Rc::from("event"));
        let body = br#"{"events":["INVOKE"]}"#;
        assert!(Extension::register(&mut list, Some(b"inner"), body, 1, &[]).is_ok());
        let extension = &mut list[0];
        assert!(!extension.is_waiting());
        assert_eq!(extension.wait(), Ok(()));
        assert!(extension.is_waiting());
        extension.announce(&event);
        assert!(!extension.is_waiting());
        assert_eq!(extension.take().as_deref(), Some("event"));
        assert!(!extension.is_waiting() && extension.take().is_none());
        assert!(!extension.part(&event), "an internal one is not told of the end");
        assert_eq!(extension.wait(), Ok(()));
        assert!(extension.is_waiting());
    }
}
