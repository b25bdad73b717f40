//! Workers that are forked: from one initialisation, safely, and not at any price.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{Server, Site, children, eventually, example, exists};

crate::both_reapers![
    workers_are_forked_from_one_import,
    a_zygote_goes_when_it_has_had_no_worker_for_a_while,
    a_start_that_fails_in_the_zygote_fails_for_its_worker,
    an_import_that_hangs_is_cut_off,
    a_zygote_that_is_killed_is_done_without,
    a_zygote_that_does_not_answer_is_done_without,
    a_worker_that_is_killed_at_birth_is_known_to_be_gone,
    what_must_not_be_forked_becomes_the_worker,
    new_code_has_a_new_zygote,
    nothing_forks_where_nobody_wants_it,
    a_function_that_is_hot_has_a_spare,
    everything_goes_with_the_server,
    a_native_handler_forks_with_the_sdk,
];

const APP: &str = "
import os, random, time
print('imported')
importer = os.getpid()
def handler(event, context):
    print('serving', context.aws_request_id)
    time.sleep(event.get('sleep', 0))
    if event.get('do') == 'exit':
        os._exit(5)
    return {'pid': os.getpid(), 'parent': os.getppid(), 'importer': importer,
            'random': random.random(), 'group': os.getpgrp(),
            'stream': context.log_stream_name}
";

fn python(site: &Site, name: &str, source: &str, more: &str) {
    let toml = format!("runtime = \"python3.11\"\nhandler = \"app.handler\"\n{more}\n");
    let folder = site.function(name, &toml);
    std::fs::write(folder.join("app.py"), source).unwrap();
}

