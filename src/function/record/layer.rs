//! Layers: what is kept of one, and of each of its versions.

use litemap::LiteMap;
use serde::{Deserialize, Serialize};

use super::{CodeRecord, Policy};

/// Everything about a layer that may change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LayerRecord {
    /// The number of the next version: numbers are never used twice.
    pub next_version: u32,
    /// Who else may use a version, by its number.
    #[serde(default, skip_serializing_if = "LiteMap::is_empty")]
    pub policies: LiteMap<u32, Policy>,
}

impl Default for LayerRecord {
    fn default() -> LayerRecord {
        LayerRecord { next_version: 1, policies: LiteMap::new() }
    }
}

/// One version of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LayerVersionRecord {
    /// Its files.
    pub code: CodeRecord,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Milliseconds of Unix time.
    pub created_ms: u64,
    /// Runtimes that it is for; stored, and answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compatible_runtimes: Vec<String>,
    /// Architectures that it is for; stored, and answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compatible_architectures: Vec<String>,
    /// What its user may do with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_info: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_with_their_numbers() {
        let policy = Policy { statements: Vec::new(), revision_id: "r".into() };
        let record = LayerRecord { next_version: 3, policies: LiteMap::from_iter([(2, policy)]) };
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(text.starts_with(r#"{"NextVersion":3,"Policies":{"2":{"#), "{text}");
        assert_eq!(serde_json::from_str::<LayerRecord>(&text).expect("read"), record);
    }
}
