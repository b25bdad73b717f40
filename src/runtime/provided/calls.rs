//! The Runtime API's endpoints (2018-06-01), and the ways to those of extensions and telemetry.

use std::rc::{Rc, Weak};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use memchr::memchr;

use super::{Phase, Seat};
use crate::function::name::Arn;
use crate::host::Host;
use crate::host::invocation::{IdText, Mishap, Payload, REQUEST_ID_LEN};
use crate::host::settle::Reply;
use crate::host::worker::{Talk, Worker};
use crate::http::connection::{Body, Broken};
use crate::http::head::{BodyKind, field};
use crate::http::{Closed, Connection, Head, Method, Refused};
use crate::io::text::same;
use crate::limits::{AGAIN_MS, EXIT_MS, REPLY_MAX, RUNTIME_BODY_MAX};
use crate::pool::InvocationId;
use crate::runtime::native::known_error_type;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Next,
    Response,
    Error,
    InitError,
    RestoreNext,
    RestoreError,
    Register,
    ExtensionNext,
    ExtensionInitError,
    ExtensionExitError,
    Telemetry,
    Ping,
    Unknown,
}

/// How the paths of all requests begin but for a few.
const INVOCATION: &[u8] = b"/2018-06-01/runtime/invocation/";

/// Understands a path; for answers also the request id in it.
fn route(method: Method, path: &[u8]) -> (Call, &[u8]) {
    let path = memchr(b'?', path).map_or(path, |at| &path[..at]);
    let plain = |call| (call, &b""[..]);
    if let Some((start, rest)) = path.split_at_checked(INVOCATION.len())
        && same(start, INVOCATION)
    {
        let (id, which) = rest.split_at(memchr(b'/', rest).unwrap_or(rest.len()));
        return match (method, which) {
            (Method::Get, b"") if id == b"next" => plain(Call::Next),
            (Method::Post, b"/response") => (Call::Response, id),
            (Method::Post, b"/error") => (Call::Error, id),
            _ => plain(Call::Unknown),
        };
    }
    match method {
        Method::Get => match path {
            b"/2018-06-01/runtime/restore/next" => plain(Call::RestoreNext),
            b"/2020-01-01/extension/event/next" => plain(Call::ExtensionNext),
            b"/2018-06-01/ping" => plain(Call::Ping),
            _ => plain(Call::Unknown),
        },
        Method::Post => match path {
            b"/2018-06-01/runtime/init/error" => plain(Call::InitError),
            b"/2018-06-01/runtime/restore/error" => plain(Call::RestoreError),
            b"/2020-01-01/extension/register" => plain(Call::Register),
            b"/2020-01-01/extension/init/error" => plain(Call::ExtensionInitError),
            b"/2020-01-01/extension/exit/error" => plain(Call::ExtensionExitError),
            _ => plain(Call::Unknown),
        },
        Method::Put => match path {
            b"/2022-07-01/telemetry" | b"/2020-08-15/logs" => plain(Call::Telemetry),
            _ => plain(Call::Unknown),
        },
        Method::Head | Method::Delete | Method::Patch | Method::Options => plain(Call::Unknown),
    }
}

/// Why a connection is not used any longer.
pub(super) enum End {
    Closed,
    Refused(Refused),
}

