//! Configurations that come from the API: not from a file, but value by value.

use super::{ASYNC_DEFAULT, FunctionConfig, RecursiveLoop, Runtime, Sandbox, Zygote};
use crate::limits::MEMORY_MB_DEFAULT;

/// What a tag of the server's own may say, and what it must be.
type Setter = (&'static str, &'static str, fn(&mut FunctionConfig, &str) -> bool);

/// The keys of `function.toml` that Lambda's API has no parameter for, or a stricter one.
const SETTERS: [Setter; 6] = [
    ("queue_wait_ms", "0..900000", |config, text| {
        number(text, 0..=900_000, |n| config.queue_wait_ms = Some(n))
    }),
    ("idle_timeout_s", "0..86400", |config, text| {
        number(text, 0..=86_400, |n| config.idle_timeout_s = Some(n))
    }),
    ("shutdown_grace_ms", "0..60000", |config, text| {
        number(text, 0..=60_000, |n| config.shutdown_grace_ms = Some(n))
    }),
    ("memory_mb", "1..10240", |config, text| {
        number(text, 1..=10_240, |n| {
            config.memory_mb = n;
            config.memory_is_said = true;
        })
    }),
    ("max_invocations", "0..4294967295", |config, text| {
        number(text, 0..=u32::MAX, |n| config.max_invocations = n)
    }),
    ("zygote", "auto, on, off", |config, text| {
        config.zygote = match text {
            "auto" => Zygote::Auto,
            "on" if config.runtime.can_fork() => Zygote::On,
            "off" => Zygote::Off,
            _ => return false,
        };
        true
    }),
];

fn number(text: &str, range: std::ops::RangeInclusive<u32>, set: impl FnOnce(u32)) -> bool {
    let number = text.parse().ok().filter(|n| range.contains(n));
    number.map(set).is_some()
}

impl FunctionConfig {
    /// A function that says nothing else.
    pub fn new(runtime: Runtime, handler: &str) -> FunctionConfig {
        FunctionConfig {
            runtime,
            handler: handler.to_owned(),
            timeout_s: 3,
            memory_mb: MEMORY_MB_DEFAULT,
            memory_is_said: false,
            environment: Vec::new(),
            layers: Vec::new(),
            reserved_concurrency: None,
            provisioned_concurrency: 0,
            queue_wait_ms: None,
            idle_timeout_s: None,
            shutdown_grace_ms: None,
            zygote: Zygote::Auto,
            max_invocations: 0,
            asynchronous: ASYNC_DEFAULT,
            sandbox: Sandbox::default(),
            triggers: Vec::new(),
            url: None,
            recursive_loop: RecursiveLoop::Terminate,
            log: None,
            not_in_force: Vec::new(),
        }
    }

    /// What a worker is said to need, in MB.
    pub fn declared_mb(&self) -> Option<u32> {
        self.memory_is_said.then_some(self.memory_mb)
    }

    /// Sets one of the keys that tags may set; the error says what is allowed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match SETTERS.iter().find(|(name, _, _)| *name == key) {
            Some((_, allowed, set)) => match set(self, value) {
                true => Ok(()),
                false => Err((*allowed).to_owned()),
            },
            None => {
                let names: Vec<String> =
                    SETTERS.iter().map(|(name, _, _)| format!("hob:{name}")).collect();
                Err(format!("the names {}", names.join(", ")))
            }
        }
    }
}

impl RecursiveLoop {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            RecursiveLoop::Terminate => "Terminate",
            RecursiveLoop::Allow => "Allow",
        }
    }

    /// What the API calls so.
    pub fn of(name: &str) -> RecursiveLoop {
        let allows = name == RecursiveLoop::Allow.name();
        if allows { RecursiveLoop::Allow } else { RecursiveLoop::Terminate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_set_what_the_api_has_no_parameter_for() {
        let mut config = FunctionConfig::new(Runtime::Exec, "run");
        for (key, value) in [("queue_wait_ms", "0"), ("memory_mb", "32"), ("zygote", "off")] {
            assert_eq!(config.set(key, value), Ok(()), "{key}");
        }
        assert_eq!((config.queue_wait_ms, config.declared_mb()), (Some(0), Some(32)));
        assert_eq!(config.zygote, Zygote::Off);
        for (key, value, allowed) in [
            ("queue_wait_ms", "-1", "0..900000"),
            ("memory_mb", "0", "1..10240"),
            ("zygote", "on", "auto, on, off"),
        ] {
            assert_eq!(config.set(key, value), Err(allowed.into()), "{key}");
        }
        assert!(config.set("timeout_s", "1").is_err_and(|names| names.contains("hob:zygote")));
    }
}
