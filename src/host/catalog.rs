//! The functions that the server knows, and the versions that the pool runs.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use super::spawn::{Exit, Launch};
use super::trace::Lineage;
use crate::function::config::{FunctionConfig, RecursiveLoop, Runtime};
use crate::function::name::Home;
use crate::function::record::{FunctionRecord, Grant, LATEST, Provisioned, Route, Wish};
use crate::function::url::{Url, UrlId};
use crate::limits::{
    EXTENSIONS_GRACE_MS_DEFAULT, FUNCTIONS_MAX, GRACE_MS_DEFAULT, IDLE_TIMEOUT_S_DEFAULT,
    INIT_LIMIT_S_DEFAULT, RECURSION_PASSES_MAX, VERSIONS_MAX,
};
use crate::pool::{FunctionId, Instant, Settings, VersionId};
use crate::runtime::extensions::Program;

/// One version of a function, as long as anything runs it.
pub struct Version {
    /// Its number in the pool.
    pub id: VersionId,
    /// Its function's number in the pool.
    pub function: FunctionId,
    /// Its function's name.
    pub name: Rc<str>,
    /// Its function's ARN, without a qualifier.
    pub arn: Box<str>,
    /// What its function is called in chains of invocations.
    pub lineage: Lineage,
    /// `$LATEST` or a number.
    pub label: Box<str>,
    /// What the user said.
    pub config: FunctionConfig,
    /// Guarantee and ceiling of the function's workers, over all its versions.
    pub reserved: Cell<Option<u16>>,
    /// Workers of this version that are kept ready.
    pub provisioned: Cell<u16>,
    /// Where its code is.
    pub code: PathBuf,
    /// Where its layers are, merged, if it has any.
    pub layers: Option<PathBuf>,
    /// What is executed.
    pub launch: Launch,
    /// What is started beside it: external extensions.
    pub extensions: Vec<Program>,
    /// Why it failed to start, the last time it did.
    pub init_error: RefCell<Option<InitError>>,
    /// Its workers fail, and the operator knows.
    pub troubled: Cell<bool>,
    /// Why its workers are not forked from a zygote, although they might be.
    pub unforkable: RefCell<Option<Unforkable>>,
}

/// Why a version has no zygote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unforkable {
    /// In one line.
    pub why: String,
    /// Until when that holds; `None`: for ever.
    pub until: Option<Instant>,
}

/// Why a worker did not become ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitError {
    /// As the runtime reported it.
    Posted {
        /// What it posted.
        json: Vec<u8>,
        /// The type that it gave beside it.
        error_type: String,
    },
    /// In the platform's words.
    Platform {
        /// Lambda's error type.
        error_type: &'static str,
        /// For people.
        message: String,
    },
}

/// Limits that hold where a function says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Wait for a free worker.
    pub queue_wait_ms: u32,
    /// Idle time before a worker is stopped.
    pub idle_timeout_s: u32,
    /// From spawn to ready.
    pub init_limit_s: u32,
    /// Idle time before a worker is frozen; 0: never.
    pub freeze_ms: u32,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults {
            queue_wait_ms: crate::limits::QUEUE_WAIT_MS_DEFAULT,
            idle_timeout_s: IDLE_TIMEOUT_S_DEFAULT,
            init_limit_s: INIT_LIMIT_S_DEFAULT,
            freeze_ms: 0,
        }
    }
}

impl Version {
    /// How the pool is to keep its workers.
    pub fn settings(&self, defaults: Defaults) -> Settings {
        let config = &self.config;
        let idle_timeout_s = config.idle_timeout_s.unwrap_or(defaults.idle_timeout_s);
        Settings {
            function: self.function,
            reserved: self.reserved.get(),
            provisioned: self.provisioned.get(),
            queue_wait_ms: config.queue_wait_ms.unwrap_or(defaults.queue_wait_ms),
            idle_timeout_ms: idle_timeout_s.saturating_mul(1000),
            timeout_ms: config.timeout_s * 1000,
            init_limit_ms: defaults.init_limit_s.saturating_mul(1000),
            grace_ms: config.shutdown_grace_ms.unwrap_or(self.grace_ms_default()),
            max_invocations: config.max_invocations,
            one_shot: config.runtime == Runtime::Exec,
        }
    }

    fn grace_ms_default(&self) -> u32 {
        if self.extensions.is_empty() { GRACE_MS_DEFAULT } else { EXTENSIONS_GRACE_MS_DEFAULT }
    }

