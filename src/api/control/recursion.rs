//! Whether a function may be invoked by what it brings about itself, again and again.

use serde_json::json;

use super::change::{self, apply};
use super::concurrency::no_folder_says;
use super::{Answer, Request};
use crate::api::error::ApiError;
use crate::function::config::RecursiveLoop::{Allow, Terminate};

/// `PutFunctionRecursionConfig`
pub fn put(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let name = request.bare_function()?;
    let fields = request.fields()?;
    let wanted = fields.choice("RecursiveLoop", &[Allow.name(), Terminate.name()])?;
    let wanted = wanted.ok_or_else(|| fields.missing("RecursiveLoop"))?;
    let mut record = change::read(api, &name)?;
    no_folder_says(api, &name, "recursive_loop")?;
    record.recursive_loop = Some(wanted.to_owned());
    Ok(Answer::new(200, json!({ "RecursiveLoop": wanted })).once(apply(api, &name, &record)?))
}

/// `GetFunctionRecursionConfig`
pub fn get(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = request.bare_function()?;
    change::read(request.api, &name)?;
    let catalog = request.api.host.catalog.borrow();
    let version = catalog.function(&name).and_then(|function| function.state.as_ref().ok());
    let present = version.map_or(Terminate, |version| catalog.recursive_loop(version));
    Ok(Answer::new(200, json!({ "RecursiveLoop": present.name() })))
}
