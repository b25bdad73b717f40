//! External extensions: programs of layers beside a runtime, from their registration to the end.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Server, Site, eventually, executable, exists};

crate::both_reapers![
    they_hear_of_invocations_and_of_the_end,
    a_python_worker_shares_its_directories_with_them,
    a_start_that_an_extension_spoils_says_so,
    an_extension_that_ends_takes_its_worker_along,
    a_runtime_that_ends_is_a_failure,
    a_timeout_is_told,
    a_reply_does_not_wait_for_extensions_but_the_worker_does,
    extensions_that_take_too_long_use_up_the_timeout,
    the_runtime_goes_first_and_nobody_outlasts_the_grace,
    what_is_not_in_order_is_refused,
    a_frozen_worker_is_frozen_whole,
];

/// Does what `DO_NAME` says, and writes what it hears into the file `REPORT`.
const EXTENSION: &str = r"#!/usr/bin/env python3
import http.client, json, os, signal, sys, time
name = os.path.basename(sys.argv[0])
plan = os.environ.get('DO_' + name.upper(), '')
def say(*words):
    with open(os.environ['REPORT'], 'a') as report:
        print(name, *words, file=report)
def until(path):
    while not os.path.exists(path): time.sleep(0.005)
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
api = http.client.HTTPConnection(host, int(port))
def ask(method, path, body=None, **fields):
    fields = {'Lambda-Extension-' + key.replace('_', '-'): value for key, value in fields.items()}
    api.request(method, path if path[0] == '/' else '/2020-01-01/extension/' + path, body, fields)
    reply = api.getresponse()
    return reply, json.loads(reply.read() or b'null')
def refused(*request, **fields):
    reply, told = ask(*request, **fields)
    say('refused', reply.status, told['errorType'])
signal.signal(signal.SIGTERM, lambda *_: say('TERM'))
say('started', os.getpid())
if plan == 'exit': sys.exit(3)
if plan == 'silent': time.sleep(1000)
events = {'deaf': [], 'invoke': ['INVOKE']}.get(plan, ['INVOKE', 'SHUTDOWN'])
if plan == 'curious':
    refused('PUT', '/2022-07-01/telemetry', '{}')
    refused('GET', 'event/next', Identifier='1')
    refused('GET', 'event/next', Identifier='01234567-89ab-cdef-0123-456789abcdef')
    refused('POST', 'register', '{}')
    refused('POST', 'register', '{', Name=name)
    refused('POST', 'register', '{\'events\':[]}'.replace('\'', '\x22'), Name='')
    refused('POST', 'register', json.dumps({'events': ['SHUTDOWN']}), Name='inner')
reply, told = ask('POST', 'register', json.dumps({'events': events}), Name=name,
                  Accept_Feature='accountId')
id = reply.getheader('Lambda-Extension-Identifier')
say('registered', reply.status, json.dumps(told))
if plan == 'curious':
    refused('POST', 'register', json.dumps({'events': events}), Name=name)
    refused('PUT', '/2022-07-01/telemetry', '{}', Identifier=id)
    refused('PUT', '/2020-08-15/logs', '{}', Identifier=id)
    refused('POST', 'init/error', '{}', Identifier=id)
say('environment', json.dumps(dict(os.environ)))
if plan == 'init-error':
    reply, told = ask('POST', 'init/error', '{}', Identifier=id, Function_Error_Type='Own.Trouble')
    say('told', reply.status)
    sys.exit(1)
mark = '/tmp/left-for-' + os.path.basename(os.path.dirname(os.environ['REPORT']))
with open(mark, 'w') as file: file.write('left by ' + name)
print(name, 'on standard output', flush=True)
count = 0
while True:
    reply, event = ask('GET', 'event/next', Identifier=id)
    kind, count = event['eventType'], count + 1
    say(kind, event.get('requestId') or event['shutdownReason'], event['deadlineMs'])
    if plan == 'curious' and count == 1:
        refused('POST', 'init/error', '{}', Identifier=id, Function_Error_Type='Own.Trouble')
        refused('POST', 'register', '{}', Name='late')
    if kind == 'SHUTDOWN':
        if plan == 'stubborn': time.sleep(1000)
        say('bye')
        break
    if plan == 'crash': sys.exit(4)
    if plan == 'kill': os.kill(os.getpid(), 9)
    if plan == 'exit-error':
        ask('POST', 'exit/error', '{}', Identifier=id, Function_Error_Type='Own.Trouble')
        time.sleep(1000)
    if plan == 'slow': until(os.environ['REPORT'] + '-gate')
    say('next')
