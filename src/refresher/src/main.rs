//! `credential-refresher` gets credentials from AWS's provider chain and pushes them into the proxy.
//!
//! | module | its job |
//! | --- | --- |
//! | [`cli`] | the command line and the configuration file |
//! | [`check_policy`] | the command that checks a policy, which [`policy_file`] reads |
//! | [`aws_source`] | the provider chain, and STS on top of it; [`http_client`], [`source_files`] and [`credential_process`] bound what they read |
//! | [`sts_calls`] | who may call STS, and when |
//! | [`renewal`] | one task for each required identity, which renews its credentials in time |
//! | [`reconcile`] | one task for each proxy, which supplies what its policy requires; [`unsupplied`] describes what is missing |
//! | [`proxy`] | the proxy's intake, over a Unix socket or TLS |
//! | [`metrics`] | readiness and metrics for probes and Prometheus, served by [`probe_server`] |
//! | [`log`] | the log |

mod aws_source;
mod check_policy;
mod cli;
mod credential_process;
mod http_client;
mod log;
mod metrics;
mod policy_file;
mod probe_server;
mod proxy;
mod reconcile;
mod renewal;
mod source_files;
mod sts_calls;
mod sync;
mod unsupplied;

use std::io;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info};

use crate::aws_source::AwsSource;
use crate::cli::{Invocation, Settings};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::probe_server::ProbeServer;
use crate::proxy::ProxyClient;
use crate::reconcile::ProxyReconciler;
use crate::renewal::RenewalPool;

/// Threads for name lookups, which are fewer, and for reading files.
const MOST_THREADS: usize = 16;

/// The longest that a shutdown may take after a signal. A log that nobody reads, or a read that never returns, must not
/// delay it.
const END_WITHIN: Duration = Duration::from_millis(700);

fn main() -> ExitCode {
    if let Some(outcome) = credential_process::run_if_asked() {
        return outcome;
    }
    let settings = match Invocation::read() {
        Invocation::CheckPolicy(check) => return check.run(),
        Invocation::Supply(settings) => *settings,
    };
    let log = log::start(settings.log_format, settings.log_level);
    run(settings, &log).unwrap_or_else(|error| {
        error!(%error, "can't start");
        ExitCode::FAILURE
    })
}

/// Supplies until the work or a signal ends it.
fn run(settings: Settings, log: &Log) -> io::Result<ExitCode> {
    let once = settings.once.is_some();
    let end = watch_signals(once)?;
    // One thread is enough for the work, which is mostly waiting. The second continues while the first is blocked: the
    // SDK reads its files without a deadline, and a file may be on a dead disk.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().max_blocking_threads(MOST_THREADS).build()?;
    let outcome = runtime.block_on(async {
        let hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            outcome = run_reconcilers(settings, log, hangup) => Ok(outcome),
            Ok(signal) = end => {
                info!(signal, "stopping");
                // With --once, being interrupted means that the push did not complete.
                Ok(ExitCode::from(u8::from(once)))
            }
        }
    });
    // A pending name lookup must not delay the exit.
    runtime.shutdown_background();
    outcome
}

/// Watches for SIGTERM and SIGINT on a thread of its own, so that no blocked thread delays them, and reports the first.
/// Ends the process shortly afterwards if it has not exited by then.
fn watch_signals(once: bool) -> io::Result<oneshot::Receiver<&'static str>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // First of all, so that no signal arrives before its handler.
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let signal = runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        });
        // Nobody listens if the work has ended.
        let _ = end.send(signal);
        thread::sleep(END_WITHIN);
        process::exit(i32::from(once));
    })?;
    Ok(ended)
}

async fn run_reconcilers(settings: Settings, log: &Log, hangup: Signal) -> ExitCode {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        proxies = settings.proxies.len(),
        once = settings.once.is_some(),
        "starting"
    );
    let metrics = Arc::new(Metrics::new(&settings.proxies, log.dropped_lines()));
    if let Some(address) = settings.listen {
        match ProbeServer::bind(address, metrics.clone()) {
            Ok(server) => {
                info!(
                    address = server.address().ok().map(tracing::field::display),
                    "listening for probes and Prometheus"
                );
                tokio::spawn(server.serve());
            }
            Err(error) => {
                error!(%address, %error, "can't listen; free the address, or set another with --listen");
                return ExitCode::FAILURE;
            }
        }
    }
    let pool = Arc::new(RenewalPool::new(AwsSource::new(), metrics.clone()));
    tokio::spawn(renew_on_hangup(pool.clone(), hangup));
    tokio::spawn({
        let pool = pool.clone();
        async move { pool.watch_clock().await }
    });
    let proxies = settings.proxies.into_iter().map(|address| {
        let client = ProxyClient::new(address, settings.tls.clone());
        ProxyReconciler::new(client, settings.allowed.clone(), metrics.clone())
    });
    if let Some(timeout) = settings.once {
        let deadline = Instant::now() + timeout;
        let supplied: JoinSet<_> =
            proxies.map(|proxy| proxy.supply_once(pool.clone(), settings.interval, deadline)).collect();
        let missing: Vec<_> = supplied.join_all().await.into_iter().filter_map(Result::err).flatten().collect();
        for what in &missing {
            error!(what, "not supplied");
        }
        if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    } else {
        let supplying: JoinSet<_> = proxies.map(|proxy| proxy.keep_supplied(pool.clone(), settings.interval)).collect();
        supplying.join_all().await;
        // Reached only if every one of them panicked.
        ExitCode::FAILURE
    }
}

/// Checks every source and proxy again at each SIGHUP.
async fn renew_on_hangup(pool: Arc<RenewalPool>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        info!(signal = "SIGHUP", "checking every source and proxy again");
        pool.renew_all();
    }
}
