//! `POST /2015-03-31/functions/NAME/invocations`

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::auth::{Caller, Claimed};
use super::error::ApiError;
use super::route::Invoke;
use super::{Api, End, json};
use crate::function::name::{FunctionName, Name, is_built_in};
use crate::function::record::LATEST;
use crate::host::catalog::Version;
use crate::host::invocation::{Call, Payload, Settled};
use crate::host::{Claim, Host};
use crate::http::connection::Broken;
use crate::http::{Connection, Head, Refused};
use crate::io::reactor::Interest;
use crate::limits::{CLIENT_CONTEXT_MAX, HALF_CLOSE_MS, TRACE_MAX};
use crate::pool::Outcome;

/// What the log of a function says of the invocation that was not made.
const RECURSIVE: &[u8] =
    b"not invoked: a chain of invocations led here 16 times (recursive_loop = \"allow\" permits it)";

/// What the header fields of an invocation say.
#[derive(Default)]
struct Wishes {
    dry_run: bool,
    event: bool,
    tail: bool,
    trace: Option<Box<str>>,
    client_context: Option<Box<str>>,
}

/// What an invocation's path and query name.
pub struct Target {
    name: Name,
    qualifier: Option<Box<str>>,
    asynchronous: bool,
}

impl Target {
    /// Understands the name, in whatever spelling it came, if who calls may invoke the function.
    pub fn read<'a>(
        api: &'a Api,
        connection: &Connection,
        head: &Head,
        invoke: Invoke<'_>,
    ) -> Result<(Target, Option<Claimed<'a>>), ApiError> {
        let home = &api.host.facts.home;
        let claimed = api.check(connection, head)?;
        let function = home
            .parse(&invoke.name, invoke.qualifier.as_deref())
            .map_err(|bad| ApiError::bad_name(&invoke.name, bad, &home.region))?;
        api.may_invoke(&claimed, function, None)?;
        let target = Target {
            name: Name::try_from(function.name).expect("a name was parsed"),
            qualifier: function.qualifier.map(Into::into),
            asynchronous: invoke.asynchronous,
        };
        Ok((target, Some(claimed)))
    }
}

/// Serves one invocation. What is `claimed` is taken: an argument by value would be held twice.
pub async fn serve(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    target: &Target,
    claimed: &mut Option<Claimed<'_>>,
) -> Result<(), End> {
    let Some((claim, version)) = read(api, connection, head, target, (claimed, false)).await?
    else {
        return Ok(());
    };
    let settled = run(claim, connection).await?;
    answer(&api.host, connection, head, &version, &settled).await
}

/// Reads what is to be invoked, and begins that, for a caller that takes `pieces` or not; `None` if
/// it is answered already.
pub async fn read<'a>(
    api: &'a Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    target: &Target,
    (claimed, pieces): (&mut Option<Claimed<'_>>, bool),
) -> Result<Option<(Claim<'a>, Rc<Version>)>, End> {
    let host = &api.host;
    let name = FunctionName { name: &target.name, qualifier: target.qualifier.as_deref() };
    let wishes = wishes(head.aws(connection.bytes()), target.asynchronous)?;
    if head.expects_continue && claimed.as_ref().is_some_and(Claimed::is_proven) {
        // It asks before it sends: what is no use sending is refused here.
        host.know(name.name).await;
        find(api, name)?;
    }
    let most = api.payload_max();
    let body = match connection.body(head, most).await {
        Ok(body) => body,
        Err(Broken::Refused(Refused::BodyTooLong)) => {
            return Err(ApiError::too_large(most).into());
        }
        Err(broken) => return Err(broken.into()),
    };
    host.know(name.name).await;
    let claimed = claimed.take().expect("a request is served once");
    let caller = claimed.body(connection, body.payload.clone()).await?;
    let version = find(api, name)?;
    let event = &connection.bytes()[body.payload.clone()];
    if !event.is_empty() {
        json::check(event).map_err(|error| {
            ApiError::invalid_content(format!("Could not parse request body into json: {error}"))
        })?;
    }
    if wishes.event {
        return Err(no_event(pieces).into());
    }
    if wishes.dry_run {
        let reply = connection
            .reply(204)
            .field("x-amzn-RequestId", host.request_id())
            .connection(head, head.keep_alive)
            .bare();
        connection.send(reply, b"").await?;
        return Ok(None);
    }
    if host.catalog.borrow().is_recursive(&version, wishes.trace.as_deref()) {
        host.note_outside(&version.name, RECURSIVE);
        return Err(ApiError::recursive(&version.name).into());
    }
    let payload = if event.is_empty() {
        None
    } else {
        let buffer = connection.detach().map_err(|_| End::Refused(Refused::NoRoom))?;
        Some(Payload::new(buffer, body.payload))
    };
    let call = Call {
        version: version.id,
        qualifier: target.qualifier.clone(),
        payload,
        request: None,
        trace: wishes.trace,
        client_context: wishes.client_context,
        tail: wishes.tail,
        pieces,
    };
    Ok(Some((begin(host, caller, call), version)))
}

