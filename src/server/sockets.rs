//! The doors' sockets, bound with care: no second server, no stale file, no port that is open to
//! the network by accident.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::settings::{check_makeshift, is_makeshift};
use crate::api::auth::Auth;
use crate::error::Error;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;

/// Binds the TCP port.
pub fn tcp(listen: &str, auth: &Auth) -> Result<(OwnedFd, SocketAddr), Error> {
    let fail = |cause: &dyn std::fmt::Display| Error::doing("listen on", listen, cause);
    let addresses: Vec<SocketAddr> =
        listen.to_socket_addrs().map_err(|error| fail(&error))?.collect();
    check_closed(listen, &addresses, auth)?;
    let listener = TcpListener::bind(&addresses[..]).map_err(|error| fail(&error))?;
    let set_up = || {
        listener.set_nonblocking(true)?;
        // Accepted sockets inherit it: replies go out at once.
        rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.local_addr()
    };
    let address = set_up().map_err(|error| fail(&error))?;
    Ok((listener.into(), address))
}

/// Nobody but this machine reaches a server that asks for no credentials.
fn check_closed(listen: &str, addresses: &[SocketAddr], auth: &Auth) -> Result<(), Error> {
    let local = addresses.iter().all(|address| address.ip().is_loopback());
    let closed = matches!(auth, Auth::Credentials(credentials) if !credentials.is_empty());
    if local || closed {
        return Ok(());
    }
    Err(Error::usage(format!(
        "listen on {listen}: not a loopback address, and there are no credentials: set keys or \
         a token in [auth], or listen on 127.0.0.1"
    )))
}

/// The address of a TCP socket that another server has bound. It is not bound anew: another address
/// in the settings waits for a restart.
pub fn tcp_of(socket: &OwnedFd, listen: &str, auth: &Auth) -> Result<SocketAddr, Error> {
    let fail = |cause: &dyn std::fmt::Display| Error::doing("listen on", listen, cause);
    let address = rustix::net::getsockname(socket).map_err(|error| fail(&error))?;
    let address = SocketAddr::try_from(address).map_err(|error| fail(&error))?;
    check_closed(&address.to_string(), &[address], auth)?;
    let mut wanted = listen.to_socket_addrs().map_err(|error| fail(&error))?;
    let is_same = |wanted: SocketAddr| {
        wanted.ip() == address.ip() && [0, address.port()].contains(&wanted.port())
    };
    if !wanted.any(is_same) {
        log::warn!("listen on {listen}: not before a restart, until then on {address}");
    }
    Ok(address)
}

/// The path of a Unix socket that another server has bound; as with [`tcp_of`].
pub fn unix_of(socket: &OwnedFd, path: &Path) -> Result<PathBuf, Error> {
    let fail =
        |cause: &dyn std::fmt::Display| Error::doing("listen on socket", path.display(), cause);
    let address = rustix::net::getsockname(socket).map_err(|error| fail(&error))?;
    let address = SocketAddrUnix::try_from(address).map_err(|error| fail(&error))?;
    let bound = address.path_bytes().ok_or_else(|| fail(&"the socket has no path"))?;
    let bound = PathBuf::from(std::ffi::OsStr::from_bytes(bound));
    if bound != path {
        log::warn!(
            "socket {}: not before a restart, until then {}",
            path.display(),
            bound.display()
        );
    }
    Ok(bound)
}

/// How often, and how far apart, a socket is tried again that seems to have a server.
const LEFT_TRIES: u32 = 20;
const LEFT_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Binds the Unix socket: mode 0660, and group `hob` where there is such a group.
pub fn unix(path: &Path) -> Result<OwnedFd, Error> {
    let fail =
        |cause: &dyn std::fmt::Display| Error::doing("listen on socket", path.display(), cause);
    if let Some(directory) = path.parent()
        && !directory.exists()
    {
        let mode = if is_makeshift(path) { 0o700 } else { 0o750 };
        let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(directory);
        made.map_err(|error| fail(&error))?;
    }
    check_makeshift(path).map_err(|error| fail(&error))?;
    // A socket that nobody listens on is the rest of a server that was killed.
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(fail(&"there is a file that is no socket"));
        }
        let mut tries = 0;
        loop {
            match UnixStream::connect(path) {
                // A worker that such a server was just starting has its sockets until its exec.
                Ok(_) if tries < LEFT_TRIES => std::thread::sleep(LEFT_PAUSE),
                Ok(_) => return Err(fail(&"another server listens on it")),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
                Err(error) => return Err(fail(&error)),
            }
            tries += 1;
        }
        std::fs::remove_file(path).map_err(|error| fail(&error))?;
    }
    let bind = || -> std::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Before it listens, so that nobody gets in meanwhile.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        if let Some(group) = group_id("hob") {
            std::os::unix::fs::chown(path, None, Some(group))?;
        }
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    bind().map_err(|error| fail(&error))
}

/// The number of a group of this machine.
fn group_id(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_taken_over_once_its_last_owner_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hob.sock");
        let left = UnixListener::bind(&path).expect("it is free");
        // It goes after it was found in use.
        let owner = std::thread::spawn(move || left.accept().map(drop));
        unix(&path).expect("nobody has it any more");
        owner.join().expect("it ends").expect("it was tried");
    }

    #[test]
    fn a_socket_with_a_server_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hob.sock");
        let _server = UnixListener::bind(&path).expect("it is free");
        let error = unix(&path).expect_err("it is in use");
        assert!(error.message.ends_with("another server listens on it"), "{}", error.message);
        UnixStream::connect(&path).expect("it is still there");
    }
}