    /// Takes note of why it did not start.
    pub fn start_failed(&self, error_type: &'static str, message: String) {
        *self.init_error.borrow_mut() = Some(InitError::Platform { error_type, message });
    }
}

/// How a process ended, in Lambda's words.
pub fn exit_message(exit: Exit) -> String {
    match (exit.status, exit.signal) {
        (Some(0), _) => "Runtime exited without providing a reason".to_owned(),
        (Some(status), _) => format!("Runtime exited with error: exit status {status}"),
        (None, Some(signal)) => {
            format!("Runtime exited with error: signal: {}", signal_name(signal))
        }
        (None, None) => "Runtime exited with error".to_owned(),
    }
}

/// Signals as Go names them, since Lambda's messages come from there.
fn signal_name(signal: i32) -> String {
    match signal {
        1 => "hangup".into(),
        2 => "interrupt".into(),
        3 => "quit".into(),
        4 => "illegal instruction".into(),
        5 => "trace/breakpoint trap".into(),
        6 => "aborted".into(),
        7 => "bus error".into(),
        8 => "floating point exception".into(),
        9 => "killed".into(),
        11 => "segmentation fault".into(),
        13 => "broken pipe".into(),
        14 => "alarm clock".into(),
        15 => "terminated".into(),
        other => format!("signal {other}"),
    }
}

/// A function by its name.
pub struct Function {
    /// Its name.
    pub name: Rc<str>,
    /// Its number in the pool.
    pub id: FunctionId,
    /// Where it comes from.
    pub source: Source,
    /// What serves it, or why nothing does: one line for each complaint.
    pub state: Result<Rc<Version>, Vec<String>>,
    /// What the control plane has set.
    pub controls: Controls,
    /// Those of its published versions that were wanted, and are here until others need the room.
    pub published: Vec<Rc<Version>>,
    /// What URLs of its own and of its aliases are called.
    pub url_ids: Vec<(UrlId, Option<Box<str>>)>,
}

/// What the control plane sets for a function, besides its versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Controls {
    /// Names that lead to versions.
    pub aliases: Vec<(Box<str>, Route)>,
    /// Guarantee and ceiling of workers, in place of what `function.toml` says.
    pub reserved: Option<u16>,
    /// Workers kept ready, by the number of a version.
    pub provisioned: Vec<(u32, u16)>,
    /// Function URLs, by alias; that of the function itself is `$LATEST`'s.
    pub urls: Vec<(Box<str>, Url)>,
    /// Whether invocations may go round in circles, in place of what `function.toml` says.
    pub recursive_loop: Option<RecursiveLoop>,
    /// What its policies allow.
    pub grants: Vec<Grant>,
    /// How `$LATEST` is run was said over the API, and not in a `function.toml`.
    pub is_configured: bool,
}

impl Controls {
    /// What a record says.
    pub fn of(record: &FunctionRecord) -> Controls {
        let route =
            |name: &str| record.aliases.get(name).map(|alias| &*alias.route.function_version);
        let of_alias = |(qualifier, provisioned): (&String, &Provisioned)| {
            let number = route(qualifier).unwrap_or(qualifier).parse().ok()?;
            Some((number, provisioned.requested))
        };
        Controls {
            aliases: record.aliases.iter().map(|(n, a)| ((&**n).into(), a.route.clone())).collect(),
            reserved: record.reserved_concurrency,
            provisioned: record.provisioned_concurrency.iter().filter_map(of_alias).collect(),
            urls: record.urls.iter().map(|(n, url)| ((&**n).into(), url.into())).collect(),
            recursive_loop: record.recursive_loop.as_deref().map(RecursiveLoop::of),
            grants: Grant::of_policies(&record.policies),
            is_configured: record.latest.as_ref().is_some_and(|l| l.configuration.is_some()),
        }
    }
}

impl Function {
    /// A function of which nothing is published and nothing set.
    pub fn new(
        name: &str,
        id: FunctionId,
        source: Source,
        state: Result<Rc<Version>, Vec<String>>,
    ) -> Function {
        let name = name.into();
        let controls = Controls::default();
        let (published, url_ids) = Default::default();
        Function { name, id, source, state, controls, published, url_ids }
    }

    /// Takes note of what its URLs are called at home.
    pub fn name_urls(&mut self, home: &Home) {
        let aliases = self.controls.urls.iter().map(|(alias, _)| alias);
        let aliases = aliases.filter(|alias| ***alias != *LATEST).cloned().map(Some);
        let named = [None].into_iter().chain(aliases);
        let id = |alias: &Option<Box<str>>| UrlId::of(home.arn(&self.name, alias.as_deref()));
        self.url_ids = named.map(|alias| (id(&alias), alias)).collect();
    }