/// Why nothing is invoked asynchronously; a caller that takes pieces cannot want that.
fn no_event(pieces: bool) -> ApiError {
    if pieces {
        return not_in_set(b"Event", "invocationType", "[RequestResponse, DryRun]");
    }
    // An answer 202 is a promise to run it even after a power cut.
    ApiError::invalid_parameter(
        "InvocationType Event is not supported by this server yet: it keeps no durable queue.",
    )
}

/// Begins an invocation, for a caller whose request is proven.
pub fn begin<'a>(host: &'a Rc<Host>, _caller: Caller<'_>, call: Call) -> Claim<'a> {
    host.invoke(call)
}

/// Waits for the end of an invocation, as long as its client is there.
///
/// On TCP the end of the client's sending side is all that is seen of a client that left. Some
/// clients end it right behind their request, and wait: these get their reply. If it ends later,
/// while the invocation still waits for a worker, nobody waits for that. Once a worker has it, it
/// runs to its end anyway.
pub async fn run(mut claim: Claim<'_>, connection: &Connection) -> Result<Settled, End> {
    wait(&mut claim, connection, Claim::poll_settled).await
}

/// As [`run`], for whatever `poll` waits for.
pub fn wait<'a, 'h, T>(
    claim: &'a mut Claim<'h>,
    connection: &'a Connection,
    poll: impl Fn(&mut Claim<'h>, &Context<'_>) -> Poll<T> + 'a,
) -> impl Future<Output = Result<T, End>> + 'a {
    connection.asked();
    let io = connection.io();
    let half_closes_until = io.reactor().now().after_ms(HALF_CLOSE_MS);
    let mut half_closed = false;
    poll_fn(move |cx| {
        if let Poll::Ready(found) = poll(claim, cx) {
            return Poll::Ready(Ok(found));
        }
        if !half_closed && !claim.has_begun() && io.poll_ready(cx, Interest::Ended).is_ready() {
            half_closed = io.reactor().now() <= half_closes_until;
            if !half_closed {
                return Poll::Ready(Err(End::Closed));
            }
        }
        io.poll_ready(cx, Interest::Gone).map(|()| Err(End::Closed))
    })
}

/// The version that a name means, or Lambda's error. An alias with two ends means either.
pub fn find(api: &Api, name: FunctionName<'_>) -> Result<Rc<Version>, ApiError> {
    let host = &api.host;
    if is_built_in(name.name) && name.qualifier.is_none_or(|qualifier| qualifier == LATEST) {
        return host.probe().map_err(|why| not_found(host, name, &format!(" ({why})")));
    }
    let number = {
        let catalog = host.catalog.borrow();
        let function = catalog.function(name.name).ok_or_else(|| not_found(host, name, ""))?;
        let label = name.qualifier.filter(|qualifier| *qualifier != LATEST);
        let label = label.map(|label| match function.alias(label) {
            Some(route) if route.additional.is_some() => route.choose(host.chance()),
            Some(route) => &route.function_version,
            None => label,
        });
        let Some(label) = label.filter(|label| *label != LATEST) else {
            return function.state.clone().map_err(|issues| {
                let why = format!(" ({})", issues.first().map_or("refused", String::as_str));
                not_found(host, name, &why)
            });
        };
        if let Some(version) = function.published(label) {
            return Ok(Rc::clone(version));
        }
        label.parse().map_err(|_| not_found(host, name, ""))?
    };
    match host.published(&api.store, name.name, number) {
        Ok(Some(version)) => Ok(version),
        Ok(None) => Err(not_found(host, name, "")),
        Err(why) => Err(not_found(host, name, &format!(" ({why})"))),
    }
}

