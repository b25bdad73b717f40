//! `hob serve`: everything wired together, from configuration to the last reaped process.

pub mod loader;
pub mod logger;
pub mod settings;
mod sockets;
mod successor;
mod upgrade;
mod watch;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::process::{Resource, Rlimit};
use sd_notify::NotifyState;
use smol::{LocalExecutor, Task};

use crate::api::auth::{Auth, Key};
use crate::api::{self, Api};
use crate::error::Error;
use crate::function::store::Store;
use crate::host::process::{Process, Reaper};
use crate::host::spawn::{Text, give_back_stack, keep_inherited_descriptors};
use crate::host::{Host, Setup};
use crate::http::Listener;
use crate::http::listener::{Limits, Peers};
use crate::io::signal::{Signal, Signals};
use crate::io::{Buffers, Reactor};
use crate::limits::{
    CONNECTIONS_MAX, FILES_OF_EXTENSIONS, FILES_OWN, FILES_PER_SLOT, HAND_OVER_LOOK_MS, HEAD_MAX,
    HEAD_MS, IDLE_MS, QUIET_MS, REPLIED_LOOK_MS,
};
use crate::pool::Instant;
use crate::runtime::bundled;
use crate::runtime::launch::{self, Facts, WorkerKey};
use crate::runtime::paths::Paths;
use loader::Reload;
use settings::Settings;
use successor::Legacy;
pub use upgrade::program;
use upgrade::{Succession, Upgrade};

