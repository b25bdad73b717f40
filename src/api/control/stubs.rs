//! What tools ask for that a board does not have: signed code, and runtimes that AWS updates.

use serde_json::json;

use super::change;
use super::{Answer, Named, Request};
use crate::api::error::ApiError;

/// `GetFunctionCodeSigningConfig`: no function has one.
pub fn get_code_signing(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = request.bare_function()?;
    change::read(request.api, &name)?;
    Ok(Answer::new(200, json!({ "FunctionName": name })))
}

/// `PutFunctionCodeSigningConfig`: there is none that could be named.
pub fn put_code_signing(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = request.bare_function()?;
    let fields = request.fields()?;
    let arn = fields.needed("CodeSigningConfigArn", 0..=200)?;
    change::read(request.api, &name)?;
    Err(ApiError::no_code_signing(arn))
}

/// `DeleteFunctionCodeSigningConfig`
pub fn delete_code_signing(request: &Request<'_>) -> Result<Answer, ApiError> {
    let name = request.bare_function()?;
    change::read(request.api, &name)?;
    Ok(Answer::empty())
}

/// `PutRuntimeManagementConfig`
pub fn put_runtime(request: &Request<'_>) -> Result<Answer, ApiError> {
    let fields = request.fields()?;
    let wanted = fields.choice("UpdateRuntimeOn", &["Auto", "Manual", "FunctionUpdate"])?;
    let wanted = wanted.ok_or_else(|| fields.missing("UpdateRuntimeOn"))?;
    let answer = runtime(request)?;
    if wanted != "Auto" || fields.value("RuntimeVersionArn").is_some() {
        let what = if wanted == "Auto" { "RuntimeVersionArn" } else { wanted };
        return Err(ApiError::invalid_parameter(format!(
            "{what} is not supported: runtimes are the interpreters that this server's system has, \
             and are updated with it. Only Auto can be set."
        )));
    }
    Ok(answer)
}

/// `GetRuntimeManagementConfig`: there is one way only in which runtimes are updated here.
pub fn runtime(request: &Request<'_>) -> Result<Answer, ApiError> {
    let named @ Named { name, qualifier } = &request.function()?;
    let record = change::read(request.api, name)?;
    if let Some(number) = change::version_of(request.api, &record, named)? {
        change::read_version(request.api, name, number)?;
    }
    let arn = request.home().arn(name, qualifier.as_deref()).to_string();
    Ok(Answer::new(200, json!({ "UpdateRuntimeOn": "Auto", "FunctionArn": arn })))
}
