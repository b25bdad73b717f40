//! What browsers are told of function URLs with `cors`, as Lambda tells it: in answer to a preflight
//! request, which does not reach the function, and beside what the function replies.

use std::fmt::Write;

use crate::function::url::Cors;

/// Header lines for a page of this origin: none if it may not call.
pub fn lines(cors: &Cors, origin: Option<&[u8]>) -> String {
    let mut lines = allow_origin(cors, origin);
    if !lines.is_empty() {
        add(&mut lines, "Expose-Headers", &cors.expose_headers.join(","));
    }
    lines
}

/// Header lines in answer to a preflight request.
pub fn preflight(cors: &Cors, origin: Option<&[u8]>) -> String {
    let mut lines = allow_origin(cors, origin);
    if !lines.is_empty() {
        add(&mut lines, "Allow-Methods", &cors.allow_methods.join(","));
        add(&mut lines, "Allow-Headers", &cors.allow_headers.join(","));
        let max_age = cors.max_age_s.map(|seconds| seconds.to_string());
        add(&mut lines, "Max-Age", max_age.as_deref().unwrap_or_default());
    }
    lines
}

fn allow_origin(cors: &Cors, origin: Option<&[u8]>) -> String {
    let mut lines = String::new();
    let origin = origin.and_then(|origin| std::str::from_utf8(origin).ok());
    let Some(origin) = origin.filter(|origin| !origin.is_empty()) else { return lines };
    let all = cors.allow_origins.iter().any(|allowed| allowed == "*");
    let named = cors.allow_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    // Browsers want to see the page's own origin where credentials come along.
    if all && !cors.allow_credentials {
        add(&mut lines, "Allow-Origin", "*");
    } else if all || named {
        add(&mut lines, "Allow-Origin", origin);
        lines += "Vary: Origin\r\n";
    }
    if cors.allow_credentials && !lines.is_empty() {
        add(&mut lines, "Allow-Credentials", "true");
    }
    lines
}

fn add(lines: &mut String, name: &str, value: &str) {
    // What a client sent may hold anything but line ends; what is no origin of a page is not told.
    if !value.is_empty() && !value.chars().any(char::is_control) {
        write!(lines, "Access-Control-{name}: {value}\r\n").expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], allow_credentials: bool) -> Cors {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Cors {
            allow_credentials,
            allow_headers: list(&["X-A", "X-B"]),
            allow_methods: list(&["GET", "PUT"]),
            allow_origins: list(origins),
            expose_headers: list(&["X-C"]),
            max_age_s: Some(60),
        }
    }

    #[test]
    fn pages_that_may_call_are_told_and_others_are_not() {
        let page = Some(&b"https://a.example"[..]);
        let own = "Access-Control-Allow-Origin: https://a.example\r\nVary: Origin\r\n";
        let any = "Access-Control-Allow-Origin: *\r\n";
        let with = "Access-Control-Allow-Credentials: true\r\n";
        for (origins, credentials, origin, expected) in [
            (&["https://a.example"][..], false, page, own.to_owned()),
            (&["https://b.example", "https://A.example"], true, page, format!("{own}{with}")),
            (&["*"], false, page, any.to_owned()),
            (&["*"], true, page, format!("{own}{with}")),
            (&["https://a.example:444", "http://a.example"], true, page, String::new()),
            (&[], true, page, String::new()),
            (&["*"], true, None, String::new()),
            (&["*"], true, Some(b""), String::new()),
            (&["*"], true, Some(b"\xff"), String::new()),
        ] {
            let cors = cors(origins, credentials);
            let told = lines(&cors, origin);
            let preflight = preflight(&cors, origin);
            if expected.is_empty() {
                assert_eq!((told.as_str(), preflight.as_str()), ("", ""), "{origins:?}");
                continue;
            }
            assert_eq!(told, format!("{expected}Access-Control-Expose-Headers: X-C\r\n"));
            let more = "Access-Control-Allow-Methods: GET,PUT\r\n\
                        Access-Control-Allow-Headers: X-A,X-B\r\nAccess-Control-Max-Age: 60\r\n";
            assert_eq!(preflight, format!("{expected}{more}"));
        }
    }
}
