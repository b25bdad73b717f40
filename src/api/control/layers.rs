//! Layers: zips of files that functions find below `/opt`, published once and used by many.

use std::rc::Rc;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::record::{CodeRecord, LayerUse};

/// The layer versions that a function names, in order.
pub fn resolve(_api: &Api, arns: &[String]) -> Result<Vec<LayerUse>, ApiError> {
    match arns.first() {
        None => Ok(Vec::new()),
        Some(arn) => {
            Err(ApiError::invalid_parameter(format!("Layer version {arn} does not exist.")))
        }
    }
}

/// The digest of these layers, merged; none if there are none.
pub async fn merge(
    _api: &Rc<Api>,
    _code: &CodeRecord,
    _layers: &[LayerUse],
) -> Result<Option<String>, ApiError> {
    Ok(None)
}

/// Checks that code fits beside layers that are merged already.
pub async fn check_size(
    _api: &Rc<Api>,
    _code: &CodeRecord,
    _opt: Option<&str>,
) -> Result<(), ApiError> {
    Ok(())
}

/// Bytes of the zips of all layer versions.
pub fn total_size(_api: &Api) -> Result<u64, ApiError> {
    Ok(0)
}
