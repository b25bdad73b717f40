//! `function.toml`: everything a user may say about a function, checked key by key.

mod direct;

use super::name::layer_version;
use super::trigger::{self, Trigger, is_topic};
use super::url::{self, Url};
use crate::config::{Issue, Section, Source};
use crate::limits::{LAYERS_MAX, MEMORY_MB_DEFAULT, SLOTS_MAX};

/// Who runs the handler, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// One process per invocation: event on stdin, reply on stdout.
    Exec,
    /// A process that speaks the wire.
    Native,
    /// `bootstrap`, an AWS Lambda Runtime API client.
    Provided(String),
    /// The bundled Python bootstrap.
    Python(String),
    /// The bundled Node bootstrap.
    Node(String),
}

impl Runtime {
    /// As written in `function.toml`.
    pub fn id(&self) -> &str {
        match self {
            Runtime::Exec => "exec",
            Runtime::Native => "native",
            Runtime::Provided(id) | Runtime::Python(id) | Runtime::Node(id) => id,
        }
    }

    /// True if workers speak the wire: native ones, and our own bootstraps.
    pub fn is_on_the_wire(&self) -> bool {
        match self {
            Runtime::Native | Runtime::Python(_) | Runtime::Node(_) => true,
            Runtime::Exec | Runtime::Provided(_) => false,
        }
    }

    /// True if workers may be forked from a zygote.
    pub fn can_fork(&self) -> bool {
        match self {
            Runtime::Native | Runtime::Python(_) => true,
            Runtime::Exec | Runtime::Provided(_) | Runtime::Node(_) => false,
        }
    }

    /// The runtime of this name, if there is one.
    pub fn parse(id: &str) -> Option<Runtime> {
        let version = |prefix: &str, range: std::ops::RangeInclusive<u32>, suffix: &str| {
            let number = id.strip_prefix(prefix)?.strip_suffix(suffix)?;
            number.parse().ok().filter(|n| range.contains(n) && number == n.to_string())
        };
        match id {
            "exec" => Some(Runtime::Exec),
            "native" => Some(Runtime::Native),
            "provided" | "provided.al2" | "provided.al2023" => Some(Runtime::Provided(id.into())),
            _ if version("python3.", 9..=14, "").is_some() => Some(Runtime::Python(id.into())),
            _ if version("nodejs", 18..=24, ".x").is_some() => Some(Runtime::Node(id.into())),
            _ => None,
        }
    }
}

/// Every runtime, for people.
pub const RUNTIMES: &str = "exec, native, provided, provided.al2, provided.al2023, python3.9 to \
                        python3.14, nodejs18.x to nodejs24.x";

/// Whether workers are forked from an initialised process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zygote {
    /// Where it is safe and saves something.
    Auto,
    /// Refuse the function where it cannot be.
    On,
    /// Never.
    Off,
}

/// What becomes of a function that invokes itself again and again, by itself or through others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecursiveLoop {
    /// It is stopped.
    Terminate,
    /// It is meant to.
    Allow,
}

/// What happens around asynchronous invocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Async {
    /// Further attempts after a function error, 0 to 2.
    pub retries: u8,
    /// Seconds before each further attempt.
    pub retry_delays_s: Vec<u32>,
    /// Seconds after which an event is given up.
    pub max_age_s: u32,
    /// Where the record of a success goes.
    pub on_success: Option<String>,
    /// Where the record of a failure goes.
    pub on_failure: Option<String>,
}

/// How a function's own lines are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Where on Lambda it would be found.
    pub group: String,
    /// As JSON, from this level on.
    pub json_level: Option<String>,
}

/// What the worker may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// `auto`, or a user's name.
    pub user: Option<String>,
    /// Whether the network may be used.
    pub network: Option<bool>,
    /// Paths it may read besides the system's and its own.
    pub read: Vec<String>,
    /// Paths it may write.
    pub write: Vec<String>,
}

