//! Who may call, and what.
//!
//! The Unix socket is guarded by its file mode. On TCP a server without `[auth]` trusts every
//! local user, but no web page, and does not listen anywhere else; with `[auth]` it wants a bearer
//! token or a signature by one of its keys.
//!
//! A signature covers the body. So [`Auth::check`] says who claims to call ([`Claimed`]), before
//! the body is read; reading it to its end gives the [`Caller`], whom alone handlers work for.

mod browser;
mod sigv4;

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use sha2::{Digest, Sha256};

use super::End;
use super::error::ApiError;
use crate::function::name::Home;
use crate::http::head::field;
use crate::http::{Connection, Head};
use crate::io::Clock;
use crate::limits::TURN_BYTES;
pub use sigv4::digest;
use sigv4::{Signature, Signed};

/// The rule of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everybody who reaches the port.
    Open,
    /// Callers that know one of these; nobody if there are none.
    Credentials(Credentials),
}

/// What callers may show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The digest of the bearer token, if there is one.
    pub token: Option<[u8; 32]>,
    /// Key pairs of signatures.
    pub keys: Vec<Key>,
    /// Functions' policies count, as on AWS.
    pub strict: bool,
}

impl Credentials {
    /// True if nobody has any.
    pub fn is_empty(&self) -> bool {
        self.token.is_none() && self.keys.is_empty()
    }
}

/// What a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Invoking functions.
    Invoke,
}

/// A key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Its public half.
    pub id: String,
    /// Its other half.
    pub secret: String,
    /// What it is good for ...
    pub scope: Scope,
    /// ... and with which functions: names, or the start of names and `*`.
    pub functions: Vec<String>,
    /// It is the workers': good for callers on this machine only.
    pub is_local: bool,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { id, scope, functions, .. } = self;
        write!(f, "{id} ({scope:?}, {functions:?})")
    }
}

impl Key {
    /// The key that workers have in their environment: they may invoke each other.
    pub fn of_workers(id: &str, secret: &str) -> Key {
        Key {
            id: id.to_owned(),
            secret: secret.to_owned(),
            scope: Scope::Invoke,
            functions: vec!["*".to_owned()],
            is_local: true,
        }
    }

    /// True if it is good for `function`; `None`: for what concerns no single function.
    fn covers(&self, function: Option<&str>) -> bool {
        self.functions.iter().any(|pattern| match (pattern.strip_suffix('*'), function) {
            (Some(start), Some(function)) => function.starts_with(start),
            (Some(start), None) => start.is_empty(),
            (None, function) => function == Some(pattern.as_str()),
        })
    }
}

/// Actions that a key with scope `invoke` is good for.
const INVOKING: [&str; 2] = [INVOKE, INVOKE_URL];
/// The action of an invocation, in whatever way it is answered.
pub const INVOKE: &str = "lambda:InvokeFunction";
/// The action of a request to a function URL.
pub const INVOKE_URL: &str = "lambda:InvokeFunctionUrl";

#[derive(Clone, Copy)]
enum Who<'a> {
    /// Who reaches the Unix socket or an open port, or knows the token.
    Owner,
    Key(&'a Key),
}

/// Who calls. There is none for a request whose credentials, or whose body, are not in order.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    who: Who<'a>,
    home: &'a Home,
}

impl Caller<'_> {
    /// The id of the key that the request was signed with.
    pub fn key(&self) -> Option<&str> {
        match self.who {
            Who::Owner => None,
            Who::Key(key) => Some(&key.id),
        }
    }

    /// As in ARNs of users.
    pub fn arn(&self) -> impl fmt::Display {
        let account = &self.home.account;
        fmt::from_fn(move |f| match self.key() {
            None => write!(f, "arn:aws:iam::{account}:root"),
            Some(id) => write!(f, "arn:aws:iam::{account}:user/{id}"),
        })
    }

    /// Checks whether `action` is allowed, on `function` or, without one, on the server.
    pub fn may(&self, action: &str, function: Option<&str>) -> Result<(), ApiError> {
        let Who::Key(key) = self.who else { return Ok(()) };
        let in_scope = match key.scope {
            Scope::Admin => true,
            Scope::Invoke => INVOKING.contains(&action),
        };
        if in_scope && key.covers(function) {
            return Ok(());
        }
        let arn = function.map(|name| self.home.arn(name, None).to_string());
        let resource = arn.as_deref().unwrap_or("*");
        let user = self.arn();
        Err(ApiError::forbidden(
            "AccessDeniedException",
            format!(
                "User: {user} is not authorized to perform: {action} on resource: {resource} \
                 because no identity-based policy allows the {action} action"
            ),
        ))
    }
}

