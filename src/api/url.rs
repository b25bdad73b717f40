//! Function URLs: any HTTP request becomes an event in payload format 2.0, and the function's
//! reply becomes the HTTP response.

pub mod address;
mod cors;
mod stream;

use std::borrow::Cow;
use std::fmt::Write;
use std::rc::Rc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::auth::{self, Auth, Caller, Claimed};
use super::error::ApiError;
use super::invoke::{begin, cancelled, find, run};
use super::json::{self, Writer};
use super::{Api, End, route};
use crate::function::name::FunctionName;
use crate::function::record::Wish;
use crate::function::url::{InvokeMode, Url, UrlAuth};
use crate::host::Host;
use crate::host::invocation::{Call, Payload, RequestId, Settled};
use crate::http::connection::Broken;
use crate::http::head::{field, fields, values};
use crate::http::{Connection, Head, Method, Refused};
use crate::io::clock::{CivilTime, Clock};
use crate::pool::Outcome;
use address::{Address, url_of};

/// Serves one request to a function URL.
pub async fn serve(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    address: Address,
) -> Result<(), End> {
    api.host.know(&address.name).await;
    let version = find(api, address.function())?;
    let url = url_of(api, &version, address.alias.as_deref())?;
    let url = url.as_ref();
    let Some(cors) = url.and_then(|url| url.cors.as_ref()) else {
        return invoke(api, connection, head, (&address, url), "").await;
    };
    let origin = field(&connection.bytes()[..head.length], "origin");
    if head.method == Method::Options {
        let lines = cors::preflight(cors, origin);
        return told(api, connection, head, &lines).await;
    }
    let lines = cors::lines(cors, origin);
    let invoked = invoke(api, connection, head, (&address, url), &lines).await;
    invoked.map_err(|end| match end {
        End::Error(mut error) => {
            error.lines = lines;
            End::Error(error)
        }
        End::Closed | End::Refused(_) => end,
    })
}

/// Answers a preflight request.
async fn told(api: &Api, connection: &mut Connection, head: &Head, lines: &str) -> Result<(), End> {
    let whole = connection.discard(head).await;
    let reply = connection
        .reply(200)
        .field("x-amzn-RequestId", api.host.request_id())
        .connection(head, whole && head.keep_alive)
        .lines(lines)
        .body(0);
    connection.send(reply, b"").await?;
    if !whole {
        connection.linger().await;
        return Err(End::Closed);
    }
    Ok(())
}

/// Invokes the function, for those whom its URL lets in; the reply gets the header lines `cors`.
async fn invoke(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    (address, url): (&Address, Option<&Url>),
    cors: &str,
) -> Result<(), End> {
    let (host, name) = (&api.host, &*address.name);
    let rule = url.map(|url| url.auth);
    let claimed = match rule {
        Some(UrlAuth::None) if is_closed(api, address) => {
            return Err(ApiError::forbidden_url().into());
        }
        Some(UrlAuth::None) => Claimed::by_anybody(&host.facts.home),
        // Without a rule of its own it is as open as the rest of the server.
        Some(UrlAuth::Iam) | None => claim(api, connection, head, rule, address)?,
    };
    let most = api.payload_max();
    let body = match connection.body(head, most).await {
        Ok(body) => body.payload,
        Err(Broken::Refused(Refused::BodyTooLong)) => {
            return Err(ApiError::too_large(most).into());
        }
        Err(broken) => return Err(broken.into()),
    };
    let caller = claimed.body(connection, body.clone()).await?;
    let no_room = |_| End::Refused(Refused::NoRoom);
    let mut event = Writer::new(host.buffers.take().map_err(no_room)?);
    let id = host.request_id();
    let request = Request {
        head,
        bytes: &connection.bytes()[..head.length],
        body: &connection.bytes()[body],
        name,
        account: &host.facts.home.account,
        source: connection.source().map(|ip| ip.to_string()).unwrap_or_default(),
        id,
        caller: (rule == Some(UrlAuth::Iam)).then_some(caller),
    };
    request.write(&mut event);
    let event = event.finish().map_err(no_room)?;
    if event.len() > most {
        return Err(ApiError::too_large(most).into());
    }
    let length = event.len();
    let streams = url.is_some_and(|url| url.invoke_mode == InvokeMode::ResponseStream);
    let call = Call {
        // While the body came, another version may have taken the place of that one.
        version: find(api, address.function())?.id,
        qualifier: address.alias.clone(),
        payload: Some(Payload::new(event, 0..length)),
        request: Some(id),
        trace: None,
        client_context: None,
        tail: false,
        pieces: streams,
    };
    let claim = begin(host, caller, call);
    if streams {
        return stream::answer(host, claim, connection, head, cors).await;
    }
    let settled = run(claim, connection).await?;
    answer(host, connection, head, &settled, cors).await
}

