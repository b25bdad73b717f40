//! Web pages: what a browser sends here for a page that is not this server's own.
//!
//! Without credentials, what reaches the port is trusted, and so would be every web page in a
//! local browser.

use std::net::IpAddr;

use super::Auth;
use crate::api::error::ApiError;
use crate::http::head::values;
use crate::http::{Connection, Head};

/// A host without its port, and an address without its brackets.
fn name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
        Some(_) => host,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// True for names that nobody else can make point here. A client of HTTP/1.0 need not say any.
fn is_own(name: &str, listen: &str) -> bool {
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(listen)
        || name.parse::<IpAddr>().is_ok()
}

/// True if a page of this origin came from the server itself, which is called `host` here.
fn is_own_origin(origin: &[u8], host: &[u8]) -> bool {
    let scheme = b"http://";
    origin
        .split_at_checked(scheme.len())
        .is_some_and(|(start, name)| start == scheme && name.eq_ignore_ascii_case(host))
}

impl Auth {
    /// Refuses what a web page sends to a server without credentials: under a name that its owner
    /// made point here, and from any page but the server's own unless everybody may ask
    /// (`is_public`). A name that cannot be made to point here is an address, that of this machine,
    /// or `listen`, which is what the operator calls it.
    pub fn check_page(
        &self,
        connection: &Connection,
        head: &Head,
        listen: &str,
        is_public: bool,
    ) -> Result<(), ApiError> {
        // Programs may call the server what they like, and they do.
        if connection.source().is_none() || *self != Auth::Open || !head.may_be_page {
            return Ok(());
        }
        let header = &connection.bytes()[..head.length];
        let refused = |message: String| Err(ApiError::forbidden("AccessDeniedException", message));
        let host = head.host(header);
        if !std::str::from_utf8(host).is_ok_and(|host| is_own(name(host), name(listen))) {
            let host = String::from_utf8_lossy(host);
            return refused(format!(
                "Host '{host}' is not a name of this server, which has no [auth]: call it by its IP \
                 address or localhost, or set a token"
            ));
        }
        let foreign = values(header, "origin").find(|origin| !is_own_origin(origin, host));
        match foreign {
            Some(origin) if !is_public => {
                let origin = String::from_utf8_lossy(origin);
                refused(format!(
                    "Origin '{origin}' is not this server, which has no [auth]: web pages may only \
                     call function URLs"
                ))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_made_to_point_here_are_our_own() {
        for own in [
            "",
            ":80",
            "localhost",
            "LocalHost:4620",
            "127.0.0.1",
            "10.1.2.3:4620",
            "[::1]",
            "[fe80::1]:4620",
            "board",
            "Board:80",
        ] {
            assert!(is_own(name(own), "board"), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example:4620",
            "127.0.0.1.evil.example",
            "board2",
            "[::1].evil.example",
            "[evil.example]",
            "evil.example:127.0.0.1",
            "localhost@evil",
        ] {
            assert!(!is_own(name(other), "board"), "{other}");
        }
    }

    #[test]
    fn only_pages_of_the_same_host_and_port_are_our_own() {
        let host = b"127.0.0.1:4620";
        assert!(is_own_origin(b"http://127.0.0.1:4620", host));
        assert!(is_own_origin(b"http://Board", b"board"));
        for other in [
            &b"http://127.0.0.1:8080"[..],
            b"http://127.0.0.1",
            b"https://127.0.0.1:4620",
            b"http://127.0.0.1:4620/",
            b"http://127.0.0.1:46200",
            b"null",
            b"file://",
            b"",
            b"\xff",
        ] {
            assert!(!is_own_origin(other, host), "{}", String::from_utf8_lossy(other));
        }
    }
}