/// Who calls, as far as the head of the request shows: a signature is not proven before the body
/// was read.
#[must_use = "the body has to prove it"]
pub struct Claimed<'a> {
    caller: Caller<'a>,
    /// What is left to prove. On the heap: most requests of most servers have none.
    signed: Option<Box<Signed>>,
}

impl<'a> Claimed<'a> {
    /// For what everybody may do.
    pub fn by_anybody(home: &'a Home) -> Claimed<'a> {
        Claimed { caller: Caller { who: Who::Owner, home }, signed: None }
    }

    /// As [`Caller::may`], for what need not be read if it is not allowed.
    pub fn may(&self, action: &str, function: Option<&str>) -> Result<(), ApiError> {
        self.caller.may(action, function)
    }

    /// Who it is said to be, as in ARNs of users.
    pub fn arn(&self) -> String {
        self.caller.arn().to_string()
    }

    /// True if the body is not needed for the proof.
    pub fn is_proven(&self) -> bool {
        self.signed.is_none()
    }

    /// Takes note of a piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        if let Some(signed) = &mut self.signed {
            signed.update(piece);
        }
    }

    /// The body has ended.
    pub fn finish(self) -> Result<Caller<'a>, ApiError> {
        match self.signed {
            Some(signed) => signed.finish().map(|()| self.caller),
            None => Ok(self.caller),
        }
    }

    /// The whole body, which stands in the connection's buffer.
    pub fn body<'b>(self, connection: &'b Connection, body: Range<usize>) -> Proving<'a, 'b>
    where
        'a: 'b,
    {
        let caller = self.caller;
        // On the heap, since it would make every connection's task larger.
        let needs = !self.is_proven();
        let rest = needs.then(|| Box::pin(self.long_body(connection, body)) as Rest<'b>);
        Proving { caller, rest }
    }

    /// A long body takes its time, and others their turn.
    async fn long_body(
        mut self,
        connection: &Connection,
        body: Range<usize>,
    ) -> Result<(), ApiError> {
        let turn = usize::try_from(TURN_BYTES).unwrap_or(usize::MAX);
        for (n, piece) in connection.bytes()[body].chunks(turn).enumerate() {
            if n > 0 {
                connection.io().reactor().give_way().await;
            }
            self.update(piece);
        }
        self.finish().map(drop)
    }

    /// Reads a short body, if it is needed for the proof, of a request that makes no use of it.
    pub async fn unused_body(
        self,
        connection: &mut Connection,
        head: &Head,
    ) -> Result<Caller<'a>, End> {
        if self.is_proven() {
            return Ok(self.finish()?);
        }
        let body = connection.body(head, UNUSED_BODY_MAX).await?;
        Ok(self.body(connection, body.payload).await?)
    }
}

/// The proof that is still to come.
type Rest<'b> = Pin<Box<dyn Future<Output = Result<(), ApiError>> + 'b>>;

/// Waits for the proof by a whole body.
#[must_use = "the body has to prove it"]
pub struct Proving<'a, 'b> {
    caller: Caller<'a>,
    rest: Option<Rest<'b>>,
}

impl<'a> Future for Proving<'a, '_> {
    type Output = Result<Caller<'a>, ApiError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let caller = self.caller;
        match &mut self.rest {
            None => Poll::Ready(Ok(caller)),
            Some(rest) => rest.as_mut().poll(cx).map_ok(|()| caller),
        }
    }
}

/// Bytes of a body that nobody asked for.
const UNUSED_BODY_MAX: usize = 64 * 1024;

impl Auth {
    /// True if functions' policies count: they allow what a key does not, and nobody calls an open
    /// function URL that no policy opens.
    pub fn is_strict(&self) -> bool {
        matches!(self, Auth::Credentials(credentials) if credentials.strict)
    }

    /// The SHA-256 of a token, which is what is kept of it.
    pub fn digest(token: &str) -> [u8; 32] {
        Sha256::digest(token.as_bytes()).into()
    }

