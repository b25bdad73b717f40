//! Workers with external extensions in special circumstances: that nothing hangs and nothing stays.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::common::{Server, Site, children, descriptors, eventually, exists};
use crate::extensions::{heard, layer, lines, pids, pids_in, provided, report, toml};

crate::both_reapers![
    an_extension_that_ends_between_invocations_is_made_good,
    a_runtime_that_cannot_start_says_why,
    a_runtime_may_have_an_extension_of_its_own,
    a_runtime_on_the_wire_is_not_spoken_to_by_the_api,
    a_node_worker_has_them_too,
    a_start_that_nobody_wants_any_more_is_given_up,
    a_second_signal_ends_them_at_once,
    nothing_is_left_of_many_of_them,
    an_insistent_function_is_refused_in_words,
];

fn python(site: &Site, source: &str, plans: &[(&str, &str)], more: &str) {
    let folder = site.function("demo", &toml(site, "python3.11", plans, more));
    fs::write(folder.join("app.py"), source).unwrap();
}

fn kill(pid: i64) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn gone(server: &Server, pids: &[i64]) {
    eventually("all of it is gone", || pids.iter().all(|pid| !exists(*pid)).then_some(()));
    assert!(server.workers().iter().all(|worker| !pids.contains(&worker["pid"].as_i64().unwrap())));
}

fn an_extension_that_ends_between_invocations_is_made_good(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first", "second"]);
    provided(&site, &[], "");
    let server = site.serve(reaper);
    server.ok("demo", "1");
    eventually("it idles", || (server.workers_of("demo")[0]["state"] == "idle").then_some(()));
    let old = pids(&server);
    kill(old[1]);
    heard(&site, "first SHUTDOWN failure");
    assert!(!report(&site).contains("second SHUTDOWN"), "{}", report(&site));
    assert_eq!(server.ok("demo", "2"), 2, "a new worker serves");
    gone(&server, &old);
    assert!(server.log().contains("function demo: Extension.Crash: signal: killed"));
    server.stop();
}

fn a_runtime_that_cannot_start_says_why(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    python(&site, "raise ValueError('as told')\n", &[], "");
    let server = site.serve(reaper);
    let (kind, text) = server.fails("demo", "{}");
    assert_eq!((kind.as_str(), text.as_str()), ("ValueError", "as told"));
    eventually("it is gone", || server.workers().is_empty().then_some(()));
    assert_eq!(lines(&site, "first SHUTDOWN failure").len(), 2, "{}", report(&site));
    assert_eq!(lines(&site, "first bye").len(), 2, "{}", report(&site));
    server.stop();
}

/// Registers an extension in the runtime's own process, and polls for it in a thread.
const INTERNAL: &str = "
import http.client, json, os, threading
def ask(path, method, body=None, **fields):
    api = http.client.HTTPConnection(*os.environ['AWS_LAMBDA_RUNTIME_API'].split(':'))
    fields = {'Lambda-Extension-' + key: value for key, value in fields.items()}
    api.request(method, path, body, fields)
    reply = api.getresponse()
    return reply, json.loads(reply.read())
path = '/2020-01-01/extension/'
reply, _ = ask(path + 'register', 'POST', json.dumps({'events': ['INVOKE']}), Name='inner')
id = reply.getheader('Lambda-Extension-Identifier')
heard = []
def listen():
    while True:
        heard.append(ask(path + 'event/next', 'GET', Identifier=id)[1]['requestId'])
threading.Thread(target=listen, daemon=True).start()
def handler(event, context):
    while not heard or heard[-1] != context.aws_request_id: pass
    return len(heard)
";

fn a_runtime_may_have_an_extension_of_its_own(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    python(&site, INTERNAL, &[], "");
    let server = site.serve(reaper);
    for n in 1..4 {
        assert_eq!(server.ok("demo", "{}"), n, "each is told of each invocation");
    }
    let pids = pids(&server);
    server.stop();
    assert_eq!(lines(&site, "first INVOKE").len(), 3, "{}", report(&site));
    assert!(report(&site).ends_with("first bye\n"), "{}", report(&site));
    assert!(pids.iter().all(|pid| !exists(*pid)));
}