/// Lambda's error for a function that is not there, and why it is not.
pub fn not_found(host: &Host, name: FunctionName<'_>, why: &str) -> ApiError {
    let qualifier = name.qualifier.unwrap_or(LATEST);
    let arn = host.facts.home.arn(name.name, Some(qualifier));
    ApiError::not_found(format!("Function not found: {arn}{why}"))
}

fn wishes<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    asynchronous: bool,
) -> Result<Wishes, ApiError> {
    let mut wishes = Wishes { event: asynchronous, ..Wishes::default() };
    for (name, value) in fields {
        match name.len() {
            21 if name.eq_ignore_ascii_case(b"x-amz-invocation-type") => match value {
                b"RequestResponse" => {}
                b"Event" => wishes.event = true,
                b"DryRun" => wishes.dry_run = true,
                other => {
                    return Err(not_in_set(
                        other,
                        "invocationType",
                        "[Event, RequestResponse, DryRun]",
                    ));
                }
            },
            14 if name.eq_ignore_ascii_case(b"x-amz-log-type") => match value {
                b"None" => {}
                b"Tail" => wishes.tail = true,
                other => return Err(not_in_set(other, "logType", "[None, Tail]")),
            },
            20 if name.eq_ignore_ascii_case(b"x-amz-client-context") => {
                wishes.client_context = Some(client_context(value)?);
            }
            15 if name.eq_ignore_ascii_case(b"x-amzn-trace-id") => {
                let text = std::str::from_utf8(value).ok();
                let text = text.filter(|text| text.len() <= TRACE_MAX && text.is_ascii());
                wishes.trace = text.map(Into::into);
            }
            _ => {}
        }
    }
    Ok(wishes)
}

fn not_in_set(value: &[u8], field: &str, allowed: &str) -> ApiError {
    let value = String::from_utf8_lossy(value);
    ApiError::invalid_parameter(format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: \
         Member must satisfy enum value set: {allowed}"
    ))
}

/// The client context: JSON in base64. It goes on as a header field, where line ends cannot be.
fn client_context(value: &[u8]) -> Result<Box<str>, ApiError> {
    let bad = || {
        let message = "Client context must be a valid Base64-encoded JSON object.";
        ApiError::invalid_content(message)
    };
    let bytes = BASE64_STANDARD.decode(value).map_err(|_| bad())?;
    if bytes.len() > CLIENT_CONTEXT_MAX || json::check(&bytes).is_err() {
        return Err(bad());
    }
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    Ok(text.replace(|c: char| c.is_ascii_control(), " ").into())
}

/// What a caller hears of an invocation that was cut off.
pub fn cancelled(host: &Host) -> ApiError {
    if host.is_draining() {
        ApiError::draining()
    } else {
        ApiError::not_found("Function not found: it was removed")
    }
}

async fn answer(
    host: &Host,
    connection: &Connection,
    head: &Head,
    version: &Version,
    settled: &Settled,
) -> Result<(), End> {
    let failed = match settled.outcome {
        Outcome::Done => false,
        Outcome::Failed | Outcome::Crashed | Outcome::TimedOut | Outcome::InitFailed => true,
        Outcome::Rejected(refusal) => return Err(ApiError::refused(refusal).into()),
        Outcome::Cancelled => return Err(cancelled(host).into()),
    };
    let body = match (&settled.answer, &settled.error) {
        (Some(answer), None) => &answer.payload[..],
        (_, Some(error)) => error.as_bytes(),
        (None, None) => b"",
    };
    let mut reply = connection
        .reply(200)
        .json()
        .field("x-amzn-RequestId", settled.request)
        .field("X-Amzn-Trace-Id", &settled.trace)
        .field("X-Amz-Executed-Version", &*version.label);
    if failed {
        reply = reply.field("X-Amz-Function-Error", "Unhandled");
    }
    let tail = settled.tail.as_ref().map(|tail| BASE64_STANDARD.encode(tail));
    let reply = reply
        .connection(head, head.keep_alive)
        .long_field("X-Amz-Log-Result: ", tail.as_deref())
        .body(body.len());
    Ok(connection.send(reply, body).await?)
}
