//! Functions whose bootstrap is the example `replay`.

use std::os::unix::fs::symlink;

use crate::common::{Site, example};

/// A `provided` function with this environment.
pub fn provided(site: &Site, name: &str, environment: &[(&str, &str)], more: &str) {
    let pairs: Vec<String> = environment.iter().map(|(n, v)| format!("{n} = {v:?}")).collect();
    // What they read and write may lie below /tmp.
    let (read, write) = (env!("CARGO_MANIFEST_DIR"), site.path());
    let toml = format!(
        "runtime = \"provided\"\nenvironment = {{ {} }}\n{more}\n\
         [sandbox]\nread = [{read:?}]\nwrite = [{write:?}]\n",
        pairs.join(", ")
    );
    let folder = site.function(name, &toml);
    symlink(example("replay"), folder.join("bootstrap")).unwrap();
}
