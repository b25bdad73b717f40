//! What is kept of a function beside its code: its configuration, its published versions, and
//! whatever else the control plane can set. Small files of JSON, replaced as a whole, with the
//! names that Lambda's API gives to things.
//!
//! A version never changes once it is published. What may change stands in [`FunctionRecord`].

mod alias;
mod configuration;
mod grant;
mod layer;

use std::collections::BTreeMap;

use litemap::LiteMap;
use serde::{Deserialize, Serialize};

pub use alias::{AliasRecord, Route, is_alias};
pub use configuration::{
    Configuration, Environment, LayerUse, LoggingConfig, Size, TAG_PREFIX, Target,
};
pub use grant::{Grant, Wish};
pub use layer::{LayerRecord, LayerVersionRecord};

/// The name of the version that changes.
pub const LATEST: &str = "$LATEST";

/// Everything about a function that may change. An empty `LiteMap` would be written as a list, so it is
/// left out, and what the API shows even if it is empty is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FunctionRecord {
    /// `$LATEST`; none if a folder is that, and only the rest is kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<VersionRecord>,
    /// The number of the next published version: numbers are never used twice.
    pub next_version: u32,
    /// By name.
    #[serde(default, skip_serializing_if = "LiteMap::is_empty")]
    pub aliases: LiteMap<String, AliasRecord>,
    /// Guarantee and ceiling of workers over all versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_concurrency: Option<u16>,
    /// Workers kept ready, by version or alias.
    #[serde(default, skip_serializing_if = "LiteMap::is_empty")]
    pub provisioned_concurrency: LiteMap<String, Provisioned>,
    /// Asynchronous invocation, by version or alias.
    #[serde(default, skip_serializing_if = "LiteMap::is_empty")]
    pub event_invoke: LiteMap<String, EventInvoke>,
    /// Function URLs, by alias; that of the function itself stands under `$LATEST`.
    #[serde(default, skip_serializing_if = "LiteMap::is_empty")]
    pub urls: LiteMap<String, UrlRecord>,
    /// Who else may invoke, by version or alias.
    #[serde(default, skip_serializing_if = "LiteMap::is_empty")]
    pub policies: LiteMap<String, Policy>,
    /// Names and values of the user's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// `Allow`, if invocations that go round in circles are not stopped, or `Terminate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive_loop: Option<String>,
}

impl Default for FunctionRecord {
    fn default() -> FunctionRecord {
        FunctionRecord {
            latest: None,
            next_version: 1,
            aliases: LiteMap::new(),
            reserved_concurrency: None,
            provisioned_concurrency: LiteMap::new(),
            event_invoke: LiteMap::new(),
            urls: LiteMap::new(),
            policies: LiteMap::new(),
            tags: BTreeMap::new(),
            recursive_loop: None,
        }
    }
}

/// One version: code, and how it is run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionRecord {
    /// Its code.
    pub code: CodeRecord,
    /// The digest of its layers, merged, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt: Option<String>,
    /// What the API's caller said; none: what `function.toml` says, which is a part of the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Milliseconds of Unix time.
    pub modified_ms: u64,
    /// Differs after every change.
    pub revision_id: String,
}

/// A function's own files, in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CodeRecord {
    /// Where they are: the digest of their content.
    pub digest: String,
    /// The SHA-256 of the zip that they came in, in hexadecimal; none for a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zip: Option<String>,
    /// Bytes: of that zip, or of the folder's files.
    pub size: u64,
}

/// Workers of one version that are kept ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Provisioned {
    /// How many.
    pub requested: u16,
    /// Milliseconds of Unix time.
    pub modified_ms: u64,
}

/// What asynchronous invocations do with failure, and where their results go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EventInvoke {
    /// Further attempts after a function error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Seconds after which an event is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u32>,
    /// Where the record of a success goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<String>,
    /// Where the record of a failure goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    /// Destinations were given at all.
    #[serde(default)]
    pub has_destinations: bool,
    /// Milliseconds of Unix time.
    pub modified_ms: u64,
}

/// A function URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UrlRecord {
    /// `NONE` or `AWS_IAM`.
    pub auth_type: String,
    /// `BUFFERED` or `RESPONSE_STREAM`.
    pub invoke_mode: String,
    /// What web pages of other origins may do, as the API has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<serde_json::Value>,
    /// Milliseconds of Unix time.
    pub created_ms: u64,
    /// Milliseconds of Unix time.
    pub modified_ms: u64,
}

/// Statements about who may invoke.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    /// As they were answered, in the order in which they came.
    pub statements: Vec<serde_json::Value>,
    /// Differs after every change.
    pub revision_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_names_are_left_out_or_an_object_without_members() {
        let none = Environment { variables: BTreeMap::new() };
        assert_eq!(serde_json::to_string(&none).expect("JSON"), "{\"Variables\":{}}");
        let record = FunctionRecord::default();
        assert_eq!(serde_json::to_string(&record).expect("JSON"), "{\"NextVersion\":1}");
    }
}
