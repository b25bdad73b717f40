//! What a caller says about how code is run, checked as Lambda checks it; and what a board cannot
//! do, refused in so many words.

use std::collections::BTreeMap;

use super::fields::Fields;
use crate::api::error::ApiError;
use crate::function::config::{ENVIRONMENT_MAX, RESERVED_NAMES, RUNTIMES, Runtime};
use crate::function::elf;
use crate::function::name::Home;
use crate::function::record::{Configuration, Environment, LoggingConfig, Target};

/// Members that Lambda's API has, and why a board refuses them.
const IMPOSSIBLE: [(&str, &str); 11] = [
    ("FileSystemConfigs", "there is no EFS here: use [sandbox] write in a function folder"),
    ("ImageConfig", "this server runs no container images"),
    ("CodeSigningConfigArn", "this server checks no code signatures"),
    ("CapacityProviderConfig", "this server has no managed instances"),
    ("TenancyConfig", "this server has no tenant isolation"),
    ("DurableConfig", "this server runs no durable functions"),
    ("RuntimeConfig", "this server has no custom runtimes of that kind: use provided.al2023"),
    ("AcceleratorConfig", "this server has no accelerators"),
    ("SourceKMSKeyArn", "this server has no KMS"),
    ("ImageUri", "this server runs no container images"),
    ("PublishTo", "this server publishes numbered versions only"),
];

/// Refuses what a board cannot do.
pub fn check_possible(fields: &Fields) -> Result<(), ApiError> {
    let refuse = |name: &str, why: &str| {
        Err(ApiError::invalid_parameter(format!("{name} is not supported: {why}")))
    };
    for (name, why) in IMPOSSIBLE {
        let is_empty = |value: &serde_json::Value| {
            value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_str().is_some_and(str::is_empty)
        };
        if fields.value(name).is_some_and(|value| !is_empty(value)) {
            return refuse(name, why);
        }
    }
    if fields.text("KMSKeyArn", 0..=10_000)?.is_some_and(|key| !key.is_empty()) {
        return refuse("KMSKeyArn", "this server has no KMS: the disk holds variables as they are");
    }
    if fields.choice("PackageType", &["Zip", "Image"])? == Some("Image") {
        return refuse("PackageType Image", "this server runs no container images");
    }
    if let Some(vpc) = fields.object("VpcConfig")? {
        let listed = |name| Ok(vpc.texts(name)?.is_some_and(|list| !list.is_empty()));
        if listed("SubnetIds")? || listed("SecurityGroupIds")? {
            return refuse("VpcConfig", "functions use this machine's own network");
        }
    }
    if let Some(snap) = fields.object("SnapStart")?
        && snap.choice("ApplyOn", &["None", "PublishedVersions"])? == Some("PublishedVersions")
    {
        return refuse("SnapStart", "workers are forked from an initialised process instead");
    }
    if let Some(tracing) = fields.object("TracingConfig")?
        && tracing.choice("Mode", &["PassThrough", "Active"])? == Some("Active")
    {
        return refuse("TracingConfig Active", "nothing is uploaded to X-Ray from here");
    }
    Ok(())
}

/// A configuration as a request changes it; `before` is none for a new function.
pub fn apply(
    fields: &Fields,
    home: &Home,
    name: &str,
    before: Option<&Configuration>,
) -> Result<Configuration, ApiError> {
    check_possible(fields)?;
    let mut new = match before {
        Some(before) => before.clone(),
        None => fresh(fields, home, name)?,
    };
    if let Some(runtime) = fields.text("Runtime", 1..=128)? {
        if Runtime::parse(runtime).is_none() {
            return Err(ApiError::invalid_parameter(format!(
                "Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy \
                 enum value set: [{RUNTIMES}] or be a valid ARN"
            )));
        }
        new.runtime = runtime.to_owned();
    }
    if let Some(role) = fields.text("Role", 0..=10_000)? {
        new.role = role.to_owned();
    }
    if let Some(handler) = fields.text("Handler", 0..=128)? {
        check_handler(handler, &new.runtime)?;
        new.handler = handler.to_owned();
    }
    new.timeout = fields.integer("Timeout", 1..=900)?.unwrap_or(new.timeout);
    new.memory_size = fields.integer("MemorySize", 128..=10_240)?.unwrap_or(new.memory_size);
    if let Some(environment) = fields.object("Environment")? {
        new.environment = Some(Environment { variables: variables(&environment)? });
    }
    if let Some(storage) = fields.object("EphemeralStorage")? {
        let size = storage.integer("Size", 512..=10_240)?;
        new.ephemeral_storage.size = size.ok_or_else(|| storage.missing("Size"))?;
    }
    if let Some(logging) = fields.object("LoggingConfig")? {
        new.logging_config = self::logging(&logging, &new.logging_config)?;
    }
    if let Some(dead) = fields.object("DeadLetterConfig")? {
        let target = dead.text("TargetArn", 0..=10_000)?.filter(|arn| !arn.is_empty());
        new.dead_letter_config = target.map(|arn| Target { target_arn: arn.to_owned() });
    }
    Ok(new)
}

