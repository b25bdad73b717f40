//! The control plane: functions, versions, aliases, concurrency and all else that Lambda's API
//! can create, change, list and delete.
//!
//! Each operation reads what is kept of its function, answers from it, or makes a changed copy
//! that is first brought to the disk and then put in force. Only one change is made at a time.

mod account;
mod aliases;
mod change;
mod concurrency;
mod configure;
mod download;
mod event_invoke;
mod fields;
mod functions;
mod layers;
mod list;
mod policy;
mod recursion;
mod sources;
mod stubs;
mod tags;
pub mod upload;
mod urls;
mod versions;
mod view;

use std::ops::Range;
use std::rc::Rc;

use serde_json::Value;

use super::auth::{Caller, Claimed};
use super::error::ApiError;
use super::route::{Operation, What};
use super::{Api, End};
use crate::function::name::{FunctionName, Home};
use crate::http::connection::Broken;
use crate::http::reply::ReplyHead;
use crate::http::{Connection, Head, Refused};
use crate::limits::CONTROL_BODY_MAX;
pub use change::{CHANGE_IT, no_built_in, no_folder};
pub use download::serve as download;
use fields::Fields;
pub use functions::push;
use upload::Incoming;

/// What an operation answers.
struct Answer {
    status: u16,
    body: Option<Value>,
}

impl Answer {
    /// With a body.
    fn new(status: u16, body: Value) -> Answer {
        Answer { status, body: Some(body) }
    }

    /// Without one.
    fn empty() -> Answer {
        Answer { status: 204, body: None }
    }
}

/// A request of the control plane, whose caller may make it. One with a zip in it is still to be
/// proven by its body, and what it is about may stand only there.
struct Request<'a> {
    api: &'a Rc<Api>,
    connection: &'a mut Connection,
    head: &'a Head,
    operation: Operation,
    /// The body of all others.
    body: Range<usize>,
    /// Who makes it, if that is not proven yet.
    claimed: Option<Claimed<'a>>,
}

/// Serves one request.
pub async fn serve(
    api: &Rc<Api>,
    connection: &mut Connection,
    head: &Head,
    operation: Operation,
) -> Result<(), End> {
    let claimed = api.check(connection, head)?;
    let home = &api.host.facts.home;
    let (action, function) = (operation.action(), operation.function(home));
    if operation.what != What::CreateFunction {
        claimed.may(&action, function.as_deref())?;
    }
    let (body, claimed) = match operation.what.has_zip() {
        true => (0..0, Some(claimed)),
        false => {
            let body = body(connection, head).await?;
            claimed.body(connection, body.clone()).await?;
            (body, None)
        }
    };
    let mut request = Request { api, connection, head, operation, body, claimed };
    let answer = perform(&mut request).await?;
    let Request { connection, .. } = request;
    let whole = connection.discard(head).await;
    let reply = ReplyHead::new(answer.status)
        .field("x-amzn-RequestId", api.host.request_id())
        .connection(head, whole && head.keep_alive);
    match answer.body {
        Some(body) => {
            let text = body.to_string();
            let reply = reply.field("Content-Type", "application/json").body(text.len());
            connection.send(reply, text.as_bytes()).await?;
        }
        None => connection.send(reply.bare(), b"").await?,
    }
    if whole { Ok(()) } else { Err(End::Closed) }
}

