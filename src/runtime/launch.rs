//! From a function's configuration to what is executed: the program found and looked at before
//! anything is started, and the environment that every worker of a version shares.

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::extensions::{self, Program};
use super::interpreter;
use super::paths::{self, Paths, Places};
use crate::board::budget::Budget;
use crate::function::config::{FunctionConfig, Runtime};
use crate::function::elf::{ARM, ARM_V6_MACHINE, Elf, LOOK, Target, is_beyond_arm_v6};
use crate::function::name::Home;
use crate::host::spawn::Launch;

/// Where programs without a path are looked for, and what workers get as `PATH`, with `bin` of the
/// layers behind.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The key pair with which workers sign what they ask of the server.
#[derive(Clone)]
pub struct WorkerKey {
    /// Its public half.
    pub id: String,
    /// Its other half.
    pub secret: String,
}

impl WorkerKey {
    /// For a server that trusts local callers, where any pair will do; SDKs insist on having one.
    pub fn any() -> WorkerKey {
        WorkerKey { id: "hob".to_owned(), secret: "hob".to_owned() }
    }

    /// One of its own for each start of a server.
    pub fn random() -> std::io::Result<WorkerKey> {
        let mut bytes = [0; 28];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let (id, secret) = bytes.split_at(8);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
        Ok(WorkerKey { id: format!("HOB{}", hex(id)), secret: hex(secret) })
    }
}

impl std::fmt::Debug for WorkerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)
    }
}

/// What the server tells every worker about itself.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Region and account.
    pub home: Home,
    /// The URL under which functions reach the Lambda API.
    pub endpoint: String,
    /// What they sign with there.
    pub key: WorkerKey,
    /// Where the bundled runtimes are.
    pub bundled: PathBuf,
    /// Where runtimes may keep what they make of a function's code.
    pub caches: PathBuf,
    /// Where Pythons and Nodes may be.
    pub interpreters: Vec<PathBuf>,
    /// Whether workers can have paths as on AWS.
    pub paths: Paths,
    /// What memory there is for workers.
    pub budget: Budget,
}

/// What a version's workers consist of.
pub struct Prepared {
    /// Their runtime.
    pub launch: Launch,
    /// What is started beside it.
    pub extensions: Vec<Program>,
}

/// Prepares a version of the function `name` whose code is in the first directory, and whose
/// layers, if it has any, are in the second. The error is one line for people.
pub fn prepare(
    facts: &Facts,
    name: &str,
    version: &str,
    config: &FunctionConfig,
    (code, layers): (&Path, Option<&Path>),
) -> Result<Prepared, String> {
    let mut needed = Vec::new();
    let mut cache = None;
    let (program, arguments) = match &config.runtime {
        Runtime::Exec | Runtime::Native => own(split(&config.handler)?, (code, layers))?,
        Runtime::Provided(_) => {
            let found = own(vec!["bootstrap".to_owned()], (code, layers))?;
            needed.extend(script_interpreter(&found.0).map(|program| paths::prefix(&program)));
            found
        }
        Runtime::Python(_) => {
            let bootstrap = facts.bundled.join("python/bootstrap.py").display().to_string();
            bundled(facts, name, config, ["-u", &bootstrap])?
        }
        Runtime::Node(_) => {
            let bootstrap = facts.bundled.join("node/bootstrap.cjs").display().to_string();
            cache = compile_cache(facts, code);
            needed.extend(cache.clone());
            // Where the board has less than the function's memory, the board counts.
            let memory_mb = config.memory_mb.min(facts.budget.workers_mb());
            let young = format!("--max-semi-space-size={}", (memory_mb / 20).max(1));
            let old = format!("--max-old-space-size={}", memory_mb * 9 / 10 + 1);
            bundled(facts, name, config, ["--v8-pool-size=1", &young, &old, &bootstrap])?
        }
    };
    if matches!(config.runtime, Runtime::Python(_) | Runtime::Node(_)) {
        needed.push(facts.bundled.clone());
        let real = std::fs::canonicalize(&program).ok();
        needed.extend(
            [Some(&program), real.as_ref()].into_iter().flatten().map(|p| paths::prefix(p)),
        );
    }
    let extensions = extensions::find(name, config, layers);
    let interpreters = extensions.iter().filter_map(|file| script_interpreter(file));
    needed.extend(interpreters.map(|program| paths::prefix(&program)));
    let places = paths::places(&facts.paths, config, (code, layers), &needed);
    let mut environment = environment(facts, name, version, config, &places);
    if matches!(config.runtime, Runtime::Python(_)) {
        environment.extend(places.tmp_variable());
    }
    environment.extend(cache.map(|cache| format!("HOB_CACHE={}", cache.display())));
    let set = config.environment.iter().map(|(n, value)| format!("{n}={value}"));
    let c = |text: &str| CString::new(text).map_err(|_| format!("{text:?} holds a NUL character"));
    let path = |path: &Path| {
        CString::new(path.as_os_str().as_bytes()).map_err(|_| "a path with a NUL".to_owned())
    };
    let all = |list: &[String]| list.iter().map(|text| c(text)).collect::<Result<Vec<_>, _>>();
    let (environment, set) = (all(&environment)?, all(&set.collect::<Vec<_>>())?);
    let directory = path(&places.task)?;
    let home = (code, layers);
    let extensions =
        extensions::programs(&extensions, (&environment, &set), &directory, &places, home);
    let launch = Launch {
        program: path(&places.seen(&program, home))?,
        arguments: all(&arguments)?,
        environment: [environment, set].concat(),
        directory,
        namespace: places.namespace,
    };
    Ok(Prepared { launch, extensions })
}

