//! Idle workers that get no processor time.

use std::fs;

use crate::common::{Server, Site, eventually, example, exists};

crate::both_reapers![
    an_idle_worker_is_frozen_and_goes_on_with_its_next_event,
    one_that_is_frozen_by_signals_goes_on_too,
    a_frozen_worker_still_cleans_up,
    what_left_its_group_is_frozen_with_it_and_ends_with_it,
    what_a_killed_server_has_frozen_ends_with_the_next_one,
    workers_of_every_kind_are_frozen_as_a_whole,
    nothing_is_frozen_unless_somebody_wants_it,
];

const SIGNALS: &[&str] = &["--freeze", "50", "--freezer", "signals"];
const GROUPS: &[&str] = &["--freeze", "50"];
/// How workers are frozen, and how that shows.
pub(crate) const WAYS: [Way; 2] = [(GROUPS, is_frozen), (SIGNALS, is_stopped)];
type Way = (&'static [&'static str], fn(i64) -> bool);

/// True if it was sent SIGSTOP.
fn is_stopped(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

/// The directory of its control group, in the one hierarchy that counts.
fn cgroup(pid: i64) -> String {
    let list = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = list.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup v2");
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let root = root.into_iter().find(|root| fs::exists(format!("{root}/cgroup.procs")).unwrap());
    format!("{}{path}", root.expect("cgroup v2 is mounted: the tests need it, writable"))
}

/// True if its control group gets no processor time.
fn is_frozen(pid: i64) -> bool {
    let events = fs::read_to_string(format!("{}/cgroup.events", cgroup(pid)));
    events.is_ok_and(|text| text.contains("frozen 1"))
}

fn pid(server: &Server, event: &str) -> i64 {
    server.ok("demo", event)["pid"].as_i64().unwrap()
}

fn an_idle_worker_is_frozen_and_goes_on_with_its_next_event(reaper: &[&str]) {
    goes_on(&[reaper, GROUPS].concat(), is_frozen);
}

fn one_that_is_frozen_by_signals_goes_on_too(reaper: &[&str]) {
    goes_on(&[reaper, SIGNALS].concat(), is_stopped);
}

fn goes_on(arguments: &[&str], frozen: fn(i64) -> bool) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 2");
    let server = site.serve(arguments);
    let worker = pid(&server, "{}");
    let grandchild = server.ok("demo", "{\"do\":\"grandchild\"}")["grandchild"].as_i64().unwrap();
    for _ in 0..3 {
        eventually("it is frozen", || frozen(worker).then_some(()));
        eventually("so is its child", || frozen(grandchild).then_some(()));
        assert_eq!(pid(&server, "{}"), worker, "it serves on");
        assert!(exists(grandchild));
    }
    // One that runs for longer than that is left alone.
    assert_eq!(server.ok("demo", "{\"do\":\"sleep\",\"n\":300}")["pid"], worker);
    server.stop();
    assert!(!exists(worker) && !exists(grandchild));
}

fn a_frozen_worker_still_cleans_up(reaper: &[&str]) {
    for (how, frozen) in WAYS {
        let site = Site::new();
        let file = site.path().join("cleanup");
        let more = format!(
            "idle_timeout_s = 1\nenvironment = {{ CLEANUP_FILE = \"{}\" }}",
            file.display()
        );
        site.native("demo", "", &more);
        let server = site.serve(&[reaper, how].concat());
        let worker = server.ok("demo", "{\"do\":\"stubborn\"}")["pid"].as_i64().unwrap();
        eventually("it is frozen", || frozen(worker).then_some(()));
        eventually("it is stopped", || server.workers_of("demo").is_empty().then_some(()));
        assert!(file.exists(), "it had its chance to clean up");
        let worker = pid(&server, "{}");
        eventually("the next one is frozen", || frozen(worker).then_some(()));
        // Also by the server's end.
        server.stop();
        assert!(!exists(worker));
    }
}

fn what_left_its_group_is_frozen_with_it_and_ends_with_it(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "idle_timeout_s = 1");
    let server = site.serve(&[reaper, GROUPS].concat());
    let runaway = server.ok("demo", "{\"do\":\"runaway\"}")["runaway"].as_i64().unwrap();
    let group = cgroup(runaway);
    eventually("it is frozen", || is_frozen(runaway).then_some(()));
    eventually("its worker is stopped", || server.workers_of("demo").is_empty().then_some(()));
    eventually("so is it", || (!exists(runaway)).then_some(()));
    // Groups are removed once they are empty, at the latest when the next one is made.
    let next = pid(&server, "{}");
    assert!(!fs::exists(group).unwrap());
    let group = cgroup(next);
    server.stop();
    assert!(!fs::exists(group).unwrap(), "nothing is left");
}

fn what_a_killed_server_has_frozen_ends_with_the_next_one(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let mut server = site.serve(&[reaper, GROUPS].concat());
    let runaway = server.ok("demo", "{\"do\":\"runaway\"}")["runaway"].as_i64().unwrap();
    let group = cgroup(runaway);
    eventually("it is frozen", || is_frozen(runaway).then_some(()));
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    let server = site.serve(&[reaper, GROUPS].concat());
    let worker = pid(&server, "{}");
    assert_ne!(cgroup(worker), group);
    eventually("it is gone", || (!exists(runaway)).then_some(()));
    server.stop();
    assert!(!fs::exists(group).unwrap(), "so is its group");
}

fn workers_of_every_kind_are_frozen_as_a_whole(reaper: &[&str]) {
    let code = "import os\ndef handler(event, context):\n    return {'pid': os.getpid()}\n";
    let shell = "#!/bin/sh\nwhile :; do\n  id=$(curl -sD - -o /dev/null \
        http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next | tr -d '\\r' |\n    \
        sed -n 's/^lambda-runtime-aws-request-id: //Ip')\n  curl -sd \"{\\\"pid\\\":$$}\" \
        http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$id/response\ndone\n";
    for zygote in ["on", "off"] {
        let site = Site::new();
        let toml =
            format!("runtime = \"python3.11\"\nhandler = \"app.handler\"\nzygote = \"{zygote}\"");
        fs::write(site.function("python", &toml).join("app.py"), code).unwrap();
        site.script("shell", "provided.al2023", shell, "");
        let toml = format!("runtime = \"native\"\nhandler = \"hello\"\nzygote = \"{zygote}\"");
        let link = site.function("native", &toml).join("hello");
        std::os::unix::fs::symlink(example("hello-native"), link).unwrap();
        let server = site.serve(&[reaper, GROUPS].concat());
        for name in ["python", "shell", "native"] {
            server.ok(name, "{}");
            let worker = server.workers_of(name)[0]["pid"].as_i64().unwrap();
            assert!(cgroup(worker).contains("/hob-"), "{name}, zygote {zygote}: its own group");
            eventually("it is frozen", || is_frozen(worker).then_some(()));
            server.ok(name, "{}");
            assert_eq!(server.workers_of(name)[0]["pid"], worker);
        }
        server.stop();
    }
}

fn nothing_is_frozen_unless_somebody_wants_it(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    site.native("other", "", "idle_timeout_s = 1");
    let server = site.serve(reaper);
    let worker = pid(&server, "{}");
    server.ok("other", "{}");
    eventually("the other one has been idle for a second", || {
        assert!(!is_stopped(worker) && !cgroup(worker).contains("/hob-"));
        server.workers_of("other").is_empty().then_some(())
    });
    server.stop();
}
