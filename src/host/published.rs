//! Published versions: any number of them on disk, and here those that somebody wanted. One that
//! nothing runs makes room for another.

use std::rc::Rc;

use super::Host;
use super::catalog::{Controls, Function, Version};
use super::load::parse_config;
use crate::function::record::VersionRecord;
use crate::function::store::{Part, Store};
use crate::pool::Event;

impl Host {
    /// The published version `number` of a function; `None` if there is none. The error is one
    /// line about why it cannot be run.
    pub fn published(
        self: &Rc<Self>,
        store: &Store,
        name: &str,
        number: u32,
    ) -> Result<Option<Rc<Version>>, String> {
        let (id, controls) = {
            let catalog = self.catalog.borrow();
            let Some(function) = catalog.function(name) else { return Ok(None) };
            if let Some(version) = function.published(&number.to_string()) {
                return Ok(Some(Rc::clone(version)));
            }
            (function.id, function.controls.clone())
        };
        let read = store.version::<VersionRecord>(Part::Functions, name, number);
        let Some(record) = read.map_err(|error| format!("version {number}: {error}"))? else {
            return Ok(None);
        };
        let (code, opt) = (store.code(&record.code.digest), record.opt.map(|d| store.layers(&d)));
        let config = match &record.configuration {
            // Tags are the function's, and say how $LATEST is kept; a version never changes.
            Some(configuration) => configuration.to_config(&Default::default()),
            None => parse_config(&format!("{name}:{number}/function.toml"), &code)
                .map_err(|issues| issues.join("; ")),
        };
        let names = (name, &*number.to_string());
        let version = self.version(id, names, config?, (&code, opt), controls.reserved);
        let version = version.map_err(|why| {
            why.unwrap_or_else(|| "the server runs too many versions already".to_owned())
        })?;
        let ready = controls.provisioned_of(number);
        match self.check_memory(name, &version.config, ready) {
            Ok(()) => version.provisioned.set(ready),
            Err(why) => {
                log::warn!("function {name}: version {number}: none is kept ready: {why}");
                version.provisioned.set(0);
            }
        }
        self.catalog.borrow_mut().publish(&version);
        self.configured(&version);
        Ok(Some(version))
    }

    /// Puts in force what the control plane has set for a function.
    pub fn control(self: &Rc<Self>, store: &Store, name: &str, controls: Controls) {
        let serving: Vec<Rc<Version>> = {
            let mut catalog = self.catalog.borrow_mut();
            let Some(function) = catalog.function_mut(name) else { return };
            function.controls = controls.clone();
            function.name_urls(&self.facts.home);
            function.serving().cloned().collect()
        };
        for version in serving {
            let reserved = controls.reserved.or(version.config.reserved_concurrency);
            let provisioned = match version.label.parse() {
                Ok(number) => controls.provisioned_of(number),
                Err(_) => version.provisioned.get(),
            };
            if (version.reserved.get(), version.provisioned.get()) != (reserved, provisioned) {
                version.reserved.set(reserved);
                version.provisioned.set(provisioned);
                self.configured(&version);
            }
        }
        self.provision(store, name);
    }

    /// Brings in the published versions of which workers are kept ready.
    pub fn provision(self: &Rc<Self>, store: &Store, name: &str) {
        let wanted = |function: &Function| function.controls.provisioned.clone();
        let wanted = self.catalog.borrow().function(name).map(wanted).unwrap_or_default();
        for (number, _) in wanted {
            match self.published(store, name, number) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    log::warn!("function {name}: version {number} is provisioned, and gone")
                }
                Err(why) => log::warn!("function {name}: version {number}: {why}"),
            }
        }
    }

    /// Takes a published version out.
    pub fn unpublish(self: &Rc<Self>, name: &str, number: u32) {
        let label = number.to_string();
        let gone = self.catalog.borrow_mut().function_mut(name).and_then(|function| {
            let at = function.published.iter().position(|version| *version.label == *label)?;
            Some(function.published.remove(at))
        });
        if let Some(version) = gone {
            self.retire(&version);
        }
    }

    pub(super) fn retire(self: &Rc<Self>, version: &Version) {
        self.dismiss_helpers_of(version.id);
        self.step(Event::Retired { version: version.id, successor: None });
    }

    pub(super) fn configured(self: &Rc<Self>, version: &Version) {
        let settings = version.settings(self.defaults.get());
        self.step(Event::Configured { version: version.id, settings });
    }

    /// Makes sure that a number for another version is free, if any version here is idle.
    pub(super) fn make_room(self: &Rc<Self>) {
        if self.catalog.borrow().version_id().is_ok() {
            return;
        }
        let is_idle = |version: &&Rc<Version>| {
            let has_none = |v: &crate::pool::Version| {
                v.slots() == 0 && v.waiting == 0 && v.provisioned_target() == 0
            };
            self.look(|pool| pool.version(version.id).is_none_or(has_none))
        };
        let idle = {
            let catalog = self.catalog.borrow();
            let mut published = catalog.functions().iter().flat_map(|function| &function.published);
            published.find(is_idle).map(|version| (Rc::clone(&version.name), version.label.clone()))
        };
        if let Some((name, label)) = idle
            && let Ok(number) = label.parse()
        {
            self.unpublish(&name, number);
        }
    }
}

impl Controls {
    fn provisioned_of(&self, number: u32) -> u16 {
        let all = self.provisioned.iter().filter(|(of, _)| *of == number);
        all.fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }
}
