//! Who may call.
//!
//! The Unix socket is guarded by its file mode. On TCP a server without `[auth]` trusts every
//! local user, but no web page, and does not
//! listen anywhere else; with `[auth]` it wants a bearer token.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::http::head::field;
use crate::http::{Connection, Head};

/// The rule of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everybody who reaches the port.
    Open,
    /// Callers that know a secret; `None`: nobody by token.
    Token(Option<[u8; 32]>),
}

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

/// True if a browser sent this: programs may call the server what they like, and they do.
fn is_browser(header: &[u8]) -> bool {
    let agent = field(header, "user-agent").unwrap_or_default();
    agent.starts_with(b"Mozilla/") || field(header, "origin").is_some()
}

impl Auth {
    /// The SHA-256 of a token, which is what is kept of it.
    pub fn digest(token: &str) -> [u8; 32] {
        Sha256::digest(token.as_bytes()).into()
    }

    /// Checks under which name a browser called the server. Without credentials, what reaches the port
    /// is trusted, and so would be every web page in a local browser whose name its owner makes
    /// point here. Such a name is not an address, and not that of this machine; `listen` is what
    /// the operator calls it.
    pub fn check_host(
        &self,
        connection: &Connection,
        head: &Head,
        listen: &str,
    ) -> Result<(), ApiError> {
        if connection.source().is_none() || *self != Auth::Open {
            return Ok(());
        }
        let header = &connection.bytes()[..head.length];
        if !is_browser(header) {
            return Ok(());
        }
        let host = field(header, "host").unwrap_or_default();
        if std::str::from_utf8(host).is_ok_and(|host| is_own(name(host), name(listen))) {
            return Ok(());
        }
        let host = String::from_utf8_lossy(host);
        let message = format!(
            "Host '{host}' is not a name of this server, which has no [auth]: call it by its IP \
             address or localhost, or set a token"
        );
        Err(ApiError::forbidden("AccessDeniedException", message))
    }

    /// Checks the credentials of a request.
    pub fn check(&self, connection: &Connection, head: &Head) -> Result<(), ApiError> {
        if connection.source().is_none() {
            return Ok(());
        }
        let Auth::Token(expected) = self else { return Ok(()) };
        let header = &connection.bytes()[..head.length];
        let Some(given) = field(header, "authorization") else {
            let message = "Missing Authentication Token";
            return Err(ApiError::forbidden("MissingAuthenticationTokenException", message));
        };
        let token =
            given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        // Digests are compared, so the time it takes says nothing about the token.
        let valid = token.is_some_and(|(_, token)| {
            let digest: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
            expected.is_some_and(|expected| expected == digest)
        });
        if valid {
            return Ok(());
        }
        let message = "The security token included in the request is invalid.";
        Err(ApiError::forbidden("UnrecognizedClientException", message))
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
}