/// The program and arguments of a function that brings its own.
fn own(
    arguments: Vec<String>,
    home: (&Path, Option<&Path>),
) -> Result<(PathBuf, Vec<String>), String> {
    let program = find(&arguments[0], home)?;
    check(&program)?;
    Ok((program, arguments))
}

/// The program and arguments of a function that runs on one of our bootstraps.
fn bundled<const N: usize>(
    facts: &Facts,
    name: &str,
    config: &FunctionConfig,
    arguments: [&str; N],
) -> Result<(PathBuf, Vec<String>), String> {
    let found = interpreter::find(&config.runtime, &facts.interpreters)?;
    if let Some(instead) = found.instead {
        log::warn!("function {name}: {} is not here, {instead} runs it", config.runtime.id());
    }
    let program = found.program.display().to_string();
    let arguments = [&program as &str].into_iter().chain(arguments).map(str::to_owned).collect();
    Ok((found.program, arguments))
}

/// Where Node keeps what it has compiled of this code; without it every start compiles anew.
fn compile_cache(facts: &Facts, code: &Path) -> Option<PathBuf> {
    let place = facts.caches.join(code.file_name()?);
    match std::fs::create_dir_all(&place) {
        Ok(()) => Some(place),
        Err(error) => {
            log::warn!("make {}: {error}; Node compiles at every start", place.display());
            None
        }
    }
}

/// Directories in which interpreters are looked for: those of workers, and the server's own.
pub fn interpreter_path() -> Vec<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let system = PATH.split(':').chain(["/opt/bin"]);
    system.map(PathBuf::from).chain(std::env::split_paths(&own)).collect()
}

