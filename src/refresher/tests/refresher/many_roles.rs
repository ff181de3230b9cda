//! Many roles at the same time, and an STS that is slow, busy or down: each role gets its turn.

use std::time::{Duration, Instant};

use sigv4_core::credentials::{Identity, Role};
use tempfile::TempDir;

use crate::intake::Running;
use crate::process::{Refresher, get};
use crate::sts::{Answer, Sts};
use crate::support::{HOUR, READER, WRITER, role, socket};

fn arn(number: usize) -> String {
    format!("arn:aws:iam::123456789012:role/many-{number}")
}

fn many(count: usize) -> Vec<Identity> {
    (0..count).map(|number| Identity::assumed(Role::new(arn(number), "many"))).collect()
}

fn held(proxy: &Running, identities: &[Identity]) -> usize {
    identities.iter().filter(|identity| proxy.held(identity).is_some()).count()
}

#[tokio::test]
async fn three_hundred_roles_need_less_than_64_descriptors() {
    let (directory, sts, roles) = (TempDir::new().unwrap(), Sts::start().await, many(300));
    for number in 0..roles.len() {
        sts.set(&arn(number), Answer::Slow(Duration::from_millis(50), HOUR));
    }
    let proxy = Running::on_socket(&socket(&directory), &roles);
    let refresher = Refresher::new().sts(sts.port).with_descriptors(64);
    let refresher = refresher.socket(&socket(&directory)).args(&["--listen", "127.0.0.1:0"]).interval("1s").start();
    let address = refresher.status_address().await;
    let _strangers: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    let took = refresher.until("all roles", || held(&proxy, &roles) == roles.len()).await;
    println!("300 roles within {took:?}, {} descriptors at the end", refresher.descriptors());
    assert_eq!(get(&address, "/healthz").0, "HTTP/1.1 200 OK");
    assert!(!refresher.log().contains("can't get credentials"), "{}", refresher.log());
}

#[tokio::test]
async fn roles_that_get_no_answer_delay_another_for_seconds_only() {
    let (directory, sts, mut roles) = (TempDir::new().unwrap(), Sts::start().await, many(40));
    for number in 0..roles.len() {
        sts.set(&arn(number), Answer::Silence);
    }
    sts.set(READER, Answer::Session(HOUR));
    roles.push(role(READER));
    let proxy = Running::on_socket(&socket(&directory), &roles);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    let took = refresher.until("the role that is answered", || proxy.held(&role(READER)).is_some()).await;
    println!("beside 40 roles without an answer, another was supplied within {took:?}");
    // Eight calls at a time give up their turn after 2 s.
    assert!(took < Duration::from_secs(15), "{took:?}");
    refresher.until("why the others are not", || refresher.log().contains("no answer from STS within 2 s")).await;
}

#[tokio::test]
async fn an_sts_that_has_too_many_calls_is_left_alone_for_as_long_as_it_says() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Throttled("4"));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the refusal", || refresher.log().contains("Throttling: Rate exceeded")).await;
    let refused = Instant::now();
    sts.set(READER, Answer::Session(HOUR));
    sts.set(WRITER, Answer::Session(HOUR));
    proxy.want(&[role(READER), role(WRITER)]);
    refresher.until("both roles", || held(&proxy, &[role(READER), role(WRITER)]) == 2).await;
    let waited = refused.elapsed();
    println!("both supplied {waited:?} after STS asked for 4 s");
    let calls = sts.call_times();
    assert!(!calls.iter().any(|at| *at > refused && *at < refused + Duration::from_millis(3500)), "called meanwhile");
    assert!(waited < Duration::from_secs(6), "{waited:?}");
}

#[tokio::test]
async fn all_roles_are_supplied_as_soon_as_sts_is_back() {
    let (directory, roles) = (TempDir::new().unwrap(), many(30));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxy = Running::on_socket(&socket(&directory), &roles);
    let refresher = Refresher::new().sts(port).socket(&socket(&directory)).start();
    // By then, most would wait for half a minute or more.
    refresher.until("many failures", || refresher.log().matches("can't get credentials").count() > 150).await;
    let sts = Sts::start_on(port).await;
    for number in 0..roles.len() {
        sts.set(&arn(number), Answer::Session(HOUR));
    }
    let took = refresher.until("all roles", || held(&proxy, &roles) == roles.len()).await;
    println!("30 roles were supplied {took:?} after STS was back");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn what_keeps_sts_from_being_called_is_told_with_its_cure() {
    let directory = TempDir::new().unwrap();
    let _proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let plain = Sts::start().await.port;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (endpoint, cure) in [
        (format!("http://127.0.0.1:{closed}"), "check the network, the endpoint and HTTPS_PROXY"),
        ("http://sts.invalid".to_owned(), "check the name server, the region and AWS_ENDPOINT_URL_STS"),
        (format!("https://127.0.0.1:{plain}"), "check the network, the endpoint and HTTPS_PROXY"),
    ] {
        let refresher = Refresher::new().env("AWS_ENDPOINT_URL_STS", endpoint).socket(&socket(&directory)).start();
        refresher.until(cure, || refresher.log().contains(cure)).await;
        println!("{}", refresher.log().lines().find(|line| line.contains(cure)).unwrap());
    }
}
