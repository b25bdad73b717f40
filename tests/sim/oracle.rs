//! What must be true of the pool after every event, computed afresh from its view and the world.

use std::collections::{BTreeMap, BTreeSet};

use hob::limits::QUEUE_WAIT_MS_MIN;
use hob::pool::{
    Action, Bound, Event, FunctionId, Hold, Instant, InvocationId, Outcome, Refusal, State,
    Version, VersionId,
};

use crate::world::{Fate, World};

/// True after every single event.
pub fn check(world: &World) {
    slots_mirror_processes(world);
    every_invocation_is_in_one_place(world);
    bindings_agree(world);
    counts_agree(world);
    concurrency_holds(world);
    deadline_is_not_late(world);
    drain_has_an_end(world);
}

/// What runs or starts is cut off with the drain, at the latest.
fn drain_has_an_end(world: &World) {
    let Some(cut_off) = world.cut_off else { return };
    for slot in world.pool.view() {
        if let State::Starting { until, .. } | State::Busy { until, .. } = slot.state {
            assert!(until <= cut_off, "{slot:?} outlasts the drain's {cut_off:?}");
        }
    }
}

/// True once no deadline is due: nothing that could be done is left undone.
pub fn check_settled(world: &World) {
    for (_, waiter) in world.pool.line().iter() {
        let version = known(world, waiter.version);
        let room = room(world, version.settings.function.0);
        let charged = matches!(waiter.bound, Bound::Start(_) | Bound::Stop(_));
        for slot in world.pool.view() {
            if let State::Idle { version, provisioned, .. } = slot.state
                && version == waiter.version
            {
                assert!(!provisioned && !room && !charged, "{waiter:?} waits beside {slot:?}");
            }
        }
        let wants_slot = waiter.bound == Bound::Loose && room && world.drained_at.is_none();
        let startable = version.hold == Hold::None && !version.retired;
        let free = world.pool.view().iter().any(|slot| slot.is_free());
        if startable && (wants_slot || matches!(waiter.bound, Bound::Stop(_))) {
            assert!(!free, "{waiter:?} waits beside a free slot");
        }
        if startable && wants_slot {
            let evictable = world.pool.view().iter().any(|slot| {
                matches!(
                    slot.state,
                    State::Idle { provisioned: false, .. }
                        | State::Starting { provisioned: false, waiter: None, .. }
                        | State::Stopping { waiter: None, .. }
                )
            });
            assert!(!evictable, "{waiter:?} could have had the place of an idle worker");
        }
        let dead_end = version.live() == 0 && matches!(version.hold, Hold::Failing(_));
        assert!(
            !(dead_end && waiter.bound == Bound::Loose),
            "{waiter:?} waits for a known failure"
        );
    }
    provisioned_are_kept(world);
}

fn known(world: &World, id: VersionId) -> &Version {
    world.pool.version(id).expect("slots and waiters name known versions")
}

/// Rule 1: a slot is free exactly when it has no process.
fn slots_mirror_processes(world: &World) {
    for (index, slot) in (0u16..).zip(world.pool.view()) {
        let process = world.processes.get(&index);
        // A spawn that is refused is told in the next event; until then the slot says Starting.
        match process {
            Some(process) => {
                assert_eq!(process.worker, slot.worker(index), "one life of one slot");
                assert_eq!(slot.version(), Some(process.version));
            }
            None => assert!(
                slot.is_free()
                    || matches!(
                        slot.state,
                        State::Starting { .. } | State::Busy { settled: false, .. }
                    ),
                "{slot:?} without a process"
            ),
        }
    }
}

/// Rule 3: waiting, running or settled, and only one of these.
fn every_invocation_is_in_one_place(world: &World) {
    let mut seen: BTreeMap<InvocationId, u32> = BTreeMap::new();
    for (_, waiter) in world.pool.line().iter() {
        *seen.entry(waiter.invocation).or_default() += 1;
    }
    for slot in world.pool.view() {
        if let State::Busy { invocation, settled: false, .. } = slot.state {
            *seen.entry(invocation).or_default() += 1;
        }
    }
    for (invocation, fate) in &world.fates {
        let places = seen.remove(invocation).unwrap_or(0);
        match fate {
            Fate::Announced => assert!(places <= 1),
            Fate::Accepted => assert_eq!(places, 1, "{invocation:?} is in {places} places"),
            Fate::Settled(_) => assert_eq!(places, 0, "{invocation:?} outlives its settling"),
        }
    }
    assert!(seen.is_empty(), "invocations nobody made: {seen:?}");
}

