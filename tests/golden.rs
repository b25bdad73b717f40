//! What must stay as it is: the bytes of the wire, and what the pool decides in scenes that
//! everybody should know. `BLESS=1 cargo test --test golden` writes the files anew.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use hob::pool::{
    Cause, Event, FunctionId, Instant, InvocationId, Pool, Settings, VersionId, WorkerId,
};
use hob::wire::{Context, FromWorker, ToWorker, encode, serial};

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    if expected != text {
        let different = expected.lines().zip(text.lines()).position(|(a, b)| a != b);
        let line = different.unwrap_or(expected.lines().count().min(text.lines().count()));
        panic!(
            "{} differs from line {}:\n- {}\n+ {}\nif that is meant: BLESS=1 cargo test --test golden",
            path.display(),
            line + 1,
            expected.lines().nth(line).unwrap_or("(end)"),
            text.lines().nth(line).unwrap_or("(end)"),
        );
    }
}

const CONTEXT: Context<'_> = Context {
    id: 1,
    deadline_ms: 1_764_000_000_123,
    request_id: "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
    function_arn: "arn:aws:lambda:us-east-1:000000000000:function:demo",
    trace_id: "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
    client_context: "",
    identity: "",
};

#[test]
fn the_bytes_of_the_wire() {
    let mut text = String::from("# message, payload -> frame\n");
    let mut line = |name: &str, head: &[u8], payload: &[u8]| {
        let hex: Vec<String> =
            [head, payload].concat().iter().map(|b| format!("{b:02x}")).collect();
        writeln!(text, "{name}, {:?} -> {}", String::from_utf8_lossy(payload), hex.join(" "))
            .unwrap();
    };
    for (name, message, payload) in [
        ("Hello 1", FromWorker::Hello { protocol: 1 }, &b""[..]),
        ("Ready", FromWorker::Ready, b""),
        ("Reply 1", FromWorker::Reply { id: 1 }, b"{}"),
        ("Reply 300", FromWorker::Reply { id: 300 }, b"[1]"),
        ("Reply 4294967295", FromWorker::Reply { id: u32::MAX }, b""),
        ("Error 7", FromWorker::Error { id: 7 }, b"{\"errorType\":\"E\"}"),
        ("InitError", FromWorker::InitError, b"{}"),
        ("Forked 1 300", FromWorker::Forked { id: 1, pid: 300 }, b""),
        ("Unforkable", FromWorker::Unforkable, b"2 threads"),
        ("Stream 1", FromWorker::Stream { id: 1 }, b""),
        ("Stream 300", FromWorker::Stream { id: 300 }, b"text/plain"),
        ("Piece 1", FromWorker::Piece { id: 1 }, b"one"),
        ("Piece 300", FromWorker::Piece { id: 300 }, b""),
        ("Memory 1200", FromWorker::Memory { kib: 1200 }, b""),
    ] {
        let mut head = [0; 64];
        let length = encode(&message, payload.len(), &mut head).unwrap();
        line(name, &head[..length], payload);
    }
    let mut head = [0; 512];
    let length = encode(&ToWorker::Invoke(CONTEXT), 2, &mut head).unwrap();
    line("Invoke", &head[..length], b"{}");
    let fork = ToWorker::Fork { id: 1, environment: "A=1\0B=2" };
    let length = encode(&fork, 0, &mut head).unwrap();
    line("Fork 1", &head[..length], b"");
    text.push_str("# on a serial line\n");
    let mut line = |name: &str, frame: &[u8], payload: &[u8]| {
        let hex: Vec<String> = frame.iter().map(|b| format!("{b:02x}")).collect();
        writeln!(text, "{name}, {:?} -> {}", String::from_utf8_lossy(payload), hex.join(" "))
            .unwrap();
    };
    let mut out = [0; 512];
    for (id, reply_max, function, payload) in
        [(1, 0, "", "{}"), (300, 118, "lamp", "{\"presses\":1}"), (u32::MAX, 16_374, "a:1", "0")]
    {
        let call = serial::ToHost::Call { id, reply_max, function };
        let length = serial::encode(&call, payload.as_bytes(), &mut out).unwrap();
        line(&format!("Call {id} {reply_max} {function:?}"), &out[..length], payload.as_bytes());
    }
    let refused = |reason| serial::FromHost::Refused { id: 300, reason };
    for (name, message, payload) in [
        ("Reply 1", serial::FromHost::Reply { id: 1 }, &b"{}"[..]),
        ("Reply 0", serial::FromHost::Reply { id: 0 }, b"\0\0"),
        ("Reply 300", serial::FromHost::Reply { id: 300 }, &[b'x'; 254]),
        ("Error 7", serial::FromHost::Error { id: 7 }, b"{\"errorType\":\"E\"}"),
        ("Refused 300 Throttled", refused(serial::Reason::Throttled), b""),
        ("Refused 300 Internal", refused(serial::Reason::Internal), b""),
    ] {
        let length = serial::encode(&message, payload, &mut out).unwrap();
        line(name, &out[..length], payload);
    }
    compare("wire.txt", &text);
}

