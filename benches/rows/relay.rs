//! A bare relay between callers and workers, beside which a host's own share is seen.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::Bench;
use crate::http::Conn;
use crate::load::{Load, load};
use crate::server::EVENT;

/// How a worker of the relay is reached.
#[derive(Clone, Copy)]
pub enum Way {
    /// Not at all: the relay answers.
    None,
    /// By hob's wire.
    Native,
    /// By the Runtime API.
    Provided,
}

impl Way {
    pub fn path(self) -> &'static str {
        match self {
            Way::None => "/0",
            Way::Native => "/n",
            Way::Provided => "/p",
        }
    }
}

/// It, with its workers.
pub struct Relay {
    child: Child,
    pub address: String,
}

impl Relay {
    /// One that has so many workers of each kind.
    pub fn start(bench: &Bench, workers: usize) -> Relay {
        let mut child = Command::new(bench.tool("relay"))
            .arg(workers.to_string())
            .args([bench.tool("echo"), bench.tool("poll")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let relay = Relay { child, address: address.trim().to_owned() };
        for (way, body) in [(Way::None, &b"ok"[..]), (Way::Native, EVENT), (Way::Provided, EVENT)] {
            assert_eq!(Conn::tcp(&relay.address).post(way.path(), &[], EVENT).body, body);
        }
        relay
    }

    /// A load of `count` events.
    pub fn load(&self, clients: usize, count: usize, way: Way) -> Load {
        let length = EVENT.len();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n",
            way.path()
        );
        let load = load(&self.address, clients, count, &[head.as_bytes(), EVENT].concat());
        assert!(load.refused.is_empty());
        load
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Its workers go with it.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
