//! Functions whose bootstrap is the example `replay`.

use std::os::unix::fs::symlink;

use crate::common::{Site, example};

/// A `provided` function with this environment.
pub fn provided(site: &Site, name: &str, environment: &[(&str, &str)], more: &str) {
    let pairs: Vec<String> = environment.iter().map(|(n, v)| format!("{n} = {v:?}")).collect();
    let toml =
        format!("runtime = \"provided\"\nenvironment = {{ {} }}\n{more}\n", pairs.join(", "));
    let folder = site.function(name, &toml);
    symlink(example("replay"), folder.join("bootstrap")).unwrap();
}