/// What Lambda sets for every runtime; what differs by worker is added at its spawn.
fn environment(
    facts: &Facts,
    name: &str,
    version: &str,
    config: &FunctionConfig,
    places: &Places,
) -> Vec<String> {
    let Home { region, .. } = &facts.home;
    let (root, opt) = (places.task.display(), places.opt.display());
    let mut list = vec![
        format!("PATH={PATH}:{opt}/bin"),
        format!("LD_LIBRARY_PATH={root}:{root}/lib:{opt}/lib"),
        "LANG=C.UTF-8".to_owned(),
        "TZ=:UTC".to_owned(),
        format!("_HANDLER={}", config.handler),
        format!("LAMBDA_TASK_ROOT={root}"),
        format!("AWS_REGION={region}"),
        format!("AWS_DEFAULT_REGION={region}"),
        format!("AWS_LAMBDA_FUNCTION_NAME={name}"),
        format!("AWS_LAMBDA_FUNCTION_VERSION={version}"),
        format!("AWS_LAMBDA_FUNCTION_MEMORY_SIZE={}", config.memory_mb),
        format!("AWS_ACCESS_KEY_ID={}", facts.key.id),
        format!("AWS_SECRET_ACCESS_KEY={}", facts.key.secret),
        "AWS_SESSION_TOKEN=hob".to_owned(),
        format!("AWS_ENDPOINT_URL_LAMBDA={}", facts.endpoint),
    ];
    let runtime_directory = facts.bundled.display();
    match &config.runtime {
        Runtime::Exec | Runtime::Native | Runtime::Provided(_) => {
            list.push("LAMBDA_RUNTIME_DIR=/var/runtime".to_owned())
        }
        Runtime::Python(id) => {
            list.push(format!("AWS_EXECUTION_ENV=AWS_Lambda_{id}"));
            list.push(format!("LAMBDA_RUNTIME_DIR={runtime_directory}/python"));
            list.push(format!("PYTHONPATH={runtime_directory}/python"));
        }
        Runtime::Node(id) => {
            let major = id.trim_end_matches(".x").trim_start_matches("nodejs");
            list.push(format!("AWS_EXECUTION_ENV=AWS_Lambda_{id}"));
            list.push(format!("LAMBDA_RUNTIME_DIR={runtime_directory}/node"));
            list.push("HOB_WIRE_FD=3".to_owned());
            list.push(format!(
                "NODE_PATH={opt}/nodejs/node{major}/node_modules:{opt}/nodejs/node_modules:\
                 {runtime_directory}/node/node_modules:{runtime_directory}/node:{root}"
            ));
        }
    }
    let log = config.log.as_ref();
    match log.map(|log| &log.group) {
        Some(group) => list.push(format!("AWS_LAMBDA_LOG_GROUP_NAME={group}")),
        None => list.push(format!("AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/{name}")),
    }
    if let Some(level) = log.and_then(|log| log.json_level.as_ref()) {
        list.push("AWS_LAMBDA_LOG_FORMAT=JSON".to_owned());
        list.push(format!("AWS_LAMBDA_LOG_LEVEL={level}"));
    }
    if places.is_opt_real {
        list.push(format!("HOB_OPT={opt}"));
    }
    if config.runtime.is_on_the_wire() {
        list.push(format!("HOB_WIRE={}", crate::wire::PROTOCOL));
    }
    // What the user sets comes later in the list; of two equal names the first would win.
    list.retain(|pair| {
        let set =
            |(name, _): &(String, String)| pair.split_once('=').is_some_and(|(n, _)| n == name);
        !config.environment.iter().any(set)
    });
    list
}

/// Splits a handler into program and arguments at blanks; quotes keep blanks in.
fn split(handler: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in handler.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("handler {handler}: a quote is not closed"));
    }
    words.extend(word);
    if words.first().is_none_or(String::is_empty) {
        return Err(format!("handler {handler:?} names no program"));
    }
    Ok(words)
}

/// A program of the function's folder, or of its layers, or one of the system's by its bare name
/// or absolute path.
fn find(program: &str, (code, layers): (&Path, Option<&Path>)) -> Result<PathBuf, String> {
    let own = code.join(program);
    if own.exists() || program.starts_with('/') {
        return Ok(own);
    }
    if !program.contains('/') {
        // A bootstrap may be a layer's; other programs of layers are in bin.
        let system = PATH.split(':').map(|place| Path::new(place).join(program));
        let opt = layers.unwrap_or(Path::new("/opt"));
        let layered = layers.map(|layers| layers.join(program)).filter(|_| program == "bootstrap");
        let mut all = layered.into_iter().chain(system).chain([opt.join("bin").join(program)]);
        if let Some(found) = all.find(|path| path.exists()) {
            return Ok(found);
        }
    }
    Err(format!("handler {program} is missing: no such file in the function's folder"))
}

/// What runs a script, if it is one.
fn script_interpreter(program: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    std::fs::File::open(program).ok()?.take(LOOK as u64).read_to_end(&mut start).ok()?;
    Some(interpreter_of(start.strip_prefix(b"#!")?))
}

fn interpreter_of(script: &[u8]) -> PathBuf {
    let line = script.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    let interpreter = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    PathBuf::from(std::ffi::OsStr::from_bytes(interpreter))
}

