//! The repository's own rules, checked: sizes, layers, words, promises.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` with one of these endings, relative to the project.
fn files(folder: &str, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![project().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if endings.iter().any(|end| path.extension().is_some_and(|e| e == *end)) {
                let text = fs::read_to_string(&path).unwrap_or_default();
                found.push((path.strip_prefix(project()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    ["src", "tests", "benches", "examples"]
        .iter()
        .flat_map(|folder| files(folder, &["rs", "py", "mjs", "js", "sh"]))
        .collect()
}

fn complain(what: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{what}:\n{}", complaints.join("\n"));
}

#[test]
fn files_and_functions_are_short() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        let count = text.lines().count();
        if count > 500 {
            complaints.push(format!("{}: {count} lines, at most 500", path.display()));
        }
        if path.extension().is_some_and(|e| e == "rs") {
            for (line, name, length) in functions(&text) {
                if length > 70 {
                    let place = format!("{}:{line}", path.display());
                    complaints.push(format!("{place}: fn {name} has {length} lines, at most 70"));
                }
            }
        }
    }
    complain("too long", &complaints);
}

/// Functions of a formatted file: line, name, lines from signature to closing brace.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let words: Vec<&str> = trimmed.split(['(', '<']).next().unwrap().split(' ').collect();
        let Some(fun) = words.iter().position(|word| *word == "fn") else { continue };
        let modifiers =
            ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern", "\"C\""];
        if !words[..fun].iter().all(|word| modifiers.contains(word)) {
            continue;
        }
        let end = lines[at..].iter().position(|l| *l == format!("{}}}", " ".repeat(indent)));
        if let Some(end) = end {
            found.push((at + 1, words[fun + 1].to_owned(), end + 1));
        }
    }
    found
}

/// Which module may use which: an arrow may only point to the same layer or a lower one.
const LAYERS: [&[&str]; 6] = [
    &["limits"],
    &["pool", "wire", "config", "error"],
    &["io", "function", "board"],
    &["http", "host", "runtime"],
    &["api"],
    &["server", "cli", "deploy"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn arrows_point_down() {
    let mut complaints = Vec::new();
    for (path, text) in files("src", &["rs"]) {
        let inside = path.strip_prefix("src").unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = module.trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} has no layer"));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for used in code.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if layer(&used).is_some_and(|used| used > own) {
                    complaints.push(format!(
                        "{}:{}: {module} uses {used}",
                        path.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    complain("arrows that point up", &complaints);
}

#[test]
fn the_pure_modules_stay_pure() {
    let mut complaints = Vec::new();
    for (path, text) in files("src/pool", &["rs"]).into_iter().chain(files("src/wire", &["rs"])) {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let unix = path.ends_with("handler/unix.rs") || path.ends_with("handler/zygote.rs");
        for word in ["std::", "log::", "smol", "rustix", "crate::io", "crate::host"] {
            if code.contains(word) && !unix {
                let uses = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                if uses.clone().any(|line| line.contains(word)) {
                    complaints.push(format!("{}: {word}", path.display()));
                }
            }
        }
    }
    complain("the pool and the wire know no operating system", &complaints);
}

/// Without the words that Python, service scripts and programs of others have of their own.
fn own_words(line: &str) -> String {
    [
        "daemon=True",
        "daemon-reload",
        "supervise-daemon",
        "daemon off",
        "daemonize = no",
        "dbus-daemon",
        "login1.Manager",
    ]
    .iter()
    .fold(line.to_owned(), |line, word| line.replace(word, ""))
}

#[test]
fn words_and_habits() {
    let banned = [
        ("todo!", "finish it"),
        ("unimplemented!", "finish it"),
        ("dbg!", "remove it"),
        ("#[ignore", "a skipped test looks green"),
        (" manager", "say pool, or host"),
        ("Manager", "say pool, or host"),
        ("daemon", "say host, or server"),
        ("preempt", "say evict"),
        ("Scheduler", "say pool"),
    ];
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for (word, advice) in banned {
                if own_words(line).contains(word) {
                    complaints.push(format!("{}:{}: {word}: {advice}", path.display(), number + 1));
                }
            }
        }
        let may = ["host/spawn.rs", "wire/handler/zygote.rs"].iter().any(|own| path.ends_with(own))
            || path.starts_with("src/host/spawn");
        if text.contains("unsafe {") && !may {
            let advice = "unsafe code belongs where processes are made";
            complaints.push(format!("{}: {advice}", path.display()));
        }
    }
    complain("words", &complaints);
}

#[test]
fn every_file_says_what_it_is() {
    let mut complaints = Vec::new();
    for (path, text) in files("src", &["rs"]).into_iter().chain(files("tests", &["rs"])) {
        if !text.starts_with("//!") {
            complaints.push(path.display().to_string());
        }
    }
    complain("no header", &complaints);
}

#[test]
fn every_dependency_has_its_line() {
    let manifest = fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let page = fs::read_to_string(project().join("ARCHITECTURE.md")).unwrap();
    let mut section = "";
    let mut complaints = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && let Some((name, value)) = line.split_once(" = ")
        {
            if !page.contains(&format!("| {name} |")) {
                complaints.push(format!("{name} has no line in ARCHITECTURE.md"));
            }
            if !value.contains("default-features = false") {
                complaints.push(format!("{name} has default features"));
            }
        }
    }
    complain("dependencies", &complaints);
}

#[test]
fn every_promise_names_its_measurement() {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let table: Vec<&str> = readme
        .lines()
        .skip_while(|line| !line.starts_with("| promise"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(table.len() >= 8, "the budget table has {} rows", table.len());
    let mut complaints = Vec::new();
    for row in table {
        let measured = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        let by = measured.trim_matches('`').split(' ').next().unwrap();
        if measured != "pending" && !project().join(by).exists() {
            complaints.push(row.to_owned());
        }
    }
    complain("promises without a measurement", &complaints);
}
