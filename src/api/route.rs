//! From a request target to what is asked for.

pub mod control;

use std::borrow::Cow;

use memchr::memchr;

use crate::function::url::UrlId;
use crate::http::Method;
pub use control::{Operation, What};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Run a function.
    Invoke(Invoke<'a>),
    /// A function URL; the rest of the target is the function's affair.
    Url(Cow<'a, str>),
    /// The same by what the function URL is called.
    UrlId(UrlId),
    /// The server lives.
    Health,
    /// The server has room.
    Ready,
    /// Something for hob's own command line.
    Admin(Admin),
    /// The control plane of Lambda's API.
    Control(Box<Operation>),
    /// Code as a zip, by digest: where `Code.Location` leads.
    Code(String),
    /// Nothing that is known here.
    Unknown,
}

/// An invocation, as the path and the query say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoke<'a> {
    /// The function, in any spelling.
    pub name: Cow<'a, str>,
    /// `?Qualifier=`
    pub qualifier: Option<String>,
    /// The old asynchronous path: the type is Event whatever the header says.
    pub asynchronous: bool,
    /// The reply is wanted as a stream of events.
    pub streams: bool,
}

/// What hob's own command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// Facts about the server.
    Server,
    /// All functions.
    Functions,
    /// One function.
    Function(String),
    /// Create or update a function from the zip in the body.
    Push(String),
    /// Remove a function.
    Remove(String),
    /// The slot table.
    Workers,
    /// A function's log.
    Logs {
        /// Whose.
        name: String,
        /// Go on as new lines come.
        follow: bool,
        /// Only what is newer, in milliseconds of Unix time.
        since_ms: u64,
    },
    /// Read functions and configuration again.
    Reload,
}

impl Route<'_> {
    /// True for what everybody may ask, for function URLs, which have a rule of their own, and for
    /// code, whose name is what only those know who were told.
    pub fn is_public(&self) -> bool {
        match self {
            Route::Health | Route::Ready | Route::Code(_) => true,
            Route::Url(_) | Route::UrlId(_) => true,
            Route::Invoke(_) | Route::Admin(_) | Route::Control(_) | Route::Unknown => false,
        }
    }
}

impl Admin {
    /// What it takes to be allowed to ask it, and the function that it is about.
    pub fn action(&self) -> (&'static str, Option<&str>) {
        match self {
            Admin::Server => ("hob:GetServer", None),
            Admin::Functions => ("hob:ListFunctions", None),
            Admin::Function(name) => ("hob:GetFunction", Some(name)),
            Admin::Push(name) => ("hob:PushFunction", Some(name)),
            Admin::Remove(name) => ("hob:RemoveFunction", Some(name)),
            Admin::Workers => ("hob:ListWorkers", None),
            Admin::Logs { name, .. } => ("hob:GetLogs", Some(name)),
            Admin::Reload => ("hob:Reload", None),
        }
    }
}

/// Most parts of a path that means something.
const PARTS_MAX: usize = 4;

/// Understands a method and a request target.
pub fn parse(method: Method, target: &[u8]) -> Route<'_> {
    let Ok(target) = std::str::from_utf8(target) else { return Route::Unknown };
    let target = origin(target);
    let (path, query) = match memchr(b'?', target.as_bytes()) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, ""),
    };
    if let Some(rest) = path.strip_prefix("/fn/") {
        let name = rest.split('/').next().unwrap_or_default();
        return decode(name).map_or(Route::Unknown, Route::Url);
    }
    if let Some(rest) = path.strip_prefix("/_url/") {
        let id = rest.split('/').next().unwrap_or_default();
        return UrlId::parse(id).map_or(Route::Unknown, Route::UrlId);
    }
    // Old clients end some paths with a slash.
    let Some(path) = path.strip_prefix('/') else { return Route::Unknown };
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts = parts(path);
    let invoke = |name, qualifier, (asynchronous, streams)| {
        decode(name).map_or(Route::Unknown, |name| {
            Route::Invoke(Invoke { name, qualifier, asynchronous, streams })
        })
    };
    match (method, parts.as_slice()) {
        (Method::Post, ["2015-03-31", "functions", name, "invocations"]) => {
            invoke(name, parameter(query, "Qualifier"), (false, false))
        }
        (Method::Post, ["2021-11-15", "functions", name, "response-streaming-invocations"]) => {
            invoke(name, parameter(query, "Qualifier"), (false, true))
        }
        (Method::Post, ["2014-11-13", "functions", name, "invoke-async"]) => {
            invoke(name, None, (true, false))
        }
        (Method::Get | Method::Head, ["healthz"]) => Route::Health,
        (Method::Get | Method::Head, ["readyz"]) => Route::Ready,
        (method, ["hob", rest @ ..]) => {
            admin(method, rest, query).map_or(Route::Unknown, Route::Admin)
        }
        (Method::Get, ["code", name]) => {
            decode(name).map_or(Route::Unknown, |name| Route::Code(name.into_owned()))
        }
        _ => control::parse(method, path, query)
            .map_or(Route::Unknown, |operation| Route::Control(Box::new(operation))),
    }
}

