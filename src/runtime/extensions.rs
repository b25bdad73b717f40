//! External extensions as programs: the executable files of the layers' `extensions` directory,
//! which are started beside each of a function's runtimes, as on AWS.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::paths::Places;
use crate::function::config::{FunctionConfig, Runtime};
use crate::host::spawn::Launch;

/// One of them.
#[derive(Debug)]
pub struct Program {
    /// Its file's name, under which it registers.
    pub name: String,
    /// What is executed.
    pub launch: Launch,
}

/// The files of a function's external extensions, by name. Only the runtimes of AWS have them.
pub fn find(function: &str, config: &FunctionConfig, layers: Option<&Path>) -> Vec<PathBuf> {
    let layers = match &config.runtime {
        Runtime::Exec | Runtime::Native => None,
        Runtime::Provided(_) | Runtime::Python(_) | Runtime::Node(_) => layers,
    };
    let listed = layers.and_then(|layers| std::fs::read_dir(layers.join("extensions")).ok());
    let mut found = Vec::new();
    for entry in listed.into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            found.push(path);
        } else if metadata.is_file() {
            let name = entry.file_name();
            log::warn!("function {function}: extension {} is not executable", name.display());
        }
    }
    found.sort();
    found
}

/// What is started for each of `files`, which a worker sees at `places`, and whose environment has
/// variables of the platform and others that the user has `set`.
pub fn programs(
    files: &[PathBuf],
    (platform, set): (&[CString], &[CString]),
    directory: &CStr,
    places: &Places,
    home: (&Path, Option<&Path>),
) -> Vec<Program> {
    let platform = platform.iter().filter(|pair| is_for_extensions(pair));
    let environment: Vec<CString> = platform.chain(set).cloned().collect();
    let program = |file: &PathBuf| {
        let seen = places.seen(file, home);
        let program = CString::new(seen.as_os_str().as_bytes()).ok()?;
        Some(Program {
            name: file.file_name()?.to_string_lossy().into_owned(),
            launch: Launch {
                arguments: vec![program.clone()],
                program,
                environment: environment.clone(),
                directory: directory.to_owned(),
                namespace: places.namespace.as_ref().map(Rc::clone),
            },
        })
    };
    files.iter().filter_map(program).collect()
}

/// What is said to the runtime alone, besides names that begin with `_` and those of X-Ray.
const THE_RUNTIMES: [&str; 9] = [
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "HOB_TMP",
    "HOB_WIRE",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "NODE_PATH",
    "PYTHONPATH",
];

/// True for `NAME=value` pairs of a worker's environment that its extensions have too.
pub fn is_for_extensions(pair: &CStr) -> bool {
    let name = pair.to_bytes().split(|b| *b == b'=').next().unwrap_or_default();
    let theirs = THE_RUNTIMES.iter().any(|other| other.as_bytes() == name);
    !theirs && !name.starts_with(b"_") && !name.starts_with(b"AWS_XRAY_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_executable_files_directly_in_the_directory_are_extensions() {
        let root = tempfile::tempdir().expect("a folder");
        let place = root.path().join("extensions");
        fs::create_dir_all(place.join("directory")).expect("made");
        for (name, mode) in [("b", 0o755), ("a", 0o700), ("text", 0o644), ("directory/x", 0o755)] {
            fs::write(place.join(name), "#!/bin/sh\n").expect("written");
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(place.join(name), permissions).expect("permitted");
        }
        for (runtime, names) in [
            ("provided", &["a", "b"][..]),
            ("python3.11", &["a", "b"]),
            ("nodejs20.x", &["a", "b"]),
            ("native", &[]),
            ("exec", &[]),
        ] {
            let text = format!("runtime = \"{runtime}\"\nhandler = \"a.b\"\n");
            let config = FunctionConfig::parse("f", &text).expect("valid");
            let found = find("f", &config, Some(root.path()));
            let found: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
            assert_eq!(found, names, "{runtime}");
            assert!(find("f", &config, None).is_empty());
        }
    }

    #[test]
    fn what_is_the_runtimes_alone_is_kept_from_extensions() {
        for (pair, is) in [
            (c"AWS_REGION=x", true),
            (c"OWN=_HANDLER", true),
            (c"AWS_LAMBDA_RUNTIME_API=127.1.2.3:4", true),
            (c"_HANDLER=a.b", false),
            (c"AWS_XRAY_CONTEXT_MISSING=LOG_ERROR", false),
            (c"LAMBDA_TASK_ROOT=/var/task", false),
        ] {
            assert_eq!(is_for_extensions(pair), is, "{pair:?}");
        }
    }
}