/// True for a URL that was made open over the API, where that takes a policy as on AWS, and has none.
fn is_closed(api: &Api, address: &Address) -> bool {
    let catalog = api.host.catalog.borrow();
    let FunctionName { name, qualifier } = address.function();
    let rule = Some(UrlAuth::None);
    let wish = Wish { qualifier, user: None, action: auth::INVOKE_URL, url_auth: rule };
    api.auth.is_strict()
        && catalog.function(name).is_some_and(|function| function.url(qualifier).is_some())
        && !catalog.grants(name, wish)
}

/// Who calls a URL that is not everybody's.
fn claim<'a>(
    api: &'a Api,
    connection: &Connection,
    head: &Head,
    rule: Option<UrlAuth>,
    address: &Address,
) -> Result<Claimed<'a>, ApiError> {
    let header = &connection.bytes()[..head.length];
    let is_iam = rule == Some(UrlAuth::Iam);
    // An open server has no keys, so nobody on the network can show one.
    let is_open = api.auth == Auth::Open && connection.source().is_some();
    if is_iam && (is_open || !auth::has_credentials(header) && connection.source().is_some()) {
        return Err(ApiError::forbidden_url());
    }
    let claimed = api.check(connection, head)?;
    let allowed = match rule {
        Some(_) => api.may_invoke(&claimed, address.function(), rule),
        None => claimed.may(auth::INVOKE_URL, Some(&address.name)),
    };
    allowed.map_err(|error| if is_iam { ApiError::forbidden_url() } else { error })?;
    Ok(claimed)
}

/// One request, to be told as an event.
struct Request<'a> {
    head: &'a Head,
    bytes: &'a [u8],
    body: &'a [u8],
    name: &'a str,
    account: &'a str,
    source: String,
    id: RequestId,
    /// Who calls, where the function asks for that.
    caller: Option<Caller<'a>>,
}