    /// The function URL that the control plane has set, for the function itself or for an alias.
    pub fn url(&self, alias: Option<&str>) -> Option<&Url> {
        let qualifier = alias.unwrap_or(LATEST);
        self.controls.urls.iter().find(|(of, _)| **of == *qualifier).map(|(_, url)| url)
    }

    /// Where the alias of this name leads.
    pub fn alias(&self, name: &str) -> Option<&Route> {
        self.controls.aliases.iter().find(|(alias, _)| **alias == *name).map(|(_, route)| route)
    }

    /// The published version with this number, if it is here.
    pub fn published(&self, label: &str) -> Option<&Rc<Version>> {
        self.published.iter().find(|version| *version.label == *label)
    }

    /// The versions that take invocations.
    pub fn serving(&self) -> impl Iterator<Item = &Rc<Version>> {
        self.state.iter().chain(&self.published)
    }
}

/// Where a function comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder below the functions directory.
    Folder(PathBuf),
    /// Pushed to the server, and kept in its data directory.
    Pushed,
}

/// All functions and versions.
#[derive(Default)]
pub struct Catalog {
    functions: Vec<Function>,
    versions: Vec<Option<Rc<Version>>>,
}

/// In place of the number of a function that was refused while none was free.
pub const NO_FUNCTION: FunctionId = FunctionId(u16::MAX);

