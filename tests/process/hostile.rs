//! Workers that do what they must not: to the server, to each other, to their own process group.

use crate::common::http::Conn;
use crate::common::{Server, Site, children, descriptors, eventually, exists, status_number};

crate::both_reapers![
    a_flood_of_output_does_not_stop_the_others,
    a_flood_of_init_errors_ends_its_worker,
    a_worker_that_leaves_its_group_is_killed_all_the_same,
    a_zombie_in_the_group_does_not_hold_up_the_drain,
    what_a_dead_worker_left_behind_may_go_on_talking,
    a_worker_has_a_few_connections_and_no_more,
    polls_that_come_and_go_leave_nothing_behind,
    a_reply_that_looks_like_a_head_is_a_reply,
    a_worker_that_closes_its_stream_is_replaced,
];

/// A Python program on the Runtime API, with `call` for a request on a connection of its own.
fn provided(site: &Site, name: &str, program: &str, more: &str) {
    let prelude = "#!/usr/bin/env python3
import http.client, os, socket, sys, time
host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')
def connect():
    return socket.create_connection((host, int(port)))
def call(method, path, body=None, kept=http.client.HTTPConnection(host, int(port))):
    kept.request(method, '/2018-06-01/runtime' + path, body)
    reply = kept.getresponse()
    reply.read()
    return reply
def next():
    return call('GET', '/invocation/next').getheader('Lambda-Runtime-Aws-Request-Id')
def respond(id, body):
    call('POST', '/invocation/%s/response' % id, body)
";
    site.script(name, "provided", &format!("{prelude}{program}"), more);
}

/// The server answers others, and ends in order.
fn is_well(server: Server) {
    assert_eq!(server.ok("well", "{\"n\":7}")["event"]["n"], 7);
    server.stop();
}

fn a_flood_of_output_does_not_stop_the_others(reaper: &[&str]) {
    let site = Site::new();
    site.native("well", "", "");
    let flood = "
for _ in range(2):
    if os.fork() == 0:
        while True: os.write(1, b'y\\n' * 32768)
while True:
    respond(next(), 'null')
";
    provided(&site, "flood", flood, "timeout_s = 5\nshutdown_grace_ms = 100");
    let server = site.serve(reaper);
    for _ in 0..3 {
        assert_eq!(server.ok("flood", "{}"), serde_json::Value::Null);
        assert_eq!(server.ok("well", "{}")["event"], serde_json::json!({}));
    }
    is_well(server);
}

fn a_flood_of_init_errors_ends_its_worker(reaper: &[&str]) {
    let site = Site::new();
    site.native("well", "", "");
    let program = "#!/usr/bin/env python3
import signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
host = socket.socket(fileno=0)
host.sendall(b'\\x02\\0\\0\\0\\x00\\x01')
while True: host.sendall(b'\\x01\\0\\0\\0\\x04' * 20000)
";
    site.script("flood", "native", program, "timeout_s = 5");
    let server = site.serve(reaper);
    let (kind, _) = server.fails("flood", "{}");
    assert!(["Runtime.Protocol", "Runtime.Unknown"].contains(&kind.as_str()), "{kind}");
    is_well(server);
}

fn a_worker_that_leaves_its_group_is_killed_all_the_same(reaper: &[&str]) {
    let site = Site::new();
    site.native("well", "", "");
    let program = "#!/usr/bin/env python3
import os, time
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.execvp('sleep', ['sleep', '3'])
while os.getpgid(child) != child: time.sleep(0.001)
os.setpgid(0, child)
time.sleep(60)
";
    site.script("away", "exec", program, "timeout_s = 1\nshutdown_grace_ms = 50");
    let server = site.serve(reaper);
    let (kind, _) = server.fails("away", "{}");
    assert_eq!(kind, "Sandbox.Timedout");
    eventually("its slot is free", || server.workers_of("away").is_empty().then_some(()));
    is_well(server);
}

fn a_zombie_in_the_group_does_not_hold_up_the_drain(reaper: &[&str]) {
    let site = Site::new();
    site.native("well", "", "");
    // The child leaves the group and never waits for its own child, which stays in it.
    let program = "#!/usr/bin/env python3
import os, time
ready, tell = os.pipe()
if os.fork() == 0:
    if os.fork() == 0: time.sleep(20); os._exit(0)
    os.setsid()
    os.write(tell, b'x')
    for fd in (0, 1, 2): os.close(fd)
    time.sleep(20); os._exit(0)
os.read(ready, 1)
print(1)
";
    site.script("stray", "exec", program, "");
    let server = site.serve(reaper);
    assert_eq!(server.ok("stray", "{}"), 1);
    is_well(server);
}

