//! A world around the pool: processes that are slow, crash, hang, never get ready, cannot be
//! spawned or ignore SIGTERM; callers that give up; versions that come and go; a drain.

use std::collections::BTreeMap;

use hob::limits::WAITING_MAX;
use hob::pool::{
    Action, Cause, Event, FunctionId, Instant, InvocationId, Outcome, Pool, Refusal, Settings,
    VersionId, WorkerId,
};

use crate::oracle;
use crate::rng::Rng;

/// How processes of this world behave, in percent.
struct Habits {
    spawn_refused: u64,
    not_executable: u64,
    never_ready: u64,
    dies_starting: u64,
    reports_init_error: u64,
    crashes: u64,
    hangs: u64,
    lingers: u64,
    dies_idle: u64,
    /// Loses one of its processes, while it runs or idles.
    breaks: u64,
    ignores_stop: u64,
    gives_up: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrives(InvocationId),
    GivesUp(InvocationId),
    Tells(Told),
    Updates,
    Drains,
}

/// What reaches the pool about a worker, possibly too late to matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Ready(WorkerId),
    Replied(WorkerId, InvocationId, bool),
    Failed(WorkerId),
    Exited(WorkerId),
}

/// A process, as the machine sees it.
pub struct Process {
    pub worker: WorkerId,
    pub version: VersionId,
    pub runs: Option<InvocationId>,
    one_shot: bool,
}

/// What became of each invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Announced,
    Accepted,
    Settled(Outcome),
}

pub struct World {
    pub pool: Pool,
    pub now: Instant,
    pub processes: BTreeMap<u16, Process>,
    pub fates: BTreeMap<InvocationId, Fate>,
    /// When each invocation came that had no right to be refused at once.
    pub came: BTreeMap<InvocationId, Instant>,
    pub settings: BTreeMap<u16, Settings>,
    pub slots: u16,
    pub drained_at: Option<Instant>,
    /// When that cuts off what still runs.
    pub cut_off: Option<Instant>,
    /// Some version was updated after the start.
    pub reconfigured: bool,
    pub transcript: Option<Vec<String>>,
    pub events: u64,
    functions: Vec<Option<VersionId>>,
    rng: Rng,
    habits: Habits,
    queue: BTreeMap<(Instant, u64), Happening>,
    serial: u64,
}

/// How often each thing happened, to prove that the worlds are not idle ones.
#[derive(Debug, Default)]
pub struct Seen {
    events: u64,
    outcomes: BTreeMap<String, u64>,
}

impl Seen {
    pub fn add(&mut self, world: &World) {
        self.events += world.events;
        for fate in world.fates.values() {
            if let Fate::Settled(outcome) = fate {
                *self.outcomes.entry(format!("{outcome:?}")).or_default() += 1;
            }
        }
    }

    pub fn assert_all_happened(&self) {
        let all = [
            Outcome::Done,
            Outcome::Failed,
            Outcome::InitFailed,
            Outcome::Crashed,
            Outcome::TimedOut,
            Outcome::Cancelled,
            Outcome::Rejected(Refusal::Reserved),
            Outcome::Rejected(Refusal::Unreserved),
            Outcome::Rejected(Refusal::LineFull),
            Outcome::Rejected(Refusal::NoProcess),
            Outcome::Rejected(Refusal::Draining),
        ];
        for outcome in all {
            let name = format!("{outcome:?}");
            assert!(self.outcomes.contains_key(&name), "no world ever saw {name}");
        }
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let slots = u16::try_from(rng.between(1, 6)).unwrap();
        let mut rare = |often: &[u64]| rng.pick(often);
        let habits = Habits {
            spawn_refused: rare(&[0, 0, 0, 5, 30]),
            not_executable: rare(&[0, 0, 0, 5, 30]),
            never_ready: rare(&[0, 0, 5, 20]),
            dies_starting: rare(&[0, 0, 10, 40]),
            reports_init_error: rare(&[0, 0, 10, 40]),
            crashes: rare(&[0, 5, 30]),
            hangs: rare(&[0, 5, 20]),
            lingers: rare(&[0, 0, 20]),
            dies_idle: rare(&[0, 0, 20]),
            breaks: rare(&[0, 0, 10]),
            ignores_stop: rare(&[0, 10, 50]),
            gives_up: rare(&[0, 5, 30]),
        };
        let mut world = World {
            pool: Pool::new(slots),
            now: Instant::from_micros(1_000_000),
            processes: BTreeMap::new(),
            fates: BTreeMap::new(),
            came: BTreeMap::new(),
            settings: BTreeMap::new(),
            slots,
            drained_at: None,
            cut_off: None,
            reconfigured: false,
            transcript: None,
            events: 0,
            functions: Vec::new(),
            rng,
            habits,
            queue: BTreeMap::new(),
            serial: 0,
        };
        let functions = world.rng.between(1, 4);
        world.functions = vec![None; usize::try_from(functions).unwrap()];
        let mut invocations = world.rng.between(1, 60);
        let span = world.rng.pick(&[1_000, 20_000, 300_000, 3_000_000, 30_000_000]);
        if world.rng.percent(3) {
            invocations = 400; // more than the waiting line holds
        }
        for n in 0..invocations {
            let at = world.rng.between(0, span);
            world.later(at, Happening::Arrives(InvocationId(n)));
        }
        for _ in 0..world.rng.between(0, 6) {
            let at = world.rng.between(0, span);
            world.later(at, Happening::Updates);
        }
        let end = world.rng.pick(&[span / 2, span, span + 3_000_000, span + 30_000_000]);
        world.later(end, Happening::Drains);
        world
    }