/// So many invocations at one time; their replies.
fn together(server: &Server, name: &str, n: usize) -> Vec<Value> {
    std::thread::scope(|scope| {
        let one = || server.ok(name, "{\"sleep\":0.5}");
        let threads: Vec<_> = (0..n).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

fn zygote(server: &Server, name: &str) -> Value {
    server.get(&format!("/hob/functions/{name}"))["zygote"].clone()
}

fn imports(server: &Server, name: &str) -> usize {
    let log = server.hob(&["logs", name]).out;
    log.lines().filter(|line| *line == "imported").count()
}

fn send(pid: i64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn workers_are_forked_from_one_import(reaper: &[&str]) {
    let site = Site::new();
    python(&site, "demo", APP, "");
    let server = site.serve(reaper);
    let replies = together(&server, "demo", 3);
    let pids: Vec<i64> = replies.iter().map(|reply| number(&reply["pid"])).collect();
    assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2], "{pids:?}");
    let zygote = zygote(&server, "demo");
    for reply in &replies {
        assert_eq!(reply["parent"], server.pid(), "the server reaps it");
        assert_eq!(reply["importer"], zygote["pid"]);
        assert_eq!(reply["group"], reply["pid"], "it leads a group of its own");
    }
    assert_ne!(replies[0]["random"], replies[1]["random"]);
    assert_ne!(replies[0]["stream"], replies[1]["stream"]);
    assert_eq!(imports(&server, "demo"), 1);
    assert!(!pids.contains(&number(&zygote["pid"])), "it serves nobody itself");
    assert_eq!(server.workers_of("demo").len(), 3, "it takes no slot");
    assert!(number(&zygote["pss_kib"]) > 0);
    let (kind, text) = server.fails("demo", "{\"do\":\"exit\"}");
    assert_eq!(kind, "Runtime.ExitError");
    assert!(text.ends_with("exit status 5"), "{text}");
    eventually("the crashed one is reaped", || {
        (server.workers_of("demo").len() == 2).then_some(())
    });
    server.stop();
}

fn a_zygote_goes_when_it_has_had_no_worker_for_a_while(reaper: &[&str]) {
    let site = Site::new();
    python(&site, "demo", APP, "idle_timeout_s = 1");
    let server = site.serve(reaper);
    let first = server.ok("demo", "{}");
    assert!(zygote(&server, "demo")["pid"].is_number());
    eventually("worker and zygote are gone, and reaped", || {
        children(server.pid()).is_empty().then_some(())
    });
    assert_eq!(zygote(&server, "demo"), "starts with the first worker");
    let second = server.ok("demo", "{}");
    assert_ne!(first["importer"], second["importer"]);
    server.stop();
}

fn a_start_that_fails_in_the_zygote_fails_for_its_worker(reaper: &[&str]) {
    let site = Site::new();
    python(&site, "missing", "import no_such_thing", "");
    python(&site, "leaves", "print('imported')\nraise SystemExit(4)", "");
    let server = site.serve(reaper);
    let (kind, text) = server.fails("missing", "{}");
    assert_eq!(kind, "Runtime.ImportModuleError");
    assert_eq!(text, "Unable to import module 'app': No module named 'no_such_thing'");
    let (kind, text) = server.fails("leaves", "{}");
    assert_eq!(kind, "Runtime.ExitError");
    assert!(text.ends_with("Error: Runtime exited with error: exit status 4"), "{text}");
    assert_eq!(imports(&server, "leaves"), 2, "once, and once more inside the invocation");
    let log = server.hob(&["logs", "missing"]).out;
    assert!(log.contains("Error Type: Runtime.ImportModuleError"), "{log}");
    eventually("nothing is left", || children(server.pid()).is_empty().then_some(()));
    server.stop();
}

fn an_import_that_hangs_is_cut_off(reaper: &[&str]) {
    let site = Site::new();
    python(&site, "demo", "import time\ntime.sleep(100)", "timeout_s = 1");
    let server = site.serve(&[reaper, &["--init-limit", "1"]].concat());
    let (kind, text) = server.fails("demo", "{}");
    assert_eq!(kind, "Sandbox.Timedout", "{text}");
    eventually("nothing is left", || children(server.pid()).is_empty().then_some(()));
    server.stop();
}

fn a_zygote_that_is_killed_is_done_without(reaper: &[&str]) {
    let site = Site::new();
    python(&site, "demo", APP, "");
    let server = site.serve(reaper);
    let first = server.ok("demo", "{}");
    send(number(&zygote(&server, "demo")["pid"]), Signal::KILL);
    eventually("that is known", || zygote(&server, "demo").is_string().then_some(()));
    let why = "none: the zygote ended: Runtime exited with error: signal: killed";
    assert_eq!(zygote(&server, "demo"), why);
    assert_eq!(server.ok("demo", "{}")["pid"], first["pid"], "its worker lives on");
    for reply in together(&server, "demo", 2) {
        let plain = reply["pid"] == reply["importer"];
        assert!(plain || reply["pid"] == first["pid"], "{reply}");
    }
    assert!(server.log().contains("warn  function demo: workers are not forked: the zygote ended"));
    server.stop();
}

fn a_zygote_that_does_not_answer_is_done_without(reaper: &[&str]) {
    let site = Site::new();
    python(&site, "demo", APP, "max_invocations = 1");
    let server = site.serve(&[reaper, &["--init-limit", "1"]].concat());
    server.ok("demo", "{}");
    let pid = number(&zygote(&server, "demo")["pid"]);
    send(pid, Signal::STOP);
    // The start that it spoils is made good inside the invocation.
    let reply = server.ok("demo", "{}");
    assert_eq!(reply["pid"], reply["importer"]);
    assert_eq!(zygote(&server, "demo"), "none: the zygote does not answer");
    eventually("it is killed", || (!exists(pid)).then_some(()));
    server.stop();
}

fn a_worker_that_is_killed_at_birth_is_known_to_be_gone(reaper: &[&str]) {
    let site = Site::new();
    let marker = site.path().join("deadly");
    // The bootstrap asks for its parent before it says that it is there.
    let source = format!(
        "{APP}
get_parent = os.getppid
def die_young():
    if os.getpid() != importer and os.path.exists('{}'):
        os.kill(os.getpid(), 9)
    return get_parent()
os.getppid = die_young
",
        marker.display()
    );
    let more = format!("max_invocations = 1\n[sandbox]\nread = [\"{}\"]", site.path().display());
    python(&site, "demo", &source, &more);
    let server = site.serve(reaper);
    server.ok("demo", "{}");
    let zygote_pid = zygote(&server, "demo")["pid"].clone();
    std::fs::write(&marker, "").unwrap();
    let (kind, text) = server.fails("demo", "{}");
    assert_eq!(
        (kind.as_str(), text.contains("signal: killed")),
        ("Runtime.ExitError", true),
        "{text}"
    );
    // A spare was asked for as well, and died too.
    std::fs::remove_file(&marker).unwrap();
    eventually("it starts once more, after a pause", || {
        let reply = server.invoke("demo", "{}");
        reply.field("x-amz-function-error").is_none().then_some(())
    });
    assert_eq!(zygote(&server, "demo")["pid"], zygote_pid);
    eventually("there is a spare", || (children(server.pid()).len() == 2).then_some(()));
    server.stop();
}

fn what_must_not_be_forked_becomes_the_worker(reaper: &[&str]) {
    let site = Site::new();
    let threads = "
import threading
threading.Thread(target=threading.Event().wait, daemon=True, name='ticker').start()
";
    let opened = "import socket\nkept = socket.socket()\n";
    python(&site, "threads", &format!("{threads}{APP}"), "");
    python(&site, "opened", &format!("{opened}{APP}"), "");
    let hooks = "import hob\n@hob.on_fork\ndef anew():\n    global kept\n    kept = 1\n";
    python(&site, "hooked", &format!("{opened}{hooks}{APP}"), "");
    python(&site, "insists", &format!("{threads}{APP}"), "zygote = \"on\"");
    let server = site.serve(reaper);
    for (name, why) in [
        ("threads", "the import left threads running: ticker"),
        ("opened", "the import left a socket open"),
    ] {
        let reply = server.ok(name, "{}");
        assert_eq!(reply["pid"], reply["importer"], "{name}");
        assert_eq!(imports(&server, name), 1, "{name}: nothing was imported in vain");
        assert_eq!(zygote(&server, name), format!("none: {why}"));
        assert!(server.log().contains(&format!("function {name}: workers are not forked: {why}")));
        for reply in together(&server, name, 2) {
            assert_eq!(reply["pid"], reply["importer"], "{name}");
        }
        assert_eq!(imports(&server, name), 2, "{name}");
    }
    let reply = server.ok("hooked", "{}");
    assert_ne!(reply["pid"], reply["importer"], "its author sees to that");
    let (kind, text) = server.fails("insists", "{}");
    assert_eq!(kind, "Runtime.Unforkable");
    assert!(text.contains("the import left threads running: ticker"), "{text}");
    server.stop();
}

fn new_code_has_a_new_zygote(reaper: &[&str]) {
    let site = Site::new();
    python(&site, "demo", APP, "");
    let server = site.serve(reaper);
    let first = server.ok("demo", "{}");
    let app = site.functions().join("demo/app.py");
    std::fs::write(&app, APP.replace("'random'", "'new': 1, 'random'")).unwrap();
    let reply = eventually("the new code runs", || {
        let reply = server.ok("demo", "{}");
        (reply["new"] == 1).then_some(reply)
    });
    assert_ne!(reply["importer"], first["importer"]);
    eventually("the old zygote is gone", || (!exists(number(&first["importer"]))).then_some(()));
    std::fs::remove_dir_all(site.functions().join("demo")).unwrap();
    eventually("all of it is gone", || children(server.pid()).is_empty().then_some(()));
    server.stop();
}

fn nothing_forks_where_nobody_wants_it(reaper: &[&str]) {
    let site = Site::new();
    python(&site, "demo", APP, "zygote = \"off\"");
    let server = site.serve(reaper);
    for reply in together(&server, "demo", 2) {
        assert_eq!(reply["pid"], reply["importer"]);
    }
    assert_eq!(zygote(&server, "demo"), Value::Null);
    assert_eq!(children(server.pid()).len(), 2, "and no spare");
    server.stop();
}

fn a_function_that_is_hot_has_a_spare(reaper: &[&str]) {
    let site = Site::new();
    let cleanup = "
import signal
def clean_up(number, frame):
    with open(os.environ['CLEANUP_FILE'], 'a') as file:
        print(os.getpid(), file=file)
    os._exit(0)
signal.signal(signal.SIGTERM, clean_up)
";
    let (place, file) = (site.path().display(), site.path().join("cleanup"));
    let more = format!(
        "max_invocations = 1\nenvironment = {{ CLEANUP_FILE = \"{}\" }}\n\
         [sandbox]\nwrite = [\"{place}\"]",
        file.display()
    );
    python(&site, "demo", &format!("{APP}{cleanup}"), &more);
    let server = site.serve(reaper);
    let spare = |server: &Server| {
        let function = server.get("/hob/functions/demo");
        let (zygote, told) = (function["zygote"]["pid"].clone(), function["spare"]["pid"].clone());
        let workers: Vec<Value> =
            server.workers_of("demo").iter().map(|worker| worker["pid"].clone()).collect();
        let all = children(server.pid()).into_iter().map(|(pid, _)| json!(pid));
        let rest: Vec<Value> = all.filter(|pid| *pid != zygote && !workers.contains(pid)).collect();
        (rest == [told.clone()]).then_some(told)
    };
    server.ok("demo", "{}");
    assert_eq!(server.get("/hob/functions/demo")["spare"], Value::Null);
    server.ok("demo", "{}");
    let first = eventually("there is a spare", || spare(&server));
    assert_eq!(server.ok("demo", "{}")["pid"], first, "it is the next worker");
    let second = eventually("there is another one", || spare(&server));
    assert_ne!(first, second);
    send(number(&second), Signal::KILL);
    eventually("it is reaped", || (!exists(number(&second))).then_some(()));
    server.ok("demo", "{}");
    assert_eq!(imports(&server, "demo"), 1);
    let third = eventually("there is one more", || spare(&server));
    std::fs::remove_dir_all(site.functions().join("demo")).unwrap();
    eventually("the spare goes with its function", || {
        children(server.pid()).is_empty().then_some(())
    });
    let cleaned = std::fs::read_to_string(file).unwrap();
    assert!(cleaned.lines().any(|pid| *pid == *third.to_string()), "{third}: {cleaned}");
    server.stop();
}

fn everything_goes_with_the_server(reaper: &[&str]) {
    for signal in [Signal::TERM, Signal::KILL] {
        let site = Site::new();
        python(&site, "demo", APP, "");
        let mut server = site.serve(reaper);
        together(&server, "demo", 2);
        let all = eventually("a zygote, two workers and a spare", || {
            let all = children(server.pid());
            (all.len() == 4).then_some(all)
        });
        server.signal(signal);
        server.wait();
        for (pid, _) in all {
            eventually("it is gone", || (!exists(pid.into())).then_some(()));
        }
    }
}

fn a_native_handler_forks_with_the_sdk(reaper: &[&str]) {
    let site = Site::new();
    let folder =
        site.function("demo", "runtime = \"native\"\nhandler = \"hello\"\nzygote = \"on\"\n");
    std::os::unix::fs::symlink(example("hello-native"), folder.join("hello")).unwrap();
    // It speaks the wire, but knows nothing of zygotes.
    site.native("old", "protocol 1", "zygote = \"on\"");
    let server = site.serve(reaper);
    for count in 1..=3 {
        assert_eq!(server.ok("demo", "{}")["count"], count);
    }
    let zygote = zygote(&server, "demo");
    assert_eq!(zygote["forks"], 1, "{zygote}");
    let worker = &server.workers_of("demo")[0];
    assert_ne!(worker["pid"], zygote["pid"]);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker["pid"])).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    assert_eq!(fields[1], server.pid().to_string(), "the server reaps it");
    assert_eq!(fields[2], worker["pid"].to_string(), "it leads a group of its own");
    let (kind, text) = server.fails("old", "{}");
    assert_eq!(kind, "Runtime.Unforkable");
    assert!(text.ends_with("the handler is no zygote: message out of order"), "{text}");
    server.stop();
}
