//! Strangers at `--listen`: none of them keeps a probe from its answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::process::{Process, Refresher, try_get};

/// Roughly the default limit of a process.
const MANY: usize = 500;

/// A probe of the kubelet gives up after a second.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

async fn listening() -> (Process, String) {
    let refresher = Refresher::new().args(&["--proxy", "unix:/nowhere", "--listen", "127.0.0.1:0"]).start();
    let address = refresher.status_address().await;
    (refresher, address)
}

/// Probes as the kubelet does, and returns the slowest answer.
fn probe(address: &str) -> Duration {
    let probes = ["/healthz", "/readyz", "/metrics"].repeat(5);
    let slowest = probes.into_iter().map(|path| {
        let start = Instant::now();
        let answer = try_get(address, path, PROBE_TIMEOUT);
        assert!(answer.as_ref().is_ok_and(|(status, _)| status.starts_with("HTTP/1.1 ")), "{path}: {answer:?}");
        start.elapsed()
    });
    slowest.max().unwrap()
}

#[tokio::test]
async fn a_probe_is_answered_whatever_strangers_hold() {
    let (refresher, address) = listening().await;
    let open = || TcpStream::connect(&address).unwrap();
    let with = |beginning: &str| {
        let mut stream = open();
        stream.write_all(beginning.as_bytes()).unwrap();
        stream
    };
    let body = "content-length: 1000000000\r\n\r\n";
    let strangers: [(&str, &dyn Fn() -> TcpStream); 6] = [
        ("idle", &open),
        ("half a head", &|| with("GET /healthz HTTP/1.1\r\nhost: ")),
        ("a body without an end", &|| with(&format!("GET /metrics HTTP/1.1\r\nhost: a\r\n{body}"))),
        ("a refused body", &|| with(&format!("POST /metrics HTTP/1.1\r\nhost: a\r\n{body}"))),
        ("unread answers", &|| with(&"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50))),
        ("half closed", &|| {
            let stream = open();
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        }),
    ];
    for (what, stranger) in strangers {
        let held: Vec<_> = (0..MANY).map(|_| stranger()).collect();
        println!("{what}: {MANY} connections, the slowest of 15 probes took {:?}", probe(&address));
        assert!(refresher.descriptors() < 40, "{what}: {} descriptors", refresher.descriptors());
        drop(held);
    }
}

#[tokio::test]
async fn a_probe_is_answered_while_strangers_connect_again_and_again() {
    let (_refresher, address) = listening().await;
    let (done, connects) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let strangers: Vec<_> = (0..4)
        .map(|_| {
            let (done, connects, address) = (done.clone(), connects.clone(), address.clone());
            std::thread::spawn(move || {
                let mut held = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    if let Ok(stream) = TcpStream::connect(&address) {
                        connects.fetch_add(1, Ordering::Relaxed);
                        held.push(stream);
                    }
                    if held.len() > 100 {
                        held.remove(0);
                    }
                }
            })
        })
        .collect();
    let (start, mut answered, mut asked) = (Instant::now(), 0, 0);
    while start.elapsed() < Duration::from_secs(3) {
        asked += 1;
        answered += u32::from(try_get(&address, "/healthz", PROBE_TIMEOUT).is_ok());
        std::thread::sleep(Duration::from_millis(10));
    }
    done.store(true, Ordering::Relaxed);
    strangers.into_iter().for_each(|stranger| stranger.join().unwrap());
    println!("{answered} of {asked} probes answered beside {connects:?} connections in 3 s");
    // The kubelet restarts after three failures in a row.
    assert!(answered * 100 >= asked * 90, "{answered} of {asked}");
}

#[tokio::test]
async fn a_head_that_trickles_in_and_an_idle_connection_are_closed() {
    let (_refresher, address) = listening().await;
    let mut idle = TcpStream::connect(&address).unwrap();
    let mut slow = TcpStream::connect(&address).unwrap();
    let start = Instant::now();
    let open = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        match stream.read(&mut [0; 512]) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    };
    let (mut idle_open, mut slow_open) = (true, true);
    while (idle_open || slow_open) && start.elapsed() < Duration::from_secs(10) {
        slow_open = slow_open && slow.write_all(b"G").is_ok() && open(&mut slow);
        idle_open = idle_open && open(&mut idle);
    }
    println!("idle and trickling connections were closed after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_connection_carries_one_request() {
    let (_refresher, address) = listening().await;
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2).as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answers = Vec::new();
    // Closed with a request unread, the connection may be reset after the answer.
    let _ = stream.read_to_end(&mut answers);
    assert_eq!(String::from_utf8_lossy(&answers).matches("HTTP/1.1 200 OK").count(), 1);
}
