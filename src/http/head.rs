//! Request heads: finding their end, what frames the body, and the fields by name.

use std::mem::MaybeUninit;
use std::ops::Range;

use memchr::memchr;

use super::Refused;

/// Fields in a head; real clients send about twenty.
const FIELDS_MAX: usize = 100;

/// The methods that any route knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// PATCH
    Patch,
    /// OPTIONS
    Options,
}

impl Method {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
            Method::Options => "OPTIONS",
        }
    }
}

/// How the body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// So many bytes; 0 for a request without a body.
    Length(u64),
    /// In chunks, perhaps with trailers.
    Chunked,
}

/// The facts of one request head. Its text stays in the connection's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What to do.
    pub method: Method,
    /// Where the request target stands, relative to the head's start.
    pub target: Range<usize>,
    /// Where the value of `Host` stands, the first if there are several; empty if there is none.
    host: Range<usize>,
    /// Where the lines stand whose names begin with `X-Amz` or `Lambda-`, from the first to the last.
    aws: Range<usize>,
    /// Bytes of the head, with the empty line that ends it.
    pub length: usize,
    /// How the body is framed.
    pub body: BodyKind,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// It is HTTP/1.0: the client must be told that the connection is kept.
    pub old: bool,
    /// A browser may have sent it for a web page: it has an `Origin`, or is by a `Mozilla`.
    pub may_be_page: bool,
}

impl Head {
    /// The host that the client asks, of the bytes that the head stands in; empty if it said none.
    pub fn host<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.host.clone()).unwrap_or_default()
    }

    /// The fields whose names begin with `X-Amz` or `Lambda-` (any case), in order, of the bytes that
    /// the head stands in.
    pub fn aws<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let lines = bytes.get(self.aws.clone()).unwrap_or_default();
        fields(lines).filter(|(name, _)| is_aws(name))
    }
}

/// Finds the end of a head in `bytes`: the length with the empty line. Looks only at what lies
/// behind `seen`, the bytes that held no end before, so a slow head is read once and not n times.
pub fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let mut at = seen.saturating_sub(3);
    while let Some(newline) = memchr(b'\n', &bytes[at..]) {
        at += newline + 1;
        match bytes.get(at..) {
            Some([b'\n', ..]) => return Some(at + 1),
            Some([b'\r', b'\n', ..]) => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Reads the head that `bytes` holds, all of it and nothing else.
pub fn parse(bytes: &[u8]) -> Result<Head, Refused> {
    let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Refused::Malformed("incomplete request head")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::HeadTooLong),
        Err(_) => return Err(Refused::Malformed("malformed request head")),
    }
    let method = method(request.method.unwrap_or_default())?;
    let range = |part: &[u8]| {
        let start = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
        start..start.wrapping_add(part.len())
    };
    let newer = request.version == Some(1);
    let mut head = Head {
        method,
        target: range(request.path.unwrap_or_default().as_bytes()),
        host: 0..0,
        aws: 0..0,
        length: bytes.len(),
        body: BodyKind::Length(0),
        expects_continue: false,
        keep_alive: newer,
        old: !newer,
        may_be_page: false,
    };
    let mut framing = Framing::default();
    let mut hosts = 0;
    for field in request.headers.iter() {
        let value = field.value.trim_ascii();
        if is_aws(field.name.as_bytes()) {
            let line = range(field.name.as_bytes()).start..range(field.value).end;
            head.aws = if head.aws.is_empty() { line } else { head.aws.start..line.end };
        }
        match field.name {
            name if is(name, "host") => {
                if hosts == 0 {
                    head.host = range(value);
                }
                hosts += 1;
            }
            name if is(name, "expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refused::UnknownExpectation);
                }
                // An HTTP/1.0 client cannot mean it.
                head.expects_continue = newer;
            }
            name if is(name, "origin") => head.may_be_page = true,
            name if is(name, "user-agent") => {
                head.may_be_page |= value.starts_with(b"Mozilla/");
            }
            name if is(name, "connection") => {
                head.keep_alive = connection(value, head.keep_alive);
            }
            name if is(name, "content-length") => framing.length(value)?,
            name if is(name, "transfer-encoding") => framing.coding(value)?,
            _ => {}
        }
    }
    if newer && hosts != 1 {
        return Err(Refused::Malformed("exactly one Host field is required"));
    }
    head.body = framing.body(newer)?;
    Ok(head)
}

