//! Boards: every file in `boards/`, whose word counts, and what a memory budget refuses.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::http::Reply;
use common::{HOB, Ran, Server, Site, serve_command};
use hob::board::budget::Budget;
use hob::board::{BOARDS, Profile};
use serde_json::{Value, json};

/// The smallest board: 12 MB for four slots.
const DUO: [&str; 2] = ["--board", "milkv-duo"];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/boards"))
}

#[test]
fn every_file_is_built_in_and_its_budget_fits_its_board() {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let built_in = BOARDS.iter().find(|(name, _)| *name == id);
        let (_, built_in) = built_in.unwrap_or_else(|| panic!("{id}: name it in src/board/mod.rs"));
        assert_eq!(*built_in, text, "{id}");
        let profile = Profile::parse(&path.display().to_string(), &text);
        let profile = profile.unwrap_or_else(|issues| panic!("{issues:?}"));
        assert!(profile.usable_mb <= profile.memory_mb, "{id}: Linux has what there is");
        // The rest of the system needs something too.
        let share = profile.usable_mb / 5 * 3;
        assert!(profile.memory_budget_mb <= share, "{id}: at most {share} MB of budget");
        let budget = Budget::of(profile.memory_budget_mb, profile.slots);
        assert!(budget.fits(), "{id}: {budget}");
        assert_eq!(profile.model.is_empty(), profile.target == "x86_64", "{id}: a model to match");
        for model in &profile.model {
            let best = Profile::of_model(model).map(|(id, _)| id);
            assert_eq!(best, Some(&*id), "{model} is that of one board");
        }
        found.push(id);
    }
    assert_eq!(found.len(), BOARDS.len(), "every board has a file");
}

#[test]
fn every_key_is_explained() {
    let page = fs::read_to_string(folder().join("README.md")).unwrap();
    let (_, text) = BOARDS[0];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let key = line.split(' ').next().unwrap();
        assert!(page.contains(&format!("| `{key}` |")), "{key} is not in boards/README.md");
    }
}

/// The last words of a server that must not start.
fn refused(site: &Site, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = serve_command(site.path(), arguments);
    let ran = Ran::of(command.envs(variables.iter().copied()));
    assert_eq!(ran.code, 2, "{}", ran.err);
    ran.err.lines().last().unwrap().to_owned()
}

#[test]
fn a_flag_wins_over_a_variable_that_over_the_file_that_over_the_board() {
    let site = Site::new();
    let config = site.path().join("hob.toml");
    let config = config.to_str().unwrap();
    let file = ["--config", config];
    // Sums that are too large show whose word counted.
    let slots = |arguments: &[&str], variables: &[(&str, &str)], expected: &str| {
        let last = refused(&site, arguments, variables);
        assert!(last.starts_with(&format!("hob: {expected} slots do not fit")), "{last}");
    };
    fs::write(config, "board = \"milkv-duo\"\nslots = 50\n").unwrap();
    slots(&file, &[], "50");
    slots(&file, &[("HOB_SLOTS", "60")], "60");
    slots(&[file[0], file[1], "--slots", "70"], &[("HOB_SLOTS", "60")], "70");
    fs::write(config, "board = \"milkv-duo\"\n").unwrap();
    slots(&[file[0], file[1], "--memory-budget-mb", "4"], &[], "4");
    let four = [("HOB_MEMORY_BUDGET_MB", "4")];
    slots(&["--config", config, "--board", "pi-zero"], &four, "8");
    slots(&file, &[("HOB_MEMORY_BUDGET_MB", "4"), ("HOB_BOARD", "pi-4")], "32");
    let last = refused(&site, &file, &four);
    let sum = "server 2.5 MB + 512 connections 1.0 + buffers 1.0 + 4 slots 0.7 = 5.2 of 4 MB";
    let expected = format!(
        "hob: 4 slots do not fit into memory_budget_mb (board milkv-duo): {sum}; \
         allowed: a larger budget"
    );
    assert_eq!(last, expected);
}

