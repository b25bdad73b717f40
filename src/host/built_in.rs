//! The function that is built into the server. It is a native function like others, on the server's
//! own program, but nothing of it is on the disk, nobody lists or changes it, and the catalog has
//! it only from an invocation to the end of its last worker.

use std::ffi::CString;
use std::path::PathBuf;
use std::rc::Rc;

use super::Host;
use super::catalog::Version;
use super::spawn::Launch;
use super::trace::Lineage;
use crate::function::config::FunctionConfig;
use crate::function::name::{PROBE, is_built_in};
use crate::function::record::LATEST;

/// How it is run. Its worker hashes the whole program, on whatever storage that is; and it is kept
/// for a second look, not more.
const CONFIG: &str =
    "runtime = \"native\"\nhandler = \"hob\"\ntimeout_s = 30\nidle_timeout_s = 2\n";

impl Host {
    /// The version that is invoked by the name [`PROBE`]. The error is one line for people.
    pub fn probe(self: &Rc<Self>) -> Result<Rc<Version>, String> {
        let here =
            self.catalog.borrow().versions().find(|version| is_built_in(&version.name)).cloned();
        if let Some(version) = here {
            return Ok(version);
        }
        self.make_room();
        let full = |_| "the server knows too many functions already".to_owned();
        let function = self.catalog.borrow().function_id(PROBE).map_err(full)?;
        let id = self.catalog.borrow().version_id().map_err(full)?;
        let config =
            FunctionConfig::parse(PROBE, CONFIG).expect("a configuration of ours is valid");
        let arguments = [c"hob", c"helper", c"probe"].map(CString::from).to_vec();
        let launch = Launch {
            // Also where the file that was started is gone, or another one has its name.
            program: CString::from(c"/proc/self/exe"),
            arguments,
            environment: Vec::new(),
            directory: CString::from(c"/"),
            namespace: None,
        };
        let arn = self.facts.home.arn(PROBE, None).to_string().into_boxed_str();
        let version = Rc::new(Version {
            id,
            function,
            name: PROBE.into(),
            lineage: Lineage::of(&arn),
            arn,
            label: LATEST.into(),
            config,
            reserved: Default::default(),
            provisioned: Default::default(),
            code: PathBuf::new(),
            layers: None,
            launch,
            extensions: Vec::new(),
            init_error: Default::default(),
            troubled: Default::default(),
            unforkable: Default::default(),
        });
        self.catalog.borrow_mut().enter(&version);
        self.configured(&version);
        Ok(version)
    }

    /// A worker of this version is gone: the built-in function goes with its last one.
    pub(super) fn dismiss_built_in(self: &Rc<Self>, version: &Version) {
        let is_idle = || {
            let is_idle = |v: &crate::pool::Version| v.slots() == 0 && v.waiting == 0;
            self.look(|pool| pool.version(version.id).is_some_and(is_idle))
        };
        if is_built_in(&version.name) && is_idle() {
            self.retire(version);
        }
    }
}
