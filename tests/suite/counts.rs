//! What a delivery costs in things that can be counted: allocations, writes, threads.

use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use allocation_counter::AllocationInfo;
use sharelinkd::board;
use sharelinkd::config::{Config, Surroundings};
use sharelinkd::daemon;
use sharelinkd::wire::Track;
use sharelinkd::wire::uplink::{Part, ToRelay};
use smol::{LocalExecutor, Timer};

use crate::world::{Business, Process, config_text, connect, next_text, subscribe};

const PAGES: usize = 40;
const PUBLICATIONS: u64 = 1000;

fn publish(business: &mut Business, sequence: u64) {
    let (track, part) = (Track::Messages, Part::Whole);
    let data = br#"{"from":"a","text":"two hundred bytes are the usual size of a message, this one has fewer"}"#;
    business.send(&ToRelay::Publish { topic: 7, track, sequence, part, data });
}

/// What the other thread tells the daemon's: that it is warm, and that what was to be counted is done.
struct World {
    listener: TcpListener,
    address: mpsc::Receiver<SocketAddr>,
    warm: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
    done: mpsc::Sender<()>,
}

/// One daemon in this process at a time: the reactor is the process's, and takes for one thread what another gives back.
static ALONE: Mutex<()> = Mutex::new(());

/// Counts what the daemon allocates between two moments of a world. The daemon runs in this thread, its pages and
/// its business server in another: what is allocated here is the daemon's own.
fn count<T: Send + 'static>(world: impl FnOnce(World) -> T + Send + 'static) -> AllocationInfo {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = config_text(listener.local_addr().unwrap());
    let no_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let around = Surroundings { read_secret: &no_file, hostname: "test", runtime_directory: None };
    let config = Config::parse(&text, board::SELECTED, &around).unwrap();
    let (tell_address, address) = mpsc::channel();
    let (tell_warm, is_warm) = mpsc::channel();
    let (tell_go, go) = mpsc::channel();
    let (tell_done, is_done) = mpsc::channel();
    let there = World { listener, address, warm: tell_warm, go, done: tell_done };
    let world = std::thread::spawn(move || world(there));

    let executor = Rc::new(LocalExecutor::new());
    let told = Rc::new(Cell::new(None));
    let ready = Rc::clone(&told);
    let serve =
        daemon::serve(Rc::clone(&executor), config, None, move |addresses| ready.set(addresses.first().copied()));
    let _served = executor.spawn(serve);
    let until = |channel: &mpsc::Receiver<()>| {
        smol::block_on(executor.run(async {
            while channel.try_recv().is_err() {
                Timer::after(Duration::from_millis(20)).await;
            }
        }));
    };
    smol::block_on(executor.run(async {
        while told.get().is_none() {
            Timer::after(Duration::from_millis(1)).await;
        }
    }));
    tell_address.send(told.get().unwrap()).unwrap();
    until(&is_warm);
    tell_go.send(()).unwrap();
    let counted = allocation_counter::measure(|| until(&is_done));
    drop(world.join().unwrap());
    counted
}

#[test]
fn a_delivery_to_a_page_that_keeps_up_allocates_nothing() {
    let counted = count(|world| {
        let mut business = Business::meet(&world.listener);
        let address = world.address.recv().unwrap();
        let mut pages: Vec<_> = (0..PAGES).map(|_| connect(address)).collect();
        let (first, rest) = pages.split_first_mut().unwrap();
        first.send(r#"{"type":"subscribe","id":1,"link":"counted"}"#.into()).unwrap();
        business.accept(7);
        assert!(next_text(first).contains("subscribed"));
        rest.iter_mut().for_each(|page| subscribe(page, "counted"));
        let round = |business: &mut Business, pages: &mut [crate::world::Page], sequences: std::ops::Range<u64>| {
            for sequence in sequences {
                publish(business, sequence);
                for page in &mut *pages {
                    assert!(next_text(page).contains(&format!("\"sequence\":{sequence},")));
                }
            }
        };
        round(&mut business, &mut pages, 1..20);
        world.warm.send(()).unwrap();
        world.go.recv().unwrap();
        round(&mut business, &mut pages, 20..20 + PUBLICATIONS);
        world.done.send(()).unwrap();
        (business, pages)
    });
    let deliveries = PUBLICATIONS * PAGES as u64;
    println!("{counted:?} for {PUBLICATIONS} publications, {deliveries} deliveries");
    // async-io's reactor takes and gives back a small block or two for each of its turns, and a publication
    // that comes alone is a turn. A delivery takes none: there are forty for each publication.
    assert!(
        counted.count_total < 4 * PUBLICATIONS,
        "{} allocations for {PUBLICATIONS} publications to {PAGES} pages",
        counted.count_total
    );
    assert!(counted.count_current.abs() < 50, "{} blocks stayed", counted.count_current);
}

#[test]
fn a_page_that_comes_and_goes_takes_a_fixed_few_blocks_and_gives_all_back() {
    const COMINGS: u64 = 400;
    let counted = count(|world| {
        let mut business = Business::meet(&world.listener);
        let address = world.address.recv().unwrap();
        let mut first = connect(address);
        first.send(r#"{"type":"subscribe","id":1,"link":"counted"}"#.into()).unwrap();
        business.accept(7);
        assert!(next_text(&mut first).contains("subscribed"));
        let come_and_go = || {
            let mut page = connect(address);
            subscribe(&mut page, "counted");
            page.close(None).unwrap();
            while page.read().is_ok() {}
        };
        (0..20).for_each(|_| come_and_go());
        world.warm.send(()).unwrap();
        world.go.recv().unwrap();
        (0..COMINGS).for_each(|_| come_and_go());
        world.done.send(()).unwrap();
        (business, first)
    });
    println!("{counted:?} for {COMINGS} pages");
    assert!(counted.count_total < 100 * COMINGS, "{} allocations for {COMINGS} pages", counted.count_total);
    assert!(counted.count_current.abs() < 50, "{} blocks stayed", counted.count_current);
    assert!(counted.bytes_current.abs() < 16_384, "{} bytes stayed", counted.bytes_current);
}

#[test]
fn the_steady_daemon_has_its_own_thread_and_the_reactor_s() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Process::start("threads", listener.local_addr().unwrap());
    let mut business = Business::meet(&listener);
    let mut page = connect(relay.address);
    page.send(r#"{"type":"subscribe","id":1,"link":"threads"}"#.into()).unwrap();
    business.accept(7);
    assert!(next_text(&mut page).contains("subscribed"));
    publish(&mut business, 1);
    assert!(next_text(&mut page).contains("message"));
    assert_eq!(relay.threads(), 2);
}
