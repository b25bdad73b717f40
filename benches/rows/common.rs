//! What the measurements share: where things are, how much of everything to do, and README.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::Advice;

/// Where things are, and how much of everything to do.
pub struct Bench {
    /// The static server.
    pub fixed: PathBuf,
    /// Helpers and results.
    pub out: PathBuf,
    /// A little input instead of a lot.
    pub small: bool,
}

impl Bench {
    /// What the script beside this program has built for it, and in which mode it is run; `None`:
    /// the script did not start it.
    pub fn from_arguments() -> Option<(Bench, String)> {
        let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
        let [fixed, out, mode] = arguments.as_slice() else { return None };
        let absolute = |path: &str| std::fs::canonicalize(path).unwrap();
        let (fixed, out, small) = (absolute(fixed), absolute(out), mode == "small");
        as_after_boot(&fixed);
        Some((Bench { fixed, out, small }, mode.clone()))
    }

    /// `whole` of something, or a small part of it.
    pub fn amount(&self, whole: usize) -> usize {
        if self.small { (whole / 50).max(20) } else { whole }
    }

    pub fn tool(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }
}

/// Has a program read from the disk anew. What was just written stands in the page cache in large
/// pieces, and new kernels map a piece whole where one page of it is used; what was read as programs
/// are, after a boot, stands there in small ones.
fn as_after_boot(program: &Path) {
    let file = File::open(program).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}

/// The project's directory.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Replaces what README has between the marks of this name, given what is there, and says where and
/// when it was measured.
pub fn into_readme(name: &str, rewrite: impl FnOnce(&str) -> String) {
    let path = project().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = readme.split_once(&begin).unwrap();
    let (old, after) = rest.split_once(&end).unwrap();
    let new = rewrite(old);
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let date = output("date", &["+%Y-%m-%d"]);
    let cores = output("nproc", &["--all"]);
    let kernel = output("uname", &["-r"]);
    let kernel = kernel.split('-').next().unwrap_or_default();
    let machine = format!("{}, Linux {kernel}, {cores} cores", output("uname", &["-m"]));
    let note = format!("\nMeasured {date} at {commit} on {machine}.\n");
    std::fs::write(path, format!("{before}{begin}{new}{note}{end}{after}")).unwrap();
}

/// The median, and the 99th percentile.
pub fn median_p99(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    (at(50), at(99))
}
