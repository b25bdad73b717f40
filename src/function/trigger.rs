//! `[[trigger]]`: where invocations come from, as `function.toml` says it.

use crate::config::Section;

/// A source of invocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Cron, or `rate(...)` and `cron(...)` as EventBridge writes them.
    Schedule(String),
    /// An MQTT topic filter; `shared` spreads it over boards.
    Mqtt {
        /// The filter.
        filter: String,
        /// Whether one of all boards gets each message.
        shared: bool,
    },
    /// A directory: an event for each file closed after writing or moved in.
    Files(String),
    /// A serial device: an event for each frame.
    Serial(String),
}

/// Reads one `[[trigger]]`.
pub(super) fn read(section: &Section<'_>) -> Option<Trigger> {
    let is_path = |path: &str| path.starts_with('/') && !path.contains('\0');
    let allowed = "five cron fields, rate(N minutes), or cron(six fields)";
    let schedule = section.text("schedule", allowed, is_schedule);
    let mqtt = section.text("mqtt", "an MQTT topic filter", |filter| is_topic(filter, true));
    let files = section.text("files", "an absolute path", is_path);
    let serial = section.text("serial", "an absolute path of a device", is_path);
    let shared = section.boolean("shared");
    let sources = ["schedule", "mqtt", "files", "serial"];
    let given = sources.into_iter().filter(|key| section.has(key)).count();
    if given != 1 {
        let allowed = "exactly one of schedule, mqtt, files, serial";
        section.refuse("schedule", format_args!("{given} sources, allowed: {allowed}"));
    }
    if shared.is_some() && !section.has("mqtt") {
        section.refuse("shared", "goes with mqtt only");
    }
    schedule
        .map(|text| Trigger::Schedule(text.to_owned()))
        .or(mqtt.map(|filter| Trigger::Mqtt {
            filter: filter.to_owned(),
            shared: shared.unwrap_or(true),
        }))
        .or(files.map(|path| Trigger::Files(path.to_owned())))
        .or(serial.map(|path| Trigger::Serial(path.to_owned())))
}

fn is_schedule(text: &str) -> bool {
    let fields = |text: &str, n: usize| {
        let fits = |field: &str| {
            field.bytes().all(|b| b.is_ascii_alphanumeric() || b"*/,-?#".contains(&b))
        };
        text.split_whitespace().count() == n && text.split_whitespace().all(fits)
    };
    let inside = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(rate) = inside("rate") {
        let units = ["second", "seconds", "minute", "minutes", "hour", "hours", "day", "days"];
        return rate.split_once(' ').is_some_and(|(number, unit)| {
            number.parse::<u32>().is_ok_and(|n| n > 0) && units.contains(&unit)
        });
    }
    inside("cron").map_or_else(|| fields(text, 5), |cron| fields(cron, 6))
}

/// MQTT's own rules for topics, and with `filter` for the wildcards of subscriptions.
pub fn is_topic(text: &str, filter: bool) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let last = levels.len() - 1;
    (1..=65_535).contains(&text.len())
        && !text.contains('\0')
        && levels.iter().enumerate().all(|(n, level)| match *level {
            "#" => filter && n == last,
            "+" => filter,
            level => !level.contains(['#', '+']),
        })
}
