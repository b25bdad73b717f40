//! The doors: the AWS Lambda API, function URLs, and what the command line asks, over HTTP on a
//! TCP port and on a Unix socket.
//!
//! Handlers here turn requests into calls of the host and its answers into replies. They know no
//! processes, slots or descriptors of workers.

pub mod admin;
pub mod auth;
mod control;
pub mod error;
pub mod invoke;
pub mod json;
pub mod logs;
pub mod route;
pub mod stream;
pub mod url;

use std::rc::Rc;

use crate::function::name::FunctionName;
use crate::function::record::Wish;
use crate::function::store::Store;
use crate::function::url::UrlAuth;
use crate::host::Host;
use crate::http::connection::Broken;
use crate::http::{Closed, Connection, Head, Refused};
use crate::limits::PAYLOAD_MAX;
use smol::lock::MutexGuard;

use auth::{Auth, Claimed};
use error::ApiError;
use route::Route;
use url::address::Address;

/// What every connection's handler needs.
pub struct Api {
    /// The host that runs functions.
    pub host: Rc<Host>,
    /// Who may call.
    pub auth: Auth,
    /// Where it listens, as the operator says it.
    pub listen: String,
    /// Where pushed functions are kept.
    pub store: Rc<Store>,
    /// Asked to read functions and configuration again.
    pub reload: Box<dyn Fn()>,
}

impl Api {
    /// Waits for the turn to change functions, which lasts as long as what is returned. A server
    /// that hands over to its successor changes nothing any more.
    pub async fn change(&self) -> Result<MutexGuard<'_, ()>, ApiError> {
        let check = || match self.host.is_succeeded.get() {
            true => Err(ApiError::handing_over()),
            false => Ok(()),
        };
        check()?;
        let turn = self.host.changes.lock().await;
        check()?;
        Ok(turn)
    }

    /// Checks the credentials of a request, as far as its head shows them.
    pub fn check(&self, connection: &Connection, head: &Head) -> Result<Claimed<'_>, ApiError> {
        self.auth.check(connection, head, &self.host.facts.home)
    }

    /// Largest event: Lambda's, or what buffers have room for on a small board.
    fn payload_max(&self) -> usize {
        self.host.buffers.body_max().min(PAYLOAD_MAX)
    }

    /// Checks whether who calls may invoke a function: by the key, or by the function's policy where
    /// that counts.
    fn may_invoke(
        &self,
        claimed: &Claimed<'_>,
        function: FunctionName<'_>,
        url_auth: Option<UrlAuth>,
    ) -> Result<(), ApiError> {
        let action = if url_auth.is_some() { auth::INVOKE_URL } else { auth::INVOKE };
        let allowed = claimed.may(action, Some(function.name));
        if allowed.is_ok() || !self.auth.is_strict() {
            return allowed;
        }
        let user = &*claimed.arn();
        let qualifier = function.qualifier;
        let wish = Wish { qualifier, user: Some(user), action, url_auth };
        match self.host.catalog.borrow().grants(function.name, wish) {
            true => Ok(()),
            false => allowed,
        }
    }
}

/// How a request ended, for its connection.
pub enum End {
    /// The client is gone.
    Closed,
    /// It could not be read: say why, and close.
    Refused(Refused),
    /// It is answered with an error; the connection goes on if the request was read whole.
    Error(ApiError),
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

impl From<ApiError> for End {
    fn from(error: ApiError) -> End {
        End::Error(error)
    }
}

/// Serves a connection until either side ends it. A block and no `async fn`, which would hold its
/// arguments twice; what is called below takes references for the same reason.
#[allow(clippy::manual_async_fn, reason = "every connection has one of these")]
pub fn serve(api: Rc<Api>, mut connection: Connection) -> impl Future<Output = ()> {
    async move {
        loop {
            let head = match connection.head().await {
                Ok(head) => head,
                Err(Broken::Closed) => return,
                Err(Broken::Refused(refused)) => return connection.refuse(refused).await,
            };
            match serve_one(&api, &mut connection, &head).await {
                Ok(()) => {}
                Err(End::Closed) => return,
                Err(End::Refused(refused)) => return connection.refuse(refused).await,
                Err(End::Error(error)) => {
                    let whole = connection.discard(&head).await;
                    let keeps = whole && head.keep_alive;
                    let id = api.host.request_id();
                    if error.send(&connection, &head, id, keeps).await.is_err() {
                        return;
                    }
                    if !whole {
                        return connection.linger().await;
                    }
                }
            }
            if !head.keep_alive || (api.host.is_draining() && !connection.moves_on()) {
                return connection.close().await;
            }
        }
    }
}

async fn serve_one(api: &Rc<Api>, connection: &mut Connection, head: &Head) -> Result<(), End> {
    let header = &connection.bytes()[..head.length];
    let route = match url::address::by_host(head.host(header)) {
        Some(id) => Route::UrlId(id),
        None => route::parse(head.method, &header[head.target.clone()]),
    };
    api.auth.check_page(connection, head, &api.listen, route.is_public())?;
    match route {
        Route::Invoke(invoke) => {
            let streams = invoke.streams;
            let (target, mut claimed) = invoke::Target::read(api, connection, head, invoke)?;
            if streams {
                // On the heap: it would make the task of every connection larger.
                let streamed = stream::serve(api, connection, head, &target, &mut claimed);
                return Box::pin(streamed).await;
            }
            invoke::serve(api, connection, head, &target, &mut claimed).await
        }
        Route::Url(name) => {
            let address = Address::named(&api.host, &name)?;
            drop(name);
            // On the heap: it would make the task of every connection larger.
            Box::pin(url::serve(api, connection, head, address)).await
        }
        Route::UrlId(id) => {
            let address = Box::pin(Address::of(&api.host, id)).await?;
            Box::pin(url::serve(api, connection, head, address)).await
        }
        Route::Health => reply(connection, head, 200, "text/plain", b"ok\n").await,
        Route::Ready => ready(api, connection, head).await,
        Route::Admin(admin) => Box::pin(admin::serve(api, connection, head, admin)).await,
        Route::Control(operation) => {
            Box::pin(control::serve(api, connection, head, *operation)).await
        }
        Route::Code(digest) => Box::pin(control::download(api, connection, head, &digest)).await,
        Route::Unknown => {
            // There is nothing that a proof would give access to.
            let _ = api.check(connection, head)?;
            Err(ApiError::unknown_operation().into())
        }
    }
}

/// 200 while an invocation would find a place, 429 while the table is full, 503 while draining.
async fn ready(api: &Api, connection: &mut Connection, head: &Head) -> Result<(), End> {
    let full = api.host.look(|pool| pool.shares().common_used() >= pool.shares().common());
    let (status, text) = match (api.host.is_draining(), full) {
        (true, _) => (503, "draining\n"),
        (false, true) => (429, "full\n"),
        (false, false) => (200, "ready\n"),
    };
    reply(connection, head, status, "text/plain", text.as_bytes()).await
}

/// Reads whatever is left of the request, and replies.
pub async fn reply(
    connection: &mut Connection,
    head: &Head,
    status: u16,
    content_type: &str,
    body: &[u8],
) -> Result<(), End> {
    let whole = connection.discard(head).await;
    let reply = connection
        .reply(status)
        .field("Content-Type", content_type)
        .connection(head, whole && head.keep_alive)
        .body(body.len());
    let body = if head.method == crate::http::Method::Head { b"" } else { body };
    connection.send(reply, body).await?;
    if !whole {
        connection.linger().await;
        return Err(End::Closed);
    }
    Ok(())
}