const CURIOUS: &str = "
import http.client, json, os
def handler(event, context):
    told = []
    for method, path in event:
        api = http.client.HTTPConnection(*os.environ['AWS_LAMBDA_RUNTIME_API'].split(':'))
        api.request(method, '/2018-06-01/' + path, '{}')
        reply = api.getresponse()
        told.append([reply.status, json.loads(reply.read())['errorType']])
    return told
";

fn a_runtime_on_the_wire_is_not_spoken_to_by_the_api(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    python(&site, CURIOUS, &[], "");
    let server = site.serve(reaper);
    let event = "[[\"GET\",\"runtime/invocation/next\"],[\"POST\",\"runtime/init/error\"],\
                 [\"POST\",\"runtime/invocation/1/response\"]]";
    let refused = json!([403, "InvalidStateTransition"]);
    assert_eq!(server.ok("demo", event), json!([refused, refused, refused]));
    server.stop();
}

fn a_node_worker_has_them_too(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    let folder = site.function("demo", &toml(&site, "nodejs20.x", &[], ""));
    let source = "exports.handler = async () => [process.pid, process.env.AWS_LAMBDA_RUNTIME_API]";
    fs::write(folder.join("app.js"), source).unwrap();
    let server = site.serve(reaper);
    if server.log().contains("needs Node.js, and none is here") {
        return server.stop();
    }
    let told = server.ok("demo", "{}");
    assert_eq!(told, server.ok("demo", "{}"), "one worker, and it has the address");
    assert!(told[1].as_str().unwrap().starts_with("127."));
    eventually("it heard of both", || (lines(&site, "first next").len() == 2).then_some(()));
    server.stop();
    assert!(report(&site).ends_with("first bye\n"), "{}", report(&site));
}

fn a_start_that_nobody_wants_any_more_is_given_up(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first", "second"]);
    provided(&site, &[("SECOND", "silent")], "provisioned_concurrency = 1");
    let server = site.serve(reaper);
    heard(&site, "first registered");
    heard(&site, "second started");
    let old = pids_in(&report(&site));
    provided(&site, &[], "provisioned_concurrency = 1");
    heard(&site, "runtime started");
    gone(&server, &old);
    assert_eq!(server.ok("demo", "1"), 1);
    provided(&site, &[("SECOND", "silent")], "provisioned_concurrency = 1");
    eventually("it starts", || (lines(&site, "second started").len() == 3).then_some(()));
    server.stop();
    assert!(pids_in(&report(&site)).iter().all(|pid| !exists(*pid)));
}

fn a_second_signal_ends_them_at_once(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    provided(&site, &[("FIRST", "stubborn")], "shutdown_grace_ms = 60000");
    let mut server = site.serve(reaper);
    server.ok("demo", "1");
    let pids = pids(&server);
    server.signal(Signal::TERM);
    heard(&site, "first SHUTDOWN spindown");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    eventually("all of it is gone", || pids.iter().all(|pid| !exists(*pid)).then_some(()));
}

fn nothing_is_left_of_many_of_them(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first", "second"]);
    provided(&site, &[], "max_invocations = 1\nqueue_wait_ms = 9000\nreserved_concurrency = 1");
    let server = site.serve(reaper);
    server.ok("demo", "1");
    let quiet = || children(server.pid()).is_empty().then_some(());
    eventually("it is gone", quiet);
    let before = descriptors(server.pid());
    for n in 0..10 {
        // Now and then one that fails.
        server.invoke("demo", if n % 3 == 0 { "\"exit\"" } else { "1" });
    }
    eventually("they are gone, zombies too", quiet);
    eventually("so are their descriptors", || (descriptors(server.pid()) <= before).then_some(()));
    assert_eq!(pids_in(&report(&site)).len(), 33, "{}", report(&site));
    server.stop();
}

fn an_insistent_function_is_refused_in_words(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    python(&site, "handler = print", &[], "zygote = \"on\"");
    let server = site.serve(reaper);
    let (kind, text) = server.fails("demo", "{}");
    assert_eq!(kind, "Runtime.Unforkable");
    assert!(text.ends_with("it must not fork: its layers have external extensions"), "{text}");
    assert!(report(&site).is_empty(), "{}", report(&site));
    server.stop();
}
