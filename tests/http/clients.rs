//! Clients that are slow, half gone, gone, or many.

use std::net::Shutdown;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::http::{Conn, invocations};
use crate::common::{Server, Site, descriptors, eventually, status_number};

fn demo(more: &str, arguments: &[&str]) -> (Site, Server) {
    let site = Site::new();
    site.native("demo", "", more);
    let server = site.serve(arguments);
    (site, server)
}

/// Waits until so many invocations are in flight.
fn in_flight(server: &Server, count: u64) {
    eventually("the invocations in flight", || {
        (server.get("/hob/server")["in_flight"] == count).then_some(())
    });
}

/// Waits until the server holds no more descriptors than it did before.
fn holds(server: &Server, before: usize) {
    eventually("nothing leaks", || (descriptors(server.pid()) <= before).then_some(()));
}

#[test]
fn a_client_that_closed_its_sending_side_gets_its_reply() {
    let (_site, server) = demo("", &[]);
    // Cold, warm, and while it runs; alone and behind another one.
    for (events, sleeping) in [
        (vec!["{}"], false),
        (vec!["{}"], false),
        (vec!["{}", "{\"do\":\"sleep\",\"n\":50}"], true),
    ] {
        let mut conn = server.connect();
        for event in &events {
            conn.begin("demo", event);
        }
        conn.socket().shutdown(Shutdown::Write).unwrap();
        if sleeping {
            conn.taken();
        }
        for event in &events {
            let reply = conn.reply();
            assert_eq!(
                (reply.status, &reply.json()["event"]),
                (200, &serde_json::from_str(event).unwrap())
            );
        }
        assert!(conn.rest().is_empty());
    }
    // Half a request is none.
    for half in [
        "GET /heal",
        "POST /2015-03-31/functions/demo/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n1234",
    ] {
        let mut conn = server.connect();
        conn.send(half);
        conn.socket().shutdown(Shutdown::Write).unwrap();
        assert!(conn.rest().is_empty(), "{half}");
    }
    server.stop();
}

#[test]
fn a_client_that_reads_slowly_holds_up_nobody_and_gets_everything() {
    let (_site, server) = demo("", &[]);
    let size = 6 * 1024 * 1024;
    let mut slow: Vec<Conn> = (0..3).map(|_| server.connect()).collect();
    for conn in &mut slow {
        conn.begin("demo", &format!("{{\"do\":\"big\",\"n\":{size}}}"));
    }
    in_flight(&server, 0);
    for n in 0..50 {
        assert_eq!(server.ok("demo", &format!("{{\"n\":{n}}}"))["event"]["n"], n);
    }
    for conn in &mut slow {
        let head = conn.try_head().unwrap();
        assert_eq!(head.field("content-length"), Some(size.to_string().as_str()));
        let mut left = size;
        while left > 0 {
            let here = left.min(10_007);
            let bytes = conn.take(here);
            let quotes = usize::from(left == size) + usize::from(left == here);
            assert_eq!(bytes.iter().filter(|b| **b == b'x').count(), here - quotes);
            left -= here;
        }
        assert_eq!(conn.get("/healthz").status, 200, "the connection goes on");
    }
    server.stop();
}