/// A whole `function.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionConfig {
    /// Who runs the handler.
    pub runtime: Runtime,
    /// As on AWS; for `exec` and `native` the program and its arguments.
    pub handler: String,
    /// How long one invocation may take.
    pub timeout_s: u32,
    /// What the function is told that it has.
    pub memory_mb: u32,
    /// Somebody said so, and it is not just Lambda's default.
    pub memory_is_said: bool,
    /// Variables of the worker's environment.
    pub environment: Vec<(String, String)>,
    /// Layers, published (`name:version`) or folders.
    pub layers: Vec<String>,
    /// Guarantee and ceiling of workers; `None`: shares the rest.
    pub reserved_concurrency: Option<u16>,
    /// Workers kept ready.
    pub provisioned_concurrency: u16,
    /// Wait for a free worker; `None`: the server's.
    pub queue_wait_ms: Option<u32>,
    /// Idle time before a worker is stopped; `None`: the server's.
    pub idle_timeout_s: Option<u32>,
    /// Time from SIGTERM to SIGKILL; `None`: what the platform gives.
    pub shutdown_grace_ms: Option<u32>,
    /// Fork workers from an initialised process.
    pub zygote: Zygote,
    /// Recycle a worker after so many; 0: never.
    pub max_invocations: u32,
    /// What becomes of it if it invokes itself again and again.
    pub recursive_loop: RecursiveLoop,
    /// Around asynchronous invocations.
    pub asynchronous: Async,
    /// What the worker may touch.
    pub sandbox: Sandbox,
    /// Sources of invocations.
    pub triggers: Vec<Trigger>,
    /// The function URL, if `[url]` is there.
    pub url: Option<Url>,
    /// How its lines are logged, if that was said; only over the API.
    pub log: Option<Log>,
    /// Keys that were given and that this build does not act upon yet.
    pub not_in_force: Vec<&'static str>,
}

/// Names that the platform sets, and that a function may not.
pub const RESERVED_NAMES: [&str; 19] = [
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "TZ",
];

/// Bytes of all environment variables together, names and values, as on Lambda.
pub const ENVIRONMENT_MAX: usize = 4096;

impl FunctionConfig {
    /// Reads the text of `file`.
    pub fn parse(file: &str, text: &str) -> Result<FunctionConfig, Vec<Issue>> {
        Source::new(file, text).read(read)
    }
}

fn read(section: &Section<'_>) -> FunctionConfig {
    let runtime = section.text("runtime", RUNTIMES, |id| Runtime::parse(id).is_some());
    let runtime = runtime.and_then(Runtime::parse);
    if !section.has("runtime") {
        section.refuse("runtime", format_args!("is missing, allowed: {RUNTIMES}"));
    }
    let slots = i64::try_from(SLOTS_MAX).unwrap_or(i64::MAX);
    let mut config = FunctionConfig {
        handler: handler(section, runtime.as_ref()),
        runtime: runtime.unwrap_or(Runtime::Exec),
        timeout_s: section.integer("timeout_s", 1..=900).unwrap_or(3),
        memory_mb: section.integer("memory_mb", 1..=10_240).unwrap_or(MEMORY_MB_DEFAULT),
        memory_is_said: section.has("memory_mb"),
        environment: environment(section),
        layers: layers(section),
        reserved_concurrency: section.integer("reserved_concurrency", 0..=slots),
        provisioned_concurrency: section.integer("provisioned_concurrency", 0..=slots).unwrap_or(0),
        queue_wait_ms: section.integer("queue_wait_ms", 0..=900_000),
        idle_timeout_s: section.integer("idle_timeout_s", 0..=86_400),
        shutdown_grace_ms: section.integer("shutdown_grace_ms", 0..=60_000),
        zygote: match section.choice("zygote", &["auto", "on", "off"]) {
            None | Some(0) => Zygote::Auto,
            Some(1) => Zygote::On,
            Some(_) => Zygote::Off,
        },
        max_invocations: section.integer("max_invocations", 0..=i64::from(u32::MAX)).unwrap_or(0),
        recursive_loop: match section.choice("recursive_loop", &["terminate", "allow"]) {
            Some(1) => RecursiveLoop::Allow,
            None | Some(_) => RecursiveLoop::Terminate,
        },
        asynchronous: section.table("async", asynchronous).unwrap_or(ASYNC_DEFAULT),
        sandbox: section.table("sandbox", sandbox).unwrap_or_default(),
        triggers: section
            .tables("trigger", trigger::read)
            .unwrap_or_default()
            .into_iter()
            .flatten()
            .collect(),
        url: section.table("url", url::read),
        log: None,
        not_in_force: Vec::new(),
    };
    check_concurrency(section, &config);
    if config.zygote == Zygote::On && !config.runtime.can_fork() {
        let allowed = "only native and python3.* can fork";
        section.refuse("zygote", format_args!("is on, {allowed}"));
    }
    let later = ["memory_mb", "async", "trigger"];
    config.not_in_force = later.into_iter().filter(|key| section.has(key)).collect();
    if config.sandbox.user.is_some() || config.sandbox.network.is_some() {
        config.not_in_force.push("sandbox (user and network)");
    }
    config
}

