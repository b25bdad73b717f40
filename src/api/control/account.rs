//! What the whole server has, and how much of it is used.

use serde_json::json;

use super::{Answer, Request, change, concurrency};
use crate::api::error::ApiError;
use crate::limits::{CODE_BYTES_MAX, CODE_TOTAL_MAX, ZIP_BYTES_MAX};

/// `GetAccountSettings`
pub fn settings(request: &Request<'_>) -> Result<Answer, ApiError> {
    let api = request.api;
    let slots = concurrency::slots(api);
    let names: Vec<_> = {
        let catalog = api.host.catalog.borrow();
        catalog.functions().iter().map(|function| function.name.clone()).collect()
    };
    let mut size = 0u64;
    for name in &names {
        let record = change::read(api, name)?;
        size += super::view::latest(api, name, &record).map_or(0, |latest| latest.code.size);
        for number in super::versions::numbers(api, name, &record)? {
            size += change::read_version(api, name, number)?.code.size;
        }
    }
    size += super::layers::total_size(api)?;
    let unreserved = slots.saturating_sub(concurrency::taken(api, ""));
    let body = json!({
        "AccountLimit": {
            "TotalCodeSize": CODE_TOTAL_MAX,
            "CodeSizeUnzipped": CODE_BYTES_MAX,
            "CodeSizeZipped": ZIP_BYTES_MAX,
            "ConcurrentExecutions": slots,
            "UnreservedConcurrentExecutions": unreserved,
        },
        "AccountUsage": { "TotalCodeSize": size, "FunctionCount": names.len() },
    });
    Ok(Answer::new(200, body))
}
