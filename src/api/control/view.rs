//! A version as Lambda's API shows it: `FunctionConfiguration`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::change;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::function::config::FunctionConfig;
use crate::function::name::layer_version;
use crate::function::record::{
    CodeRecord, Configuration, Environment, FunctionRecord, LATEST, LayerUse, VersionRecord,
};
use crate::host::catalog::Source;
use crate::host::load::parse_config;
use crate::io::clock::CivilTime;

/// Where a version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It was created just now.
    Creating,
    /// It replaces another one just now.
    Updating,
    /// It serves.
    Active,
}

/// A version to be shown.
pub struct View<'a> {
    /// The function.
    pub name: &'a str,
    /// As the ARN has it.
    pub qualifier: Option<&'a str>,
    /// `$LATEST`, or a number.
    pub label: &'a str,
    /// What is kept of it.
    pub record: &'a VersionRecord,
    /// Where it is in its life.
    pub stage: Stage,
}

/// What is kept of a function's `$LATEST`, or what stands for it if that is a folder.
pub fn latest(api: &Api, name: &str, record: &FunctionRecord) -> Result<VersionRecord, ApiError> {
    let folder = {
        let catalog = api.host.catalog.borrow();
        let function = catalog.function(name).ok_or_else(|| change::not_found(api, name, None))?;
        match (&function.source, &function.state) {
            (Source::Pushed, _) => None,
            (Source::Folder(_), Ok(version)) => {
                Some((version.code.clone(), version.layers.clone()))
            }
            // It serves nobody until it is repaired; the operator's log says why.
            (Source::Folder(_), Err(_)) => return Err(change::not_found(api, name, None)),
        }
    };
    let Some((code, opt)) = folder else {
        return record.latest.clone().ok_or_else(|| change::not_found(api, name, None));
    };
    let digest = |path: &std::path::Path| {
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let look = api.store.look_of(name);
    let code = digest(&code);
    let part = |range: std::ops::Range<usize>| code.get(range).unwrap_or("0").to_owned();
    let revision_id = [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-");
    Ok(VersionRecord {
        code: CodeRecord { digest: code, zip: None, size: look.size },
        opt: opt.as_deref().map(digest),
        configuration: None,
        description: String::new(),
        modified_ms: look.modified_ms,
        revision_id,
    })
}

/// A version's configuration as the API has it, wherever it comes from.
pub fn configuration(
    api: &Api,
    name: &str,
    record: &VersionRecord,
) -> Result<Configuration, ApiError> {
    if let Some(configuration) = &record.configuration {
        return Ok(configuration.clone());
    }
    let file = format!("{name}/function.toml");
    let config = parse_config(&file, &api.store.code(&record.code.digest));
    let config = config.map_err(|issues| ApiError::service(500, issues.join("; ")))?;
    Ok(of_toml(api, name, config))
}

/// What `function.toml` says, in the API's words.
fn of_toml(api: &Api, name: &str, config: FunctionConfig) -> Configuration {
    let home = &api.host.facts.home;
    let variables: std::collections::BTreeMap<_, _> = config.environment.into_iter().collect();
    // A folder has no ARN.
    let layer = |name: &String| {
        let (layer, number) = layer_version(name)?;
        let record = api.store.layer_version(layer, number).ok().flatten();
        Some(LayerUse {
            arn: home.layer_arn(layer, Some(&number.to_string())),
            // It may have been deleted since.
            code_size: record.map_or(0, |record| record.code.size),
        })
    };
    let (runtime, machine) = (config.runtime.id(), super::configure::own_architecture());
    Configuration {
        timeout: config.timeout_s,
        memory_size: config.memory_mb,
        environment: (!variables.is_empty()).then_some(Environment { variables }),
        layers: config.layers.iter().filter_map(layer).collect(),
        ..Configuration::new(name, runtime, &config.handler, home.role(), machine)
    }
}

impl View<'_> {
    /// As Lambda answers it.
    pub fn show(&self, api: &Api) -> Result<Value, ApiError> {
        let configuration = configuration(api, self.name, self.record)?;
        let home = &api.host.facts.home;
        let runtime = hex(&Sha256::digest(configuration.runtime.as_bytes()));
        let mut value = serde_json::to_value(&configuration).unwrap_or_default();
        let more = json!({
            "FunctionName": self.name,
            "FunctionArn": home.arn(self.name, self.qualifier).to_string(),
            "CodeSize": self.record.code.size,
            "CodeSha256": sha256(&self.record.code),
            "Description": self.record.description,
            "LastModified": timestamp(self.record.modified_ms),
            "Version": self.label,
            "RevisionId": self.record.revision_id,
            "PackageType": "Zip",
            "TracingConfig": { "Mode": "PassThrough" },
            "SnapStart": { "ApplyOn": "None", "OptimizationStatus": "Off" },
            "RuntimeVersionConfig": {
                "RuntimeVersionArn": format!("arn:aws:lambda:{}::runtime:{runtime}", home.region),
            },
            "State": if self.stage == Stage::Creating { "Pending" } else { "Active" },
        });
        merge(&mut value, more);
        merge(&mut value, self.stage.details());
        if let Some(why) = self.broken(api) {
            let reason = "InvalidConfiguration";
            let failed = json!({
                "State": "Failed", "StateReason": why, "StateReasonCode": reason,
            });
            merge(&mut value, failed);
        }
        Ok(value)
    }

    /// Why `$LATEST` serves nobody, although it did when it was put in force: what it needs of the
    /// machine is gone.
    fn broken(&self, api: &Api) -> Option<String> {
        let catalog = api.host.catalog.borrow();
        let function = catalog.function(self.name)?;
        let issues = function.state.as_ref().err()?;
        (self.label == LATEST && self.stage == Stage::Active).then(|| issues.join("; "))
    }
}

impl Stage {
    fn details(self) -> Value {
        match self {
            Stage::Creating => json!({
                "StateReason": "The function is being created.",
                "StateReasonCode": "Creating",
            }),
            Stage::Updating => json!({
                "LastUpdateStatus": "InProgress",
                "LastUpdateStatusReason": "The function is being created.",
                "LastUpdateStatusReasonCode": "Creating",
            }),
            Stage::Active => json!({ "LastUpdateStatus": "Successful" }),
        }
    }
}

fn merge(value: &mut Value, more: Value) {
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
}

/// `$LATEST` of a function, active.
pub fn show_latest(
    api: &Api,
    name: &str,
    qualifier: Option<&str>,
    record: &VersionRecord,
) -> Result<Value, ApiError> {
    View { name, qualifier, label: LATEST, record, stage: Stage::Active }.show(api)
}

/// What Lambda calls the SHA-256 of code: that of the zip it came in, in base64. A folder has its
/// own.
pub fn sha256(code: &CodeRecord) -> String {
    let digits = code.zip.as_deref().unwrap_or(&code.digest).as_bytes();
    let digit = |d: &u8| char::from(*d).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let byte = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    let bytes: Vec<u8> = digits.chunks(2).filter_map(byte).collect();
    BASE64_STANDARD.encode(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `2026-01-01T00:00:00.000+0000`
pub fn timestamp(ms: u64) -> String {
    CivilTime::from_unix_ms(ms).to_iso().replace('Z', "+0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_times_are_as_lambda_writes_them() {
        let zip = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let code = CodeRecord { digest: "0".repeat(64), zip: Some(zip.into()), size: 0 };
        assert_eq!(sha256(&code), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(timestamp(1_584_039_838_007), "2020-03-12T19:03:58.007+0000");
    }
}
