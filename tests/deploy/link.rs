//! Links that break: in the upload, and before the confirmation; and a disk that fills up.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::binaries::{name_of, version};
use super::board::patiently;
use super::board::{Make, Sshd};
use super::common::{Ran, seeds};

/// Stands between `ssh` and the board: cuts connections after so many bytes, or altogether.
struct Cutter {
    port: u16,
    /// How many connections were cut.
    cuts: Arc<Mutex<usize>>,
    dead: Arc<AtomicBool>,
}

impl Cutter {
    /// The first connections are cut after these numbers of bytes.
    fn new(to: u16, mut after: Vec<u64>) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cuts = Arc::new(Mutex::new(0));
        let dead = Arc::new(AtomicBool::new(false));
        let (cuts_made, is_dead) = (Arc::clone(&cuts), Arc::clone(&dead));
        after.reverse();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_dead.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let limit = after.pop();
                let (from, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let cuts = Arc::clone(&cuts_made);
                let (one, other) = (Arc::clone(&is_dead), Arc::clone(&is_dead));
                std::thread::spawn(move || {
                    if pass(from, server, limit.unwrap_or(u64::MAX), &one) {
                        *cuts.lock().unwrap() += 1;
                    }
                });
                std::thread::spawn(move || pass(back, client, u64::MAX, &other));
            }
        });
        Cutter { port, cuts, dead }
    }

    fn address(&self) -> String {
        format!("root@127.0.0.1:{}", self.port)
    }
}

/// Copies until the end, or the limit; true if that was it.
fn pass(mut from: TcpStream, mut to: TcpStream, mut left: u64, dead: &AtomicBool) -> bool {
    let mut buffer = [0; 8192];
    from.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    while left > 0 && !dead.load(Ordering::SeqCst) {
        let most = usize::try_from(left.min(8192)).unwrap();
        match from.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(n) if to.write_all(&buffer[..n]).is_ok() => left -= n as u64,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    left == 0
}

#[test]
fn an_upload_goes_on_where_the_link_broke() {
    seeds::run("DEPLOY_SEED", "deploy", 2, |seed| {
        let mut rng = seeds::Rng::new(seed);
        let binary = version("one");
        let size = fs::metadata(&binary).unwrap().len();
        let board = Make::new(Sshd::Dropbear, &[]).start();
        // Beyond what the exchange of keys takes, so that each cut is within the upload.
        let after = (0..3).map(|_| rng.between(100_000, size / 4)).collect();
        let cutter = Cutter::new(board.port, after);
        let address = cutter.address();
        let arguments = ["--binary", binary.to_str().unwrap(), &address];
        let ran = Ran::of(&mut board.command_to(&arguments));
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        assert_eq!(*cutter.cuts.lock().unwrap(), 3, "{}", ran.err);
        assert!(ran.err.contains("the link broke"), "{}", ran.err);
        assert_eq!(board.current(), Some(name_of(&binary)));
        assert!(board.serves());
    });
}

#[test]
fn a_link_that_drops_before_the_confirmation_takes_the_board_back() {
    let board = Make::new(Sshd::Dropbear, &[]).start();
    let (one, two) = (version("one"), version("two"));
    assert_eq!(board.deploy(&one, &[]).code, 0);
    let cutter = Cutter::new(board.port, Vec::new());
    let address = cutter.address();
    let arguments = ["--binary", two.to_str().unwrap(), "--confirm-timeout", "2", &address];
    let mut command = board.command_to(&arguments);
    let mut deploy = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    patiently("the board has begun", || board.outcome().contains(" running ").then_some(()));
    cutter.dead.store(true, Ordering::SeqCst);
    let why = format!("rolled back to {}: the deployer did not confirm it in 2 s", name_of(&one));
    patiently("the board is back", || board.outcome().contains(&why).then_some(()));
    assert_eq!(board.current(), Some(name_of(&one)));
    assert!(board.serves());
    // It cannot know what became of it, and says so.
    assert_eq!(deploy.wait().unwrap().code(), Some(3));
}

#[test]
fn a_disk_that_fills_up_meanwhile() {
    let binary = version("one");
    let size = fs::metadata(&binary).unwrap().len();
    let room = size / 1024 + 2048;
    let mount = format!("mount -t tmpfs -o size={room}k none $R/usr/local");
    let board = Make::new(Sshd::Dropbear, &[]).mount(&mount).start();
    // The first link breaks in the upload; then somebody else takes the space.
    let cutter = Cutter::new(board.port, vec![size / 2]);
    let address = cutter.address();
    let arguments = ["--binary", binary.to_str().unwrap(), &address];
    let mut command = board.command_to(&arguments);
    let deploy = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    patiently("it was cut", || (*cutter.cuts.lock().unwrap() == 1).then_some(()));
    board.sh("dd if=/dev/zero of=/usr/local/fill bs=1024k");
    let output = deploy.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the disk may be full"), "{said}");
    let left = board.sh("find /usr/local/lib/hob -type f -name 'hob*'").out;
    assert_eq!(left, "", "what was uploaded makes room");
}

#[test]
fn a_deployment_that_is_killed_leaves_nothing_here() {
    let board = Make::new(Sshd::OpenSsh, &[]).start();
    let place = tempfile::tempdir().unwrap();
    let binary = version("one");
    let mut deploy = board.command(&["--binary", binary.to_str().unwrap()]);
    deploy.env("TMPDIR", place.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut killed = deploy.spawn().unwrap();
    let uid = rustix::process::getuid().as_raw();
    let sockets = place.path().join(format!("hob-ssh-{uid}"));
    let open = || fs::read_dir(&sockets).map_or(0, Iterator::count);
    patiently("it is connected", || (open() > 0).then_some(()));
    killed.kill().unwrap();
    killed.wait().unwrap();
    patiently("its connection has ended", || (open() == 0).then_some(()));

    // What others may read, others may have made.
    fs::set_permissions(&sockets, Permissions::from_mode(0o755)).unwrap();
    let ran = Ran::of(deploy.stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("is not a private directory of this user"), "{}", ran.out);
}