/// A pool with a transcript.
struct Scene {
    pool: Pool,
    now: Instant,
    text: String,
    invocations: u64,
}

const SETTINGS: Settings = Settings {
    function: FunctionId(0),
    reserved: None,
    provisioned: 0,
    queue_wait_ms: 1_000,
    idle_timeout_ms: 600_000,
    timeout_ms: 3_000,
    init_limit_ms: 10_000,
    grace_ms: 500,
    max_invocations: 0,
    one_shot: false,
};

fn worker(slot: u16, generation: u32) -> WorkerId {
    WorkerId { slot, generation }
}

impl Scene {
    fn new(title: &str, slots: u16) -> Scene {
        let text = format!("# {title}; {slots} slots\n");
        Scene { pool: Pool::new(slots), now: Instant::ZERO, text, invocations: 0 }
    }

    fn event(&mut self, event: Event) {
        let actions = self.pool.on_event(self.now, event);
        writeln!(self.text, "{:>7} ms  {event:?}", self.now.as_micros() / 1000).unwrap();
        for action in actions {
            writeln!(self.text, "            -> {action:?}").unwrap();
        }
    }

    /// Lets time pass, with every deadline on the way.
    fn after_ms(&mut self, ms: u32) {
        let end = self.now.after_ms(ms);
        while let Some((at, _)) = self.pool.next_deadline().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            let before = self.pool.next_deadline();
            let actions = self.pool.on_event(self.now, Event::DeadlinePassed);
            if !actions.is_empty() {
                writeln!(self.text, "{:>7} ms  {before:?}", self.now.as_micros() / 1000).unwrap();
            }
            for action in actions {
                writeln!(self.text, "            -> {action:?}").unwrap();
            }
        }
        self.now = end;
    }

    fn configure(&mut self, version: u16, settings: Settings) {
        self.event(Event::Configured { version: VersionId(version), settings });
    }

    fn invoke(&mut self, version: u16) {
        let invocation = InvocationId(self.invocations);
        self.invocations += 1;
        self.event(Event::Invoked { invocation, version: VersionId(version) });
        self.after_ms(0);
    }

    fn ready(&mut self, worker: WorkerId) {
        self.event(Event::Ready { worker });
    }

    fn done(&mut self, worker: WorkerId) {
        self.event(Event::Replied { worker, ok: true });
        self.ready(worker);
    }

    fn exits(&mut self, worker: WorkerId) {
        self.event(Event::Exited { worker, cause: Cause::Reaped });
    }
}

#[test]
fn cold_warm_idle() {
    let mut scene = Scene::new("cold, warm, crash, hang, idle", 4);
    scene.configure(0, SETTINGS);
    scene.invoke(0);
    scene.after_ms(20);
    scene.ready(worker(0, 1));
    scene.done(worker(0, 1));
    scene.invoke(0);
    scene.exits(worker(0, 1));
    scene.invoke(0);
    scene.ready(worker(0, 2));
    scene.after_ms(4_000);
    scene.exits(worker(0, 2));
    scene.invoke(0);
    scene.ready(worker(0, 3));
    scene.done(worker(0, 3));
    scene.after_ms(700_000);
    scene.exits(worker(0, 3));
    compare("pool-life.txt", &scene.text);
}