#[test]
fn boards_that_do_not_exist_are_refused_with_those_that_do() {
    let site = Site::new();
    let config = site.path().join("hob.toml");
    fs::write(&config, "\nboard = \"pi-9\"\n").unwrap();
    let config = config.to_str().unwrap();
    let names: Vec<&str> = BOARDS.iter().map(|(id, _)| *id).collect();
    let what = format!("\"pi-9\" is not valid, allowed: auto, {}", names.join(", "));
    let last = refused(&site, &["--board", "pi-9"], &[]);
    assert_eq!(last, format!("hob: --board: {what}"));
    assert_eq!(refused(&site, &[], &[("HOB_BOARD", "pi-9")]), format!("hob: HOB_BOARD: {what}"));
    let last = refused(&site, &["--config", config], &[]);
    assert_eq!(last, format!("hob: {config}:2: board: {what}"));
}

#[test]
fn a_budget_that_the_machine_does_not_have_is_refused() {
    let site = Site::new();
    let memory_mb = hob::board::memory_kib() / 1024;
    let more = (memory_mb + 1).to_string();
    let last = refused(&site, &["--board", "pi-zero", "--memory-budget-mb", &more], &[]);
    let expected = format!(
        "hob: memory_budget_mb: {more} MB (board pi-zero) are more than the {memory_mb} MB that \
         this machine has"
    );
    assert_eq!(last, expected);
}

