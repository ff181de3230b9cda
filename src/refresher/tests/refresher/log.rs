//! A log that nobody reads.

use std::io::Read;
use std::time::Duration;

use sigv4_core::credentials::Identity;
use tempfile::TempDir;

use crate::intake::Running;
use crate::process::{Refresher, get};
use crate::sts::{Answer, Sts};
use crate::support::{READER, role, socket};

/// Returns a free port. Another test that asks at the same time may take it, and then fails visibly.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn lines_that_nobody_reads_are_dropped_and_counted_and_the_supply_goes_on() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Rotating(Duration::from_secs(2)));
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain(), role(READER)]);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let address = free_address();
    let args = ["--listen", &address, "--log-level", "trace"];
    // Ten checks a second of a proxy that is not there, each of which is logged at this level.
    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&args);
    for number in 0..60 {
        refresher = refresher.socket(&directory.path().join(format!("nowhere-{number}.sock")));
    }
    let mut refresher = refresher.start_with_log(writer);
    let dropped = || {
        let metrics = get(&address, "/metrics").1;
        let line = metrics.lines().find_map(|line| line.strip_prefix("credential_refresher_log_lines_dropped_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    refresher.until("dropped lines", || dropped() > 100.0).await;

    assert_eq!(get(&address, "/healthz").0, "HTTP/1.1 200 OK");
    let before = proxy.pushes().len();
    refresher.until("three more sessions", || proxy.pushes().len() >= before + 3).await;
    drop(proxy);
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let took = refresher.until("the push", || proxy.held(&Identity::default_chain()).is_some()).await;
    println!("{} lines dropped; a restarted proxy was supplied within {took:?}", dropped());
    assert!(took < Duration::from_secs(2), "{took:?}");

    // As soon as somebody reads again, there are lines to read.
    let mut chunk = [0; 4096];
    assert!(reader.read(&mut chunk).unwrap() > 0);
    refresher.signal(rustix::process::Signal::TERM);
    let (status, took) = refresher.end().await;
    assert!(status.success() && took < Duration::from_secs(3), "{status} after {took:?}");
}