/// The parts of a path; one more than any route has makes it none of them.
fn parts(path: &str) -> heapless::Vec<&str, { PARTS_MAX + 1 }> {
    let mut rest = Some(path);
    let next = || {
        let path = rest?;
        // Parts are short: looking for each end with `memchr` takes longer.
        let (part, after) = match path.bytes().position(|byte| byte == b'/') {
            Some(at) => (&path[..at], Some(&path[at + 1..])),
            None => (path, None),
        };
        rest = after;
        Some(part)
    };
    std::iter::from_fn(next).take(PARTS_MAX + 1).collect()
}

/// A target without scheme and host: a proxy's client may send them.
pub fn origin(target: &str) -> &str {
    match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    }
}

fn admin(method: Method, parts: &[&str], query: &str) -> Option<Admin> {
    let name = |name| decode(name).map(Cow::into_owned);
    Some(match (method, parts) {
        (Method::Get, ["server"]) => Admin::Server,
        (Method::Get, ["functions"]) => Admin::Functions,
        (Method::Get, ["functions", function]) => Admin::Function(name(function)?),
        (Method::Put, ["functions", function]) => Admin::Push(name(function)?),
        (Method::Delete, ["functions", function]) => Admin::Remove(name(function)?),
        (Method::Get, ["workers"]) => Admin::Workers,
        (Method::Get, ["logs", function]) => Admin::Logs {
            name: name(function)?,
            follow: parameter(query, "follow").is_some(),
            since_ms: parameter(query, "since_ms").and_then(|n| n.parse().ok()).unwrap_or(0),
        },
        (Method::Post, ["reload"]) => Admin::Reload,
        _ => return None,
    })
}

/// The value of a query parameter.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    if query.is_empty() {
        return None;
    }
    parameters(query).find(|(n, _)| n == name).map(|(_, value)| value)
}

/// All query parameters, decoded, in order. What does not decode is kept as it is.
pub fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |text: &str| {
            let spaced = text.replace('+', " ");
            decode(&spaced).map_or_else(|| spaced.clone(), Cow::into_owned)
        };
        (text(name), text(value))
    })
}

/// Undoes percent-encoding; `None` if it is malformed or not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, more) = rest.split_first_chunk::<2>()?;
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|n| u8::try_from(n).ok());
        bytes.push(digit(digits[0])? << 4 | digit(digits[1])?);
        rest = more;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoke<'a>(name: &'a str, qualifier: Option<&str>, asynchronous: bool) -> Route<'a> {
        let qualifier = qualifier.map(str::to_owned);
        Route::Invoke(Invoke { name: name.into(), qualifier, asynchronous, streams: false })
    }

    #[test]
    fn paths_are_understood_as_clients_write_them() {
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:demo:prod";
        let streaming = Route::Invoke(Invoke {
            name: "demo".into(),
            qualifier: Some("1".to_owned()),
            asynchronous: false,
            streams: true,
        });
        for (method, target, route) in [
            (
                Method::Post,
                "/2015-03-31/functions/demo/invocations".to_owned(),
                invoke("demo", None, false),
            ),
            (
                Method::Post,
                "/2015-03-31/functions/demo/invocations/?Qualifier=%24LATEST".to_owned(),
                invoke("demo", Some("$LATEST"), false),
            ),
            (
                Method::Post,
                format!("/2015-03-31/functions/{}/invocations", arn.replace(':', "%3A")),
                invoke(arn, None, false),
            ),
            (
                Method::Post,
                "/2014-11-13/functions/demo/invoke-async/".to_owned(),
                invoke("demo", None, true),
            ),
            (
                Method::Post,
                "/2021-11-15/functions/demo/response-streaming-invocations?Qualifier=1".to_owned(),
                streaming,
            ),
            (Method::Put, "/fn/demo/a/b?c=d".to_owned(), Route::Url("demo".into())),
            (Method::Get, "/fn/demo".to_owned(), Route::Url("demo".into())),
            (Method::Get, "http://h:1/fn/demo".to_owned(), Route::Url("demo".into())),
            (
                Method::Get,
                "/_url/xj4bnp4pahh6uqkbidpf3lrceoyagynd/a/b?c=d".to_owned(),
                Route::UrlId(UrlId::of("abc")),
            ),
            (Method::Get, "/_url/demo/a".to_owned(), Route::Unknown),
            (Method::Get, "/healthz".to_owned(), Route::Health),
            (Method::Get, "/hob/workers".to_owned(), Route::Admin(Admin::Workers)),
            (Method::Get, "/2015-03-31/functions/%zz/invocations".to_owned(), Route::Unknown),
            (Method::Get, "/2015-03-31/functions/demo/invocations".to_owned(), Route::Unknown),
            (Method::Get, "/".to_owned(), Route::Unknown),
            (Method::Get, "*".to_owned(), Route::Unknown),
            (Method::Get, "healthz".to_owned(), Route::Unknown),
            (Method::Get, "//healthz".to_owned(), Route::Unknown),
        ] {
            assert_eq!(parse(method, target.as_bytes()), route, "{target}");
        }
        assert_eq!(parse(Method::Get, b"/\xff"), Route::Unknown);
    }

    #[test]
    fn queries_decode_and_keep_their_order() {
        let all: Vec<(String, String)> = parameters("a=1&b=x%20y+z&&c&a=%zz").collect();
        let expected = [("a", "1"), ("b", "x y z"), ("c", ""), ("a", "%zz")];
        let expected: Vec<(String, String)> =
            expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(all, expected);
    }
}