impl Request<'_> {
    fn write(&self, event: &mut Writer) {
        let target = String::from_utf8_lossy(&self.bytes[self.head.target.clone()]);
        let target = route::origin(&target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = address::path(self.head.host(self.bytes), path);
        event.raw("{\"version\":\"2.0\",\"routeKey\":\"$default\",").pair("rawPath", path);
        event.raw(",").pair("rawQueryString", query);
        self.write_cookies(event);
        self.write_headers(event);
        write_query(event, query);
        self.write_context(event, path);
        if !self.body.is_empty() {
            let text = self.is_text().then(|| std::str::from_utf8(self.body).ok()).flatten();
            match text {
                Some(text) => event.raw(",").pair("body", text).raw(",\"isBase64Encoded\":false"),
                None => event.raw(",\"body\":").base64(self.body).raw(",\"isBase64Encoded\":true"),
            };
        } else {
            event.raw(",\"isBase64Encoded\":false");
        }
        event.raw("}");
    }

    fn is_text(&self) -> bool {
        let Some(content_type) = field(self.bytes, "content-type") else { return true };
        let kind = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let kind = kind.to_ascii_lowercase();
        kind.starts_with(b"text/")
            || kind.ends_with(b"+json")
            || kind.ends_with(b"+xml")
            || [
                &b"application/json"[..],
                b"application/xml",
                b"application/javascript",
                b"application/x-www-form-urlencoded",
            ]
            .contains(&kind.as_slice())
    }

    fn write_cookies(&self, event: &mut Writer) {
        let mut cookies = values(self.bytes, "cookie")
            .flat_map(|value| value.split(|b| *b == b';'))
            .map(|cookie| String::from_utf8_lossy(cookie.trim_ascii()).into_owned())
            .filter(|cookie| !cookie.is_empty())
            .peekable();
        if cookies.peek().is_none() {
            return;
        }
        let mut open = ",\"cookies\":[";
        for cookie in cookies {
            event.raw(open).text(&cookie);
            open = ",";
        }
        event.raw("]");
    }

    fn write_headers(&self, event: &mut Writer) {
        event.raw(",\"headers\":{");
        let mut comma = "";
        // A hundred names at most, but in a long text: it is read once.
        let all: Vec<(&[u8], &[u8])> = fields(self.bytes).collect();
        for (n, (name, _)) in all.iter().enumerate() {
            let again = |other: &[u8]| other.eq_ignore_ascii_case(name);
            if all[..n].iter().any(|(other, _)| again(other)) || again(b"cookie") {
                continue;
            }
            let values: Vec<_> = all[n..]
                .iter()
                .filter(|(other, _)| again(other))
                .map(|(_, value)| String::from_utf8_lossy(value))
                .collect();
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            event.raw(comma).pair(&name, &values.join(","));
            comma = ",";
        }
        event.raw(comma).pair("x-forwarded-for", &self.source);
        event.raw(",").pair("x-forwarded-proto", "http").raw("}");
    }

    fn write_context(&self, event: &mut Writer, path: &str) {
        let host = String::from_utf8_lossy(self.head.host(self.bytes));
        let agent = field(self.bytes, "user-agent").map(String::from_utf8_lossy);
        let now = Clock::unix_ms();
        event.raw(",\"requestContext\":{").pair("accountId", self.account);
        if let Some(caller) = &self.caller {
            self.write_caller(event, caller);
        }
        event.raw(",").pair("apiId", self.name).raw(",").pair("domainName", &host);
        event.raw(",").pair("domainPrefix", self.name);
        event.raw(",\"http\":{").pair("method", self.head.method.as_str());
        event.raw(",").pair("path", path).raw(",").pair("protocol", "HTTP/1.1");
        event.raw(",").pair("sourceIp", &self.source);
        event.raw(",").pair("userAgent", agent.as_deref().unwrap_or_default());
        event.raw("},").pair("requestId", &self.id.to_string());
        event.raw(",\"routeKey\":\"$default\",\"stage\":\"$default\",");
        event.pair("time", &CivilTime::from_unix_ms(now).to_common_log());
        event.raw(&format!(",\"timeEpoch\":{now}}}"));
    }

    /// As AWS tells of a user that it has authorized.
    fn write_caller(&self, event: &mut Writer, caller: &Caller<'_>) {
        let id = caller.key().unwrap_or(self.account);
        event.raw(",\"authorizer\":{\"iam\":{").pair("accessKey", caller.key().unwrap_or_default());
        event.raw(",").pair("accountId", self.account).raw(",").pair("callerId", id);
        event.raw(",\"cognitoIdentity\":null,\"principalOrgId\":null,");
        event.pair("userArn", &caller.arn().to_string()).raw(",").pair("userId", id).raw("}}");
    }
}

fn write_query(event: &mut Writer, query: &str) {
    let parameters: Vec<(String, String)> = route::parameters(query).collect();
    if parameters.is_empty() {
        return;
    }
    // A head has room for many thousand names: sorted, each one is compared with few others.
    let mut sorted: Vec<usize> = (0..parameters.len()).collect();
    sorted.sort_unstable_by_key(|n| (parameters[*n].0.as_str(), *n));
    let same = |a: &usize, b: &usize| parameters[*a].0 == parameters[*b].0;
    let mut groups: Vec<&[usize]> = sorted.chunk_by(same).collect();
    groups.sort_unstable_by_key(|group| group[0]);
    event.raw(",\"queryStringParameters\":{");
    let mut comma = "";
    for group in groups {
        let values: Vec<&str> = group.iter().map(|n| parameters[*n].1.as_str()).collect();
        event.raw(comma).pair(&parameters[group[0]].0, &values.join(","));
        comma = ",";
    }
    event.raw("}");
}

/// A reply in payload format 2.0. What is absent may also be null: Go writes it so.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shaped<'a> {
    status_code: u16,
    headers: Option<serde_json::Map<String, serde_json::Value>>,
    cookies: Option<Vec<String>>,
    #[serde(borrow)]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: Option<bool>,
}

