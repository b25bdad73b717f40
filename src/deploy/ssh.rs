//! The user's `ssh` as a child: one connection that all commands share, so that a password is
//! asked for once.

use std::fs::{DirBuilder, symlink_metadata};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::look::plain;
use super::target::Host;

/// The program that runs on the board.
const PROGRAM: &str = concat!(include_str!("board.sh"), include_str!("install.sh"));
/// What the first command says when the connection is there. A login may print before it.
const READY: &str = "hob-ready";
/// Bytes that a command may say; a board is not trusted.
const OUTPUT_MAX: u64 = 256 * 1024;

/// Why a command did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The connection is gone, or never came.
    Link(String),
    /// The board said no.
    Board(String),
}

/// A connection.
pub struct Ssh {
    /// The socket of the connection, which ssh makes and takes away.
    socket: PathBuf,
    host: Host,
    master: Child,
}

impl Ssh {
    /// Connects.
    pub fn open(host: &Host) -> Result<Ssh, Trouble> {
        let link = |error: io::Error| Trouble::Link(format!("run ssh: {error}"));
        let socket = sockets().map_err(link)?.join(format!("{:016x}", fastrand::u64(..)));
        let mut command = command(host, &socket);
        // A dead link is noticed within a quarter of a minute.
        for option in ["ControlMaster=yes", "ControlPersist=no", "ConnectTimeout=15"] {
            command.args(["-o", option]);
        }
        if !io::stdin().is_terminal() {
            command.args(["-o", "BatchMode=yes"]);
        }
        command.arg(&host.destination).arg(format!("echo {READY}; exec cat"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let master = command.spawn().map_err(link)?;
        let mut ssh = Ssh { socket, host: host.clone(), master };
        let errors = drain(ssh.master.stderr.take());
        if ssh.is_ready() {
            return Ok(ssh);
        }
        let _ = ssh.master.kill();
        let _ = ssh.master.wait();
        let said = errors.join().unwrap_or_default();
        Err(Trouble::Link(last_line(&said).unwrap_or_else(|| "no shell answers".to_owned())))
    }

    fn is_ready(&mut self) -> bool {
        let Some(out) = self.master.stdout.as_mut() else { return false };
        let mut said = Vec::new();
        let mut byte = [0];
        while said.len() < 64 * 1024 && out.read_exact(&mut byte).is_ok() {
            said.push(byte[0]);
            if byte[0] == b'\n' && said.ends_with(format!("{READY}\n").as_bytes()) {
                return true;
            }
        }
        false
    }

    /// Runs a verb of the board's program, with these bytes as its input; what it printed.
    /// Arguments are words; one with anything in it that a shell would read is left out.
    pub fn call(&self, arguments: &[&str], input: &[u8]) -> Result<String, Trouble> {
        let word =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b));
        let arguments: Vec<&str> = arguments.iter().copied().filter(|text| word(text)).collect();
        // The program comes first on standard input, byte by byte so that no more is taken.
        let remote = format!(
            "exec sh -c 'program=$(dd bs=1 count={} 2>/dev/null); eval \"$program\"' hob {}",
            PROGRAM.len(),
            arguments.join(" ")
        );
        let mut command = command(&self.host, &self.socket);
        command.args(["-o", "ControlMaster=no", "-o", "BatchMode=yes"]);
        command.arg(&self.host.destination).arg(remote);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let link = |error: io::Error| Trouble::Link(format!("run ssh: {error}"));
        let mut child = command.spawn().map_err(link)?;
        let output = drain(child.stdout.take());
        let errors = drain(child.stderr.take());
        // A board that has seen enough closes early; its answer says why.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(PROGRAM.as_bytes()).and_then(|()| stdin.write_all(input));
        }
        let status = child.wait().map_err(link)?;
        let output = output.join().unwrap_or_default();
        let said = last_line(&errors.join().unwrap_or_default());
        match status.code() {
            Some(0) => Ok(output),
            // What ssh itself ends with.
            Some(255) | None => {
                Err(Trouble::Link(said.unwrap_or_else(|| "the connection was lost".to_owned())))
            }
            Some(code) => Err(Trouble::Board(said.unwrap_or_else(|| format!("exit code {code}")))),
        }
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.master.kill();
        let _ = self.master.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// This user's directory for the sockets of connections. It stays: a deployment that is killed could not
/// take it away, and its ssh, which ends with it, takes the socket.
fn sockets() -> io::Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let directory = std::env::temp_dir().join(format!("hob-ssh-{uid}"));
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map(|()| directory),
    }
    // Anybody may have made it first.
    let found = symlink_metadata(&directory)?;
    if found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0 {
        return Ok(directory);
    }
    let said = format!("{} is not a private directory of this user", directory.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, said))
}

fn command(host: &Host, socket: &Path) -> Command {
    let program = std::env::var_os("HOB_SSH").filter(|path| !path.is_empty());
    let mut command = Command::new(program.unwrap_or_else(|| "ssh".into()));
    command.arg("-T").arg("-o").arg(format!("ControlPath={}", socket.display()));
    command.args(["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]);
    if let Some(port) = host.port {
        command.arg("-p").arg(port.to_string());
    }
    command
}

/// Reads all that comes, and keeps the beginning of it.
fn drain(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut from) = from {
            let _ = (&mut from).take(OUTPUT_MAX).read_to_end(&mut kept);
            let _ = io::copy(&mut from, &mut io::sink());
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn last_line(text: &str) -> Option<String> {
    text.lines().map(plain).rfind(|line| !line.is_empty())
}
