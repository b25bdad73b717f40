//! Load that costs less than what it asks: one thread, and all connections by events.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::thread::CpuSet;

use crate::http::invocations;
use crate::median_p99;

/// What became of a load.
pub struct Load {
    /// Requests that were answered 200.
    pub good: usize,
    /// What every other answer took, in milliseconds.
    pub refused: Vec<f64>,
    pub seconds: f64,
}

impl Load {
    /// Good answers a second.
    pub fn rate(&self) -> f64 {
        self.good as f64 / self.seconds
    }
}

/// An invocation, as it is sent.
pub fn invocation(function: &str, event: &[u8]) -> Vec<u8> {
    let (path, length) = (invocations(function), event.len());
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), event].concat()
}

/// Sends a request to an address until it was answered 200 `count` times, over so many connections, each of
/// which sends its next one once the last was answered: all are busy until the requests are used up.
pub fn load(address: &str, clients: usize, count: usize, request: &[u8]) -> Load {
    std::thread::scope(|scope| {
        let run = || {
            elsewhere();
            Clients::connect(address, clients, request).run(count)
        };
        scope.spawn(run).join().unwrap()
    })
}

/// What a load reached, in good answers a second at the median.
pub struct Rate {
    pub rate: f64,
    /// Beside the last of those that were run in turns with it.
    pub part: f64,
}

pub const ROUNDS: usize = 20;

/// Runs loads in turns, in short rounds: a machine that changes its speed does so for all of a round,
/// so that it is within rounds that they are compared.
pub fn in_turns<const N: usize>(run: [&dyn Fn() -> Load; N]) -> [Rate; N] {
    let mut rates = [const { Vec::new() }; N];
    let mut parts = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        let round = run.map(|run| run().rate());
        for (number, rate) in round.into_iter().enumerate() {
            rates[number].push(rate);
            parts[number].push(rate / round[N - 1]);
        }
    }
    std::array::from_fn(|number| Rate {
        rate: median_p99(&mut rates[number]).0,
        part: median_p99(&mut parts[number]).0,
    })
}

/// Has this thread run on the core that load comes from, which the script says: another one than the
/// server's and its workers', if there is one.
fn elsewhere() {
    let Ok(core) = std::env::var("LOAD_CORE") else { return };
    let mut cores = CpuSet::new();
    cores.set(core.parse().unwrap());
    rustix::thread::sched_setaffinity(None, &cores).unwrap();
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

struct Client {
    stream: TcpStream,
    /// What has come of the reply.
    reply: Vec<u8>,
    begun: Instant,
}

struct Clients<'a> {
    epoll: std::os::fd::OwnedFd,
    all: Vec<Client>,
    request: &'a [u8],
}

impl Clients<'_> {
    fn connect<'a>(address: &str, clients: usize, request: &'a [u8]) -> Clients<'a> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let connect = |number: usize| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            let data = epoll::EventData::new_u64(number.try_into().unwrap());
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN).unwrap();
            Client { stream, reply: Vec::new(), begun: Instant::now() }
        };
        let all = (0..clients).map(connect).collect();
        Clients { epoll, all, request }
    }

    fn run(&mut self, count: usize) -> Load {
        let begun = Instant::now();
        let mut load = Load { good: 0, refused: Vec::new(), seconds: 0.0 };
        let mut sent = count.min(self.all.len());
        self.all.iter_mut().take(sent).for_each(|client| client.send(self.request));
        let mut events = Vec::with_capacity(self.all.len());
        let timeout = PATIENCE.try_into().unwrap();
        while load.good < count {
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))
                .unwrap();
            assert!(!events.is_empty(), "no answer within {PATIENCE:?}");
            for event in &events {
                let client = &mut self.all[usize::try_from(event.data.u64()).unwrap()];
                let Some(status) = client.read() else { continue };
                if status == 200 {
                    load.good += 1;
                } else {
                    load.refused.push(client.begun.elapsed().as_secs_f64() * 1e3);
                    sent -= 1;
                }
                if sent < count {
                    sent += 1;
                    client.send(self.request);
                }
            }
        }
        load.seconds = begun.elapsed().as_secs_f64();
        load
    }
}

impl Client {
    fn send(&mut self, request: &[u8]) {
        self.reply.clear();
        self.begun = Instant::now();
        self.stream.write_all(request).unwrap();
    }

    /// Reads what is there; the status of the reply once all of it has come.
    fn read(&mut self) -> Option<u16> {
        let mut piece = [0; 16 * 1024];
        let length = self.stream.read(&mut piece).unwrap();
        assert!(length > 0, "the connection ended instead of a reply");
        self.reply.extend_from_slice(&piece[..length]);
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(at) = head.parse(&self.reply).unwrap() else { return None };
        let length = head.headers.iter().find(|f| f.name.eq_ignore_ascii_case("content-length"));
        let length = std::str::from_utf8(length.expect("a length").value).unwrap();
        let whole = self.reply.len() >= at + length.parse::<usize>().unwrap();
        whole.then(|| head.code.unwrap())
    }
}