/// What a new function has to say, and what holds if it says no more.
fn fresh(fields: &Fields, home: &Home, name: &str) -> Result<Configuration, ApiError> {
    let mandatory = || {
        ApiError::invalid_parameter(
            "Runtime and Handler are mandatory parameters for functions created with deployment \
             packages.",
        )
    };
    fields.needed("Role", 0..=10_000)?;
    let runtime = fields.text("Runtime", 1..=128)?.ok_or_else(mandatory)?;
    let handler = fields.text("Handler", 0..=128)?.ok_or_else(mandatory)?;
    let machine = architecture(fields)?;
    Ok(Configuration::new(name, runtime, handler, home.role(), &machine))
}

fn check_handler(handler: &str, runtime: &str) -> Result<(), ApiError> {
    // Programs have arguments; what AWS calls a handler has none.
    let is_program = matches!(Runtime::parse(runtime), Some(Runtime::Exec | Runtime::Native));
    let is_spaced = handler.chars().any(|c| c.is_control() || (c.is_whitespace() && !is_program));
    if handler.is_empty() || is_spaced {
        let demand = format_args!("satisfy regular expression pattern: [^\\s]+");
        return Err(super::fields::unfit("handler", handler, demand));
    }
    Ok(())
}

/// What Lambda calls this machine's architecture, or what it would.
pub fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "arm" => "armv7",
        other => other,
    }
}

/// The architecture that a request names; refused unless it is this machine's.
pub fn architecture(fields: &Fields) -> Result<String, ApiError> {
    let own = own_architecture();
    let Some(list) = fields.texts("Architectures")? else { return Ok(own.to_owned()) };
    match list.as_slice() {
        [one] if one == own => Ok(own.to_owned()),
        [one] => Err(ApiError::invalid_parameter(format!(
            "Architecture {one} cannot run here: this machine is {own} ({})",
            elf::Target::own().name()
        ))),
        _ => {
            let demand = format_args!("have length less than or equal to 1");
            Err(fields.unfit("Architectures", format!("[{}]", list.join(", ")), demand))
        }
    }
}

fn variables(environment: &Fields) -> Result<BTreeMap<String, String>, ApiError> {
    const WHY: &str = "Lambda was unable to configure your environment variables because the \
                       environment variables you have provided";
    let variables = environment.map("Variables")?.unwrap_or_default();
    let reserved: Vec<&str> =
        RESERVED_NAMES.into_iter().filter(|name| variables.contains_key(*name)).collect();
    if !reserved.is_empty() {
        let names = reserved.join(", ");
        return Err(ApiError::invalid_parameter(format!(
            "{WHY} contains reserved keys that are currently not supported for modification. \
             Reserved keys used in this request: {names}"
        )));
    }
    for (name, value) in &variables {
        let mut letters = name.bytes();
        let is_name = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            && name.len() > 1
            && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            let demand = format_args!(
                "satisfy constraint: [Member must satisfy regular expression pattern: \
                 [a-zA-Z]([a-zA-Z0-9_])+]"
            );
            return Err(environment.unfit("Variables", format!("[{name}]"), demand));
        }
        if value.contains('\0') {
            return Err(ApiError::invalid_parameter(format!("{WHY} contain a NUL: {name}")));
        }
    }
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENVIRONMENT_MAX {
        let measured = serde_json::to_string(&variables).unwrap_or_default();
        return Err(ApiError::invalid_parameter(format!(
            "{WHY} exceeded the 4KB limit. String measured: {measured}"
        )));
    }
    Ok(variables)
}

