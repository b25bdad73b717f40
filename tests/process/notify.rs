//! What systemd is told, by the server and by its successor.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Ran, Site, eventually, exists, serve_command};

crate::both_reapers![systemd_hears_who_serves_and_that_it_lives, only_a_server_has_a_successor,];

/// The next message that says something else than the last one did.
fn heard(socket: &UnixDatagram, known: &[String]) -> String {
    let mut space = [0; 256];
    loop {
        let length = match socket.recv(&mut space) {
            // A wait with a limit ends with whatever stops this process for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            received => received.unwrap(),
        };
        let message = String::from_utf8_lossy(&space[..length]).trim().to_owned();
        if !known.contains(&message) {
            return message;
        }
    }
}

fn systemd_hears_who_serves_and_that_it_lives(reaper: &[&str]) {
    let site = Site::new();
    let path = site.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = serve_command(site.path(), reaper);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000").stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let alive = "WATCHDOG=1".to_owned();
    assert_eq!(heard(&socket, &[]), "READY=1");
    // More than once.
    assert_eq!([heard(&socket, &[]), heard(&socket, &[])], [&*alive, &*alive]);
    let pid = |id: u32| Pid::from_raw(id.try_into().unwrap()).unwrap();
    kill_process(pid(server.id()), Signal::USR2).unwrap();
    // The successor and its predecessor speak at the same time.
    let mut both = [heard(&socket, std::slice::from_ref(&alive)), String::new()];
    both[1] = heard(&socket, &[alive.clone(), both[0].clone()]);
    both.sort();
    assert_eq!(both[1], "READY=1");
    let named = both[0].strip_prefix("MAINPID=").unwrap().strip_suffix("\nSTATUS=").unwrap();
    let successor: u32 = named.parse().unwrap();
    assert!(successor != server.id());
    assert!(server.wait().unwrap().success());
    assert_eq!([heard(&socket, &[]), heard(&socket, &[])], [&*alive, &*alive]);
    kill_process(pid(successor), Signal::TERM).unwrap();
    assert_eq!(heard(&socket, &[alive]), "STOPPING=1");
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{successor}/stat")).unwrap_or_default();
        (!exists(successor.into()) || state.contains(") Z ")).then_some(())
    };
    eventually("the successor is gone", gone);
}

fn only_a_server_has_a_successor(reaper: &[&str]) {
    let site = Site::new();
    for (pid, why) in [("1", "descriptor 3"), ("x", "\"x\" is no process id")] {
        let mut command = serve_command(site.path(), reaper);
        let ran = Ran::of(command.env("HOB_PREDECESSOR", pid));
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains(why), "{}", ran.err);
    }
    assert!(!site.path().join("data").exists(), "nothing was touched");
}