fn handler(section: &Section<'_>, runtime: Option<&Runtime>) -> String {
    let allowed = "1 to 128 characters without control characters";
    let fits = |text: &str| {
        (1..=128).contains(&text.len())
            && !text.chars().any(char::is_control)
            && text.trim() == text
    };
    match (section.text("handler", allowed, fits), runtime) {
        (Some(handler), _) => handler.to_owned(),
        // On AWS the handler of a custom runtime is any text; `bootstrap` decides.
        (None, Some(Runtime::Provided(_))) if !section.has("handler") => "bootstrap".to_owned(),
        (None, _) => {
            if !section.has("handler") {
                section.refuse("handler", "is missing, allowed: the program or module.function");
            }
            String::new()
        }
    }
}

fn environment(section: &Section<'_>) -> Vec<(String, String)> {
    let pairs = section.pairs("environment").unwrap_or_default();
    for (name, value) in &pairs {
        let mut bytes = name.bytes();
        let named = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
            && name.len() > 1
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if RESERVED_NAMES.contains(&name.as_str()) {
            section.refuse("environment", format_args!("{name} is reserved, allowed: other names"));
        } else if !named {
            let allowed = "a letter, then letters, digits and _";
            section.refuse("environment", format_args!("{name:?} is no name, allowed: {allowed}"));
        } else if value.contains('\0') {
            section.refuse("environment", format_args!("{name} holds a NUL character"));
        }
    }
    let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENVIRONMENT_MAX {
        section.refuse(
            "environment",
            format_args!("{bytes} bytes together, allowed: up to {ENVIRONMENT_MAX}"),
        );
    }
    pairs
}

fn layers(section: &Section<'_>) -> Vec<String> {
    let layers = section.texts("layers", "name:version or folders", |layer| {
        super::layer::is_folder(layer) || layer_version(layer).is_some()
    });
    let layers = layers.unwrap_or_default();
    if layers.len() > LAYERS_MAX {
        let allowed = format_args!("{} layers, allowed: up to {LAYERS_MAX}", layers.len());
        section.refuse("layers", allowed);
    }
    let published = || layers.iter().filter_map(|layer| layer_version(layer));
    for (at, (name, version)) in published().enumerate() {
        if let Some((_, other)) = published().take(at).find(|(other, _)| *other == name) {
            let both = format_args!("{name}:{other} and {name}:{version}, allowed: one of them");
            section.refuse("layers", both);
        }
    }
    layers
}

const ASYNC_DEFAULT: Async = Async {
    retries: 2,
    retry_delays_s: Vec::new(),
    max_age_s: 21_600,
    on_success: None,
    on_failure: None,
};

impl Default for Async {
    fn default() -> Async {
        ASYNC_DEFAULT
    }
}

fn asynchronous(section: &Section<'_>) -> Async {
    let allowed = "function:NAME, mqtt:TOPIC, http://..., https://..., or the ARN of a function";
    let destination = |key| {
        let valid = |text: &str| {
            text.strip_prefix("function:").is_some_and(super::name::is_name)
                || text.strip_prefix("mqtt:").is_some_and(|topic| is_topic(topic, false))
                || text.starts_with("http://")
                || text.starts_with("https://")
                || text.starts_with("arn:aws:")
        };
        section.text(key, allowed, valid).map(str::to_owned)
    };
    Async {
        retries: section.integer("retries", 0..=2).unwrap_or(ASYNC_DEFAULT.retries),
        retry_delays_s: section.integers("retry_delays_s", 0..=3600).unwrap_or_default(),
        max_age_s: section.integer("max_age_s", 1..=21_600).unwrap_or(ASYNC_DEFAULT.max_age_s),
        on_success: destination("on_success"),
        on_failure: destination("on_failure"),
    }
}

