//! Ten thousand invocations, good and bad: what is left afterwards is what was there before.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Server, Site, children, descriptors, eventually, status_number};

crate::both_reapers![nothing_grows_over_ten_thousand_invocations];

const CLIENTS: usize = 4;
const EACH: usize = 2_500;

/// Threads, descriptors and zombies of a server at rest, and its memory.
fn at_rest(server: &Server, pidfds: bool) -> (u64, usize, usize, u64) {
    eventually("only idle workers are left", || {
        let quiet = server.workers().iter().all(|worker| worker["state"] == "idle");
        quiet.then_some(())
    });
    let pid = server.pid();
    let zombies = children(pid).iter().filter(|(_, state)| *state == 'Z').count();
    let workers = server.workers().len();
    // Idle workers have descriptors of their own; what is left is the server's.
    let per_worker = 3 + usize::from(pidfds);
    let own = descriptors(pid) - workers * per_worker;
    (status_number(pid, "Threads"), own, zombies, status_number(pid, "VmRSS"))
}

fn nothing_grows_over_ten_thousand_invocations(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "queue_wait_ms = 60000\nreserved_concurrency = 4");
    site.native("short", "", "timeout_s = 1\nshutdown_grace_ms = 20");
    site.script("shell", "exec", "#!/bin/sh\nread event\necho \"$event\"\n", "");
    let server = site.serve(&[reaper, &["--idle-timeout", "600"]].concat());
    warm_up(&server);
    let pidfds = reaper.contains(&"pidfd");
    let before = at_rest(&server, pidfds);
    let bad = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, bad) = (&server, &bad);
            scope.spawn(move || {
                let mut connection = server.connect();
                for n in 0..EACH {
                    let (name, event) = match n {
                        _ if n % 101 == 7 => ("demo", "{\"do\":\"crash\"}"),
                        _ if n % 211 == 9 => ("demo", "{\"do\":\"exit\",\"n\":3}"),
                        _ if n % 307 == 11 => ("demo", "{\"do\":\"garbage\"}"),
                        _ if n % 97 == 13 => ("shell", "1"),
                        _ if n == 100 * (client + 1) => ("short", "{\"do\":\"hang\"}"),
                        _ if n % 53 == 17 => ("demo", "{\"do\":\"print\",\"n\":5}"),
                        _ if n % 601 == 19 => ("nobody", "{}"),
                        _ if n % 401 == 21 => ("demo", "not json"),
                        _ => ("demo", "{\"n\":1}"),
                    };
                    let reply = connection.invoke(name, event.as_bytes());
                    let failed = reply.field("x-amz-function-error").is_some();
                    bad.fetch_add((failed || reply.status != 200).into(), Ordering::Relaxed);
                    assert!([200, 400, 404].contains(&reply.status), "{}", reply.text());
                }
            });
        }
    });
    let bad = bad.into_inner();
    assert!((CLIENTS * 50..CLIENTS * 80).contains(&bad), "{bad} invocations failed");
    // The ends of connections and processes take a moment to arrive.
    let after = eventually("descriptors are back to what they were", || {
        let now = at_rest(&server, pidfds);
        (now.1 <= before.1).then_some(now)
    });
    assert_eq!((after.0, after.2), (1, 0), "one thread, no zombie");
    let grown = after.3.saturating_sub(before.3);
    // A debug build with the C library's allocator: the budget's bound is for the release build.
    assert!(grown < 2048, "the server grew by {grown} KiB");
    server.stop();
}

/// Brings every kind of worker and buffer into being once.
fn warm_up(server: &Server) {
    let mut connections: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    for _ in 0..3 {
        for connection in &mut connections {
            connection.begin("demo", "{\"do\":\"sleep\",\"n\":20}");
        }
        for connection in &mut connections {
            assert_eq!(connection.reply().status, 200);
        }
    }
    server.ok("shell", "1");
    server.ok("short", "{}");
}
