//! From a directory with code to a function that can be invoked.

use std::future::poll_fn;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::Host;
use super::catalog::{Catalog, Controls, Function, NO_FUNCTION, Source, Version};
use super::trace::Lineage;
use crate::function::config::FunctionConfig;
use crate::function::layer;
use crate::function::name::is_built_in;
use crate::function::record::{FunctionRecord, LATEST};
use crate::function::url::UrlId;
use crate::limits::{CONFIG_BYTES_MAX, LOAD_WAIT_MS};
use crate::pool::FunctionId;
use crate::runtime::launch::{Prepared, prepare};

/// The text of a `function.toml`, if it is not absurdly long: it is read where all invocations are
/// served.
fn read_config(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        let message = format!("longer than {CONFIG_BYTES_MAX} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    String::from_utf8(bytes)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// The configuration that is a part of the code.
pub fn parse_config(file: &str, code: &Path) -> Result<FunctionConfig, Vec<String>> {
    let text = read_config(&code.join("function.toml"))
        .map_err(|error| vec![format!("{file}: {error}")])?;
    FunctionConfig::parse(file, &text)
        .map_err(|issues| issues.iter().map(ToString::to_string).collect())
}

impl Host {
    /// Reads the function `name` whose code is in `code`, and whose layers are in `layers`. What is
    /// wrong with it is part of the result; nothing is put in force yet. `record` is what the
    /// control plane keeps of it, if it has anything to do with it.
    pub fn load(
        self: &Rc<Self>,
        name: &str,
        source: Source,
        (code, layers): (&Path, Option<PathBuf>),
        record: Option<&FunctionRecord>,
    ) -> Function {
        // Complaints speak of the file that the user wrote, not of our copy.
        let file = match &source {
            Source::Folder(folder) => folder.join("function.toml").display().to_string(),
            Source::Pushed => format!("{name}/function.toml"),
        };
        let controls = record.map(Controls::of).unwrap_or_default();
        let mut state = self.configure(&file, code, &source, record);
        if source == Source::Pushed
            && let Ok(config) = &state
            && let Some(folder) = config.layers.iter().find(|name| layer::is_folder(name))
        {
            let why = "is a folder, and a pushed function has none (allowed: name:version)";
            state = Err(vec![format!("{file}: layers: {folder} {why}")]);
        }
        let full = || vec![format!("{file}: the server knows too many functions already")];
        let Ok(id) = self.catalog.borrow().function_id(name) else {
            return Function::new(name, NO_FUNCTION, source, Err(full()));
        };
        let state = state.and_then(|config| {
            let (home, names) = ((code, layers), (name, LATEST));
            let version = self.version(id, names, config, home, controls.reserved);
            version.map_err(|why| match why {
                Some(why) => vec![format!("{file}: {why}")],
                None => full(),
            })
        });
        Function { controls, ..Function::new(name, id, source, state) }
    }

    /// A function that is refused before its code was looked at.
    pub fn refused(&self, name: &str, source: Source, why: String) -> Function {
        let id = self.catalog.borrow().function_id(name).unwrap_or(NO_FUNCTION);
        Function::new(name, id, source, Err(vec![why]))
    }

    /// How `$LATEST` is run: as the API's caller said, or as the file in its code says.
    fn configure(
        &self,
        file: &str,
        code: &Path,
        source: &Source,
        record: Option<&FunctionRecord>,
    ) -> Result<FunctionConfig, Vec<String>> {
        let said = record.and_then(|record| {
            let latest = record.latest.as_ref().filter(|_| *source == Source::Pushed)?;
            Some((latest.configuration.as_ref()?, &record.tags))
        });
        match said {
            Some((configuration, tags)) => {
                configuration.to_config(tags).map_err(|why| vec![format!("{file}: {why}")])
            }
            None => parse_config(file, code),
        }
    }

    /// A version with a number of its own, which is not in force yet. Without a reason: there is
    /// no number left.
    pub(super) fn version(
        self: &Rc<Self>,
        function: FunctionId,
        (name, label): (&str, &str),
        config: FunctionConfig,
        (code, layers): (&Path, Option<PathBuf>),
        reserved: Option<u16>,
    ) -> Result<Rc<Version>, Option<String>> {
        let ready = if label == LATEST { config.provisioned_concurrency } else { 0 };
        self.check_memory(name, &config, ready)?;
        let Prepared { launch, extensions } =
            prepare(&self.facts, name, label, &config, (code, layers.as_deref()))?;
        self.make_room();
        let id = self.catalog.borrow().version_id().map_err(|_| None)?;
        let arn = self.facts.home.arn(name, None).to_string().into_boxed_str();
        Ok(Rc::new(Version {
            id,
            function,
            name: name.into(),
            lineage: Lineage::of(&arn),
            arn,
            label: label.into(),
            reserved: reserved.or(config.reserved_concurrency).into(),
            provisioned: config.provisioned_concurrency.into(),
            config,
            code: code.to_owned(),
            layers,
            launch,
            extensions,
            init_error: Default::default(),
            troubled: Default::default(),
            unforkable: Default::default(),
        }))
    }

    /// Puts a function in force and tells the operator about it.
    pub fn install(self: &Rc<Self>, function: Function) {
        let name = Rc::clone(&function.name);
        match &function.state {
            Ok(version) => {
                log::info!("function {name}: {} ready", version.config.runtime.id());
                version.is_unforkable_with_extensions();
                let later = &version.config.not_in_force;
                if !later.is_empty() {
                    let keys = later.join(", ");
                    log::warn!("function {name}: not yet in force in this build: {keys}");
                }
            }
            Err(issues) => {
                for issue in issues {
                    log::warn!("function {name}: {issue}");
                }
            }
        }
        self.put(function);
    }

    /// Takes note that there may be code which nothing names or runs any more.
    pub fn has_unused(&self) {
        self.unused.set(true);
    }

    /// Removes code that nothing names or runs, if there may be some. Only for who holds the
    /// changes; called with each, so that one old version is left at most.
    pub async fn discard_unused(self: &Rc<Self>, data: &Path) {
        if self.has_predecessor.get() || !self.unused.replace(false) {
            return;
        }
        let data = data.display().to_string();
        let digest = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        let running: Vec<String> = {
            let catalog = self.catalog.borrow();
            let places = catalog
                .versions()
                .flat_map(|version| [&version.code].into_iter().chain(&version.layers));
            places.filter_map(digest).collect()
        };
        let running = running.iter().map(String::as_str);
        let arguments: Vec<&str> = ["discard", &data].into_iter().chain(running).collect();
        if let Err(error) = self.helper(&arguments).await {
            log::warn!("remove old code: {error}");
            self.unused.set(true);
        }
    }

    /// All functions were read.
    pub fn loaded(&self) {
        for waker in self.loading.take().into_iter().flatten() {
            waker.wake();
        }
    }

    /// True until the functions were read for the first time.
    pub fn is_loading(&self) -> bool {
        self.loading.borrow().is_some()
    }

    /// Waits, for a moment at the most, until the function `name` was read at start.
    pub fn know<'a>(&'a self, name: &'a str) -> impl Future<Output = ()> + 'a {
        self.read(move |catalog| is_built_in(name) || catalog.function(name).is_some())
    }

    /// The same for the function whose URL is called so.
    pub fn know_url(&self, id: UrlId) -> impl Future<Output = ()> {
        self.read(move |catalog| catalog.by_url(id).is_some())
    }

    async fn read(&self, known: impl Fn(&Catalog) -> bool) {
        let known = || self.loading.borrow().is_none() || known(&self.catalog.borrow());
        if known() {
            return;
        }
        let read = poll_fn(|cx| {
            if known() {
                return Poll::Ready(());
            }
            if let Some(waiting) = &mut *self.loading.borrow_mut() {
                waiting.push(Waker::clone(cx.waker()));
            }
            Poll::Pending
        });
        let until = self.reactor.now().after_ms(LOAD_WAIT_MS);
        self.reactor.by(until, read).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_too_long_wherever_it_is_cut() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let most = usize::try_from(CONFIG_BYTES_MAX).expect("small");
        for (text, complaint) in [
            ("x".repeat(most).into_bytes(), None),
            ("x".repeat(most + 1).into_bytes(), Some("longer than 65536 bytes")),
            ("ä".repeat(most).into_bytes(), Some("longer than 65536 bytes")),
            (vec![b'x', 0xff], Some("invalid utf-8 sequence of 1 bytes from index 1")),
        ] {
            std::fs::write(file.path(), text).expect("written");
            let error = read_config(file.path()).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), complaint);
        }
    }
}
