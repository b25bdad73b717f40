//! A server that has nothing to do.

use std::fs;

use crate::common::{Server, Site, eventually};

/// A start goes ten times as deep, without optimization.
const STACK_KIB_MAX: u64 = 64;

/// What is in memory of the stack of the server's first thread, in KiB.
fn stack_kib(server: &Server) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/smaps", server.pid())).unwrap();
    let (_, stack) = maps.split_once("[stack]").unwrap();
    let resident = stack.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    resident.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn it_gives_back_what_its_start_took_of_the_stack() {
    let site = Site::new();
    site.native("demo", "", "");
    let server = site.serve(&[]);
    eventually("the stack is given back", || (stack_kib(&server) <= STACK_KIB_MAX).then_some(()));
    server.ok("demo", "{\"n\":1}");
    server.stop();
}
