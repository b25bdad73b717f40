//! Versions to deploy: this hob, as often as wanted, and programs that are no good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use super::common::{HOB, Ran};

/// Where they are made.
pub fn scratch() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIR.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

/// Tests share them: what one has made, another reads.
fn once(path: &Path, make: impl FnOnce()) {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !path.exists() {
        make();
    }
}

/// Hob with other last bytes: another version that does the same.
pub fn version(name: &str) -> PathBuf {
    static SMALL: OnceLock<Vec<u8>> = OnceLock::new();
    let small = SMALL.get_or_init(|| {
        let path = scratch().join("small");
        let ran = Ran::of(Command::new("strip").arg(HOB).arg("-o").arg(&path));
        assert_eq!(ran.code, 0, "{}", ran.err);
        fs::read(path).unwrap()
    });
    let path = scratch().join(format!("hob-{name}"));
    once(&path, || {
        let mut bytes = small.clone();
        bytes.extend(name.as_bytes());
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    });
    path
}

/// A static program with this body.
pub fn program(name: &str, body: &str) -> PathBuf {
    let (source, path) = (scratch().join(format!("{name}.c")), scratch().join(name));
    once(&path, || {
        fs::write(&source, format!("#include <unistd.h>\nint main(void) {{ {body} }}\n")).unwrap();
        let ran = Ran::of(Command::new("cc").arg("-static").arg(&source).arg("-o").arg(&path));
        assert_eq!(ran.code, 0, "{}", ran.err);
    });
    path
}

/// A version's name on the board.
pub fn name_of(binary: &Path) -> String {
    let ran = Ran::of(Command::new("sha256sum").arg(binary));
    ran.out[..16].to_owned()
}
