//! Which Python or Node on this machine runs a function: the one that its runtime names, or the
//! one that is nearest.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::function::config::Runtime;

/// An interpreter that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Its program.
    pub program: PathBuf,
    /// What runs the function, if that is not what its runtime names.
    pub instead: Option<String>,
}

/// Looks for the interpreter of `runtime` in the directories of `path`. The error says what to
/// install.
pub fn find(runtime: &Runtime, path: &[PathBuf]) -> Result<Interpreter, String> {
    match runtime {
        Runtime::Python(id) => python(id, path),
        Runtime::Node(id) => node(id, path),
        Runtime::Exec | Runtime::Native | Runtime::Provided(_) => {
            unreachable!("only interpreted runtimes have an interpreter")
        }
    }
}

/// Minor versions of Python 3 that Lambda has or had, and the bootstrap works with.
const PYTHONS: std::ops::RangeInclusive<u32> = 9..=14;

fn python(id: &str, path: &[PathBuf]) -> Result<Interpreter, String> {
    let wanted: u32 = id.strip_prefix("python3.").and_then(|n| n.parse().ok()).unwrap_or(0);
    // A newer one runs more of what was written for this one than an older one does.
    let newer = wanted + 1..=*PYTHONS.end();
    let older = (*PYTHONS.start()..wanted).rev();
    for minor in std::iter::once(wanted).chain(newer).chain(older) {
        let name = format!("python3.{minor}");
        if let Some(program) = look(&name, path) {
            let instead = (minor != wanted).then_some(name);
            return Ok(Interpreter { program, instead });
        }
    }
    match look("python3", path) {
        Some(program) => Ok(Interpreter { program, instead: Some("python3".to_owned()) }),
        None => Err(format!("runtime {id} needs a Python, and none is here: install python3")),
    }
}

fn node(id: &str, path: &[PathBuf]) -> Result<Interpreter, String> {
    let major = id.trim_start_matches("nodejs").trim_end_matches(".x");
    let names = [format!("node{major}"), format!("node-{major}"), "node".into(), "nodejs".into()];
    match names.iter().find_map(|name| look(name, path)) {
        Some(program) => Ok(Interpreter { program, instead: None }),
        None => Err(format!("runtime {id} needs Node.js, and none is here: install nodejs")),
    }
}

fn look(name: &str, path: &[PathBuf]) -> Option<PathBuf> {
    path.iter().map(|place| place.join(name)).find(|program| is_program(program))
}

/// True for programs: what tools like pyenv put in their place are scripts, which find nothing
/// without the settings of the user who made them.
fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let executable = |metadata: Metadata| metadata.permissions().mode() & 0o111 != 0;
    read.is_ok() && magic == *b"\x7fELF" && std::fs::metadata(path).is_ok_and(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(programs: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let place = tempfile::tempdir().expect("a folder");
        for name in programs {
            let script = name.ends_with("shim");
            let (name, magic) = match script {
                true => (name.trim_end_matches("-shim"), "#!/bin/sh\n"),
                false => (*name, "\x7fELF..."),
            };
            let program = place.path().join(name);
            std::fs::write(&program, magic).expect("written");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&program, mode).expect("permitted");
        }
        let path = vec![PathBuf::from("/nonexistent"), place.path().to_owned()];
        (place, path)
    }

    #[test]
    fn the_named_python_is_taken_or_the_next_newer_or_the_next_older() {
        for (there, wanted, name, is_other) in [
            (&["python3", "python3.11", "python3.12"][..], "python3.11", "python3.11", false),
            (&["python3.9", "python3.12", "python3.13"], "python3.11", "python3.12", true),
            (&["python3.9", "python3.10"], "python3.11", "python3.10", true),
            (&["python3.11-shim", "python3"], "python3.11", "python3", true),
        ] {
            let (place, path) = machine(there);
            let found = find(&Runtime::Python(wanted.into()), &path).expect(name);
            assert_eq!(found.program, place.path().join(name));
            assert_eq!(found.instead.as_deref(), is_other.then_some(name));
        }
        let (place, path) = machine(&["node"]);
        let found = find(&Runtime::Node("nodejs20.x".into()), &path).expect("node");
        assert_eq!(found.program, place.path().join("node"));
        let missing = find(&Runtime::Python("python3.11".into()), &path).expect_err("none");
        assert!(missing.ends_with("install python3"), "{missing}");
    }
}