/// True if a field is called `lower`, in any case. Names are tokens, in which nothing but the case of a
/// letter differs by this one bit; two words with the ends of a name are compared for it at once.
fn is(name: &str, lower: &str) -> bool {
    fn ends<const N: usize>(name: &[u8]) -> Option<[u64; 2]> {
        let word = |end: &[u8; N]| {
            let mut bytes = [0; 8];
            bytes[..N].copy_from_slice(end);
            u64::from_ne_bytes(bytes) | u64::from_ne_bytes([0x20; 8])
        };
        Some([word(name.first_chunk()?), word(name.last_chunk()?)])
    }
    let (name, lower) = (name.as_bytes(), lower.as_bytes());
    name.len() == lower.len()
        && match lower.len() {
            4..=8 => ends::<4>(name) == ends::<4>(lower),
            9..=16 => ends::<8>(name) == ends::<8>(lower),
            _ => name.eq_ignore_ascii_case(lower),
        }
}

fn method(name: &str) -> Result<Method, Refused> {
    Ok(match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "PATCH" => Method::Patch,
        "OPTIONS" => Method::Options,
        _ => return Err(Refused::UnknownMethod),
    })
}

fn connection(value: &[u8], keep_alive: bool) -> bool {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).fold(keep_alive, |keep, option| {
        if option.eq_ignore_ascii_case(b"close") {
            false
        } else {
            keep || option.eq_ignore_ascii_case(b"keep-alive")
        }
    })
}

/// What the framing fields said. Whatever two readers could read differently is refused, since
/// that is how requests are smuggled past a proxy.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn length(&mut self, value: &[u8]) -> Result<(), Refused> {
        let bad = Refused::Malformed("malformed Content-Length");
        if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
            return Err(bad);
        }
        let length = value.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
        if self.length.is_some_and(|before| before != length) {
            return Err(Refused::Malformed("contradictory Content-Length"));
        }
        self.length = Some(length);
        Ok(())
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Refused> {
        if self.chunked {
            return Err(Refused::Malformed("repeated Transfer-Encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refused::UnknownCoding);
        }
        self.chunked = true;
        Ok(())
    }

    fn body(self, newer: bool) -> Result<BodyKind, Refused> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refused::Malformed("both Content-Length and Transfer-Encoding")),
            (true, None) if !newer => Err(Refused::Malformed("chunked body in HTTP/1.0")),
            (true, None) => Ok(BodyKind::Chunked),
            (false, length) => Ok(BodyKind::Length(length.unwrap_or(0))),
        }
    }
}

/// The fields of a head (or of lines of one, or of trailers) that was parsed before, in order. Names
/// are ASCII.
pub fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    // The request line has a space before any colon; a field name never has one.
    lines(head).filter_map(|line| {
        let at = line.iter().position(|byte| matches!(byte, b':' | b' '))?;
        let value = line[at..].strip_prefix(b":")?;
        Some((&line[..at], value.trim_ascii()))
    })
}

fn is_aws(name: &[u8]) -> bool {
    // Most names do not begin like that.
    match name {
        [b'x' | b'X', b'-', a, m, z, ..] => [*a, *m, *z].eq_ignore_ascii_case(b"amz"),
        [b'l' | b'L', rest @ ..] => {
            rest.first_chunk::<6>().is_some_and(|rest| rest.eq_ignore_ascii_case(b"ambda-"))
        }
        _ => false,
    }
}