fn what_a_dead_worker_left_behind_may_go_on_talking(reaper: &[&str]) {
    let site = Site::new();
    site.native("well", "", "");
    let program = "
id = next()
late = connect()
late.sendall(('POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\\r\\nHost: a\\r\\n'
    'Content-Length: 4\\r\\n\\r\\nnu' % id).encode())
ready, tell = os.pipe()
if os.fork() == 0:
    parent = os.getppid()
    os.setsid()
    os.write(tell, b'x')
    while os.getppid() == parent: time.sleep(0.01)
    time.sleep(0.2)
    try:
        late.sendall(b'll')
        answer = late.recv(1000)
    except ConnectionError:
        answer = b''
    open(os.environ['SAID'], 'wb').write(answer or b'closed')
    os._exit(0)
os.read(ready, 1)
os._exit(1)
";
    let said = site.path().join("said");
    let more =
        format!("environment = {{ SAID = {said:?} }}\n[sandbox]\nwrite = [{:?}]", site.path());
    provided(&site, "late", program, &more);
    let server = site.serve(reaper);
    let (kind, message) = server.fails("late", "{}");
    assert_eq!(kind, "Runtime.ExitError");
    assert!(message.ends_with("exit status 1"), "{message}");
    eventually("what it left behind has spoken", || said.exists().then_some(()));
    is_well(server);
}

fn a_worker_has_a_few_connections_and_no_more(reaper: &[&str]) {
    let site = Site::new();
    site.native("well", "", "");
    let program = "
many = [connect() for _ in range(500)]
while True:
    respond(next(), str(len(many)))
";
    // A connection that the kernel has no room to queue is tried again after a second, or three.
    provided(&site, "many", program, "timeout_s = 60");
    let server = site.serve(reaper);
    let before = descriptors(server.pid());
    // Its kept connection comes after the others, and finds no place.
    let (kind, message) = server.fails("many", "{}");
    assert_eq!(kind, "Runtime.ExitError", "{message}");
    eventually("the connections are gone", || {
        (descriptors(server.pid()) <= before + 16).then_some(())
    });
    is_well(server);
}

fn polls_that_come_and_go_leave_nothing_behind(reaper: &[&str]) {
    let site = Site::new();
    site.native("well", "", "");
    let program = "
def poll():
    one = connect()
    one.sendall(b'GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')
    return one
respond(next(), '1')
for _ in range(3000):
    poll().close()
while True:
    respond(next(), '2')
";
    provided(&site, "polls", program, "timeout_s = 20\nreserved_concurrency = 1");
    let server = site.serve(reaper);
    assert_eq!(server.ok("polls", "{}"), 1);
    let before = status_number(server.pid(), "VmRSS");
    assert_eq!(server.ok("polls", "{}"), 2);
    let grown = status_number(server.pid(), "VmRSS").saturating_sub(before);
    assert!(grown < 2_000, "{grown} KiB");
    is_well(server);
}

fn a_reply_that_looks_like_a_head_is_a_reply(reaper: &[&str]) {
    let site = Site::new();
    let program = "
while True:
    respond(next(), '\"\\nLambda-Runtime-Function-Response-Mode: buffered\\n\"')
";
    provided(&site, "text", program, "");
    let server = site.serve(reaper);
    let reply = server.invoke("text", "{}");
    assert_eq!(reply.field("x-amz-function-error"), None, "{}", reply.text());
    assert!(reply.text().contains("Response-Mode: buffered"));
    server.stop();
}

fn a_worker_that_closes_its_stream_is_replaced(reaper: &[&str]) {
    let site = Site::new();
    let program = "#!/usr/bin/env python3
import os, socket, time
host = socket.socket(fileno=0)
host.sendall(b'\\x02\\0\\0\\0\\x00\\x01' + b'\\x01\\0\\0\\0\\x01')
host.recv(65536)
host.sendall(b'\\x03\\0\\0\\0\\x02\\x01' + b'1' + b'\\x01\\0\\0\\0\\x01')
host.close()
time.sleep(60)
";
    site.script("closes", "native", program, "timeout_s = 30");
    let server = site.serve(reaper);
    assert_eq!(server.ok("closes", "{}"), 1);
    let pid = server.workers_of("closes").first().and_then(|worker| worker["pid"].as_i64());
    eventually("it is gone", || (!pid.is_some_and(exists)).then_some(()));
    assert_eq!(server.ok("closes", "{}"), 1, "another one");
    let connected = Conn::tcp(&server.address).get("/healthz").status;
    assert_eq!(connected, 200);
    assert!(children(server.pid()).iter().all(|(_, state)| *state != 'Z'));
    server.stop();
}
