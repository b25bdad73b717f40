//! Connections on a reactor of their own, with deadlines that a test can wait for.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use smol::LocalExecutor;

use super::connection::Broken;
use super::listener::{Limits, Peers};
use super::reply::{Opening, ReplyHead};
use super::{Connection, Listener, Method};
use crate::io::{Buffers, Reactor, Text};
use crate::limits::{BUFFER_SIZE, PAYLOAD_MAX, TURN_BYTES};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n";
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Long enough that nothing is ended in a test.
const LONG_MS: u32 = 1_000_000;

/// A server that gives the same reply to every request, and counts them.
struct Site {
    reactor: Rc<Reactor>,
    executor: Rc<LocalExecutor<'static>>,
    peers: Rc<Peers>,
    served: Rc<Cell<usize>>,
    address: SocketAddr,
}

impl Site {
    fn new(head_ms: u32, idle_ms: u32) -> Site {
        let reactor = Reactor::new().expect("a reactor");
        let executor = Rc::new(LocalExecutor::new());
        let limits = Limits { connections: 4, head_max: 64 * 1024, head_ms, idle_ms, modest: true };
        let peers = Peers::new(&reactor, &Buffers::new(1 << 20), limits);
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        socket.set_nonblocking(true).expect("non-blocking");
        let address = socket.local_addr().expect("an address");
        let listener = Listener::new(&reactor, socket.into(), &peers).expect("a listener");
        let served = Rc::new(Cell::new(0));
        let (tasks, count) = (Rc::clone(&executor), Rc::clone(&served));
        let accept = async move {
            listener.run(&tasks, |connection| serve(connection, Rc::clone(&count))).await;
        };
        executor.spawn(accept).detach();
        Site { reactor, executor, peers, served, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        stream
    }

    /// Serves until `client`, on a thread of its own, is done; `look` has its turn like any other
    /// task, again and again.
    fn serve_while(
        &self,
        client: impl FnOnce() + Send + 'static,
        mut look: impl FnMut() + 'static,
    ) {
        let thread = std::thread::spawn(client);
        let main = async move {
            while !thread.is_finished() {
                look();
                smol::future::yield_now().await;
            }
            thread.join().expect("the client is content");
        };
        self.reactor.run(&self.executor, main).expect("it runs");
    }
}

/// Counts requests, the bytes of bodies that were taken piece by piece, and the pieces of replies
/// that have no end.
async fn serve(mut connection: Connection, served: Rc<Cell<usize>>) {
    while let Ok(head) = connection.head().await {
        if head.method == Method::Put {
            let mut pieces = connection.pieces(&head, usize::MAX).await.expect("taken");
            while let Ok(Some(piece)) = pieces.next(&mut connection).await {
                served.set(served.get() + piece.len());
            }
        }
        if head.method == Method::Patch {
            let reply = connection.begin_reply(connection.reply(200), &head).await.expect("begun");
            while reply.send([&[b'x'; 1000], b"", b""]).await.is_ok() {
                served.set(served.get() + 1);
            }
            return;
        }
        if let (Method::Post, Err(Broken::Refused(refused))) =
            (head.method, connection.body(&head, PAYLOAD_MAX).await)
        {
            return connection.refuse(refused).await;
        }
        if !connection.discard(&head).await {
            return;
        }
        served.set(served.get() + 1);
        if connection
            .send(ReplyHead::new(Text::default(), 200, &Opening::default(), 0).body(0), b"")
            .await
            .is_err()
        {
            return;
        }
    }
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    stream.read_exact(&mut found).expect("a reply");
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(bytes));
}

/// Waits for the end, which comes long before the client's own patience is over.
fn expect_end(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 1]).expect("an end"), 0);
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_given_up() {
    let site = Site::new(50, LONG_MS);
    // Alone, behind a request, and behind one in the same write.
    let starts = [b"GET".to_vec(), REQUEST.to_vec(), [REQUEST, b"GET / HTTP/1.1\r\nHo"].concat()];
    let streams: Vec<TcpStream> = starts.iter().map(|_| site.connect()).collect();
    let client = move || {
        for (n, (mut stream, start)) in streams.into_iter().zip(&starts).enumerate() {
            stream.write_all(start).expect("sent");
            if n > 0 {
                expect(&mut stream, REPLY);
            }
            if n == 1 {
                stream.write_all(b"GET").expect("sent");
            }
            expect_end(&mut stream);
        }
    };
    site.serve_while(client, || {});
    assert_eq!(site.served.get(), 2);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let site = Site::new(50, LONG_MS);
    let mut stream = site.connect();
    let client = move || {
        let post = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n12345";
        stream.write_all(post).expect("sent");
        expect_end(&mut stream);
    };
    site.serve_while(client, || {});
    assert_eq!(site.served.get(), 0);
}

#[test]
fn a_connection_that_idles_for_too_long_is_ended() {
    let site = Site::new(LONG_MS, 50);
    let (mut silent, mut used) = (site.connect(), site.connect());
    let client = move || {
        used.write_all(REQUEST).expect("sent");
        expect(&mut used, REPLY);
        expect_end(&mut used);
        expect_end(&mut silent);
    };
    site.serve_while(client, || {});
}