    /// Runs until nothing is left to happen, then looks at how it all ended.
    pub fn run(&mut self) -> World {
        for function in 0..self.functions.len() {
            self.update(function);
        }
        while let Some(((at, _), happening)) = self.pop_next() {
            self.now = self.now.max(at);
            self.happen(happening);
            self.settle_deadlines();
        }
        assert!(self.pool.is_drained(), "drained once nothing is left to happen");
        for (invocation, fate) in &self.fates {
            assert!(matches!(fate, Fate::Settled(_)), "{invocation:?} ended as {fate:?}");
        }
        std::mem::replace(self, World::new(0))
    }

    /// The next happening, unless a deadline of the pool comes first: then time goes there.
    fn pop_next(&mut self) -> Option<((Instant, u64), Happening)> {
        loop {
            let queued = self.queue.first_key_value().map(|(key, _)| key.0);
            let deadline = self.pool.next_deadline().map(|(at, _)| at);
            match (queued, deadline) {
                (Some(queued), Some(deadline)) if deadline < queued => {
                    self.now = self.now.max(deadline)
                }
                (None, Some(deadline)) => self.now = self.now.max(deadline),
                (Some(_), _) => return self.queue.pop_first(),
                (None, None) => return None,
            }
            self.settle_deadlines();
        }
    }

    fn settle_deadlines(&mut self) {
        let mut rounds = 0;
        while self.pool.next_deadline().is_some_and(|(at, _)| at <= self.now) {
            self.event(Event::DeadlinePassed);
            rounds += 1;
            assert!(rounds < 2_000, "deadlines that never end");
        }
        oracle::check_settled(self);
    }

    fn later(&mut self, micros: u64, happening: Happening) {
        self.serial += 1;
        let at = Instant::from_micros(self.now.as_micros() + micros);
        self.queue.insert((at, self.serial), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(invocation) => {
                let served: Vec<VersionId> = self.functions.iter().flatten().copied().collect();
                if served.is_empty() {
                    return;
                }
                let version = self.rng.pick(&served);
                self.fates.insert(invocation, Fate::Announced);
                if self.rng.percent(self.habits.gives_up) {
                    let after = self.rng.between(0, 2_000_000);
                    self.later(after, Happening::GivesUp(invocation));
                }
                if self.pool.line().len() < WAITING_MAX / 2 {
                    self.came.insert(invocation, self.now);
                }
                self.event(Event::Invoked { invocation, version });
                let fate = self.fates.get_mut(&invocation).unwrap();
                if *fate == Fate::Announced {
                    *fate = Fate::Accepted;
                }
            }
            Happening::GivesUp(invocation) => self.event(Event::Cancelled { invocation }),
            Happening::Tells(told) => self.tell(told),
            Happening::Updates => {
                self.reconfigured = true;
                let function = self.rng.index(self.functions.len());
                self.update(function);
            }
            Happening::Drains => {
                let until = self.now.after_ms(u32::try_from(self.rng.between(0, 5_000)).unwrap());
                self.drained_at = Some(self.now);
                self.cut_off = Some(until);
                self.event(Event::DrainStarted { until });
            }
        }
    }

