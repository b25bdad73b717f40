//! Who may call.
//!
//! The Unix socket is guarded by its file mode. On TCP a server without `[auth]` trusts every
//! local user and does not listen anywhere else; with `[auth]` it wants a bearer token.

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

impl Auth {
    /// The SHA-256 of a token, which is what is kept of it.
    pub fn digest(token: &str) -> [u8; 32] {
        Sha256::digest(token.as_bytes()).into()
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
