//! Aliases: names that lead to a version, or to one of two by chance.

use serde::{Deserialize, Serialize};

use super::LATEST;

/// A name for a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AliasRecord {
    /// Where it leads.
    pub route: Route,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Differs after every change.
    pub revision_id: String,
}

/// Where an alias leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Route {
    /// A number, or `$LATEST`.
    pub function_version: String,
    /// Another version, and the part of invocations that go there: 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional: Option<(String, f64)>,
}

impl Route {
    /// The version for one invocation, by `chance`: a random number from 0 up to but not 1.
    pub fn choose(&self, chance: f64) -> &str {
        match &self.additional {
            Some((version, weight)) if chance < *weight => version,
            Some(_) | None => &self.function_version,
        }
    }

    /// True if this version may be reached.
    pub fn leads_to(&self, version: &str) -> bool {
        self.function_version == version
            || self.additional.as_ref().is_some_and(|(other, _)| other == version)
    }

    /// Checks what Lambda demands of a route with two ends; the error is Lambda's own text.
    pub fn check(&self) -> Result<(), String> {
        let Some((version, weight)) = &self.additional else { return Ok(()) };
        if self.function_version == LATEST || version == LATEST {
            let message = "$LATEST is not supported for an alias pointing to more than 1 version";
            return Err(message.to_owned());
        }
        if *version == self.function_version {
            return Err(format!(
                "Invalid function version {version}. Function version {version} is already \
                 included in routing configuration."
            ));
        }
        if !(0.0..=1.0).contains(weight) {
            return Err(format!(
                "Value '{weight}' at 'routingConfig.additionalVersionWeights' failed to satisfy \
                 constraint: Member must be between 0.0 and 1.0"
            ));
        }
        Ok(())
    }
}

/// True if `text` may be an alias: not a number, and of letters, digits, `-` and `_`.
pub fn is_alias(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(version: &str, additional: Option<(&str, f64)>) -> Route {
        let additional = additional.map(|(version, weight)| (version.to_owned(), weight));
        Route { function_version: version.into(), additional }
    }

    #[test]
    fn a_weight_is_the_part_of_the_additional_version() {
        let alone = route("1", None);
        assert_eq!([0.0, 0.5, 0.99].map(|chance| alone.choose(chance)), ["1", "1", "1"]);
        let both = route("1", Some(("2", 0.2)));
        assert_eq!([0.0, 0.19, 0.2, 0.99].map(|chance| both.choose(chance)), ["2", "2", "1", "1"]);
        assert!(both.leads_to("1") && both.leads_to("2") && !both.leads_to("3"));
        assert_eq!(route("1", Some(("2", 0.0))).choose(0.0), "1");
        assert_eq!(route("1", Some(("2", 1.0))).choose(0.999), "2");
    }

    #[test]
    fn routes_that_lambda_refuses_are_refused() {
        for (route, part) in [
            (route("$LATEST", Some(("1", 0.5))), "$LATEST is not supported"),
            (route("1", Some(("$LATEST", 0.5))), "$LATEST is not supported"),
            (route("1", Some(("1", 0.5))), "Invalid function version 1."),
            (route("1", Some(("2", 1.5))), "between 0.0 and 1.0"),
            (route("1", Some(("2", f64::NAN))), "between 0.0 and 1.0"),
        ] {
            assert!(route.check().is_err_and(|error| error.contains(part)), "{part}");
        }
        assert_eq!(route("$LATEST", None).check(), Ok(()));
        assert!(is_alias("PROD-1") && !is_alias("12") && !is_alias("$LATEST") && !is_alias(""));
    }

    #[test]
    fn records_read_back() {
        let alias = AliasRecord {
            route: route("1", Some(("2", 0.1))),
            description: String::new(),
            revision_id: "r".into(),
        };
        let text = serde_json::to_string(&alias).expect("JSON");
        assert_eq!(
            text,
            r#"{"Route":{"FunctionVersion":"1","Additional":["2",0.1]},"RevisionId":"r"}"#
        );
        assert_eq!(serde_json::from_str::<AliasRecord>(&text).expect("read"), alias);
    }
}
