//! The reactor with real descriptors and a real clock.

use std::io::Write;
use std::os::unix::net::UnixStream;

use super::*;

/// Two ends of a stream: one to write to, the other looked at.
fn watched(reactor: &Rc<Reactor>) -> (UnixStream, Io<UnixStream>) {
    let (here, there) = UnixStream::pair().expect("a pair");
    there.set_nonblocking(true).expect("set");
    (here, Io::new(reactor, there).expect("registered"))
}

#[test]
fn who_gives_way_lets_descriptors_be_looked_at() {
    let reactor = Reactor::new().expect("a reactor");
    let (mut here, io) = watched(&reactor);
    here.write_all(b"x").expect("written");
    let turns = Cell::new(0);
    let executor = LocalExecutor::new();
    let read = async {
        io.ready(Interest::Read).await;
        turns.get()
    };
    let busy = async {
        loop {
            turns.set(turns.get() + 1);
            reactor.give_way().await;
        }
    };
    let seen = reactor.run(&executor, smol::future::or(read, busy)).expect("it runs");
    assert!(seen <= 2, "seen after {seen} turns");
}

#[test]
fn a_rest_comes_once_in_a_quiet_and_no_timer_early() {
    let reactor = Reactor::new().expect("a reactor");
    let rests = Rc::new(Cell::new(0));
    let counted = Rc::clone(&rests);
    reactor.when_quiet(20, move || counted.set(counted.get() + 1));
    let executor = LocalExecutor::new();
    let waits = async {
        let begin = reactor.now();
        reactor.sleep_ms(15).await;
        let short = rests.get();
        reactor.sleep_ms(300).await;
        let long = rests.get();
        let woken = reactor.now();
        reactor.sleep_ms(300).await;
        assert!(woken >= begin.after_ms(315), "{} us", woken.micros_since(begin));
        [short, long, rests.get()]
    };
    assert_eq!(reactor.run(&executor, waits).expect("it runs"), [0, 1, 2]);
}

#[test]
fn an_alarm_that_has_rung_is_heard_though_it_is_set_anew() {
    let reactor = Reactor::new().expect("a reactor");
    let (mut here, io) = watched(&reactor);
    let executor = LocalExecutor::new();
    // One look at the descriptors wakes both, and who is told of a descriptor comes first.
    here.write_all(b"x").expect("written");
    reactor.set_alarm(Some(reactor.now()));
    let moves = async {
        io.ready(Interest::Read).await;
        reactor.set_alarm(Some(reactor.now().after_ms(60_000)));
        std::future::pending().await
    };
    let hears = async {
        reactor.alarm().await;
        true
    };
    let gives_up = async {
        reactor.sleep_ms(5_000).await;
        false
    };
    let heard = smol::future::or(moves, smol::future::or(hears, gives_up));
    assert!(reactor.run(&executor, heard).expect("it runs"));
}

#[test]
fn the_wall_clock_goes_with_the_other_one() {
    let reactor = Reactor::new().expect("a reactor");
    let looks = async {
        // Some of them within the time in which it is not read again, others after it.
        for _ in 0..20 {
            let begin = Clock::unix_ms();
            reactor.sleep_ms(3).await;
            let told = reactor.unix_ms();
            let end = Clock::unix_ms();
            assert!((begin + 2..=end + 1).contains(&told), "{told} in {begin} to {end}");
        }
    };
    reactor.run(&LocalExecutor::new(), looks).expect("it runs");
}

#[test]
fn who_waits_to_write_is_told_each_time() {
    let reactor = Reactor::new().expect("a reactor");
    let (here, there) = UnixStream::pair().expect("a pair");
    for end in [&here, &there] {
        end.set_nonblocking(true).expect("set");
    }
    let writer = Io::new(&reactor, here).expect("registered");
    let reader = Io::new(&reactor, there).expect("registered");
    // Far more than the kernel keeps, so that the writer waits again and again.
    let bytes = vec![7; 4 << 20];
    let executor = LocalExecutor::new();
    let writes = async {
        writer.write_all(&mut [io::IoSlice::new(&bytes)]).await.expect("written");
        drop(writer);
    };
    let reads = async {
        let mut all = Vec::new();
        loop {
            all.reserve(64 * 1024);
            if reader.receive_into(&mut all).await.expect("read") == 0 {
                return all;
            }
        }
    };
    let ((), all) = reactor.run(&executor, smol::future::zip(writes, reads)).expect("it runs");
    assert!(all == bytes);
}
