//! Simulated worlds for the pool: seeded, with virtual time, checked after every event.
//!
//! `SIM_SEEDS=N` runs N seeds (default 2000), `SIM_SEED=S` runs one and prints its transcript.
//! A failing seed prints the one line that runs it again.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn the_rules_hold_in_every_world() {
    if let Some(seed) = number("SIM_SEED") {
        let mut world = world::World::new(seed);
        world.transcript = Some(Vec::new());
        let result = catch_unwind(AssertUnwindSafe(|| world.run()));
        for line in world.transcript.iter().flatten() {
            println!("{line}");
        }
        assert!(result.is_ok(), "seed {seed} fails");
        return;
    }
    let (first, count) = (number("SIM_FIRST").unwrap_or(1), number("SIM_SEEDS").unwrap_or(2000));
    let mut seen = world::Seen::default();
    for seed in first..first + count {
        let result = catch_unwind(|| world::World::new(seed).run());
        match result {
            Ok(world) => seen.add(&world),
            Err(_) => panic!("rerun: SIM_SEED={seed} cargo test --test sim -- --nocapture"),
        }
    }
    println!("{count} worlds: {seen:?}");
    if count >= 2000 {
        seen.assert_all_happened();
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..50 {
        let run = |seed| {
            let mut world = world::World::new(seed);
            world.transcript = Some(Vec::new());
            world.run();
            world.transcript
        };
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