    fn tell(&mut self, told: Told) {
        match told {
            Told::Ready(worker) => {
                if self.lives(worker) && self.rng.percent(self.habits.dies_idle) {
                    self.later(3_000, Happening::Tells(Told::Exited(worker)));
                }
                if self.lives(worker) && self.rng.percent(self.habits.breaks) {
                    self.later(3_000, Happening::Tells(Told::Failed(worker)));
                }
                self.event(Event::Ready { worker });
            }
            Told::Replied(worker, invocation, ok) => {
                let process = self.processes.get_mut(&worker.slot);
                if let Some(p) = process.filter(|p| p.worker == worker) {
                    assert!(p.runs.is_none() || p.runs == Some(invocation));
                    p.runs = None;
                    let after = if p.one_shot {
                        Told::Exited(worker)
                    } else if self.rng.percent(self.habits.lingers) {
                        let late = self.rng.between(1_000, 60_000);
                        self.later(late, Happening::Tells(Told::Ready(worker)));
                        return self.event(Event::Replied { worker, ok });
                    } else {
                        Told::Ready(worker)
                    };
                    self.event(Event::Replied { worker, ok });
                    return self.tell(after);
                }
                self.event(Event::Replied { worker, ok });
            }
            Told::Failed(worker) => {
                self.later(2_000, Happening::Tells(Told::Exited(worker)));
                self.event(Event::Failed { worker });
            }
            Told::Exited(worker) => {
                if self.lives(worker) {
                    self.processes.remove(&worker.slot);
                    self.event(Event::Exited { worker, cause: Cause::Reaped });
                    // News from the dead: each of these must change nothing.
                    let silent = |pool: &mut Pool, event| pool.on_event(self.now, event);
                    for event in [
                        Event::Exited { worker, cause: Cause::Reaped },
                        Event::Ready { worker },
                        Event::Replied { worker, ok: true },
                        Event::Failed { worker },
                    ] {
                        assert!(silent(&mut self.pool, event).is_empty(), "{event:?} is old news");
                    }
                }
            }
        }
    }

    fn lives(&self, worker: WorkerId) -> bool {
        self.processes.get(&worker.slot).is_some_and(|p| p.worker == worker)
    }

    /// A function gets a new version, new settings for the old one, or is removed.
    fn update(&mut self, function: usize) {
        let old = self.functions[function];
        let mut settings = self.some_settings(function);
        if let Some(version) = old
            && self.rng.percent(30)
        {
            settings.one_shot = self.settings[&version.0].one_shot;
            self.settings.insert(version.0, settings);
            return self.event(Event::Configured { version, settings });
        }
        let new = if self.rng.percent(15) {
            None
        } else {
            let free = (0..).find(|n| !self.settings.contains_key(n)).unwrap();
            self.settings.insert(free, settings);
            self.event(Event::Configured { version: VersionId(free), settings });
            Some(VersionId(free))
        };
        self.functions[function] = new;
        if let Some(version) = old {
            self.event(Event::Retired { version, successor: new });
        }
    }

