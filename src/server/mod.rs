//! `hob serve`: everything wired together, from configuration to the last reaped process.

pub mod loader;
pub mod logger;
pub mod settings;
mod sockets;
mod watch;

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::process::{Resource, Rlimit};
use sd_notify::NotifyState;
use smol::LocalExecutor;

use crate::api::auth::{Auth, Key};
use crate::api::{self, Api};
use crate::error::Error;
use crate::function::store::Store;
use crate::host::process::Reaper;
use crate::host::spawn::{Text, keep_inherited_descriptors};
use crate::host::{Host, Setup};
use crate::http::Listener;
use crate::http::listener::{Limits, Peers};
use crate::io::signal::{Signal, Signals};
use crate::io::{Buffers, Reactor};
use crate::limits::{
    CONNECTIONS_MAX, FILES_OF_EXTENSIONS, FILES_OWN, FILES_PER_SLOT, HEAD_MAX, HEAD_MS, IDLE_MS,
    QUIET_MS,
};
use crate::runtime::bundled;
use crate::runtime::launch::{self, Facts, WorkerKey};
use crate::runtime::paths::Paths;
use loader::Reload;
use settings::Settings;

/// What `serve` was told besides its settings, to read them again.
pub struct Origin {
    /// `--config`
    pub config: Option<PathBuf>,
    /// Keys and values of flags.
    pub flags: Vec<(&'static str, String)>,
}

/// Runs the server until it is told to stop.
pub fn run(settings: &Settings, origin: Origin) -> Result<(), Error> {
    logger::start();
    keep_inherited_descriptors();
    for key in &settings.not_in_force {
        log::warn!("hob.toml: not yet in force in this build: {key}");
    }
    settings.check_budget()?;
    let slots = settings.budget.slots;
    let connections = file_limits(slots)?;
    let store = Rc::new(Store::new(&settings.data));
    let data = settings.data.display();
    let lock = store.open().map_err(|error| Error::doing("open data directory", data, error))?;
    let (tcp, address) = sockets::tcp(&settings.listen, &settings.auth)?;
    let unix = sockets::unix(&settings.socket)?;
    let start = |error: std::io::Error| Error::doing("start", "the event loop", error);
    let mut settings = settings.clone();
    let key = key_of_workers(&mut settings.auth)
        .map_err(|error| Error::doing("read", "random numbers", error))?;
    let reactor = Reactor::new().map_err(start)?;
    let reaper = settings.reaper.unwrap_or_else(Reaper::detect);
    let signals = Signals::new(&reactor, &[Signal::Stop, Signal::Reload]).map_err(start)?;
    let executor = Rc::new(LocalExecutor::new());
    let buffers = Buffers::new(settings.budget.buffers_bytes());
    let mut seed = [0; 8];
    let random = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    random.map_err(|error| Error::doing("read", "random numbers", error))?;
    let host = Host::new(
        &reactor,
        &executor,
        &buffers,
        Setup {
            slots,
            defaults: settings.defaults,
            reaper,
            spares: settings.spares,
            cgroups: settings.cgroups,
            facts: Facts {
                home: settings.home.clone(),
                endpoint: format!("http://{address}"),
                key,
                bundled: bundled::directory(&settings.data),
                caches: store.caches(),
                interpreters: launch::interpreter_path(),
                paths: Paths::detect(settings.real_paths, true),
                budget: settings.budget,
            },
            seed: u64::from_le_bytes(seed),
        },
    );
    let limits = Limits {
        connections,
        head_max: HEAD_MAX,
        head_ms: HEAD_MS,
        idle_ms: IDLE_MS,
        modest: true,
    };
    let peers = Peers::new(&reactor, &buffers, limits);
    let host = host.map_err(start)?;
    let server = Server { host, store, peers, signals, origin, reload: Rc::default() };
    // On the heap, where it takes what it needs, and not on a stack that it would be copied on.
    let serving = Box::pin(server.serve(settings.clone(), tcp, address, unix));
    let result = reactor.run(&executor, serving);
    let _ = std::fs::remove_file(&settings.socket);
    drop(lock);
    result.map_err(|error| Error::doing("run", "the event loop", error))?
}

/// Lets workers call the server: with a key that is good for this start of it, where keys count.
fn key_of_workers(auth: &mut Auth) -> std::io::Result<WorkerKey> {
    let Auth::Credentials(credentials) = auth else { return Ok(WorkerKey::any()) };
    let key = WorkerKey::random()?;
    credentials.keys.push(Key::of_workers(&key.id, &key.secret));
    Ok(key)
}

struct Server {
    host: Rc<Host>,
    store: Rc<Store>,
    peers: Rc<Peers>,
    signals: Signals,
    origin: Origin,
    reload: Rc<Reload>,
}

impl Server {
    async fn serve(
        self,
        settings: Settings,
        tcp: OwnedFd,
        address: SocketAddr,
        unix: OwnedFd,
    ) -> Result<(), Error> {
        let reload = Rc::clone(&self.reload);
        let api = Rc::new(Api {
            host: Rc::clone(&self.host),
            auth: settings.auth,
            listen: settings.listen,
            store: Rc::clone(&self.store),
            reload: Box::new(move || reload.ask()),
        });
        // Nobody changes functions while the store is cleaned.
        let cleaning = self.host.changes.lock().await;
        for socket in [tcp, unix] {
            let listener = Listener::new(&self.host.reactor, socket, &self.peers)
                .map_err(|error| Error::doing("start", "a listener", error))?;
            let (api, executor) = (Rc::clone(&api), Rc::clone(&self.host.executor));
            let accept = async move {
                let executor = &api.host.executor;
                listener.run(executor, |connection| api::serve(Rc::clone(&api), connection)).await;
            };
            executor.spawn(accept).detach();
        }
        let clean = self.host.helper(&["clean", &self.store.data().display().to_string()]).await;
        if let Err(error) = clean {
            log::warn!("clean the code store: {error}");
        }
        drop(cleaning);
        let load = loader::run(
            Rc::clone(&self.host),
            Rc::clone(&self.store),
            settings.functions.clone(),
            Rc::clone(&self.reload),
        );
        self.host.executor.spawn(load).detach();
        let text = Text::default();
        let buffers = Rc::clone(&self.host.buffers);
        self.host.reactor.when_quiet(QUIET_MS, move || {
            buffers.give_back();
            text.give_back();
            // Workers inherit our peak as theirs; a large payload must not count for ever.
            if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
                log::debug!("reset the peak of memory: {error}");
            }
        });
        log::info!("hob {} serves http://{address}", env!("CARGO_PKG_VERSION"));
        log::info!("paths of workers: {}", self.host.facts.paths);
        log::info!("board {}", settings.board);
        log::info!("memory: {}", settings.budget);
        log::info!("socket {}, {} slots", settings.socket.display(), settings.budget.slots);
        notify(NotifyState::Ready);
        let drain_limit_s = self.until_stop(settings.drain_limit_s).await;
        notify(NotifyState::Stopping);
        self.stop(drain_limit_s).await;
        Ok(())
    }