fn account(server: &Server) -> Value {
    let reply = server.connect().get("/2016-08-19/account-settings");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[test]
fn a_server_has_the_slots_of_its_board() {
    let site = Site::new();
    let server = site.serve(&DUO);
    assert_eq!(account(&server)["AccountLimit"]["ConcurrentExecutions"], 4);
    let log = server.log();
    assert!(log.contains("board milkv-duo (Milk-V Duo (64 MB); as told)"), "{log}");
    assert!(log.contains("memory: server 2.5 MB + "), "{log}");
    server.stop();
    let server = site.serve(&["--board", "milkv-duo", "--slots", "3"]);
    assert_eq!(account(&server)["AccountLimit"]["ConcurrentExecutions"], 3);
    server.stop();
    let server = site.serve(&["--board", "auto"]);
    if cfg!(target_arch = "x86_64") {
        assert!(server.log().contains("board lab-x86_64 ("), "{}", server.log());
        assert_eq!(account(&server)["AccountLimit"]["ConcurrentExecutions"], 16);
    }
}

#[test]
fn functions_have_what_the_board_has_but_not_what_they_say_beyond() {
    let site = Site::new();
    let cat = "#!/bin/sh\ncat\n";
    site.script("plain", "exec", cat, "");
    site.script("large", "exec", cat, "memory_mb = 64");
    site.native("ready", "", "memory_mb = 2\nprovisioned_concurrency = 2");
    site.native("keen", "", "memory_mb = 5\nprovisioned_concurrency = 2");
    let server = site.serve(&DUO);
    assert_eq!(server.ok("plain", "{\"n\":1}"), json!({ "n": 1 }));
    let issue = |name: &str| {
        let shown = server.hob(&["show", name, "--json"]);
        let shown: Value = serde_json::from_str(&shown.out).unwrap();
        shown["issues"][0].as_str().unwrap_or_default().to_owned()
    };
    let why = "memory_mb: 64 MB are more than workers have here (allowed: up to 5 MB of a memory \
               budget of 12 MB)";
    assert!(issue("large").ends_with(why), "{}", issue("large"));
    assert!(
        issue("keen").contains("2 workers kept ready of 5 MB are 10 MB, and "),
        "{}",
        issue("keen")
    );
    assert!(server.log().contains(why), "{}", server.log());
    assert_eq!(issue("ready"), "");
    assert_eq!(server.invoke("large", "{}").status, 404);
}

/// Creates a function of one script, and its version 1, as the AWS CLI does.
fn create(server: &Server, name: &str, runtime: &str, memory: Option<u32>) -> Reply {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    zip.start_file("bootstrap", options).unwrap();
    zip.write_all(b"#!/bin/sh\ncat\n").unwrap();
    let zip = BASE64_STANDARD.encode(zip.finish().unwrap().into_inner());
    let mut body = json!({
        "FunctionName": name,
        "Runtime": runtime,
        "Handler": "bootstrap",
        "Publish": true,
        "Role": "arn:aws:iam::000000000000:role/board",
        "Code": { "ZipFile": zip },
    });
    if let Some(memory) = memory {
        body["MemorySize"] = memory.into();
    }
    server.connect().post("/2015-03-31/functions", &[], body.to_string().as_bytes())
}

#[test]
fn a_small_board_takes_functions_of_the_default_memory_from_the_api() {
    let site = Site::new();
    let server = site.serve(&DUO);
    for (name, memory) in [("silent", None), ("default", Some(128))] {
        let reply = create(&server, name, "exec", memory);
        assert_eq!(reply.status, 201, "{}", reply.text());
        assert_eq!(reply.json()["MemorySize"], 128);
        assert_eq!(server.ok(name, "{\"n\":2}"), json!({ "n": 2 }));
    }
    let reply = create(&server, "large", "exec", Some(256));
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(reply.field("x-amzn-errortype"), Some("InvalidParameterValueException"));
    assert!(reply.text().contains("256 MB are more than workers have here"), "{}", reply.text());
}

#[test]
fn workers_that_are_kept_ready_find_room_together() {
    let site = Site::new();
    let server = site.serve(&["--board", "pi-zero"]);
    let keep = |name: &str, count: u32| {
        let path = format!("/2019-09-30/functions/{name}/provisioned-concurrency?Qualifier=1");
        let body = json!({ "ProvisionedConcurrentExecutions": count }).to_string();
        let mut connection = server.connect();
        connection.request("PUT", &path, &[], body.as_bytes());
        connection.reply()
    };
    for name in ["one", "two"] {
        let reply = create(&server, name, "provided", Some(140));
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    // Of 240 MB, 63.5 are the server's and 1.5 the slots'.
    let reply = keep("one", 2);
    assert_eq!(reply.status, 400);
    let why = "2 workers kept ready of 140 MB are 280 MB, and 175 MB are left for such";
    assert!(reply.text().contains(why), "{}", reply.text());
    assert_eq!(keep("one", 1).status, 202);
    let reply = keep("two", 1);
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("are 140 MB, and 35 MB are left"), "{}", reply.text());
    server.stop();
    let server = site.serve(&["--board", "pi-zero", "--memory-budget-mb", "150"]);
    let log = server.log();
    assert!(log.contains("memory_mb: 140 MB are more than workers have here"), "{log}");
}

#[test]
fn a_small_board_says_how_large_its_events_may_be() {
    let site = Site::new();
    site.script("echo", "exec", "#!/bin/sh\ncat\n", "");
    let server = site.serve(&DUO);
    let event = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    // Three MiB of buffers, three quarters of which are for bodies of clients.
    let most = 3 * 1024 * 1024 / 4 * 3 - 64 * 1024;
    let reply = server.invoke("echo", event(most + 1));
    assert_eq!(reply.status, 413);
    assert!(reply.text().contains(&format!("smaller than {most} bytes")), "{}", reply.text());
    assert_eq!(server.ok("echo", &event(1_000_000)).as_str().unwrap().len(), 999_998);
}

#[test]
fn the_doctor_shows_the_board_and_its_budget() {
    let doctor = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(HOB);
        command.arg("doctor").args(arguments).env("HOB_DATA", std::env::temp_dir());
        Ran::of(command.envs(variables.iter().copied()))
    };
    let told = doctor(&["--json"], &[("HOB_BOARD", "milkv-duo"), ("HOB_SLOTS", "2")]);
    assert_eq!(told.code, 0, "{}", told.out);
    let told: Value = serde_json::from_str(&told.out).unwrap();
    let figures = ["board", "slots", "memory_budget_mb"].map(|key| told[key].clone());
    assert_eq!(figures, [json!("milkv-duo"), json!(2), json!(12)]);
    let shown = doctor(&[], &[("HOB_BOARD", "milkv-duo")]);
    assert!(shown.out.contains("milkv-duo (Milk-V Duo (64 MB); as told)"), "{}", shown.out);
    assert!(shown.out.contains("= 7.2 of 12 MB; 5 MB are left for workers"), "{}", shown.out);
    let bad = doctor(&[], &[("HOB_BOARD", "milkv-duo"), ("HOB_SLOTS", "99")]);
    assert_eq!(bad.code, 1);
    assert!(bad.out.contains("99 slots do not fit into memory_budget_mb"), "{}", bad.out);
}