";

/// A runtime that does what its event says.
const RUNTIME: &str = r"#!/usr/bin/env python3
import http.client, json, os, signal, sys, time
def say(*words):
    with open(os.environ['REPORT'], 'a') as report:
        print('runtime', *words, file=report)
def end(*_):
    say('TERM')
    if os.environ.get('DO_RUNTIME') != 'stubborn': os._exit(0)
signal.signal(signal.SIGTERM, end)
say('started', os.getpid())
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
def ask(method, path, body=None):
    api = http.client.HTTPConnection(host, int(port))
    api.request(method, '/2018-06-01/runtime/invocation/' + path, body)
    reply = api.getresponse()
    return reply, reply.read()
while True:
    try: reply, event = ask('GET', 'next')
    except OSError: time.sleep(1000)
    event = json.loads(event)
    if event == 'exit': sys.exit(5)
    if event == 'hang': time.sleep(1000)
    if event == 'list': event = sorted(os.listdir('/tmp'))
    id = reply.getheader('Lambda-Runtime-Aws-Request-Id')
    say('replies', id)
    ask('POST', id + '/response', json.dumps(event))
";

pub fn report(site: &Site) -> String {
    fs::read_to_string(site.path().join("report")).unwrap_or_default()
}

pub fn lines(site: &Site, start: &str) -> Vec<String> {
    report(site).lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

/// Waits for a line that starts so.
pub fn heard(site: &Site, start: &str) -> String {
    eventually(start, || lines(site, start).pop())
}

/// A layer with these extensions.
pub fn layer(site: &Site, names: &[&str]) {
    for name in names {
        let path = site.path().join("layer/extensions").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        executable(&path, EXTENSION);
    }
}

/// What every function here needs, with the plans of its processes.
pub fn toml(site: &Site, runtime: &str, plans: &[(&str, &str)], more: &str) -> String {
    let root = site.path().display();
    let plans: String = plans.iter().map(|(n, plan)| format!(", DO_{n} = {plan:?}")).collect();
    format!(
        "runtime = \"{runtime}\"\nhandler = \"app.handler\"\nlayers = [\"{root}/layer\"]\n{more}\n\
         environment = {{ OWN = \"1\", REPORT = \"{root}/report\"{plans} }}\n\
         [sandbox]\nwrite = [\"{root}\"]\n"
    )
}

pub fn provided(site: &Site, plans: &[(&str, &str)], more: &str) {
    let folder = site.function("demo", &toml(site, "provided.al2023", plans, more));
    executable(&folder.join("bootstrap"), RUNTIME);
}

/// A second function, that needs the only slot.
fn other(site: &Site) {
    site.script("other", "exec", "#!/bin/sh\necho 1\n", "queue_wait_ms = 9000");
}

pub fn pids(server: &Server) -> Vec<i64> {
    let workers = server.workers_of("demo");
    let extensions = workers[0]["extensions"].as_object().unwrap();
    let pids = extensions.values().chain([&workers[0]["pid"]]);
    pids.map(|pid| pid.as_i64().unwrap()).collect()
}

fn they_hear_of_invocations_and_of_the_end(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first", "second"]);
    fs::write(site.path().join("layer/extensions/text"), "not executable").unwrap();
    provided(&site, &[("SECOND", "invoke")], "");
    let server = site.serve(&[reaper, &["--slots", "1"]].concat());
    assert!(server.log().contains("function demo: extension text is not executable"));
    let mut requests = Vec::new();
    for _ in 0..2 {
        let reply = server.invoke("demo", "{\"n\":1}");
        assert_eq!(reply.text(), "{\"n\": 1}");
        requests.push(reply.field("x-amzn-requestid").unwrap().to_owned());
    }
    for name in ["first", "second"] {
        eventually("both events are heard", || {
            (lines(&site, &format!("{name} INVOKE")).len() == 2).then_some(())
        });
        for (line, request) in lines(&site, &format!("{name} INVOKE")).iter().zip(&requests) {
            assert!(line.starts_with(&format!("{name} INVOKE {request} ")), "{line}");
        }
        let registered = heard(&site, &format!("{name} registered"));
        assert!(registered.contains("\"functionName\": \"demo\""), "{registered}");
        assert!(registered.contains("\"accountId\": \"000000000000\""), "{registered}");
        let log = server.hob(&["logs", "demo"]).out;
        assert!(log.contains(&format!("{name} on standard output")), "{log}");
        let events = if name == "first" { "INVOKE,SHUTDOWN" } else { "INVOKE" };
        let line = format!("EXTENSION\tName: {name}\tState: Ready\tEvents: [{events}]\n");
        assert!(log.contains(&line), "{log}");
    }
    let text = report(&site);
    let at = |what: &str| text.find(what).unwrap();
    assert!(at("first registered").max(at("second registered")) < at("runtime started"), "{text}");
    let pids = pids(&server);
    assert_eq!(pids.len(), 3);
    other(&site);
    eventually("it has the slot", || (server.invoke("other", "{}").text() == "1\n").then_some(()));
    assert!(pids.iter().all(|pid| !exists(*pid)), "all of it was reaped before");
    let text = report(&site);
    assert!(text.contains("first SHUTDOWN spindown ") && text.ends_with("first bye\n"), "{text}");
    assert!(text.find("runtime TERM") < text.find("first SHUTDOWN"), "{text}");
    assert!(!text.contains("second SHUTDOWN") && !text.contains("first TERM"), "{text}");
    server.stop();
}

const HANDLER: &str = "
import os
mark = '/tmp/left-for-' + os.path.basename(os.path.dirname(os.environ['REPORT']))
def handler(event, context):
    return {'pid': os.getpid(), 'parent': os.getppid(), 'tmp': open(mark).read(),
            'api': os.environ.get('AWS_LAMBDA_RUNTIME_API'),
            'opt': os.listdir('/opt')}
";

fn a_python_worker_shares_its_directories_with_them(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    let folder = site.function("demo", &toml(&site, "python3.11", &[], ""));
    fs::write(folder.join("app.py"), HANDLER).unwrap();
    let mark = site.path().file_name().unwrap().display();
    let mark = Path::new("/tmp").join(format!("left-for-{mark}"));
    for paths in ["auto", "real"] {
        let _ = fs::remove_file(site.path().join("report"));
        let server = site.serve(&[reaper, &["--paths", paths]].concat());
        let told = server.ok("demo", "{}");
        let again = server.ok("demo", "{}");
        assert_eq!(told["pid"], again["pid"]);
        assert_eq!(told["parent"], server.pid(), "it was not forked");
        assert_eq!(told["tmp"], "left by first");
        let is_as_on_aws = server.get("/hob/server")["paths"] == "as on AWS, by a mount namespace";
        assert_eq!(mark.exists(), !is_as_on_aws);
        assert_eq!(told["opt"] == serde_json::json!(["extensions"]), is_as_on_aws);
        let refused = "function demo: workers are not forked: its layers have external extensions";
        assert_eq!(server.log().matches(refused).count(), 1, "{}", server.log());
        let line = heard(&site, "first environment ");
        let line = line.strip_prefix("first environment ").unwrap();
        let variables: Value = serde_json::from_str(line).unwrap();
        for (name, value) in [
            ("OWN", "1"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "hob"),
            ("AWS_LAMBDA_FUNCTION_NAME", "demo"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_RUNTIME_API", told["api"].as_str().unwrap()),
        ] {
            assert_eq!(variables[name], value, "{name}");
        }
        for name in ["_HANDLER", "AWS_EXECUTION_ENV", "PYTHONPATH", "HOB_WIRE", "HOB_TMP"] {
            assert_eq!(variables.get(name), None, "{name}");
        }
        eventually("it heard of both", || (lines(&site, "first next").len() == 2).then_some(()));
        server.stop();
        assert!(report(&site).contains("first SHUTDOWN spindown "), "{}", report(&site));
        assert!(report(&site).ends_with("first bye\n"), "{}", report(&site));
    }
    fs::remove_file(mark).unwrap();
}

fn a_start_that_an_extension_spoils_says_so(reaper: &[&str]) {
    for (plan, kind, message) in [
        ("exit", "Extension.Crash", "exit status 3"),
        ("init-error", "Extension.InitError", "Own.Trouble"),
        ("silent", "Sandbox.Timedout", "Init timed out after 2.00 seconds"),
        ("launch", "Extension.LaunchError", "Error: extension second: No such file"),
        ("many", "Extension.LaunchError", "11 extensions, 10 are allowed"),
    ] {
        let site = Site::new();
        layer(&site, &["first", "second"]);
        let extensions = site.path().join("layer/extensions");
        match plan {
            "launch" => executable(&extensions.join("second"), "#!/nonexistent\n"),
            "many" => (3..12).for_each(|n| layer(&site, &[&format!("e{n}")])),
            _ => {}
        }
        let limit = if plan == "silent" { "2" } else { "10" };
        let more = format!("timeout_s = {limit}\nshutdown_grace_ms = 1000");
        provided(&site, &[("SECOND", plan)], &more);
        let server = site.serve(&[reaper, &["--init-limit", limit]].concat());
        let (told, text) = server.fails("demo", "{}");
        // The second start runs inside the invocation, whose timeout it is.
        if plan != "silent" {
            assert_eq!(told, kind, "{plan}: {text}");
            assert!(text.contains(message), "{plan}: {text}");
        } else {
            assert!(text.contains("Task timed out after 2.00 seconds"), "{text}");
        }
        let log = server.hob(&["logs", "demo"]).out;
        let status = if plan == "silent" { "timeout" } else { "error" };
        assert!(log.contains(&format!("Phase: init\tStatus: {status}")), "{log}");
        eventually("nothing is left", || server.workers().is_empty().then_some(()));
        assert!(!report(&site).contains("runtime started"), "{}", report(&site));
        if plan != "launch" {
            let starts = lines(&site, "second started").len();
            assert_eq!(starts, if plan == "many" { 0 } else { 2 }, "{}", report(&site));
            server.stop();
        } else {
            // The number of an error is in its log.
            assert!(server.complained().contains("extension second: No such file"));
        }
    }
}

fn an_extension_that_ends_takes_its_worker_along(reaper: &[&str]) {
    for (plan, kind, message) in [
        ("crash", "Extension.Crash", "Error: exit status 4"),
        ("kill", "Extension.Crash", "Error: signal: killed"),
        ("exit-error", "Extension.ExitError", "Error: Own.Trouble"),
    ] {
        let site = Site::new();
        layer(&site, &["first", "second"]);
        provided(&site, &[("SECOND", plan)], "");
        let server = site.serve(reaper);
        let (told, text) = server.fails("demo", "\"hang\"");
        assert_eq!(told, kind, "{plan}");
        assert!(text.starts_with("RequestId: ") && text.ends_with(message), "{plan}: {text}");
        let old = pids_in(&report(&site));
        assert_eq!(old.len(), 3);
        eventually("the worker is gone", || server.workers().is_empty().then_some(()));
        assert!(old.iter().all(|pid| !exists(*pid)), "all of it");
        assert!(report(&site).contains("first SHUTDOWN failure "), "{}", report(&site));
        assert!(report(&site).contains("runtime TERM"), "{}", report(&site));
        let log = server.hob(&["logs", "demo"]).out;
        assert!(log.contains(&format!("Status: error\tError Type: {kind}")), "{log}");
        server.stop();
    }
}

/// The processes that said that they started.
pub fn pids_in(report: &str) -> Vec<i64> {
    let pid = |line: &str| line.split_once(" started ")?.1.parse().ok();
    report.lines().filter_map(pid).collect()
}

fn a_runtime_that_ends_is_a_failure(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    provided(&site, &[("FIRST", "stubborn")], "shutdown_grace_ms = 3000\nqueue_wait_ms = 9000");
    let server = site.serve(&[reaper, &["--slots", "1"]].concat());
    let (kind, text) = server.fails("demo", "\"exit\"");
    assert_eq!(kind, "Runtime.ExitError");
    assert!(text.ends_with("exit status 5"), "{text}");
    heard(&site, "first SHUTDOWN failure");
    assert_eq!(server.workers()[0]["state"], "stopping", "the slot is taken until all are gone");
    server.ok("demo", "1");
    let old = pids_in(&report(&site));
    assert!(!exists(old[0]) && exists(old[2]), "{}", report(&site));
    server.stop();
}

fn a_timeout_is_told(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    provided(&site, &[], "timeout_s = 1");
    let server = site.serve(reaper);
    let (kind, _) = server.fails("demo", "\"hang\"");
    assert_eq!(kind, "Sandbox.Timedout");
    eventually("it is gone", || server.workers().is_empty().then_some(()));
    assert!(report(&site).contains("first SHUTDOWN timeout "), "{}", report(&site));
    assert!(report(&site).ends_with("first bye\n"), "{}", report(&site));
    server.stop();
}

fn a_reply_does_not_wait_for_extensions_but_the_worker_does(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    provided(&site, &[("FIRST", "slow")], "timeout_s = 60\nreserved_concurrency = 1");
    let server = site.serve(reaper);
    assert_eq!(server.ok("demo", "1"), 1);
    assert_eq!(server.workers_of("demo")[0]["state"], "busy");
    assert!(lines(&site, "first next").is_empty());
    fs::write(site.path().join("report-gate"), "").unwrap();
    eventually("it idles", || (server.workers_of("demo")[0]["state"] == "idle").then_some(()));
    assert_eq!(lines(&site, "first next").len(), 1);
    assert_eq!(server.ok("demo", "2"), 2);
    assert_eq!(pids_in(&report(&site)).len(), 2, "the same worker");
    server.stop();
}

fn extensions_that_take_too_long_use_up_the_timeout(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first", "second"]);
    provided(&site, &[("FIRST", "slow")], "timeout_s = 1\nshutdown_grace_ms = 500");
    let server = site.serve(reaper);
    assert_eq!(server.ok("demo", "1"), 1);
    eventually("it is gone", || server.workers().is_empty().then_some(()));
    assert!(report(&site).contains("second SHUTDOWN timeout "), "{}", report(&site));
    assert!(!report(&site).contains("first SHUTDOWN"), "it did not ask: {}", report(&site));
    server.stop();
}

#[allow(clippy::disallowed_methods, reason = "tests have a clock of their own")]
fn the_runtime_goes_first_and_nobody_outlasts_the_grace(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first", "second", "third"]);
    let plans = [("RUNTIME", "stubborn"), ("FIRST", "stubborn"), ("SECOND", "deaf")];
    provided(&site, &plans, "");
    let server = site.serve(&[reaper, &["--slots", "1"]].concat());
    assert_eq!(server.get("/hob/functions/demo")["shutdown_grace_ms"], 2000);
    server.ok("demo", "1");
    let pids = pids(&server);
    other(&site);
    let begun = std::time::Instant::now();
    eventually("it has the slot", || (server.invoke("other", "{}").text() == "1\n").then_some(()));
    let took = begun.elapsed().as_millis();
    assert!(took >= 2_000, "{took} ms: the stubborn one has all of its time");
    assert!(pids.iter().all(|pid| !exists(*pid)), "all of it was reaped");
    let text = report(&site);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(at("runtime TERM") < at("third SHUTDOWN spindown"), "{text}");
    assert!(text.contains("first SHUTDOWN spindown") && text.contains("third bye"), "{text}");
    assert!(!text.contains("second SHUTDOWN"), "{text}");
    server.stop();
}

fn what_is_not_in_order_is_refused(reaper: &[&str]) {
    let site = Site::new();
    layer(&site, &["first"]);
    provided(&site, &[("FIRST", "curious")], "");
    let server = site.serve(reaper);
    server.ok("demo", "1");
    heard(&site, "first next");
    let told: Vec<String> = lines(&site, "first refused ");
    let told: Vec<&str> = told.iter().map(|l| l.strip_prefix("first refused ").unwrap()).collect();
    assert_eq!(
        told,
        [
            "403 Extension.MissingExtensionIdentifier",
            "403 Extension.InvalidExtensionIdentifier",
            "403 Extension.UnknownExtensionIdentifier",
            "403 Extension.InvalidExtensionName",
            "403 InvalidRequestFormat",
            "403 Extension.InvalidExtensionName",
            "403 Extension.InvalidEventType",
            "403 Extension.InvalidExtensionState",
            "202 Telemetry.NotSupported",
            "202 Telemetry.NotSupported",
            "403 Extension.MissingHeader",
            "403 Extension.InvalidExtensionState",
            "403 Extension.RegistrationClosed",
        ]
    );
    server.stop();
}

fn a_frozen_worker_is_frozen_whole(reaper: &[&str]) {
    for (how, frozen) in crate::freeze::WAYS {
        let site = Site::new();
        layer(&site, &["first"]);
        provided(&site, &[], "");
        let server = site.serve(&[reaper, how].concat());
        for n in 1..3 {
            server.ok("demo", "1");
            let all = || pids(&server).iter().all(|pid| frozen(*pid)).then_some(());
            eventually("all of it is frozen", all);
            assert_eq!(lines(&site, "first next").len(), n);
        }
        server.stop();
        assert!(report(&site).ends_with("first bye\n"), "{}", report(&site));
    }
}