/// What `serve` was told besides its settings, to read them again.
pub struct Origin {
    /// `--config`
    pub config: Option<PathBuf>,
    /// Keys and values of flags.
    pub flags: Vec<(&'static str, String)>,
    /// What was started: [`program()`].
    pub program: PathBuf,
}

/// Runs the server until it is told to stop.
pub fn run(settings: &Settings, origin: Origin) -> Result<(), Error> {
    logger::start();
    let legacy = Legacy::take()?;
    keep_inherited_descriptors();
    for key in &settings.not_in_force {
        log::warn!("hob.toml: not yet in force in this build: {key}");
    }
    settings.check_budget()?;
    let mut settings = settings.clone();
    let connections = file_limits(settings.budget.slots)?;
    let store = Rc::new(Store::new(&settings.data));
    let Ground { lock, tcp, address, unix, mut keys, channel } =
        Ground::find(&mut settings, &store, legacy)?;
    let start = |error: std::io::Error| Error::doing("start", "the event loop", error);
    let key = key_of_workers(&mut settings.auth, &mut keys)
        .map_err(|error| Error::doing("read", "random numbers", error))?;
    let reactor = Reactor::new().map_err(start)?;
    let wanted = [Signal::Stop, Signal::Reload, Signal::Upgrade];
    let signals = Signals::new(&reactor, &wanted).map_err(start)?;
    let executor = Rc::new(LocalExecutor::new());
    let buffers = Buffers::new(settings.budget.buffers_bytes());
    let setup = setup(&settings, &store, address, key)?;
    let host = Host::new(&reactor, &executor, &buffers, setup).map_err(start)?;
    let limits = Limits {
        connections,
        head_max: HEAD_MAX,
        head_ms: HEAD_MS,
        idle_ms: IDLE_MS,
        modest: true,
    };
    let server = Server {
        host,
        store,
        peers: Peers::new(&reactor, &buffers, limits),
        signals,
        origin,
        reload: Rc::default(),
        lock,
        keys,
        upgrade_wait_ms: settings.upgrade_wait_s.saturating_mul(1000),
        doors: RefCell::default(),
        heir: RefCell::default(),
        watchdog: RefCell::default(),
    };
    let socket = settings.socket.clone();
    // On the heap, where it takes what it needs, and not on a stack that it would be copied on.
    let serving = Box::pin(server.serve(settings, [tcp, unix], channel));
    let result = reactor.run(&executor, serving);
    let end = result.map_err(|error| Error::doing("run", "the event loop", error))?;
    if !matches!(end, Ok(End::Succeeded)) {
        let _ = std::fs::remove_file(&socket);
    }
    end.map(drop)
}

/// How a server ended.
enum End {
    /// Nobody serves any more.
    Stopped,
    /// Another one does, on the same sockets.
    Succeeded,
}

/// What a server stands on: found, or left by the one before it.
struct Ground {
    lock: File,
    tcp: OwnedFd,
    address: SocketAddr,
    unix: OwnedFd,
    /// Keys of workers that are still there.
    keys: Vec<WorkerKey>,
    channel: Option<OwnedFd>,
}

impl Ground {
    fn find(
        settings: &mut Settings,
        store: &Store,
        legacy: Option<Legacy>,
    ) -> Result<Ground, Error> {
        let data = settings.data.display().to_string();
        let fail = |error| Error::doing("open data directory", &data, error);
        let Some(Legacy { channel, tcp, unix, lock, keys }) = legacy else {
            let lock = store.open().map_err(fail)?;
            let (tcp, address) = sockets::tcp(&settings.listen, &settings.auth)?;
            let unix = sockets::unix(&settings.socket)?;
            return Ok(Ground { lock, tcp, address, unix, keys: Vec::new(), channel: None });
        };
        let lock = store.take_over(lock).map_err(fail)?;
        let address = sockets::tcp_of(&tcp, &settings.listen, &settings.auth)?;
        settings.socket = sockets::unix_of(&unix, &settings.socket)?;
        Ok(Ground { lock, tcp, address, unix, keys, channel: Some(channel) })
    }
}

/// What the host is told.
fn setup(
    settings: &Settings,
    store: &Store,
    address: SocketAddr,
    key: WorkerKey,
) -> Result<Setup, Error> {
    let mut seed = [0; 8];
    let random = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    random.map_err(|error| Error::doing("read", "random numbers", error))?;
    Ok(Setup {
        slots: settings.budget.slots,
        defaults: settings.defaults,
        reaper: settings.reaper.unwrap_or_else(Reaper::detect),
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
    })
}

/// Lets workers call the server: with a key that is good for this start of it, where keys count, and
/// those of servers before it with theirs. Its own becomes the last of them.
fn key_of_workers(auth: &mut Auth, keys: &mut Vec<WorkerKey>) -> std::io::Result<WorkerKey> {
    let Auth::Credentials(credentials) = auth else { return Ok(WorkerKey::any()) };
    let key = WorkerKey::random()?;
    keys.push(key.clone());
    credentials.keys.extend(keys.iter().map(|key| Key::of_workers(&key.id, &key.secret)));
    Ok(key)
}

struct Server {
    host: Rc<Host>,
    store: Rc<Store>,
    peers: Rc<Peers>,
    signals: Signals,
    origin: Origin,
    reload: Rc<Reload>,
    /// Held as long as the server runs.
    lock: File,
    /// What workers sign with: those of servers before this one, and its own as the last.
    keys: Vec<WorkerKey>,
    upgrade_wait_ms: u32,
    /// The listeners, TCP and Unix, and what accepts there.
    doors: RefCell<Vec<(Rc<Listener>, Task<()>)>>,
    /// The process that is to take over, while it starts.
    heir: RefCell<Option<Rc<Process>>>,
    watchdog: RefCell<Option<Task<()>>>,
}

/// What happens to a server that serves.
enum Happened<'a> {
    Signal(Signal),
    Upgraded(Result<Succession<'a>, String>),
}

impl Server {
    async fn serve(
        self,
        settings: Settings,
        sockets: [OwnedFd; 2],
        channel: Option<OwnedFd>,
    ) -> Result<End, Error> {
        let reload = Rc::clone(&self.reload);
        let api = Rc::new(Api {
            host: Rc::clone(&self.host),
            auth: settings.auth,
            listen: settings.listen,
            store: Rc::clone(&self.store),
            reload: Box::new(move || reload.ask()),
        });
        let load = || {
            let (host, store) = (Rc::clone(&self.host), Rc::clone(&self.store));
            let load =
                loader::run(host, store, settings.functions.clone(), Rc::clone(&self.reload));
            self.host.executor.spawn(load).detach();
        };
        match channel {
            None => {
                // Nobody changes functions while the store is cleaned.
                let _turn = self.host.changes.lock().await;
                self.open(&api, sockets)?;
                let data = self.store.data().display().to_string();
                if let Err(error) = self.host.helper(&["clean", &data]).await {
                    log::warn!("clean the code store: {error}");
                }
                load();
            }
            Some(channel) => {
                load();
                if !self.succeed(&api, sockets, channel).await? {
                    return Ok(End::Succeeded);
                }
            }
        }
        self.rest_when_quiet();
        log::info!("hob {} serves {}", env!("CARGO_PKG_VERSION"), self.host.facts.endpoint);
        log::info!("paths of workers: {}", self.host.facts.paths);
        log::info!("board {}", settings.board);
        log::info!("memory: {}", settings.budget);
        log::info!("socket {}, {} slots", settings.socket.display(), settings.budget.slots);
        notify(&[NotifyState::Ready]);
        self.watch();
        let (drain_limit_s, succession) = self.until_stop(settings.drain_limit_s).await;
        if succession.is_none() {
            notify(&[NotifyState::Stopping]);
        }
        self.stop(drain_limit_s, succession.as_ref()).await;
        Ok(if succession.is_some() { End::Succeeded } else { End::Stopped })
    }