#[test]
fn full_and_fair() {
    let mut scene = Scene::new("the table is full; reserved; eviction", 2);
    scene.configure(0, SETTINGS);
    scene.configure(1, Settings { function: FunctionId(1), queue_wait_ms: 0, ..SETTINGS });
    scene.invoke(0);
    scene.invoke(0);
    scene.ready(worker(0, 1));
    scene.ready(worker(1, 1));
    scene.invoke(1);
    scene.invoke(0);
    scene.after_ms(100);
    scene.done(worker(1, 1));
    scene.done(worker(0, 1));
    scene.invoke(1);
    scene.after_ms(600);
    scene.exits(worker(0, 1));
    scene.ready(worker(0, 2));
    scene.done(worker(0, 2));
    scene.done(worker(1, 1));
    let reserved = Some(1);
    scene
        .configure(1, Settings { function: FunctionId(1), reserved, queue_wait_ms: 0, ..SETTINGS });
    scene.invoke(0);
    scene.invoke(0);
    scene.invoke(1);
    scene.invoke(1);
    scene.after_ms(2_000);
    compare("pool-full.txt", &scene.text);
}

#[test]
fn failing_starts() {
    let mut scene = Scene::new("starts that fail: once more, then quiet for 1, 2, 4 ... s", 2);
    scene.configure(0, SETTINGS);
    scene.invoke(0);
    scene.exits(worker(0, 1));
    scene.exits(worker(0, 2));
    scene.invoke(0);
    scene.after_ms(1_000);
    scene.invoke(0);
    scene.event(Event::Failed { worker: worker(0, 3) });
    scene.exits(worker(0, 3));
    scene.after_ms(3_000);
    scene.after_ms(600);
    scene.exits(worker(1, 1));
    scene.after_ms(2_000);
    scene.invoke(0);
    scene.event(Event::Exited { worker: worker(0, 4), cause: Cause::SystemFault });
    scene.after_ms(60);
    scene.ready(worker(0, 5));
    scene.done(worker(0, 5));
    compare("pool-starts.txt", &scene.text);
}

#[test]
fn workers_that_cannot_go_on() {
    let mut scene = Scene::new("workers that lose a part of themselves, in every state", 1);
    scene.configure(0, SETTINGS);
    scene.invoke(0);
    scene.ready(worker(0, 1));
    scene.event(Event::Failed { worker: worker(0, 1) });
    scene.event(Event::Failed { worker: worker(0, 1) });
    scene.invoke(0);
    scene.exits(worker(0, 1));
    scene.ready(worker(0, 2));
    scene.event(Event::Replied { worker: worker(0, 2), ok: true });
    scene.event(Event::Failed { worker: worker(0, 2) });
    scene.exits(worker(0, 2));
    scene.invoke(0);
    scene.ready(worker(0, 3));
    scene.done(worker(0, 3));
    scene.event(Event::Failed { worker: worker(0, 3) });
    scene.exits(worker(0, 3));
    compare("pool-parts.txt", &scene.text);
}

#[test]
fn update_and_drain() {
    let mut scene = Scene::new("a new version, provisioned workers, drain", 3);
    scene.configure(0, SETTINGS);
    scene.invoke(0);
    scene.invoke(0);
    scene.ready(worker(0, 1));
    scene.configure(1, Settings { provisioned: 1, ..SETTINGS });
    scene.event(Event::Retired { version: VersionId(0), successor: Some(VersionId(1)) });
    scene.after_ms(0);
    scene.exits(worker(1, 1));
    scene.ready(worker(2, 1));
    scene.done(worker(0, 1));
    scene.after_ms(10);
    scene.exits(worker(0, 1));
    scene.done(worker(2, 1));
    scene.invoke(1);
    scene.event(Event::DrainStarted { until: scene.now.after_ms(1_000) });
    scene.invoke(1);
    scene.after_ms(1_600);
    scene.exits(worker(2, 1));
    scene.exits(worker(1, 2));
    writeln!(scene.text, "drained: {}", scene.pool.is_drained()).unwrap();
    compare("pool-update.txt", &scene.text);
}