impl From<Closed> for End {
    fn from(_: Closed) -> End {
        End::Closed
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> End {
        match broken {
            Broken::Closed => End::Closed,
            Broken::Refused(refused) => End::Refused(refused),
        }
    }
}

/// Serves a worker's connection until either side ends it.
pub async fn serve(host: &Rc<Host>, worker: &Weak<Worker>, mut connection: Connection) {
    loop {
        match serve_one(host, worker, &mut connection).await {
            Ok(true) => {}
            Ok(false) | Err(End::Closed) => return,
            Err(End::Refused(refused)) => return connection.refuse(refused).await,
        }
    }
}

/// Serves one request. False if the connection ends with it.
async fn serve_one(
    host: &Rc<Host>,
    worker: &Weak<Worker>,
    connection: &mut Connection,
) -> Result<bool, End> {
    let head = connection.head().await?;
    let Some(worker) = worker.upgrade() else { return Ok(false) };
    let Some(seat) = worker.seat() else { return Ok(false) };
    let (call, id) = route(head.method, &connection.bytes()[head.target.clone()]);
    // What has another length is no id, and that of no invocation.
    let id = id.try_into().unwrap_or([0; REQUEST_ID_LEN]);
    let desk = Desk { host, worker: &worker, seat, head: &head };
    match call {
        Call::Next
        | Call::Response
        | Call::Error
        | Call::InitError
        | Call::RestoreNext
        | Call::RestoreError
            if !matches!(worker.talk, Talk::Provided(_)) =>
        {
            // Its runtime speaks the wire: the seat is its extensions'.
            let error = error("InvalidStateTransition", "The runtime is not spoken to by this API");
            desk.stub(connection, 403, error.as_bytes()).await?;
        }
        Call::Next => return desk.next(connection).await,
        Call::Response | Call::Error => return desk.answer(connection, call, &id).await,
        Call::ExtensionNext => return desk.extension_next(connection).await,
        Call::InitError => desk.init_error(connection).await?,
        Call::Register => desk.register(connection).await?,
        Call::RestoreNext => desk.stub(connection, 200, b"").await?,
        Call::RestoreError => desk.stub(connection, 202, OK).await?,
        Call::ExtensionInitError | Call::ExtensionExitError => {
            desk.extension_error(connection, call).await?;
        }
        Call::Ping => desk.stub(connection, 200, b"pong").await?,
        Call::Telemetry => desk.telemetry(connection).await?,
        Call::Unknown => {
            let error = error("NotFound", "No such endpoint");
            desk.stub(connection, 404, error.as_bytes()).await?;
        }
    }
    Ok(head.keep_alive)
}

pub(super) const OK: &[u8] = b"{\"status\":\"OK\"}\n";

fn error(error_type: &str, message: &str) -> String {
    serde_json::json!({ "errorMessage": message, "errorType": error_type }).to_string()
}

/// What trailers say of an answer that broke off: its error type, if that is so, and the error.
pub(super) fn broken_off(trailers: &[u8]) -> (Option<String>, Option<Vec<u8>>) {
    if trailers.is_empty() {
        return (None, None);
    }
    let error_type = field(trailers, "lambda-runtime-function-error-type");
    let error_type = error_type.filter(|error_type| !error_type.is_empty());
    let error = field(trailers, "lambda-runtime-function-error-body");
    (
        error_type.map(|error_type| String::from_utf8_lossy(error_type).into_owned()),
        error.and_then(|text| BASE64_STANDARD.decode(text).ok()),
    )
}

/// One request of one worker.
pub(super) struct Desk<'a> {
    pub(super) host: &'a Rc<Host>,
    pub(super) worker: &'a Worker,
    pub(super) seat: &'a Seat,
    pub(super) head: &'a Head,
}

