//! A version's configuration as the API has it, and what the host makes of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::function::config::{FunctionConfig, Log, Runtime};
use crate::limits::MEMORY_MB_DEFAULT;

/// What the API's caller may say about how code is run. The names are Lambda's, so that this is
/// also a part of what it answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Configuration {
    /// As on Lambda; `exec` and `native` too.
    pub runtime: String,
    /// Stored, and answered: a board has no IAM.
    pub role: String,
    /// As on Lambda; for `exec` and `native` the program and its arguments.
    pub handler: String,
    /// Seconds that an invocation may take.
    pub timeout: u32,
    /// MiB that the function is told it has.
    pub memory_size: u32,
    /// Variables of the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// ARNs of layer versions, in order, with the sizes of their zips.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerUse>,
    /// One of them.
    pub architectures: Vec<String>,
    /// Room in `/tmp`.
    pub ephemeral_storage: Size,
    /// How logs are written.
    pub logging_config: LoggingConfig,
    /// Where events go that failed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_config: Option<Target>,
}

/// Variables, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Environment {
    /// Names and values.
    pub variables: BTreeMap<String, String>,
}

/// A layer version in a function's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LayerUse {
    /// Which one.
    pub arn: String,
    /// Bytes of its zip.
    pub code_size: u64,
}

/// A size in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// How much.
    pub size: u32,
}

/// How logs are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LoggingConfig {
    /// `Text` or `JSON`.
    pub log_format: String,
    /// The least level that a function's own lines are kept from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_log_level: Option<String>,
    /// The least level that the platform's lines are kept from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_log_level: Option<String>,
    /// Where on Lambda they would be found.
    pub log_group: String,
}

/// Where something goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Target {
    /// Which place.
    pub target_arn: String,
}

/// Prefix of tags that set what Lambda has no parameter for.
pub const TAG_PREFIX: &str = "hob:";

/// MiB of `/tmp`, if nobody says otherwise.
const STORAGE_DEFAULT: u32 = 512;

impl LoggingConfig {
    /// Plain text, in the function's own group.
    fn text(name: &str) -> LoggingConfig {
        LoggingConfig {
            log_format: "Text".into(),
            application_log_level: None,
            system_log_level: None,
            log_group: format!("/aws/lambda/{name}"),
        }
    }
}

impl Configuration {
    /// The function `name`, of which nothing else was said.
    pub fn new(name: &str, runtime: &str, handler: &str, role: String, machine: &str) -> Self {
        Configuration {
            runtime: runtime.to_owned(),
            role,
            handler: handler.to_owned(),
            timeout: 3,
            memory_size: MEMORY_MB_DEFAULT,
            environment: None,
            layers: Vec::new(),
            architectures: vec![machine.to_owned()],
            ephemeral_storage: Size { size: STORAGE_DEFAULT },
            logging_config: LoggingConfig::text(name),
            dead_letter_config: None,
        }
    }

    /// What runs: this, and what the function's tags say.
    pub fn to_config(&self, tags: &BTreeMap<String, String>) -> Result<FunctionConfig, String> {
        let runtime = Runtime::parse(&self.runtime)
            .ok_or_else(|| format!("runtime {} is not one of this board", self.runtime))?;
        let mut config = FunctionConfig::new(runtime, &self.handler);
        config.timeout_s = self.timeout;
        config.memory_mb = self.memory_size;
        // The least that the API takes is more than a small board has: it says nothing.
        config.memory_is_said = self.memory_size > MEMORY_MB_DEFAULT;
        let variables = self.environment.iter().flat_map(|environment| &environment.variables);
        config.environment = variables.map(|(n, value)| (n.clone(), value.clone())).collect();
        config.layers = self.layers.iter().map(|layer| layer.arn.clone()).collect();
        let logging = &self.logging_config;
        let level = logging.application_log_level.as_deref().unwrap_or("INFO");
        config.log = Some(Log {
            group: logging.log_group.clone(),
            json_level: (logging.log_format == "JSON").then(|| level.to_owned()),
        });
        for (name, value) in tags {
            if let Some(key) = name.strip_prefix(TAG_PREFIX) {
                config
                    .set(key, value)
                    .map_err(|allowed| format!("tag {name} is {value}, allowed: {allowed}"))?;
            }
        }
        Ok(config)
    }
}