    /// Checks the credentials of a request, as far as its head shows them.
    pub fn check<'a>(
        &'a self,
        connection: &Connection,
        head: &Head,
        home: &'a Home,
    ) -> Result<Claimed<'a>, ApiError> {
        let owner = Claimed::by_anybody(home);
        if connection.source().is_none() {
            return Ok(owner);
        }
        let Auth::Credentials(credentials) = self else { return Ok(owner) };
        let header = &connection.bytes()[..head.length];
        let Some(given) = sigv4::single(header, "authorization")? else {
            return Err(unsigned(header, head));
        };
        if given.starts_with(sigv4::ALGORITHM.as_bytes()) {
            let signature = Signature::read(header, given)?;
            let key = credentials.keys.iter().find(|key| key.id == signature.id);
            let key = key.filter(|key| !key.is_local || is_from_here(connection));
            let key = key.ok_or_else(unrecognized)?;
            signature.check_scope(&home.region, Clock::unix_ms() / 1000)?;
            let signed = signature.verify(&key.secret, header, head)?.map(Box::new);
            return Ok(Claimed { caller: Caller { who: Who::Key(key), home }, signed });
        }
        let token =
            given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        // Digests are compared, so the time it takes says nothing about the token.
        let valid = token.is_some_and(|(_, token)| {
            let digest: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
            credentials.token.is_some_and(|expected| expected == digest)
        });
        if valid { Ok(owner) } else { Err(unrecognized()) }
    }
}

fn unrecognized() -> ApiError {
    let message = "The security token included in the request is invalid.";
    ApiError::forbidden("UnrecognizedClientException", message)
}

fn unsigned(header: &[u8], head: &Head) -> ApiError {
    let target = String::from_utf8_lossy(&header[head.target.clone()]);
    let query = target.split_once('?').map_or("", |(_, query)| query);
    if query.split('&').any(|pair| pair.starts_with("X-Amz-Signature=")) {
        return ApiError::incomplete_signature(
            "Signatures in the query are not supported by this server: sign the Authorization \
             header.",
        );
    }
    ApiError::forbidden("MissingAuthenticationTokenException", "Missing Authentication Token")
}

/// True if the request shows credentials of any kind.
pub fn has_credentials(header: &[u8]) -> bool {
    field(header, "authorization").is_some()
}

/// True if the caller is on this machine: its address is the loopback device's, or the one that
/// it called, as when the server listens on one address of the network.
fn is_from_here(connection: &Connection) -> bool {
    let Some(source) = connection.source() else { return true };
    if source.to_canonical().is_loopback() {
        return true;
    }
    let own = rustix::net::getsockname(connection.io().get()).ok();
    let own = own.and_then(|address| std::net::SocketAddr::try_from(address).ok());
    own.is_some_and(|address| address.ip() == source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: Scope, functions: &[&str]) -> Key {
        let functions = functions.iter().map(|name| (*name).to_owned()).collect();
        Key { id: "AKIA".into(), secret: "s".into(), scope, functions, is_local: false }
    }

    fn refusal(key: &Key, action: &str, function: Option<&str>) -> Option<String> {
        let home = Home { region: "us-east-1".into(), account: "000000000000".into() };
        let caller = Caller { who: Who::Key(key), home: &home };
        caller.may(action, function).err().map(|error| error.message.to_string())
    }

    #[test]
    fn a_key_is_good_for_its_scope_and_its_functions() {
        let create = "lambda:CreateFunction";
        for (scope, functions, action, function, allowed) in [
            (Scope::Admin, &["*"][..], create, Some("a"), true),
            (Scope::Admin, &["*"], "lambda:ListFunctions", None, true),
            (Scope::Admin, &["a*"], "lambda:ListFunctions", None, false),
            (Scope::Admin, &["a*"], create, Some("ab"), true),
            (Scope::Admin, &["a*", "b"], create, Some("b"), true),
            (Scope::Admin, &["a*", "b"], create, Some("bb"), false),
            (Scope::Invoke, &["*"], INVOKE, Some("a"), true),
            (Scope::Invoke, &["*"], INVOKE_URL, Some("a"), true),
            (Scope::Invoke, &["*"], create, Some("a"), false),
            (Scope::Invoke, &["*"], "lambda:ListFunctions", None, false),
            (Scope::Invoke, &["a"], INVOKE, Some("A"), false),
        ] {
            let refused = refusal(&key(scope, functions), action, function);
            assert_eq!(refused.is_none(), allowed, "{scope:?} {functions:?} {action} {function:?}");
        }
    }

    #[test]
    fn a_refusal_is_in_the_words_of_aws() {
        let key = key(Scope::Invoke, &["*"]);
        let words = "User: arn:aws:iam::000000000000:user/AKIA is not authorized to perform: \
                     lambda:GetFunction on resource: \
                     arn:aws:lambda:us-east-1:000000000000:function:a because no identity-based \
                     policy allows the lambda:GetFunction action";
        assert_eq!(refusal(&key, "lambda:GetFunction", Some("a")).as_deref(), Some(words));
        assert_eq!(format!("{key:?}"), "AKIA (Invoke, [\"*\"])", "without its secret");
    }
}