impl Desk<'_> {
    pub(super) async fn reply(
        &self,
        connection: &Connection,
        status: u16,
        body: &[u8],
    ) -> Result<(), Closed> {
        let head = connection
            .reply(status)
            .json()
            .connection(self.head, self.head.keep_alive)
            .body(body.len());
        connection.send(head, body).await
    }

    /// A field of the request's head, one of Lambda's.
    pub(super) fn header<'c>(&self, connection: &'c Connection, name: &str) -> Option<&'c [u8]> {
        let mut fields = self.head.aws(connection.bytes());
        fields.find(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    fn error_type(&self, connection: &Connection) -> Option<String> {
        let text = self.header(connection, "lambda-runtime-function-error-type")?;
        Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty())
    }

    /// Reads the request to its end and answers always the same.
    async fn stub(&self, connection: &mut Connection, status: u16, body: &[u8]) -> Result<(), End> {
        connection.body(self.head, RUNTIME_BODY_MAX).await?;
        Ok(self.reply(connection, status, body).await?)
    }

    pub(super) async fn refuse(
        &self,
        connection: &Connection,
        status: u16,
        error_type: &str,
        message: &str,
    ) -> Result<(), Closed> {
        self.reply(connection, status, error(error_type, message).as_bytes()).await
    }

    /// `GET /runtime/invocation/next`: waits for an event. The event is handed out only once it
    /// was written whole; if the connection breaks, the next request gets it.
    async fn next(&self, connection: &mut Connection) -> Result<bool, End> {
        connection.body(self.head, RUNTIME_BODY_MAX).await?;
        self.seat.ask(self.host, self.worker);
        if self.seat.phase.get() == Phase::Running && !self.seat.pending.get() {
            // On the heap: a runtime that asks in the middle of an invocation is rare.
            Box::pin(self.ahead_or_again()).await;
        }
        let pending = || self.seat.event.get().filter(|_| self.seat.pending.replace(false));
        let event = smol::future::or(self.seat.wait(&self.seat.closing, pending), async {
            connection.ended().await;
            None
        })
        .await;
        let Some(id) = event else { return Ok(false) };
        let payload = self.host.with_running(id, |invocation| invocation.payload.take()).flatten();
        let sent = self.send_event(connection, id, payload.as_ref()).await;
        let running = self.host.with_running(id, |invocation| invocation.payload = payload);
        if sent.is_err() && running.is_some() {
            self.seat.pending.set(true);
            self.seat.wake();
        }
        sent?;
        Ok(self.head.keep_alive)
    }

    /// The runtime asks for more while it owes an answer: either that is about to come on another
    /// connection, or the runtime has lost its event and gets the same one again.
    async fn ahead_or_again(&self) {
        let event = self.seat.event.get();
        let owed = || self.seat.event.get() == event && self.seat.phase.get() == Phase::Running;
        let settled = || (!owed()).then_some(());
        smol::future::or(
            async {
                self.seat.wait(&self.seat.closing, settled).await;
            },
            self.host.reactor.sleep_ms(AGAIN_MS),
        )
        .await;
        if owed() && !self.seat.closing.get() {
            self.seat.ahead.set(false);
            self.seat.pending.set(true);
        }
    }

    async fn send_event(
        &self,
        connection: &Connection,
        id: InvocationId,
        payload: Option<&Payload>,
    ) -> Result<(), Closed> {
        let event = payload.map_or(&b"{}"[..], |payload| payload);
        let version = &self.worker.version;
        let sending = self.host.with_running(id, |invocation| {
            let arn = Arn::of(&version.arn, invocation.qualifier.as_deref());
            let context = invocation.client_context.as_deref();
            let head = connection
                .reply(200)
                .json()
                .field("Lambda-Runtime-Aws-Request-Id", invocation.request)
                .field("Lambda-Runtime-Deadline-Ms", invocation.deadline_ms)
                .field("Lambda-Runtime-Invoked-Function-Arn", arn)
                .field("Lambda-Runtime-Trace-Id", &invocation.trace)
                .long_field("Lambda-Runtime-Client-Context: ", context)
                .connection(self.head, self.head.keep_alive)
                .body(event.len());
            connection.send(head, event)
        });
        sending.ok_or(Closed)?.await
    }

    /// True while the runtime owes the answer to the invocation `id`, and is in `phase`.
    pub(super) fn is_current(&self, id: &IdText, phase: Phase) -> bool {
        let event = self.seat.event.get();
        self.worker.running.get() == event
            && self.seat.phase.get() == phase
            && event.is_some_and(|event| {
                self.host.with_running(event, |invocation| invocation.request.is(id)) == Some(true)
            })
    }

    /// `POST /runtime/invocation/ID/response` and `/error`.
    async fn answer(
        &self,
        connection: &mut Connection,
        call: Call,
        id: &IdText,
    ) -> Result<bool, End> {
        let mode = self.header(connection, "lambda-runtime-function-response-mode");
        let streams = mode.is_some_and(|mode| mode.eq_ignore_ascii_case(b"streaming"));
        let bad_mode = mode.is_some() && !streams;
        if streams && call == Call::Response {
            // On the heap: few answers are streams, and every poll is held by a task like this.
            return Box::pin(self.stream(connection, id)).await;
        }
        let error_type = (call == Call::Error).then(|| self.error_type(connection)).flatten();
        let body = match connection.body(self.head, REPLY_MAX).await {
            Ok(body) => body,
            Err(broken) => {
                let broken = (broken, REPLY_MAX);
                let told = self.broken_answer(connection, id, Phase::Running, broken);
                // On the heap, as it is rare.
                return Box::pin(told).await;
            }
        };
        if !self.is_current(id, Phase::Running) {
            self.refuse(connection, 400, "InvalidRequestID", "Invalid request ID").await?;
            return Ok(self.head.keep_alive);
        }
        if bad_mode {
            self.seat.answered(self.host, self.worker, Reply::Mishap(Mishap::BadMode));
            let message = "Invalid function response mode";
            self.refuse(connection, 400, "InvalidFunctionResponseMode", message).await?;
            return Ok(self.head.keep_alive);
        }
        let reply = self.read_answer(connection, call, &body, error_type.as_deref())?;
        self.seat.answered(self.host, self.worker, reply);
        // The caller waits for the answer, and the worker for nothing but our thanks.
        smol::future::yield_now().await;
        self.reply(connection, 202, OK).await?;
        Ok(self.head.keep_alive)
    }

    /// What the body of an answer says.
    fn read_answer(
        &self,
        connection: &mut Connection,
        call: Call,
        body: &Body,
        error_type: Option<&str>,
    ) -> Result<Reply, End> {
        let (failed, told) = broken_off(&connection.bytes()[body.trailers.clone()]);
        let whole = |connection: &mut Connection| {
            let buffer = connection.detach().map_err(|_| End::Refused(Refused::NoRoom))?;
            Ok::<_, End>(Payload::new(buffer, body.payload.clone()))
        };
        if call == Call::Response && failed.is_none() {
            return Ok(Reply::Done(whole(connection)?));
        }
        // The body before it is void.
        if call == Call::Error && told.is_none() && !body.payload.is_empty() {
            return Ok(Reply::Error(whole(connection)?));
        }
        self.error_reply(failed.as_deref().or(error_type), told)
    }

    /// An error of the handler that is not the body of an answer.
    pub(super) fn error_reply(
        &self,
        error_type: Option<&str>,
        told: Option<Vec<u8>>,
    ) -> Result<Reply, End> {
        let no_room = |_| End::Refused(Refused::NoRoom);
        let error_type = error_type.unwrap_or("Runtime.Unknown");
        let json = told.unwrap_or_else(|| error(error_type, "").into_bytes());
        let mut buffer = self.host.buffers.take().map_err(no_room)?;
        buffer.extend(&json).map_err(no_room)?;
        let end = buffer.len();
        Ok(Reply::Error(Payload::new(buffer, 0..end)))
    }

    /// The answer to the invocation `id`, of at most so many bytes, cannot be read.
    pub(super) async fn broken_answer(
        &self,
        connection: &mut Connection,
        id: &IdText,
        phase: Phase,
        (broken, most): (Broken, usize),
    ) -> Result<bool, End> {
        if broken == Broken::Closed && self.is_current(id, phase) {
            // A process that dies while it answers is a crash; its exit says so.
            self.host.reactor.sleep_ms(EXIT_MS).await;
        }
        if !self.is_current(id, phase) {
            return Err(broken.into());
        }
        let chunked = self.head.body == BodyKind::Chunked;
        let (mishap, status, error_type, message) = match broken {
            Broken::Refused(Refused::BodyTooLong) => {
                let message = format!("Exceeded maximum allowed payload size ({most} bytes).");
                (Mishap::ReplyTooLarge, 413, "RequestEntityTooLarge", message)
            }
            Broken::Refused(Refused::Malformed(_) | Refused::HeadTooLong) if chunked => {
                (Mishap::Truncated, 400, "TruncatedHTTPRequest", "Truncated request".into())
            }
            Broken::Refused(refused) => return Err(End::Refused(refused)),
            Broken::Closed => {
                self.seat.answered(self.host, self.worker, Reply::Mishap(Mishap::Truncated));
                return Err(End::Closed);
            }
        };
        self.seat.answered(self.host, self.worker, Reply::Mishap(mishap));
        self.part(connection, status, error_type, &message).await
    }

    /// Refuses a request that was not read to its end, and ends the connection with it.
    pub(super) async fn part(
        &self,
        connection: &mut Connection,
        status: u16,
        error_type: &str,
        message: &str,
    ) -> Result<bool, End> {
        let body = error(error_type, message);
        let head = connection.reply(status).json().closing().body(body.len());
        connection.send(head, body.as_bytes()).await?;
        connection.linger().await;
        Ok(false)
    }

    /// `POST /runtime/init/error`
    async fn init_error(&self, connection: &mut Connection) -> Result<(), End> {
        let body = connection.body(self.head, RUNTIME_BODY_MAX).await?;
        if self.seat.phase.get() != Phase::Init {
            let message = "State transition from Ready to InitError failed for runtime. \
                           Error: State transition is not allowed";
            return Ok(self.refuse(connection, 403, "InvalidStateTransition", message).await?);
        }
        let error = connection.bytes()[body.payload.clone()].to_vec();
        let error_type = self.error_type(connection);
        self.reply(connection, 202, OK).await?;
        let error_type = known_error_type(&error_type.unwrap_or_default());
        self.host.init_failed(self.worker, error, &error_type);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_known() {
        for (method, path, call, id) in [
            (Method::Get, "/2018-06-01/runtime/invocation/next", Call::Next, ""),
            (Method::Post, "/2018-06-01/runtime/invocation/a-1/response", Call::Response, "a-1"),
            (Method::Post, "/2018-06-01/runtime/invocation/a-1/error", Call::Error, "a-1"),
            (Method::Post, "/2018-06-01/runtime/init/error", Call::InitError, ""),
            (Method::Get, "/2018-06-01/runtime/restore/next", Call::RestoreNext, ""),
            (Method::Post, "/2020-01-01/extension/register", Call::Register, ""),
            (Method::Get, "/2020-01-01/extension/event/next", Call::ExtensionNext, ""),
            (Method::Post, "/2020-01-01/extension/init/error", Call::ExtensionInitError, ""),
            (Method::Post, "/2020-01-01/extension/exit/error", Call::ExtensionExitError, ""),
            (Method::Put, "/2022-07-01/telemetry", Call::Telemetry, ""),
            (Method::Put, "/2020-08-15/logs", Call::Telemetry, ""),
            (Method::Get, "/2018-06-01/ping", Call::Ping, ""),
            (Method::Post, "/2018-06-01/runtime/invocation/next", Call::Unknown, ""),
            (Method::Get, "/", Call::Unknown, ""),
        ] {
            assert_eq!(route(method, path.as_bytes()), (call, id.as_bytes()), "{path}");
        }
    }
}
