//! The control plane: functions, versions, aliases, concurrency and all else that Lambda's API
//! can create, change, list and delete.
//!
//! Each operation reads what is kept of its function, and answers from it, or makes a changed copy
//! of it and says so: that is first brought to the disk and then put in force, and then the answer
//! is given. Only one change is made at a time.

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
use std::pin::Pin;
use std::rc::Rc;

use serde_json::Value;

use super::auth::{Caller, Claimed};
use super::error::ApiError;
use super::route::{Operation, What};
use super::{Api, End};
use crate::function::name::{FunctionName, Home};
use crate::http::connection::Broken;
use crate::http::{Connection, Head, Refused};
use crate::limits::CONTROL_BODY_MAX;
use change::Change;
pub use change::{CHANGE_IT, no_built_in, no_folder};
pub use download::serve as download;
use fields::Fields;
pub use functions::push;
use upload::Incoming;

/// What an operation answers.
struct Answer {
    status: u16,
    body: Option<Value>,
    /// What must have been done before.
    change: Option<Change>,
}

impl Answer {
    /// With a body.
    fn new(status: u16, body: Value) -> Answer {
        Answer { status, body: Some(body), change: None }
    }

    /// Without one.
    fn empty() -> Answer {
        Answer { status: 204, body: None, change: None }
    }

    /// To be given once this change is made.
    fn once(self, change: Change) -> Answer {
        Answer { change: Some(change), ..self }
    }
}

/// How an operation is performed.
enum Perform {
    /// It answers from what is there.
    Read(fn(&Request<'_>) -> Result<Answer, ApiError>),
    /// It has the turn to change functions, and says what it changes.
    Change(fn(&Request<'_>) -> Result<Answer, ApiError>),
    /// It has more to wait for, and changes by itself what it changes.
    Wait(for<'r> fn(&'r mut Request<'_>) -> Performed<'r>),
}

type Performed<'a> = Pin<Box<dyn Future<Output = Result<Answer, End>> + 'a>>;

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
    let answer = match performer(request.operation.what) {
        Perform::Read(read) => {
            if let Some(name) = function {
                api.host.know(&name).await;
            }
            read(&request)?
        }
        Perform::Change(decide) => {
            let _turn = api.change().await?;
            let mut answer = decide(&request)?;
            if let Some(change) = answer.change.take() {
                change.perform(api).await?;
            }
            answer
        }
        Perform::Wait(perform) => perform(&mut request).await?,
    };
    let Request { connection, .. } = request;
    let whole = connection.discard(head).await;
    let reply = connection
        .reply(answer.status)
        .field("x-amzn-RequestId", api.host.request_id())
        .connection(head, whole && head.keep_alive);
    match answer.body {
        Some(body) => {
            let text = body.to_string();
            let reply = reply.json().body(text.len());
            connection.send(reply, text.as_bytes()).await?;
        }
        None => connection.send(reply.bare(), b"").await?,
    }
    if whole { Ok(()) } else { Err(End::Closed) }
}

/// Who performs an operation.
fn performer(what: What) -> Perform {
    use Perform::{Change, Read, Wait};
    match what {
        What::CreateFunction => Wait(|request| Box::pin(functions::create(request))),
        What::GetFunction => Read(functions::get),
        What::GetFunctionConfiguration => Read(functions::get_configuration),
        What::ListFunctions => Read(functions::list),
        What::UpdateFunctionCode => Wait(|request| Box::pin(functions::update_code(request))),
        What::UpdateFunctionConfiguration => {
            Wait(|request| Box::pin(functions::update_configuration(request)))
        }
        What::DeleteFunction => Change(functions::delete),
        What::PublishVersion => Change(versions::publish),
        What::ListVersionsByFunction => Read(versions::list),
        What::CreateAlias => Change(aliases::create),
        What::GetAlias => Read(aliases::get),
        What::UpdateAlias => Change(aliases::update),
        What::DeleteAlias => Change(aliases::delete),
        What::ListAliases => Read(aliases::list),
        What::PutFunctionConcurrency => Change(concurrency::put),
        What::GetFunctionConcurrency => Read(concurrency::get),
        What::DeleteFunctionConcurrency => Change(concurrency::delete),
        What::PutProvisionedConcurrencyConfig => Change(concurrency::put_provisioned),
        What::GetProvisionedConcurrencyConfig => Read(concurrency::get_provisioned),
        What::DeleteProvisionedConcurrencyConfig => Change(concurrency::delete_provisioned),
        What::ListProvisionedConcurrencyConfigs => Read(concurrency::list_provisioned),
        What::GetAccountSettings => Read(account::settings),
        What::TagResource => Change(tags::tag),
        What::UntagResource => Change(tags::untag),
        What::ListTags => Read(tags::list),
        What::PutFunctionEventInvokeConfig => Change(event_invoke::put),
        What::UpdateFunctionEventInvokeConfig => Change(event_invoke::update),
        What::GetFunctionEventInvokeConfig => Read(event_invoke::get),
        What::DeleteFunctionEventInvokeConfig => Change(event_invoke::delete),
        What::ListFunctionEventInvokeConfigs => Read(event_invoke::list),
        What::CreateFunctionUrlConfig => Change(urls::create),
        What::GetFunctionUrlConfig => Read(urls::get),
        What::UpdateFunctionUrlConfig => Change(urls::update),
        What::DeleteFunctionUrlConfig => Change(urls::delete),
        What::ListFunctionUrlConfigs => Read(urls::list),
        What::PutFunctionRecursionConfig => Change(recursion::put),
        What::GetFunctionRecursionConfig => Read(recursion::get),
        What::CreateEventSourceMapping => Change(sources::create),
        What::GetEventSourceMapping
        | What::UpdateEventSourceMapping
        | What::DeleteEventSourceMapping => Read(sources::missing),
        What::ListEventSourceMappings => Read(sources::list),
        What::GetFunctionCodeSigningConfig => Read(stubs::get_code_signing),
        What::PutFunctionCodeSigningConfig => Change(stubs::put_code_signing),
        What::DeleteFunctionCodeSigningConfig => Change(stubs::delete_code_signing),
        What::GetRuntimeManagementConfig => Read(stubs::runtime),
        What::PutRuntimeManagementConfig => Change(stubs::put_runtime),
        What::AddPermission => Change(policy::add),
        What::RemovePermission => Change(policy::remove),
        What::GetPolicy => Read(policy::get),
        What::PublishLayerVersion => Wait(|request| Box::pin(layers::publish(request))),
        What::GetLayerVersion => Read(layers::get),
        What::GetLayerVersionByArn => Read(layers::get_by_arn),
        What::ListLayers => Read(layers::list),
        What::ListLayerVersions => Read(layers::list_versions),
        What::DeleteLayerVersion => Change(layers::delete),
        What::AddLayerVersionPermission => Change(policy::add_to_layer),
        What::GetLayerVersionPolicy => Read(policy::get_of_layer),
        What::RemoveLayerVersionPermission => Change(policy::remove_from_layer),
    }
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
        match std::str::from_utf8(self.head.host(self.connection.bytes())) {
            Ok("") | Err(_) => self.api.host.facts.endpoint.clone(),
            Ok(host) => format!("http://{host}"),
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
