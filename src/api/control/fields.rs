//! Members of requests: taken one by one, with Lambda's words for those that have no valid value.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::api::error::ApiError;

/// The members of a JSON object. What is not known is ignored, as Lambda does; null is the same as
/// nothing.
#[derive(Debug)]
pub struct Fields {
    map: Map<String, Value>,
    /// Where it stands in the request, as Lambda writes it.
    path: String,
}

impl Fields {
    /// No members.
    pub fn none() -> Fields {
        Fields::from(Map::new())
    }

    /// The members of a request's body; an empty one has none.
    pub fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Fields::none());
        }
        serde_json::from_slice::<Map<String, Value>>(bytes).map(Fields::from).map_err(|error| {
            ApiError::invalid_content(format!("Could not parse request body into json: {error}"))
        })
    }

    /// How Lambda writes the name of a member.
    fn named(&self, name: &str) -> String {
        let mut letters = name.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        let name: String = first.into_iter().chain(letters).collect();
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }

    /// A member as it is.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A text of so many characters.
    pub fn text(
        &self,
        name: &str,
        length: RangeInclusive<usize>,
    ) -> Result<Option<&str>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong_type(value, "a String"))?;
        let count = text.chars().count();
        let (least, most) = (length.start(), length.end());
        let bound = if count < *least {
            format!("greater than or equal to {least}")
        } else if count > *most {
            format!("less than or equal to {most}")
        } else {
            return Ok(Some(text));
        };
        Err(self.unfit(name, text, format_args!("have length {bound}")))
    }

    /// A text that must be there.
    pub fn needed(&self, name: &str, length: RangeInclusive<usize>) -> Result<&str, ApiError> {
        self.text(name, length)?.ok_or_else(|| self.missing(name))
    }

    /// One of these texts.
    pub fn choice(&self, name: &str, allowed: &[&str]) -> Result<Option<&str>, ApiError> {
        let Some(text) = self.text(name, 0..=usize::MAX)? else { return Ok(None) };
        if allowed.contains(&text) {
            return Ok(Some(text));
        }
        let set = allowed.join(", ");
        Err(self.unfit(name, text, format_args!("satisfy enum value set: [{set}]")))
    }

    /// A whole number in this range.
    pub fn integer(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_i64().ok_or_else(|| wrong_type(value, "an Integer"))?;
        if number < i64::from(*range.start()) {
            let bound = format_args!("have value greater than or equal to {}", range.start());
            return Err(self.unfit(name, number, bound));
        }
        let fits = u32::try_from(number).ok().filter(|number| number <= range.end());
        fits.map(Some).ok_or_else(|| {
            let bound = format_args!("have value less than or equal to {}", range.end());
            self.unfit(name, number, bound)
        })
    }

    /// True or false.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong_type(value, "a Boolean"))
    }

    /// An object.
    pub fn object(&self, name: &str) -> Result<Option<Fields>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| wrong_type(value, "a structure"))?;
        Ok(Some(Fields { map: map.clone(), path: self.named(name) }))
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let list = value.as_array().ok_or_else(|| wrong_type(value, "a list"))?;
        let text = |value: &Value| {
            value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(value, "a String"))
        };
        list.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// Texts by name.
    pub fn map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, ApiError> {
        let Some(object) = self.object(name)? else { return Ok(None) };
        let pair = |(name, value): (&String, &Value)| {
            let text = value.as_str().ok_or_else(|| wrong_type(value, "a String"))?;
            Ok((name.clone(), text.to_owned()))
        };
        object.map.iter().map(pair).collect::<Result<_, _>>().map(Some)
    }

    /// Lambda's error for a member without which nothing can be done.
    pub fn missing(&self, name: &str) -> ApiError {
        self.unfit(name, "null", format_args!("not be null"))
    }

    /// Lambda's error for a value that a member may not have.
    pub fn unfit(
        &self,
        name: &str,
        value: impl std::fmt::Display,
        demand: std::fmt::Arguments<'_>,
    ) -> ApiError {
        unfit(&self.named(name), value, demand)
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Fields {
        Fields { map, path: String::new() }
    }
}

/// Lambda's error for a value of a parameter.
pub fn unfit(
    name: &str,
    value: impl std::fmt::Display,
    demand: std::fmt::Arguments<'_>,
) -> ApiError {
    let value = value.to_string();
    let quoted = if value == "null" { value } else { format!("'{value}'") };
    ApiError::validation(format!(
        "1 validation error detected: Value {quoted} at '{name}' failed to satisfy constraint: \
         Member must {demand}"
    ))
}

fn wrong_type(value: &Value, wanted: &str) -> ApiError {
    let kind = match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
    };
    ApiError::serialization(format!("{kind} can not be converted to {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).expect("JSON")
    }

    #[test]
    fn values_out_of_range_are_refused_in_lambdas_words() {
        let fields = fields(r#"{"Timeout":901,"Memory":-1,"Name":"abc","Inner":{"Size":1}}"#);
        let message = |refused: ApiError| refused.message.clone();
        assert_eq!(
            message(fields.integer("Timeout", 1..=900).expect_err("too long")),
            "1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint: \
             Member must have value less than or equal to 900"
        );
        let low = fields.integer("Memory", 1..=2).expect_err("too little");
        assert!(message(low).ends_with("have value greater than or equal to 1"));
        let long = fields.text("Name", 1..=2).expect_err("too long");
        assert!(message(long).ends_with("Member must have length less than or equal to 2"));
        let missing = fields.needed("Role", 0..=9).expect_err("missing");
        assert!(message(missing).contains("Value null at 'role' failed"));
        let inner = fields.object("Inner").expect("an object").expect("there");
        let size = inner.integer("Size", 2..=3).expect_err("too small");
        assert!(message(size).contains("'inner.size'"));
        let set = fields.choice("Name", &["x", "y"]).expect_err("neither");
        assert!(message(set).ends_with("Member must satisfy enum value set: [x, y]"));
    }

    #[test]
    fn values_of_the_wrong_type_are_told_from_absent_ones() {
        let fields = fields(r#"{"A":null,"B":"1","C":[1],"D":{"x":1}}"#);
        assert_eq!(fields.integer("A", 0..=1).expect("absent"), None);
        assert_eq!(fields.text("Z", 0..=1).expect("absent"), None);
        for refused in [
            fields.integer("B", 0..=1).expect_err("text"),
            fields.texts("C").expect_err("numbers"),
            fields.map("D").expect_err("numbers"),
            fields.boolean("B").expect_err("text"),
        ] {
            assert_eq!((refused.status, refused.name), (400, "SerializationException"));
        }
        assert!(Fields::parse(b" ").is_ok() && Fields::parse(b"[]").is_err());
    }
}