async fn perform(request: &mut Request<'_>) -> Result<Answer, End> {
    Ok(match request.operation.what {
        What::CreateFunction => functions::create(request).await?,
        What::GetFunction => functions::get(request).await?,
        What::GetFunctionConfiguration => functions::get_configuration(request).await?,
        What::ListFunctions => functions::list(request).await?,
        What::UpdateFunctionCode => functions::update_code(request).await?,
        What::UpdateFunctionConfiguration => functions::update_configuration(request).await?,
        What::DeleteFunction => functions::delete(request).await?,
        What::PublishVersion => versions::publish(request).await?,
        What::ListVersionsByFunction => versions::list(request).await?,
        What::CreateAlias => aliases::create(request).await?,
        What::GetAlias => aliases::get(request).await?,
        What::UpdateAlias => aliases::update(request).await?,
        What::DeleteAlias => aliases::delete(request).await?,
        What::ListAliases => aliases::list(request).await?,
        What::PutFunctionConcurrency => concurrency::put(request).await?,
        What::GetFunctionConcurrency => concurrency::get(request).await?,
        What::DeleteFunctionConcurrency => concurrency::delete(request).await?,
        What::PutProvisionedConcurrencyConfig => concurrency::put_provisioned(request).await?,
        What::GetProvisionedConcurrencyConfig => concurrency::get_provisioned(request).await?,
        What::DeleteProvisionedConcurrencyConfig => {
            concurrency::delete_provisioned(request).await?
        }
        What::ListProvisionedConcurrencyConfigs => concurrency::list_provisioned(request).await?,
        What::GetAccountSettings => account::settings(request)?,
        What::TagResource => tags::tag(request).await?,
        What::UntagResource => tags::untag(request).await?,
        What::ListTags => tags::list(request).await?,
        What::PutFunctionEventInvokeConfig => event_invoke::put(request).await?,
        What::UpdateFunctionEventInvokeConfig => event_invoke::update(request).await?,
        What::GetFunctionEventInvokeConfig => event_invoke::get(request).await?,
        What::DeleteFunctionEventInvokeConfig => event_invoke::delete(request).await?,
        What::ListFunctionEventInvokeConfigs => event_invoke::list(request).await?,
        What::CreateFunctionUrlConfig => urls::create(request).await?,
        What::GetFunctionUrlConfig => urls::get(request).await?,
        What::UpdateFunctionUrlConfig => urls::update(request).await?,
        What::DeleteFunctionUrlConfig => urls::delete(request).await?,
        What::ListFunctionUrlConfigs => urls::list(request).await?,
        What::PutFunctionRecursionConfig => recursion::put(request).await?,
        What::GetFunctionRecursionConfig => recursion::get(request).await?,
        What::CreateEventSourceMapping => sources::create(request).await?,
        What::GetEventSourceMapping
        | What::UpdateEventSourceMapping
        | What::DeleteEventSourceMapping => return Err(sources::missing().into()),
        What::ListEventSourceMappings => sources::list(request).await?,
        What::GetFunctionCodeSigningConfig => stubs::get_code_signing(request).await?,
        What::PutFunctionCodeSigningConfig => stubs::put_code_signing(request).await?,
        What::DeleteFunctionCodeSigningConfig => stubs::delete_code_signing(request).await?,
        What::GetRuntimeManagementConfig => stubs::runtime(request)?,
        What::PutRuntimeManagementConfig => stubs::put_runtime(request).await?,
        What::AddPermission => policy::add(request).await?,
        What::RemovePermission => policy::remove(request).await?,
        What::GetPolicy => policy::get(request).await?,
        What::PublishLayerVersion => layers::publish(request).await?,
        What::GetLayerVersion => layers::get(request).await?,
        What::GetLayerVersionByArn => layers::get_by_arn(request).await?,
        What::ListLayers => layers::list(request).await?,
        What::ListLayerVersions => layers::list_versions(request).await?,
        What::DeleteLayerVersion => layers::delete(request).await?,
        What::AddLayerVersionPermission => policy::add_to_layer(request).await?,
        What::GetLayerVersionPolicy => policy::get_of_layer(request).await?,
        What::RemoveLayerVersionPermission => policy::remove_from_layer(request).await?,
    })
}

/// Reads a body that has no zip in it.
async fn body(connection: &mut Connection, head: &Head) -> Result<Range<usize>, End> {
    match connection.body(head, CONTROL_BODY_MAX).await {
        Ok(body) => Ok(body.payload),
        Err(Broken::Refused(Refused::BodyTooLong)) => {
            let most = format!("Request must be smaller than {CONTROL_BODY_MAX} bytes");
            Err(ApiError::entity_too_large(most).into())
        }
        Err(broken) => Err(broken.into()),
    }
}

impl<'a> Request<'a> {
    /// The members of the body.
    fn fields(&self) -> Result<Fields, ApiError> {
        Fields::parse(&self.connection.bytes()[self.body.clone()])
    }

    /// The body that has a zip in it, on the disk, and who sent it.
    async fn upload(&mut self) -> Result<(Incoming, Caller<'a>), End> {
        let claimed = self.claimed.take().expect("it is read once");
        let operation = format!("{:?}", self.operation.what);
        upload::receive_request(self.api, self.connection, self.head, claimed, &operation).await
    }

    /// True if what is wrong with the request may be told before its body was read.
    fn is_proven(&self) -> bool {
        self.claimed.as_ref().is_none_or(Claimed::is_proven)
    }

    fn home(&self) -> &Home {
        &self.api.host.facts.home
    }

    /// The function that path and query name.
    fn function(&self) -> Result<Named, ApiError> {
        Named::parse(self.home(), &self.operation.name, self.operation.parameter("Qualifier"))
    }

    /// The same for operations on functions alone.
    fn bare_function(&self) -> Result<String, ApiError> {
        let named = self.function()?;
        match named.qualifier {
            None => Ok(named.name),
            Some(_) => Err(ApiError::invalid_parameter(
                "This operation is permitted on Lambda functions only. Aliases and versions do not \
                 support this operation. Please specify either a function name or an unqualified \
                 function ARN.",
            )),
        }
    }

    /// How the client reaches this server.
    fn url(&self) -> String {
        let header = &self.connection.bytes()[..self.head.length];
        let host = crate::http::head::field(header, "host");
        match host.and_then(|host| std::str::from_utf8(host).ok()).filter(|host| !host.is_empty()) {
            Some(host) => format!("http://{host}"),
            None => self.api.host.facts.endpoint.clone(),
        }
    }
}

/// A function as a request names it.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    qualifier: Option<String>,
}

impl Named {
    fn parse(home: &Home, text: &str, qualifier: Option<String>) -> Result<Named, ApiError> {
        let FunctionName { name, qualifier } = home
            .parse(text, qualifier.as_deref())
            .map_err(|bad| ApiError::bad_name(text, bad, &home.region))?;
        no_built_in(name)?;
        Ok(Named { name: name.to_owned(), qualifier: qualifier.map(str::to_owned) })
    }
}