/// The values of the fields `name` (any case), in order.
pub fn values<'a>(head: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    // Nothing but the request line begins like that.
    let head = if name.contains(' ') { b"" } else { head };
    lines(head).filter_map(move |line| {
        let (first, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        first.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// The value of the field `name` (any case), the first if it comes several times.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    values(head, name).next()
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = (!rest.is_empty()).then(|| &rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, Refused> {
        let bytes = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
        assert_eq!(end(bytes.as_bytes(), 0), Some(bytes.len()), "{text}");
        parse(bytes.as_bytes())
    }

    #[test]
    fn the_end_is_found_wherever_the_reads_were_cut() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST";
        for cut in 0..27 {
            assert_eq!(end(&bytes[..cut], 0), None, "cut at {cut}");
            assert_eq!(end(bytes, cut), Some(27), "seen {cut}");
        }
        assert_eq!(end(b"GET / HTTP/1.1\nHost: a\n\nX", 0), Some(24));
    }

    #[test]
    fn framing_that_can_be_read_two_ways_is_refused() {
        let post = "POST / HTTP/1.1\nHost: a\n";
        for (fields, status) in [
            ("Content-Length: 5\nContent-Length: 6", 400),
            ("Content-Length: 5\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: gzip, chunked", 501),
            ("Transfer-Encoding: chunked, identity", 501),
            ("Content-Length: +5", 400),
            ("Content-Length: 5, 5", 400),
            ("Content-Length: ", 400),
            ("Content-Length: 99999999999999999999", 400),
            ("Content-Length : 5", 400),
            ("Host: b", 400),
            ("Expect: 200-ok", 417),
        ] {
            let refused = head(&format!("{post}{fields}")).expect_err(fields);
            assert_eq!(refused.status(), status, "{fields}");
        }
        let same = head(&format!("{post}Content-Length: 5\nContent-Length: 5"));
        assert_eq!(same.expect("agrees").body, BodyKind::Length(5));
        assert!(head("GET / HTTP/1.1").is_err(), "HTTP/1.1 needs a Host");
        assert!(head("POST / HTTP/1.0\nTransfer-Encoding: chunked").is_err());
    }

    #[test]
    fn the_host_is_known_even_if_it_is_empty() {
        for (host, value) in
            [("Host:", ""), ("Host:  ", ""), ("hOST: a:1 ", "a:1"), ("Host:b", "b")]
        {
            let bytes = format!("GET / HTTP/1.1\r\nA: 1\r\n{host}\r\n\r\n");
            let head = parse(bytes.as_bytes()).expect(host);
            assert_eq!(head.host(bytes.as_bytes()), value.as_bytes(), "{host}");
        }
        let twice = b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n";
        assert_eq!(parse(twice).expect("of old clients").host(twice), b"a");
        let none = b"GET / HTTP/1.0\r\n\r\n";
        assert_eq!(parse(none).expect("of old clients").host(none), b"");
    }

    #[test]
    fn keep_alive_is_the_default_of_1_1_only() {
        let keeps = |text: &str| head(text).expect(text).keep_alive;
        assert!(keeps("GET / HTTP/1.1\nHost: a"));
        assert!(!keeps("GET / HTTP/1.1\nHost: a\nConnection: Upgrade, close"));
        assert!(!keeps("GET / HTTP/1.0"));
        assert!(keeps("GET / HTTP/1.0\nConnection: Keep-Alive"));
    }

    #[test]
    fn values_may_be_long_and_hold_any_byte_above_127() {
        let mut bytes = b"POST /x HTTP/1.1\r\nHost: a\r\nCause: ".to_vec();
        bytes.extend(std::iter::repeat_n(0xC3u8, 1 << 20));
        bytes.extend(b"\r\nContent-Length: 2\r\n\r\n");
        assert_eq!(end(&bytes, 0), Some(bytes.len()));
        let head = parse(&bytes).expect("valid");
        assert_eq!(head.body, BodyKind::Length(2));
        assert_eq!(&bytes[head.target.clone()], b"/x");
        assert_eq!(field(&bytes, "cause").map(<[u8]>::len), Some(1 << 20));
    }

    #[test]
    fn fields_are_found_in_any_case() {
        let text = b"GET /a:b HTTP/1.1\r\nHost: x:1\r\nX-Amz-Log-Type:  Tail \r\nEmpty:\r\n\r\n";
        assert_eq!(field(text, "x-amz-log-type"), Some(&b"Tail"[..]));
        assert_eq!(field(text, "host"), Some(&b"x:1"[..]));
        assert_eq!(field(text, "empty"), Some(&b""[..]));
        assert_eq!(field(text, "GET /a"), None);
        assert_eq!(fields(text).count(), 3);
        let twice = b"A: 1\nAB: 2\na:3\n";
        assert_eq!(values(twice, "a").collect::<Vec<_>>(), [b"1", b"3"]);
    }

    #[test]
    fn fields_of_aws_are_those_of_its_prefixes() {
        for (lines, expected) in [
            ("", &[][..]),
            ("X-Am: 1\nX-Forwarded-For: 2\nXAmz: 3\nLambda: 4\nL: 5\nlambda_x: 6", &[]),
            ("l: 1\nlambda-Runtime-X: a\nHos: b", &[("lambda-Runtime-X", "a")]),
            ("X-Amz-Log-Type:  Tail", &[("X-Amz-Log-Type", "Tail")]),
            (
                "x-amzn-trace-id: a\nAccept: x-amz-b: c\nX-AMZ-Date:\nUser-Agent: d",
                &[("x-amzn-trace-id", "a"), ("X-AMZ-Date", "")],
            ),
        ] {
            let text = format!("POST /x-amz: HTTP/1.1\nHost: a\n{lines}");
            let head = head(text.trim_end()).expect("valid");
            let bytes = format!("{}\r\n\r\n{{}}", text.trim_end().replace('\n', "\r\n"));
            let found: Vec<_> = head
                .aws(bytes.as_bytes())
                .map(|(name, value)| {
                    (str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap())
                })
                .collect();
            assert_eq!(found, expected, "{lines}");
        }
    }
}