    fn some_settings(&mut self, function: usize) -> Settings {
        let others: u16 = (0..self.functions.len())
            .filter(|f| *f != function)
            .filter_map(|f| self.functions[f])
            .map(|v| self.settings[&v.0].reserved.unwrap_or(self.settings[&v.0].provisioned))
            .sum();
        let left = u64::from(self.slots.saturating_sub(others));
        let rng = &mut self.rng;
        let reserved = rng.percent(30).then(|| u16::try_from(rng.between(0, left)).expect("small"));
        let most = reserved.map_or(left, u64::from);
        let provisioned = if rng.percent(30) { rng.between(0, most) } else { 0 };
        Settings {
            function: FunctionId(u16::try_from(function).unwrap()),
            reserved,
            provisioned: u16::try_from(provisioned).unwrap(),
            queue_wait_ms: rng.pick(&[0, 0, 5, 100, 1_000]),
            idle_timeout_ms: rng.pick(&[0, 10, 1_000, 600_000]),
            timeout_ms: rng.pick(&[5, 100, 3_000]),
            init_limit_ms: rng.pick(&[5, 50, 10_000]),
            grace_ms: rng.pick(&[0, 10, 500]),
            max_invocations: rng.pick(&[0, 0, 1, 3]),
            one_shot: rng.percent(20),
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(transcript) = &mut self.transcript {
            transcript.push(line());
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.now;
        self.events += 1;
        self.note(|| format!("{:>9} {event:?}", now.as_micros()));
        let before = oracle::Use::of(self);
        let actions = self.pool.on_event(now, event);
        before.compare(self, event, &actions);
        let mut follow_up = Vec::new();
        for action in &actions {
            self.note(|| format!("{:>9}     {action:?}", ""));
            self.perform(*action, &mut follow_up);
        }
        oracle::check(self);
        for event in follow_up {
            self.event(event);
        }
    }

    fn perform(&mut self, action: Action, follow_up: &mut Vec<Event>) {
        match action {
            Action::Spawn { worker, version, invocation, .. } => {
                self.spawn(worker, version, invocation, follow_up);
            }
            Action::Dispatch { worker, invocation } => {
                let process = self.processes.get_mut(&worker.slot).expect("a process to run it");
                assert_eq!(process.worker, worker, "dispatched to the current worker");
                assert_eq!(process.runs, None, "one invocation per worker");
                process.runs = Some(invocation);
                self.work(worker, invocation);
            }
            Action::Settle { invocation, outcome } => {
                let fate = self.fates.get_mut(&invocation).expect("a known invocation");
                assert!(!matches!(fate, Fate::Settled(_)), "{invocation:?} settled twice");
                *fate = Fate::Settled(outcome);
            }
            Action::Stop { worker } => {
                assert!(self.lives(worker), "stops a process that is there");
                if !self.rng.percent(self.habits.ignores_stop) {
                    let after = self.rng.between(0, 20_000);
                    self.later(after, Happening::Tells(Told::Exited(worker)));
                }
            }
            Action::Kill { worker } => {
                assert!(self.lives(worker), "kills a process that is there");
                let after = self.rng.between(0, 500);
                self.later(after, Happening::Tells(Told::Exited(worker)));
            }
            Action::Forget { version } => {
                assert!(self.settings.remove(&version.0).is_some(), "forgets a known version");
                assert!(!self.functions.contains(&Some(version)), "forgets a retired version");
            }
        }
    }

    fn spawn(
        &mut self,
        worker: WorkerId,
        version: VersionId,
        invocation: Option<InvocationId>,
        follow_up: &mut Vec<Event>,
    ) {
        assert!(!self.processes.contains_key(&worker.slot), "the last process was reaped");
        if self.rng.percent(self.habits.spawn_refused) {
            follow_up.push(Event::Exited { worker, cause: Cause::SystemFault });
            return;
        }
        if self.rng.percent(self.habits.not_executable) {
            follow_up.push(Event::Exited { worker, cause: Cause::HandlerFault });
            return;
        }
        let one_shot = self.settings[&version.0].one_shot;
        self.processes.insert(worker.slot, Process { worker, version, runs: invocation, one_shot });
        if let Some(invocation) = invocation {
            self.work(worker, invocation);
        } else {
            let after = self.rng.pick(&[0, 100, 10_000, 40_000]);
            let habits = &self.habits;
            if self.rng.percent(habits.never_ready) {
            } else if self.rng.percent(habits.dies_starting) {
                self.later(after, Happening::Tells(Told::Exited(worker)));
            } else if self.rng.percent(habits.reports_init_error) {
                self.later(after, Happening::Tells(Told::Failed(worker)));
            } else {
                self.later(after, Happening::Tells(Told::Ready(worker)));
            }
        }
    }

    fn work(&mut self, worker: WorkerId, invocation: InvocationId) {
        let after = self.rng.pick(&[0, 50, 4_999, 5_000, 60_000, 2_000_000]);
        if self.rng.percent(self.habits.hangs) {
        } else if self.rng.percent(self.habits.crashes) {
            self.later(after, Happening::Tells(Told::Exited(worker)));
        } else if self.rng.percent(self.habits.breaks) {
            self.later(after, Happening::Tells(Told::Failed(worker)));
        } else {
            let ok = self.rng.percent(90);
            self.later(after, Happening::Tells(Told::Replied(worker, invocation, ok)));
        }
    }
}