#[test]
fn a_request_that_just_fills_the_buffer_leaves_the_connection_idle() {
    let site = Site::new(LONG_MS, LONG_MS);
    let mut stream = site.connect();
    let mut request = REQUEST[..REQUEST.len() - 2].to_vec();
    request.extend(b"X: ");
    request.resize(BUFFER_SIZE - 4, b'x');
    request.extend(b"\r\n\r\n");
    stream.write_all(&request).expect("sent");
    let client = move || {
        expect(&mut stream, REPLY);
        expect_end(&mut stream);
    };
    let (peers, served) = (Rc::clone(&site.peers), Rc::clone(&site.served));
    let turns = Cell::new(0);
    site.serve_while(client, move || {
        // Some turns later the connection is where it stays.
        turns.set(turns.get() + served.get());
        if turns.get() == 100 {
            peers.end_all_idle();
        }
    });
}

#[test]
fn who_sends_many_requests_ahead_takes_turns_with_the_others() {
    const MANY: usize = 500;
    let site = Site::new(LONG_MS, LONG_MS);
    let mut stream = site.connect();
    stream.write_all(&REQUEST.repeat(MANY)).expect("sent");
    let client = move || expect(&mut stream, &REPLY.repeat(MANY));
    let (served, seen) = (Rc::clone(&site.served), Cell::new(0));
    let most = Rc::new(Cell::new(0));
    let found = Rc::clone(&most);
    site.serve_while(client, move || {
        found.set(found.get().max(served.get() - seen.replace(served.get())));
    });
    assert_eq!(site.served.get(), MANY);
    assert!(most.get() <= 2, "{} requests in one turn", most.get());
}

#[test]
fn who_sends_without_a_pause_takes_turns_with_the_others() {
    const LENGTH: usize = 40_000_000;
    let site = Site::new(LONG_MS, LONG_MS);
    let mut stream = site.connect();
    stream
        .write_all(format!("PUT / HTTP/1.0\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes())
        .expect("sent");
    let client = move || {
        stream.write_all(&vec![b'x'; LENGTH]).expect("sent");
        expect(&mut stream, REPLY);
    };
    let (served, seen) = (Rc::clone(&site.served), Cell::new(0));
    let most = Rc::new(Cell::new(0));
    let found = Rc::clone(&most);
    site.serve_while(client, move || {
        found.set(found.get().max(served.get() - seen.replace(served.get())));
    });
    assert_eq!(site.served.get(), LENGTH + 1);
    assert!(most.get() <= TURN_BYTES as usize + 64 * 1024, "{} bytes in one turn", most.get());
}

#[test]
fn a_large_body_that_comes_slowly_leaves_room_to_others() {
    const SLOW: usize = 700_000;
    let site = Site::new(LONG_MS, LONG_MS);
    let mut slow = site.connect();
    let (mut small, mut large, mut none) = (site.connect(), site.connect(), site.connect());
    let post = |length| format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n");
    let (tell, told) = std::sync::mpsc::channel();
    let client = move || {
        slow.write_all(post(SLOW).as_bytes()).expect("sent");
        slow.write_all(&vec![b'x'; SLOW - 1]).expect("sent");
        told.recv().expect("most of it is there");
        none.write_all(REQUEST).expect("sent");
        expect(&mut none, REPLY);
        small.write_all(post(50_000).as_bytes()).expect("sent");
        small.write_all(&[b'x'; 50_000]).expect("sent");
        expect(&mut small, REPLY);
        // It is told before it sends anything.
        large.write_all(post(100_000).as_bytes()).expect("sent");
        large.shutdown(Shutdown::Write).expect("shut down");
        let mut reply = String::new();
        large.read_to_string(&mut reply).expect("an end");
        assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("\r\nRetry-After: 1\r\n"));
        slow.write_all(b"x").expect("sent");
        expect(&mut slow, REPLY);
    };
    let peers = Rc::clone(&site.peers);
    site.serve_while(client, move || {
        if peers.buffers.in_use() >= SLOW {
            let _ = tell.send(());
        }
    });
}

#[test]
fn who_does_not_take_a_reply_in_pieces_is_given_up() {
    let site = Site::new(50, LONG_MS);
    let mut stream = site.connect();
    stream.write_all(b"PATCH / HTTP/1.1\r\nHost: t\r\n\r\n").expect("sent");
    let (tell, told) = std::sync::mpsc::channel();
    let client = move || {
        told.recv().expect("it is given up");
        // What was on its way arrives, and no end of the reply.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.starts_with(b"HTTP/1.1 200 ") && !rest.ends_with(b"0\r\n\r\n"));
    };
    let (peers, served) = (Rc::clone(&site.peers), Rc::clone(&site.served));
    site.serve_while(client, move || {
        if served.get() > 0 && peers.count() == 0 {
            let _ = tell.send(());
        }
    });
}

#[test]
fn as_many_as_allowed_and_the_longest_idle_goes_first() {
    let site = Site::new(LONG_MS, LONG_MS);
    let mut streams: Vec<TcpStream> = (0..4).map(|_| site.connect()).collect();
    let address = site.address;
    let client = move || {
        for stream in &mut streams {
            stream.write_all(REQUEST).expect("sent");
            expect(stream, REPLY);
        }
        // The first one is the longest idle, until it is used again.
        streams[0].write_all(REQUEST).expect("sent");
        expect(&mut streams[0], REPLY);
        let mut fifth = TcpStream::connect(address).expect("connected");
        fifth.write_all(REQUEST).expect("sent");
        expect(&mut fifth, REPLY);
        expect_end(&mut streams[1]);
        for n in [0, 2, 3] {
            streams[n].write_all(REQUEST).expect("sent");
            expect(&mut streams[n], REPLY);
        }
    };
    let (peers, most) = (Rc::clone(&site.peers), Rc::new(Cell::new(0)));
    let found = Rc::clone(&most);
    site.serve_while(client, move || found.set(found.get().max(peers.count())));
    assert!(most.get() <= 5, "{} connections at one time", most.get());
}