    /// Serves until told to stop; returns how long invocations may then take.
    async fn until_stop(&self, mut drain_limit_s: u32) -> u32 {
        loop {
            match self.signals.next().await {
                Signal::Stop => return drain_limit_s,
                Signal::Child => self.host.processes.sweep(),
                Signal::Reload => {
                    match Settings::read(self.origin.config.as_deref(), &self.origin.flags) {
                        Ok(settings) => {
                            log::info!("reload");
                            drain_limit_s = settings.drain_limit_s;
                            self.host.set_defaults(settings.defaults);
                            self.reload.ask();
                        }
                        Err(error) => log::error!("reload: {error}; nothing changed"),
                    }
                }
            }
        }
    }

    /// Drains, and lets clients read what they were promised; a second signal ends that at once.
    async fn stop(&self, limit_s: u32) {
        log::info!("stop: {} invocations in flight", self.host.in_flight());
        self.peers.end_all_idle();
        let limit_ms = limit_s.saturating_mul(1000);
        let until = self.host.reactor.now().after_ms(limit_ms);
        let at_once = Cell::new(false);
        let impatient = async {
            loop {
                self.told_to_stop().await;
                at_once.set(true);
                for worker in self.host.workers() {
                    worker.kill();
                }
            }
        };
        smol::future::or(self.host.drain(limit_ms), impatient).await;
        // Who follows a log has seen the end of it.
        self.host.logs.close();
        // The last replies are written by tasks that were just woken ...
        self.host.reactor.sleep_ms(1).await;
        // ... as far as their clients take them.
        if !at_once.get() {
            let replied = async {
                self.host.reactor.by(until, self.peers.replied()).await;
            };
            smol::future::or(replied, self.told_to_stop()).await;
        }
        log::info!("stopped");
    }

    /// Waits for another signal to stop.
    async fn told_to_stop(&self) {
        while self.signals.next().await != Signal::Stop {}
        log::warn!("stop at once");
    }
}

/// Raises the limit of open files as far as needed; returns how many connections it allows.
fn file_limits(slots: u16) -> Result<usize, Error> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let own = FILES_OWN + FILES_PER_SLOT * u64::from(slots);
    let wanted = own + CONNECTIONS_MAX as u64 + FILES_OF_EXTENSIONS * u64::from(slots);
    if hard < own + 16 {
        return Err(Error::usage(format!(
            "{slots} slots need {} open files, the hard limit is {hard}: raise it, or set fewer slots",
            own + 16
        )));
    }
    let raised = Rlimit { current: Some(wanted.min(hard)), maximum: limit.maximum };
    if limit.current.is_some_and(|current| current < wanted) {
        rustix::process::setrlimit(Resource::Nofile, raised)
            .map_err(|error| Error::doing("raise", "the limit of open files", error))?;
    }
    let left = usize::try_from(hard - own).unwrap_or(usize::MAX);
    Ok(left.min(CONNECTIONS_MAX))
}

/// Tells systemd, if that is who started us.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn!("notify systemd: {error}");
    }
}