    /// Opens the doors.
    fn open(&self, api: &Rc<Api>, sockets: [OwnedFd; 2]) -> Result<(), Error> {
        for socket in sockets {
            let listener = Listener::new(&self.host.reactor, socket, &self.peers)
                .map_err(|error| Error::doing("start", "a listener", error))?;
            let listener = Rc::new(listener);
            let (api, door) = (Rc::clone(api), Rc::clone(&listener));
            let accept = async move {
                let executor = &api.host.executor;
                door.run(executor, |connection| api::serve(Rc::clone(&api), connection)).await;
            };
            self.doors.borrow_mut().push((listener, self.host.executor.spawn(accept)));
        }
        Ok(())
    }

    fn rest_when_quiet(&self) {
        let text = Text::default();
        let buffers = Rc::clone(&self.host.buffers);
        self.host.reactor.when_quiet(QUIET_MS, move || {
            buffers.give_back();
            give_back_stack();
            // Workers inherit our peak as theirs; a large payload must not count for ever.
            if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
                log::debug!("reset the peak of memory: {error}");
            }
            // What runs after this is in memory again.
            text.give_back();
        });
    }

    /// Tells systemd's watchdog, if there is one, that the event loop turns.
    fn watch(&self) {
        let Some(interval) = sd_notify::watchdog_enabled() else { return };
        let ms = u32::try_from(interval.as_millis() / 2).unwrap_or(u32::MAX).max(1);
        let reactor = Rc::clone(&self.host.reactor);
        let task = async move {
            loop {
                notify(&[NotifyState::Watchdog]);
                reactor.sleep_ms(ms).await;
            }
        };
        *self.watchdog.borrow_mut() = Some(self.host.executor.spawn(task));
    }