/// Looks at a program before it is started, so that what cannot start is refused in words.
fn check(program: &Path) -> Result<(), String> {
    let name = program.file_name().unwrap_or_default().display();
    let fail = |what: String| Err(format!("handler {name} {what}"));
    let metadata = match std::fs::metadata(program) {
        Ok(metadata) => metadata,
        Err(error) => return fail(format!("cannot be read: {error}")),
    };
    if !metadata.is_file() {
        return fail("is not a file".to_owned());
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return fail(format!("is not executable: chmod +x {name}"));
    }
    let mut start = Vec::new();
    let opened = std::fs::File::open(program).and_then(|file| {
        (&file).take(LOOK as u64).read_to_end(&mut start)?;
        Ok(file)
    });
    let file = match opened {
        Ok(file) => file,
        Err(error) => return fail(format!("cannot be read: {error}")),
    };
    if let Some(script) = start.strip_prefix(b"#!") {
        let interpreter = interpreter_of(script);
        if !interpreter.exists() {
            return fail(format!("needs {}, which is not here", interpreter.display()));
        }
        return Ok(());
    }
    let Some(elf) = Elf::parse(&start) else {
        return fail("is neither a program nor a script that starts with #!".to_owned());
    };
    let own = Target::own();
    if !own.runs(elf.target) {
        return fail(format!("is built for {}, this is {}", elf.target.name(), own.name()));
    }
    if elf.target.machine == ARM && is_too_new(&file, rustix::system::uname().machine()) {
        return fail(
            "is built for a later version of ARM than this board's, which is 6".to_owned(),
        );
    }
    match elf.interpreter {
        Some(loader) if !Path::new(&loader).exists() => {
            fail(format!("needs the loader {loader}, which is not here: build it static"))
        }
        Some(_) | None => Ok(()),
    }
}

/// True for a program for ARM that the processor of such a machine cannot run.
fn is_too_new(file: &std::fs::File, machine: &CStr) -> bool {
    let read = |at, length| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    machine.to_bytes() == ARM_V6_MACHINE.as_bytes() && is_beyond_arm_v6(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::elf::tests::{V7, arm};

    #[test]
    fn a_program_for_a_later_arm_is_told_by_its_file() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&arm(V7), 0).expect("written");
        assert!(is_too_new(&file, c"armv6l"));
        assert!(!is_too_new(&file, c"armv7l"));
        file.set_len(80).expect("cut");
        assert!(!is_too_new(&file, c"armv6l"), "it does not say so");
    }

    #[test]
    fn handlers_split_at_blanks_outside_quotes() {
        for (handler, words) in [
            ("run.sh", &["run.sh"][..]),
            ("jq -c  '.a b'", &["jq", "-c", ".a b"]),
            ("a \"\" 'x'y", &["a", "", "xy"]),
        ] {
            assert_eq!(split(handler).expect(handler), words, "{handler}");
        }
        assert!(split("a 'b").is_err());
        assert!(split("''").is_err());
    }

    #[test]
    fn what_cannot_start_is_refused_in_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, mode: u32, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("written");
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("permitted");
            path
        };
        let mut foreign = [0u8; 64];
        foreign[..6].copy_from_slice(b"\x7fELF\x02\x01");
        foreign[18] = 21;
        for (path, complaint) in [
            (file("plain", 0o755, b"echo hi"), "handler plain is neither a program nor a script"),
            (file("locked", 0o644, b"#!/bin/sh"), "handler locked is not executable: chmod +x"),
            (file("snake", 0o755, b"#!/usr/bin/snake -x\n"), "handler snake needs /usr/bin/snake"),
            (file("power", 0o755, &foreign), "handler power is built for PowerPC64 (64-bit), this"),
            (folder.path().to_owned(), "is not a file"),
        ] {
            let refused = check(&path).expect_err(complaint);
            assert!(refused.contains(complaint), "{refused}");
        }
        assert_eq!(check(Path::new("/bin/sh")), Ok(()));
        let home = (folder.path(), None);
        assert!(find("nothing", home).is_err());
        assert_eq!(find("sh", home).map(|path| path.exists()), Ok(true));
        assert_eq!(find("plain", home), Ok(folder.path().join("plain")));
    }
}