/// No number is free for another function or version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Catalog {
    /// The function of this name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        Some(&self.functions[self.place(name).ok()?])
    }

    /// Where the function of this name stands, or would.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.functions.binary_search_by(|function| (*function.name).cmp(name))
    }

    /// True if the chain of invocations behind this trace header has led through the version's
    /// function too often, and that is not meant to be.
    pub fn is_recursive(&self, version: &Version, trace: Option<&str>) -> bool {
        trace.is_some_and(|trace| version.lineage.passes(trace) >= RECURSION_PASSES_MAX)
            && self.recursive_loop(version) == RecursiveLoop::Terminate
    }

    /// Whether invocations of a version's function may go round in circles: as the control plane
    /// was told, or else as `function.toml` says.
    pub fn recursive_loop(&self, version: &Version) -> RecursiveLoop {
        let told = self.function(&version.name).and_then(|f| f.controls.recursive_loop);
        told.unwrap_or(version.config.recursive_loop)
    }

    /// The function, and the alias of it, whose URL is called so.
    pub fn by_url(&self, id: UrlId) -> Option<(&Function, Option<&str>)> {
        self.functions.iter().find_map(|function| {
            let (_, alias) = function.url_ids.iter().find(|(own, _)| *own == id)?;
            Some((function, alias.as_deref()))
        })
    }

    /// True if a policy of the function of this name allows a call.
    pub fn grants(&self, name: &str, wish: Wish<'_>) -> bool {
        let grants = self.function(name).map(|function| &function.controls.grants);
        grants.is_some_and(|grants| grants.iter().any(|grant| grant.allows(wish)))
    }

    /// All functions, in the order of their names.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// A version that the pool knows.
    pub fn version(&self, id: VersionId) -> &Rc<Version> {
        self.versions[usize::from(id.0)].as_ref().expect("the pool runs known versions")
    }

    /// Every version that the pool knows.
    pub fn versions(&self) -> impl Iterator<Item = &Rc<Version>> {
        self.versions.iter().flatten()
    }

    /// The number for a function of this name: its own, or a free one.
    pub fn function_id(&self, name: &str) -> Result<FunctionId, Full> {
        if let Some(function) = self.function(name).filter(|function| function.id != NO_FUNCTION) {
            return Ok(function.id);
        }
        // A removed function's versions may still be on their way out: its number is not free.
        let taken = |id: FunctionId| {
            self.functions.iter().any(|function| function.id == id)
                || self.versions().any(|version| version.function == id)
        };
        let free = (0..u16::try_from(FUNCTIONS_MAX).expect("small")).map(FunctionId);
        let id = free.into_iter().find(|id| !taken(*id)).ok_or(Full)?;
        // A function of this name that is on its way out keeps its number, so that its
        // reservation and its running invocations go on counting.
        let leaving = self.versions().find(|version| &*version.name == name);
        Ok(leaving.map_or(id, |version| version.function))
    }

    /// A number for a new version.
    pub fn version_id(&self) -> Result<VersionId, Full> {
        let free = self.versions.iter().position(Option::is_none).unwrap_or(self.versions.len());
        if free >= VERSIONS_MAX {
            return Err(Full);
        }
        Ok(VersionId(u16::try_from(free).expect("VERSIONS_MAX fits")))
    }

    /// Puts a function in, in place of one of the same name; returns the version that it
    /// replaces, which must be retired now.
    pub fn put(&mut self, mut function: Function) -> Option<Rc<Version>> {
        if let Ok(version) = &function.state {
            self.enter(version);
        }
        match self.place(&function.name) {
            Ok(at) => {
                function.published = std::mem::take(&mut self.functions[at].published);
                std::mem::replace(&mut self.functions[at], function).state.ok()
            }
            Err(at) => {
                self.functions.insert(at, function);
                None
            }
        }
    }

    /// Puts a published version in.
    pub fn publish(&mut self, version: &Rc<Version>) {
        self.enter(version);
        if let Some(function) = self.function_mut(&version.name) {
            function.published.push(Rc::clone(version));
        }
    }

    /// Puts a version in that belongs to no function of the list, or not yet.
    pub(super) fn enter(&mut self, version: &Rc<Version>) {
        let index = usize::from(version.id.0);
        if index >= self.versions.len() {
            self.versions.resize(index + 1, None);
        }
        self.versions[index] = Some(Rc::clone(version));
    }

    /// The function of this name, to be changed.
    pub fn function_mut(&mut self, name: &str) -> Option<&mut Function> {
        let at = self.place(name).ok()?;
        Some(&mut self.functions[at])
    }

    /// Takes a function out; its versions, if it had any, must be retired now.
    pub fn remove(&mut self, name: &str) -> Option<Function> {
        let at = self.place(name).ok()?;
        Some(self.functions.remove(at))
    }

    /// The pool knows this version no more.
    pub fn forget(&mut self, id: VersionId) {
        self.versions[usize::from(id.0)] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_found_no_number_free_gets_one_of_its_own_later() {
        let mut catalog = Catalog::default();
        let put = |catalog: &mut Catalog, name: &str| {
            let id = catalog.function_id(name).unwrap_or(NO_FUNCTION);
            let state = Err(vec!["refused".to_owned()]);
            catalog.put(Function::new(name, id, Source::Pushed, state));
            id
        };
        let first = put(&mut catalog, "first");
        for n in 1..FUNCTIONS_MAX {
            put(&mut catalog, &format!("f{n}"));
        }
        assert_eq!(put(&mut catalog, "late"), NO_FUNCTION);
        assert_eq!(put(&mut catalog, "later"), NO_FUNCTION);
        assert_eq!(catalog.function_id("late"), Err(Full), "still");
        assert_eq!(catalog.function_id("first"), Ok(first));
        let free = catalog.remove("f7").expect("there").id;
        assert_eq!(put(&mut catalog, "late"), free);
        assert_eq!(put(&mut catalog, "later"), NO_FUNCTION);
        let same = catalog.functions().iter().filter(|function| function.id == free).count();
        assert_eq!(same, 1, "nobody shares it");
    }

    #[test]
    fn urls_are_found_by_what_they_are_called() {
        let home = Home { region: "us-east-1".into(), account: "000000000000".into() };
        let url = crate::function::record::UrlRecord {
            auth_type: "NONE".into(),
            invoke_mode: "BUFFERED".into(),
            cors: None,
            created_ms: 0,
            modified_ms: 0,
        };
        let mut record = FunctionRecord::default();
        record.urls.insert(LATEST.into(), url.clone());
        record.urls.insert("live".into(), url.clone());
        record.recursive_loop = Some("Allow".into());
        let state = Err(vec!["refused".to_owned()]);
        let mut function = Function::new("demo", FunctionId(0), Source::Pushed, state);
        function.controls = Controls::of(&record);
        function.name_urls(&home);
        assert_eq!(function.controls.recursive_loop, Some(RecursiveLoop::Allow));
        let mut catalog = Catalog::default();
        catalog.put(function);
        for alias in [None, Some("live")] {
            let id = UrlId::of(home.arn("demo", alias));
            let (function, found) = catalog.by_url(id).expect("there");
            assert_eq!((&*function.name, found), ("demo", alias));
            assert_eq!(function.url(alias), Some(&Url::from(&url)));
        }
        assert!(catalog.by_url(UrlId::of(home.arn("demo", Some("other")))).is_none());
    }
}