fn sandbox(section: &Section<'_>) -> Sandbox {
    let is_path = |path: &str| path.starts_with('/') && !path.contains('\0');
    let is_user = |user: &str| {
        (1..=32).contains(&user.len())
            && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let paths = |key| section.texts(key, "absolute paths", is_path).unwrap_or_default();
    Sandbox {
        user: section.text("user", "auto, or a user's name", is_user).map(str::to_owned),
        network: section.boolean("network"),
        read: paths("read"),
        write: paths("write"),
    }
}

fn check_concurrency(section: &Section<'_>, config: &FunctionConfig) {
    let provisioned = config.provisioned_concurrency;
    if let Some(reserved) = config.reserved_concurrency
        && provisioned > reserved
    {
        section.refuse(
            "provisioned_concurrency",
            format_args!(
                "{provisioned} is out of range, allowed: 0..{reserved} (what is reserved)"
            ),
        );
    }
    if provisioned > 0 && config.runtime == Runtime::Exec {
        section.refuse(
            "provisioned_concurrency",
            "exec starts one process for each invocation, allowed: 0",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::url::{InvokeMode, UrlAuth};

    const WHOLE: &str = r#"
runtime = "provided.al2023"
handler = "app.handler"
timeout_s = 30
memory_mb = 64
environment = { TABLE = "orders" }
layers = ["deps:1", "../layers/fonts"]
reserved_concurrency = 2
provisioned_concurrency = 1
queue_wait_ms = 0
idle_timeout_s = 60
shutdown_grace_ms = 100
zygote = "off"
max_invocations = 1000
recursive_loop = "allow"
[async]
retries = 1
retry_delays_s = [60, 120]
max_age_s = 600
on_success = "function:audit"
on_failure = "mqtt:alerts/orders"
[sandbox]
user = "auto"
network = true
read = ["/dev/gpiochip0"]
write = ["/srv/data"]
[[trigger]]
schedule = "*/5 * * * *"
[[trigger]]
mqtt = "sensors/+/temp"
[[trigger]]
files = "/srv/inbox"
[[trigger]]
serial = "/dev/ttyUSB0"
[url]
auth = "none"
invoke_mode = "response_stream"
"#;

    #[test]
    fn every_key_is_read() {
        let config = FunctionConfig::parse("function.toml", WHOLE).expect("valid");
        assert_eq!(config.runtime, Runtime::Provided("provided.al2023".into()));
        assert_eq!((config.timeout_s, config.memory_mb), (30, 64));
        assert_eq!((config.reserved_concurrency, config.provisioned_concurrency), (Some(2), 1));
        assert_eq!(config.asynchronous.retry_delays_s, [60, 120]);
        assert_eq!(config.recursive_loop, RecursiveLoop::Allow);
        assert_eq!(config.triggers.len(), 4);
        let url = config.url.expect("there");
        assert_eq!((url.auth, url.invoke_mode), (UrlAuth::None, InvokeMode::ResponseStream));
        let later = ["memory_mb", "async", "trigger", "sandbox (user and network)"];
        assert_eq!(config.not_in_force, later);
    }

    #[test]
    fn defaults_are_lambdas() {
        let text = "runtime = \"exec\"\nhandler = \"run.sh\"";
        let config = FunctionConfig::parse("function.toml", text).expect("valid");
        assert_eq!((config.timeout_s, config.memory_mb, config.queue_wait_ms), (3, 128, None));
        assert!(config.not_in_force.is_empty());
        let text = "runtime = \"provided\"";
        assert!(FunctionConfig::parse("function.toml", text).is_ok(), "bootstrap needs no handler");
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let good = "runtime = \"exec\"\nhandler = \"run.sh\"\n";
        for line in [
            "provisioned_concurrency = 1",
            "reserved_concurrency = -1",
            "timeout_s = 901",
            "memory_mb = 0",
            "environment = { AWS_REGION = \"x\" }",
            "environment = { 1A = \"x\" }",
            "layers = [\"nameless\"]",
            "layers = [\"a:1\", \"./b\", \"a:2\"]",
            "layers = [\"a:1\", \"b:1\", \"c:1\", \"d:1\", \"e:1\", \"f:1\"]",
            "[async]\non_failure = \"nowhere\"",
            "[sandbox]\nread = [\"relative\"]",
            "[[trigger]]\nschedule = \"every day\"",
            "[[trigger]]\nschedule = \"rate(0 minutes)\"",
            "[[trigger]]\nmqtt = \"a/#/b\"",
            "[[trigger]]\nmqtt = \"a\"\nfiles = \"/b\"",
            "[[trigger]]\nfiles = \"/b\"\nshared = true",
            "[url]\nauth = \"basic\"",
            "[url]\ninvoke_mode = \"streaming\"",
        ] {
            let issues = FunctionConfig::parse("f", &format!("{good}{line}")).expect_err(line);
            assert_eq!(issues.len(), 1, "{line}: {issues:?}");
        }
        for text in ["", "runtime = \"ruby3.2\"\nhandler = \"a\"", "runtime = \"exec\""] {
            assert!(FunctionConfig::parse("f", text).is_err(), "{text}");
        }
    }
}