    /// Serves until told to stop, or until another server does; returns how long invocations may
    /// then take.
    async fn until_stop(&self, mut drain_limit_s: u32) -> (u32, Option<Succession<'_>>) {
        let mut upgrade: Option<Upgrade<'_>> = None;
        loop {
            let signal = async { Happened::Signal(self.signals.next().await) };
            let happened = match &mut upgrade {
                None => signal.await,
                Some(upgrade) => {
                    let upgraded = async { Happened::Upgraded(upgrade.await) };
                    smol::future::or(signal, upgraded).await
                }
            };
            match happened {
                Happened::Upgraded(Ok(succession)) => return (drain_limit_s, Some(succession)),
                Happened::Upgraded(Err(why)) => {
                    let outcome = format!("upgrade: {why}; this server goes on");
                    log::error!("{outcome}");
                    notify(&[NotifyState::Status(&outcome)]);
                    upgrade = None;
                }
                Happened::Signal(Signal::Upgrade) if upgrade.is_some() => {
                    log::warn!("upgrade: one is on its way already");
                }
                Happened::Signal(Signal::Upgrade) => upgrade = Some(Box::pin(self.upgrade())),
                Happened::Signal(Signal::Stop) => {
                    drop(upgrade);
                    self.end_successor().await;
                    return (drain_limit_s, None);
                }
                Happened::Signal(Signal::Child) => self.host.processes.sweep(),
                Happened::Signal(Signal::Reload) => self.read_again(&mut drain_limit_s),
            }
        }
    }

    fn read_again(&self, drain_limit_s: &mut u32) {
        match Settings::read(self.origin.config.as_deref(), &self.origin.flags) {
            Ok(settings) => {
                log::info!("reload");
                *drain_limit_s = settings.drain_limit_s;
                self.host.set_defaults(settings.defaults);
                self.reload.ask();
            }
            Err(error) => log::error!("reload: {error}; nothing changed"),
        }
    }

    /// Drains, and lets clients read what they were promised; a second signal ends that at once.
    /// With a successor, clients go there as soon as they have nothing more to wait for here.
    async fn stop(&self, limit_s: u32, succession: Option<&Succession<'_>>) {
        log::info!("stop: {} invocations in flight", self.host.in_flight());
        let until = self.host.reactor.now().after_ms(limit_s.saturating_mul(1000));
        let leaving = succession.map(|succession| self.leave(succession));
        if leaving.is_none() {
            self.peers.end_all_idle();
        }
        let at_once = Cell::new(false);
        let impatient = async {
            if succession.is_some() {
                // It is stopping anyway: as the first one to a server that is not.
                self.told_to_stop().await;
            }
            loop {
                self.told_to_stop().await;
                log::warn!("stop at once");
                at_once.set(true);
                for worker in self.host.workers() {
                    worker.kill();
                }
            }
        };
        let drain = async {
            // Who is sending a request, or waits for a worker, is served here: a drain that has begun
            // would refuse that.
            let early =
                || self.peers.are_asking() || self.host.look(|pool| !pool.line().is_empty());
            while leaving.is_some() && early() && !at_once.get() && self.before(until) {
                self.host.reactor.sleep_ms(HAND_OVER_LOOK_MS).await;
            }
            let left_us = until.micros_since(self.host.reactor.now());
            self.host.drain(u32::try_from(left_us / 1000).unwrap_or(u32::MAX)).await;
        };
        smol::future::or(drain, impatient).await;
        // Who follows a log has seen the end of it.
        self.host.logs.close();
        // The last replies are written by tasks that were just woken ...
        self.host.reactor.sleep_ms(1).await;
        // ... as far as their clients take them.
        if !at_once.get() {
            let gone = async {
                match leaving {
                    Some(leaving) => leaving.await,
                    None => self.peers.replied().await,
                }
                // It has the same data directory: what this one keeps must stay until then.
                while self.host.has_predecessor.get() {
                    self.host.reactor.sleep_ms(REPLIED_LOOK_MS).await;
                }
            };
            let gone = async {
                self.host.reactor.by(until, gone).await;
            };
            let told = async {
                self.told_to_stop().await;
                log::warn!("stop at once");
            };
            smol::future::or(gone, told).await;
        }
        log::info!("stopped");
    }

    fn before(&self, until: Instant) -> bool {
        self.host.reactor.now() < until
    }

    /// Waits for another signal to stop.
    async fn told_to_stop(&self) {
        while self.signals.next().await != Signal::Stop {}
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
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("notify systemd: {error}");
    }
}