/// Rule 6 and the shape of bindings: one waiter, one slot, both ways.
fn bindings_agree(world: &World) {
    let mut bound_slots = BTreeSet::new();
    for (ticket, waiter) in world.pool.line().iter() {
        let Some(index) = waiter.bound.slot() else { continue };
        assert!(bound_slots.insert(index), "two waiters for slot {index}");
        let slot = &world.pool.view()[usize::from(index)];
        assert_eq!(slot.waiter(), Some(ticket), "slot {index} does not know its waiter");
        match (waiter.bound, slot.state) {
            (Bound::Start(_), State::Starting { version, provisioned: false, .. })
            | (Bound::Soon(..), State::Busy { version, settled: true, .. }) => {
                assert_eq!(version, waiter.version);
            }
            (Bound::Stop(_), State::Stopping { .. }) => {}
            (bound, state) => panic!("{bound:?} to {state:?}"),
        }
    }
    let tied = world.pool.view().iter().filter(|slot| slot.waiter().is_some()).count();
    assert_eq!(tied, bound_slots.len(), "a slot is tied to a waiter that is gone");
}

fn counts_agree(world: &World) {
    for id in world.settings.keys().map(|n| VersionId(*n)) {
        let Some(version) = world.pool.version(id) else { continue };
        let count = |wanted: fn(&State) -> bool| {
            let of_it = |slot: &&hob::pool::Slot| slot.version() == Some(id) && wanted(&slot.state);
            u16::try_from(world.pool.view().iter().filter(of_it).count()).unwrap()
        };
        assert_eq!(version.starting, count(|s| matches!(s, State::Starting { .. })));
        assert_eq!(version.idle, count(|s| matches!(s, State::Idle { .. })));
        assert_eq!(version.busy, count(|s| matches!(s, State::Busy { .. })));
        assert_eq!(version.stopping, count(|s| matches!(s, State::Stopping { .. })));
        let provisioned = count(|s| {
            matches!(
                s,
                State::Starting { provisioned: true, .. }
                    | State::Idle { provisioned: true, .. }
                    | State::Busy { provisioned: true, .. }
            )
        });
        assert_eq!(version.provisioned, provisioned);
        let waiting = world.pool.line().iter().filter(|(_, w)| w.version == id).count();
        assert_eq!(usize::from(version.waiting), waiting);
    }
    assert_eq!(world.pool.line().len(), world.pool.line().iter().count());
}

/// Lambda's concurrency: reserved is a ceiling, the rest is shared, nothing is counted twice.
fn concurrency_holds(world: &World) {
    let mut used: BTreeMap<u16, u16> = BTreeMap::new();
    for slot in world.pool.view() {
        if let State::Busy { version, provisioned: false, .. } = slot.state {
            *used.entry(known(world, version).settings.function.0).or_default() += 1;
        }
    }
    for (_, waiter) in world.pool.line().iter() {
        if matches!(waiter.bound, Bound::Start(_) | Bound::Stop(_)) {
            *used.entry(known(world, waiter.version).settings.function.0).or_default() += 1;
        }
    }
    let mut common = 0;
    let functions: BTreeSet<u16> = world.settings.values().map(|s| s.function.0).collect();
    for function in functions {
        let share = world.pool.shares().get(FunctionId(function));
        let used = used.get(&function).copied().unwrap_or(0);
        assert_eq!(share.on_demand, used, "function {function}");
        if share.reserved.is_none() {
            common += used;
        }
    }
    assert_eq!(world.pool.shares().common_used(), common);
}

/// On-demand use before an event, to see what the event made of it.
pub struct Use {
    functions: BTreeMap<u16, (u16, bool)>,
    waiting: BTreeMap<InvocationId, VersionId>,
}

