//! The load of `make soak`: connections that each send one request after another, as fast as they are answered.
//!
//! `load PORT CONNECTIONS FIRST REQUESTS SECONDS` numbers its requests from FIRST on, ends after as many requests and as
//! many seconds, whichever comes later, and prints what came of them as JSON. A request is never sent twice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::CONNECTION;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

/// No answer is worth waiting for any longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

struct Load {
    port: u16,
    next: u64,
    last: u64,
    until: Instant,
    answered: u64,
    failures: BTreeMap<String, u64>,
    connections: u64,
    microseconds: Vec<u32>,
}

impl Load {
    fn next(&mut self) -> Option<u64> {
        if self.next >= self.last && Instant::now() >= self.until {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }
}

/// A read or a write, on one of two routes.
fn request(number: u64) -> Request<Full<Bytes>> {
    let route = if number.is_multiple_of(2) { "orders" } else { "billing" };
    let (method, body) = match number % 4 {
        3 => (Method::POST, format!(r#"{{"number": {number}, "text": "{}"}}"#, "x".repeat(400))),
        _ => (Method::GET, String::new()),
    };
    let path = format!("/{route}/items/{}/a%20b?n={number}&filter=a,b&text=x+y", number % 1000);
    let request = Request::builder().method(method).uri(path).header("host", "app.example");
    request.header("content-type", "application/json").body(Full::from(body)).expect("a request")
}

type Connection = SendRequest<Full<Bytes>>;

async fn connect(port: u16) -> Result<Connection, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| format!("connecting: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| format!("connecting: {error}"))?;
    tokio::task::spawn_local(async { drop(connection.await) });
    Ok(sender)
}

/// A connection that was closed while it was idle is told before anything is sent.
async fn usable(kept: Option<Connection>) -> Option<Connection> {
    let mut kept = kept?;
    kept.ready().await.is_ok().then_some(kept)
}

/// Whether the connection may be used again.
async fn exchange(connection: &mut Connection, number: u64) -> Result<bool, String> {
    let response = connection.send_request(request(number)).await.map_err(|error| format!("sending: {error}"))?;
    let status = response.status();
    let reusable = response.headers().get(CONNECTION).is_none_or(|value| value != "close");
    response.into_body().collect().await.map_err(|error| format!("receiving: {error}"))?;
    if status.is_success() { Ok(reusable) } else { Err(format!("status {}", status.as_u16())) }
}

async fn run(load: Rc<RefCell<Load>>) {
    let port = load.borrow().port;
    let mut connection: Option<Connection> = None;
    loop {
        let Some(number) = load.borrow_mut().next() else { return };
        let began = Instant::now();
        let attempt = async {
            let mut live = match usable(connection.take()).await {
                Some(kept) => kept,
                None => {
                    load.borrow_mut().connections += 1;
                    connect(port).await?
                }
            };
            let reusable = exchange(&mut live, number).await?;
            Ok::<_, String>(reusable.then_some(live))
        };
        let outcome =
            tokio::time::timeout(ANSWER_TIMEOUT, attempt).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        let mut load = load.borrow_mut();
        match outcome {
            Ok(kept) => {
                connection = kept;
                load.answered += 1;
                load.microseconds.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Err(failure) => *load.failures.entry(failure).or_default() += 1,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|number| number.parse()).collect::<Result<_, _>>()?;
    let [port, connections, first, requests, seconds] = numbers[..] else {
        return Err("usage: load PORT CONNECTIONS FIRST REQUESTS SECONDS".into());
    };
    let began = Instant::now();
    let load = Rc::new(RefCell::new(Load {
        port: port.try_into()?,
        next: first,
        last: first + requests,
        until: began + Duration::from_secs(seconds),
        answered: 0,
        failures: BTreeMap::new(),
        connections: 0,
        microseconds: Vec::new(),
    }));
    let local = tokio::task::LocalSet::new();
    (0..connections).for_each(|_| drop(local.spawn_local(run(load.clone()))));
    local.await;
    let mut load = load.borrow_mut();
    load.microseconds.sort_unstable();
    let at = |share: f64| {
        let index = load.microseconds.len().saturating_sub(1) as f64 * share;
        load.microseconds.get(index as usize).map(|time| f64::from(*time) / 1000.0)
    };
    let report = json!({
        "requests": load.next - first, "answered": load.answered, "failures": load.failures,
        "connections": load.connections, "seconds": began.elapsed().as_secs_f64(),
        "milliseconds": {"median": at(0.5), "p99": at(0.99), "longest": at(1.0)},
    });
    println!("{report}");
    Ok(())
}