fn logging(fields: &Fields, before: &LoggingConfig) -> Result<LoggingConfig, ApiError> {
    let format = fields.choice("LogFormat", &["JSON", "Text"])?.unwrap_or(&before.log_format);
    let levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let application = fields.choice("ApplicationLogLevel", &levels)?;
    let system = fields.choice("SystemLogLevel", &["DEBUG", "INFO", "WARN"])?;
    if format == "Text" && (application.is_some() || system.is_some()) {
        return Err(ApiError::invalid_parameter(
            "ApplicationLogLevel and SystemLogLevel are not supported with LogFormat Text.",
        ));
    }
    let json = format == "JSON";
    let level = |given: Option<&str>, before: &Option<String>| {
        let before = before.as_deref().unwrap_or("INFO");
        json.then(|| given.unwrap_or(before).to_owned())
    };
    let group = fields.text("LogGroup", 1..=512)?.unwrap_or(&before.log_group);
    Ok(LoggingConfig {
        log_format: format.to_owned(),
        application_log_level: level(application, &before.application_log_level),
        system_log_level: level(system, &before.system_log_level),
        log_group: group.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home { region: "us-east-1".into(), account: "000000000000".into() }
    }

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).expect("JSON")
    }

    fn refusal(text: &str) -> ApiError {
        let text = format!(r#"{{"Role":"r","Runtime":"provided","Handler":"h",{text}}}"#);
        apply(&fields(&text), &home(), "f", None).expect_err(&text)
    }

    #[test]
    fn what_is_not_said_is_as_on_lambda_and_changes_leave_the_rest() {
        let new = fields(r#"{"Role":"r","Runtime":"python3.11","Handler":"a.b"}"#);
        let made = apply(&new, &home(), "f", None).expect("valid");
        assert_eq!((made.timeout, made.memory_size, made.ephemeral_storage.size), (3, 128, 512));
        assert_eq!((made.role.as_str(), made.environment.is_none()), ("r", true));
        assert_eq!(made.logging_config.log_group, "/aws/lambda/f");
        let change = fields(r#"{"Timeout":9,"Environment":{"Variables":{"AB":"1"}}}"#);
        let changed = apply(&change, &home(), "f", Some(&made)).expect("valid");
        assert_eq!((changed.timeout, changed.handler.as_str()), (9, "a.b"));
        assert_eq!(
            changed.environment.expect("set").variables.get("AB").map(String::as_str),
            Some("1")
        );
        let json = fields(r#"{"LoggingConfig":{"LogFormat":"JSON"}}"#);
        let logging = apply(&json, &home(), "f", Some(&made)).expect("valid").logging_config;
        assert_eq!(logging.application_log_level.as_deref(), Some("INFO"));
    }

    #[test]
    fn what_a_board_cannot_do_is_refused_in_words() {
        for (text, part) in [
            (r#""VpcConfig":{"SubnetIds":["s"]}"#, "VpcConfig is not supported"),
            (r#""SnapStart":{"ApplyOn":"PublishedVersions"}"#, "SnapStart is not supported"),
            (r#""KMSKeyArn":"arn:aws:kms""#, "KMSKeyArn is not supported"),
            (r#""PackageType":"Image""#, "no container images"),
            (r#""TracingConfig":{"Mode":"Active"}"#, "X-Ray"),
            (r#""FileSystemConfigs":[{"Arn":"a"}]"#, "no EFS"),
            (r#""Architectures":["pdp11"]"#, "Architecture pdp11 cannot run here"),
            (r#""Environment":{"Variables":{"AWS_REGION":"x"}}"#, "contains reserved keys"),
            (r#""LoggingConfig":{"SystemLogLevel":"WARN"}"#, "not supported with LogFormat Text"),
        ] {
            let refused = refusal(text);
            assert_eq!(refused.name, "InvalidParameterValueException", "{text}");
            assert!(refused.message.contains(part), "{text}: {}", refused.message);
        }
        for harmless in [r#""VpcConfig":{"SubnetIds":[]}"#, r#""SnapStart":{"ApplyOn":"None"}"#] {
            let text = format!(r#"{{"Role":"r","Runtime":"exec","Handler":"h x",{harmless}}}"#);
            assert!(apply(&fields(&text), &home(), "f", None).is_ok(), "{text}");
        }
    }

    #[test]
    fn an_environment_has_four_kilobytes() {
        let text =
            |n: usize| format!(r#""Environment":{{"Variables":{{"AB":"{}"}}}}"#, "x".repeat(n));
        assert!(refusal(&text(4095)).message.contains(r#"String measured: {"AB":"xxx"#));
        let whole = format!(r#"{{"Role":"r","Runtime":"exec","Handler":"h",{}}}"#, text(4094));
        assert!(apply(&fields(&whole), &home(), "f", None).is_ok());
    }
}