async fn answer(
    host: &Host,
    connection: &Connection,
    head: &Head,
    settled: &Settled,
    cors: &str,
) -> Result<(), End> {
    match settled.outcome {
        Outcome::Done => {}
        Outcome::Rejected(refusal) => return Err(ApiError::refused(refusal).into()),
        Outcome::Cancelled => return Err(cancelled(host).into()),
        Outcome::Failed | Outcome::Crashed | Outcome::TimedOut | Outcome::InitFailed => {
            return bad_gateway(connection, head, settled.request, cors).await;
        }
    }
    let reply: &[u8] = settled.answer.as_ref().map_or(b"", |answer| &answer.payload);
    let shaped: Option<Shaped<'_>> = serde_json::from_slice(reply).ok();
    // A status below 200 would announce another response behind this one.
    let Some(shaped) = shaped.filter(|shaped| (200..1000).contains(&shaped.status_code)) else {
        // Anything else is the body as it stands; programs need not speak JSON.
        let kind = if json::check(reply).is_ok() {
            "application/json"
        } else if std::str::from_utf8(reply).is_ok() {
            "text/plain; charset=utf-8"
        } else {
            "application/octet-stream"
        };
        let lines = format!("Content-Type: {kind}\r\n{cors}");
        return send(connection, head, settled.request, 200, &lines, reply).await;
    };
    let text = shaped.body.as_deref().unwrap_or_default().as_bytes();
    let body = if shaped.is_base64_encoded == Some(true) {
        match BASE64_STANDARD.decode(text) {
            Ok(bytes) => Cow::Owned(bytes),
            Err(_) => return bad_gateway(connection, head, settled.request, cors).await,
        }
    } else {
        Cow::Borrowed(text)
    };
    send(connection, head, settled.request, shaped.status_code, &(shaped.fields() + cors), &body)
        .await
}

async fn bad_gateway(
    connection: &Connection,
    head: &Head,
    id: RequestId,
    cors: &str,
) -> Result<(), End> {
    let lines = format!("Content-Type: text/plain\r\n{cors}");
    send(connection, head, id, 502, &lines, b"Internal Server Error").await
}

impl Shaped<'_> {
    fn fields(&self) -> String {
        head_lines(self.headers.as_ref(), self.cookies.as_deref(), "application/json")
    }
}

/// Header lines, without those that are ours to say; `kind` is the type of content that has none.
fn head_lines(
    headers: Option<&serde_json::Map<String, serde_json::Value>>,
    cookies: Option<&[String]>,
    kind: &str,
) -> String {
    let mut lines = String::new();
    let mut typed = false;
    for (name, value) in headers.into_iter().flatten() {
        let value = match value {
            serde_json::Value::String(text) => text.clone(),
            other @ (serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_)) => other.to_string(),
        };
        let ours = ["content-length", "transfer-encoding", "connection", "date"];
        if ours.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            continue;
        }
        typed |= name.eq_ignore_ascii_case("content-type");
        add_field(&mut lines, name, &value);
    }
    if !typed {
        add_field(&mut lines, "Content-Type", kind);
    }
    for cookie in cookies.into_iter().flatten() {
        add_field(&mut lines, "Set-Cookie", cookie);
    }
    lines
}

/// Adds a header line; one that could break the head apart is left out.
fn add_field(lines: &mut String, name: &str, value: &str) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let plain = !value.chars().any(|c| c.is_ascii_control() && c != '\t');
    if !name.is_empty() && name.bytes().all(token) && plain {
        write!(lines, "{name}: {value}\r\n").expect("a string takes everything");
    }
}

async fn send(
    connection: &Connection,
    request: &Head,
    id: RequestId,
    status: u16,
    fields: &str,
    body: &[u8],
) -> Result<(), End> {
    let head = connection
        .reply(status)
        .field("x-amzn-RequestId", id)
        .connection(request, request.keep_alive)
        .lines(fields);
    // These statuses have no body, and a length would announce one.
    let bare = status == 204 || status == 304;
    let head = if bare { head.bare() } else { head.body(body.len()) };
    let body = if bare || request.method == Method::Head { b"" } else { body };
    Ok(connection.send(head, body).await?)
}

#[cfg(test)]
mod tests;