impl Use {
    pub fn of(world: &World) -> Use {
        let functions: BTreeSet<u16> = world
            .settings
            .iter()
            .filter(|(id, _)| world.pool.version(VersionId(**id)).is_some())
            .map(|(_, s)| s.function.0)
            .collect();
        let of = |f| (world.pool.shares().get(FunctionId(f)).on_demand, room(world, f));
        Use {
            functions: functions.into_iter().map(|f| (f, of(f))).collect(),
            waiting: world.pool.line().iter().map(|(_, w)| (w.invocation, w.version)).collect(),
        }
    }

    /// Use grows only within the limits, and nobody is refused who had room, or at once.
    pub fn compare(&self, world: &World, event: Event, actions: &[Action]) {
        let shares = world.pool.shares();
        for (function, (before, _)) in &self.functions {
            let share = shares.get(FunctionId(*function));
            if share.on_demand > *before {
                match share.reserved {
                    Some(reserved) => assert!(share.on_demand + share.provisioned <= reserved),
                    None => assert!(shares.common_used() <= shares.common()),
                }
            }
        }
        for action in actions {
            if let Action::Settle { invocation, outcome: Outcome::InitFailed } = action
                && let Event::Invoked { version, .. } = event
                && !self.waiting.contains_key(invocation)
            {
                // Answered with a failure that is known, without a try: only for a while.
                let hold = known(world, version).hold;
                let held = matches!(hold, Hold::Failing(until) if until > world.now);
                assert!(held, "{invocation:?} was answered with an old failure");
            }
            if let Action::Settle { invocation, outcome: Outcome::Rejected(refusal) } = action
                && matches!(refusal, Refusal::Reserved | Refusal::Unreserved)
                && let Some(version) = self.waiting.get(invocation)
                && let Some(version) = world.pool.version(*version)
            {
                if let Some(came) = world.came.get(invocation) {
                    let least = came.after_ms(QUEUE_WAIT_MS_MIN);
                    assert!(world.now >= least, "{invocation:?} was refused at once");
                }
                let (_, room) = self.functions[&version.settings.function.0];
                // A new reservation cannot take back what others use already.
                let excused = version.hold != Hold::None || world.reconfigured;
                assert!(
                    !room || excused,
                    "{invocation:?} was refused with room left: {:#?}",
                    world.pool.view()
                );
            }
        }
    }
}

fn room(world: &World, function: u16) -> bool {
    let shares = world.pool.shares();
    let share = shares.get(FunctionId(function));
    match share.reserved {
        Some(reserved) => share.on_demand < reserved.saturating_sub(share.provisioned),
        None => shares.common_used() < shares.common(),
    }
}

fn deadline_is_not_late(world: &World) {
    let mut least: Option<Instant> = None;
    let mut offer = |at: Option<Instant>| {
        if let Some(at) = at {
            least = Some(least.map_or(at, |l| l.min(at)));
        }
    };
    for slot in world.pool.view() {
        offer(slot.deadline());
    }
    for (_, waiter) in world.pool.line().iter() {
        match waiter.bound {
            Bound::Loose => offer(Some(waiter.until)),
            Bound::Soon(_, until) => offer(Some(until)),
            Bound::Start(_) | Bound::Stop(_) => {}
        }
    }
    if let Some(least) = least {
        let (next, _) = world.pool.next_deadline().expect("a deadline is pending");
        assert!(next <= least, "next deadline {next:?} is later than {least:?}");
    }
}

/// Provisioned workers are started as soon as nothing holds them back.
fn provisioned_are_kept(world: &World) {
    if world.drained_at.is_some() {
        return;
    }
    for id in world.settings.keys().map(|n| VersionId(*n)) {
        let Some(version) = world.pool.version(id) else { continue };
        let missing = version.provisioned < version.provisioned_target();
        let startable = version.hold == Hold::None && !version.retired;
        let room = world.pool.view().iter().any(|slot| slot.is_free());
        assert!(!(missing && startable && room), "{id:?} lacks a provisioned worker");
    }
}