#[test]
fn a_client_that_vanishes_while_it_sends_or_reads_leaves_nothing() {
    let (_site, server) = demo("", &[]);
    server.ok("demo", "{}");
    let before = descriptors(server.pid());
    let path = invocations("demo");
    for n in 0..100 {
        let mut conn = server.connect();
        match n % 5 {
            0 => {}
            1 => conn.send("POST /2015"),
            2 => conn
                .send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{")),
            3 => conn.send(format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{{"
            )),
            _ => {
                conn.begin("demo", "{\"do\":\"big\",\"n\":3000000}");
                conn.take(100);
            }
        }
        if n % 2 == 0 {
            conn.taken();
        }
        if n % 3 == 0 {
            conn.reset();
        }
    }
    in_flight(&server, 0);
    holds(&server, before);
    assert_eq!(server.ok("demo", "{}")["count"], 22, "the same worker");
    assert_eq!(status_number(server.pid(), "Threads"), 1);
    server.stop();
}

#[test]
fn a_client_that_vanishes_while_its_invocation_runs_does_not_disturb_the_worker() {
    let (_site, server) = demo("", &[]);
    let first = server.ok("demo", "{}");
    let before = descriptors(server.pid());
    for (n, resets) in [(2, true), (3, false)] {
        let mut conn = server.connect();
        conn.begin("demo", "{\"do\":\"sleep\",\"n\":100}");
        in_flight(&server, 1);
        if resets {
            conn.reset();
        } else {
            drop(conn);
        }
        in_flight(&server, 0);
        eventually("the worker is idle", || {
            (server.workers_of("demo")[0]["state"] == "idle").then_some(())
        });
        assert_eq!(server.workers_of("demo")[0]["invocations"], n, "it ran to its end");
        holds(&server, before);
    }
    let last = server.ok("demo", "{}");
    assert_eq!((&last["pid"], &last["count"]), (&first["pid"], &4.into()));
    server.stop();
}

#[test]
fn a_client_that_vanishes_while_it_waits_is_withdrawn() {
    let more = "reserved_concurrency = 1\nqueue_wait_ms = 10000\n[url]\nauth = \"none\"";
    let (_site, server) = demo(more, &[]);
    server.ok("demo", "{}");
    let before = descriptors(server.pid());
    let mut running = server.connect();
    running.begin("demo", "{\"do\":\"sleep\",\"n\":1500}");
    in_flight(&server, 1);
    let mut waiting: Vec<Conn> = (0..10).map(|_| server.connect()).collect();
    for conn in &mut waiting {
        conn.begin("demo", "{}");
    }
    let mut by_url = server.connect();
    by_url.request("GET", "/fn/demo", &[], b"");
    let mut half_closed = server.connect();
    half_closed.begin("demo", "{\"n\":7}");
    half_closed.socket().shutdown(Shutdown::Write).unwrap();
    in_flight(&server, 13);
    // Longer than the end of a sending side may be a part of the request.
    std::thread::sleep(Duration::from_millis(700));
    waiting.drain(..5).for_each(Conn::reset);
    drop((waiting, by_url));
    in_flight(&server, 2);
    assert_eq!(server.workers_of("demo")[0]["state"], "busy", "nothing else has ended yet");
    assert_eq!(running.reply().json()["count"], 2);
    let reply = half_closed.reply().json();
    assert_eq!((&reply["event"]["n"], &reply["count"]), (&7.into(), &3.into()));
    drop((running, half_closed));
    assert_eq!(server.ok("demo", "{}")["count"], 4, "none of those who left was run");
    holds(&server, before);
    server.stop();
}

#[test]
fn a_client_that_stops_following_a_log_is_let_go() {
    let (_site, server) = demo("", &[]);
    server.ok("demo", "{}");
    let before = descriptors(server.pid());
    let follow = "GET /hob/logs/demo?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for n in 0..3 {
        let mut conn =
            if n == 0 { Conn::unix(&server.socket()) } else { Conn::tcp(&server.address) };
        conn.send(follow);
        assert_eq!(conn.try_head().unwrap().status, 200);
        match n {
            0 | 1 => drop(conn),
            _ => conn.reset(),
        }
        holds(&server, before);
        assert_eq!(server.ok("demo", "{\"n\":1}")["event"]["n"], 1);
    }
    server.stop();
}

#[test]
fn an_error_reply_is_followed_by_the_next_request_on_the_connection() {
    let (_site, server) = demo("reserved_concurrency = 1\nqueue_wait_ms = 0\n", &[]);
    server.ok("demo", "{}");
    let mut running = server.connect();
    running.begin("demo", "{\"do\":\"sleep\",\"n\":300}");
    in_flight(&server, 1);
    let mut conn = server.connect();
    for _ in 0..3 {
        let reply = conn.invoke("demo", b"{}");
        assert_eq!((reply.status, reply.field("retry-after")), (429, Some("1")));
        assert_eq!(reply.field("connection"), None);
        let reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
        assert_eq!(reply.json()["Reason"], reason);
        let reply = conn.invoke("demo", b"{not json}");
        assert_eq!(reply.status, 400);
        assert_eq!(conn.invoke("none", b"{}").status, 404);
    }
    assert_eq!(running.reply().status, 200);
    eventually("the worker asks for more", || {
        (server.workers_of("demo")[0]["state"] == "idle").then_some(())
    });
    assert_eq!(conn.invoke("demo", b"{}").json()["count"], 3);
    server.stop();
}

#[test]
fn bytes_behind_the_last_request_do_not_cost_its_reply() {
    let (_site, server) = demo("", &[]);
    for close in ["HTTP/1.1\r\nConnection: close", "HTTP/1.0"] {
        let mut conn = server.connect();
        let mut bytes = format!("GET /healthz {close}\r\nHost: localhost\r\n\r\n").into_bytes();
        bytes.resize(1024 * 1024, b'x');
        conn.send(bytes);
        assert_eq!(conn.reply().text(), "ok\n");
        assert!(conn.rest().is_empty(), "{close}: an end, and no reset");
    }
    server.stop();
}

/// As many as the server keeps.
const CONNECTIONS_MAX: usize = 512;

#[test]
fn idle_connections_make_room_for_new_ones() {
    let (_site, server) = demo("", &[]);
    let before = descriptors(server.pid());
    // Nobody waits in between: the kernel hands them over faster than they are looked at.
    let mut conns: Vec<Conn> = (0..CONNECTIONS_MAX + 200).map(|_| server.connect()).collect();
    let mut newest = conns.split_off(200 + 100);
    for conn in newest.iter_mut().rev() {
        assert_eq!(conn.get("/healthz").status, 200);
    }
    assert!(descriptors(server.pid()) <= before + CONNECTIONS_MAX + 1);
    // Those that were used last stay; the first ones were ended without a word.
    for conn in &mut conns[..200] {
        assert!(conn.rest().is_empty());
    }
    for _ in 0..100 {
        assert_eq!(server.connect().get("/healthz").status, 200);
    }
    drop((conns, newest));
    holds(&server, before);
    server.stop();
}

#[test]
fn a_crowd_that_comes_at_once_finds_the_same_room() {
    let (_site, server) = demo("", &[]);
    let before = descriptors(server.pid());
    // Most of the room is taken by connections that are not idle.
    let mut busy: Vec<Conn> = (0..CONNECTIONS_MAX - 40).map(|_| begun(&server)).collect();
    busy.iter().for_each(Conn::taken);
    // The server finds all of these waiting: fewer than the kernel keeps for it.
    server.signal(Signal::STOP);
    let mut crowd: Vec<Conn> = (0..120).map(|_| server.connect()).collect();
    server.signal(Signal::CONT);
    let mut last = crowd.split_off(80);
    for conn in &mut last {
        assert_eq!(conn.get("/healthz").status, 200);
    }
    for conn in &mut crowd {
        assert!(conn.rest().is_empty(), "ended while idle, not turned away");
    }
    busy[7].send("Host: localhost\r\n\r\n");
    assert_eq!(busy[7].reply().status, 200, "who was not idle stays");
    drop((busy, crowd, last));
    holds(&server, before);
    server.stop();
}

/// A connection with half a head.
fn begun(server: &Server) -> Conn {
    let mut conn = server.connect();
    conn.send("GET /healthz HTTP/1.1\r\n");
    conn
}

#[test]
fn without_an_idle_connection_new_ones_are_told_to_come_back() {
    let (_site, server) = demo("", &[]);
    let before = descriptors(server.pid());
    let mut conns: Vec<Conn> = (0..CONNECTIONS_MAX).map(|_| begun(&server)).collect();
    conns.iter().for_each(Conn::taken);
    for sends_first in [false, true, true] {
        server.signal(Signal::STOP);
        let mut conn = server.connect();
        if sends_first {
            conn.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        server.signal(Signal::CONT);
        let reply = conn.reply();
        assert_eq!((reply.status, reply.field("retry-after")), (503, Some("1")));
        assert_eq!(reply.field("connection"), Some("close"));
        assert!(conn.rest().is_empty());
    }
    conns[7].send("Host: localhost\r\n\r\n");
    assert_eq!(conns[7].reply().status, 200);
    assert_eq!(server.connect().get("/healthz").status, 200, "one of them is idle");
    assert!(conns[7].rest().is_empty());
    drop(conns);
    holds(&server, before);
    server.stop();
}
