//! The refresher's state for `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use sigv4_core::credentials::{Credentials, Identity};

use crate::aws_source::SourceError;
use crate::log::DroppedLines;
use crate::proxy::{ProxyAddress, ProxyError};
use crate::sync::lock;
use crate::unsupplied::Supply;
use sigv4_core::intake::NO_POLICY;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByIdentity {
    identity: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFailure {
    identity: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProxy {
    proxy: String,
}

/// A point in time, in seconds since 1970, as is usual in Prometheus: queries compute ages and remaining lives from it.
type Instants<Label> = Family<Label, Gauge<f64, AtomicU64>>;

/// The metrics, and each proxy's readiness.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    obtained: Instants<ByIdentity>,
    expiry: Instants<ByIdentity>,
    renewals: Family<ByIdentity, Counter>,
    failures: Family<ByFailure, Counter>,
    reachable: Family<ByProxy, Gauge>,
    reconciled: Instants<ByProxy>,
    unsupplied: Family<ByProxy, Gauge>,
    pushes: Family<ByProxy, Counter>,
    push_failures: Family<ByProxy, Counter>,
    last_push: Instants<ByProxy>,
    ready: Family<ByProxy, Gauge>,
    readiness: Mutex<BTreeMap<String, Readiness>>,
}

/// The readiness of one proxy, and what it lacks, as text.
#[derive(Debug)]
struct Readiness {
    ready: bool,
    unready_reasons: Vec<String>,
}

impl Metrics {
    /// Creates the metrics of proxies that have not been asked yet.
    pub fn new<'a>(proxies: impl IntoIterator<Item = &'a ProxyAddress>, dropped_lines: DroppedLines) -> Self {
        let not_asked = |proxy: &ProxyAddress| {
            let unready_reasons = vec![format!("{proxy}: not asked yet")];
            (proxy.to_string(), Readiness { ready: false, unready_reasons })
        };
        let mut metrics = Self {
            registry: Registry::with_prefix("credential_refresher"),
            obtained: Family::default(),
            expiry: Family::default(),
            renewals: Family::default(),
            failures: Family::default(),
            reachable: Family::default(),
            reconciled: Family::default(),
            unsupplied: Family::default(),
            pushes: Family::default(),
            push_failures: Family::default(),
            last_push: Family::default(),
            ready: Family::default(),
            readiness: Mutex::new(proxies.into_iter().map(not_asked).collect()),
        };
        metrics.register();
        metrics.registry.register_collector(Box::new(dropped_lines));
        metrics
    }

    fn register(&mut self) {
        let seconds = || Unit::Other("timestamp_seconds".to_owned());
        let all = &mut self.registry;
        let obtained = "When the credentials in use were obtained";
        all.register_with_unit("credentials_obtained", obtained, seconds(), self.obtained.clone());
        let expiry = "When the credentials in use expire; absent for long-lived ones";
        all.register_with_unit("credentials_expiry", expiry, seconds(), self.expiry.clone());
        all.register("renewals", "New credentials obtained from the source", self.renewals.clone());
        let failures = "Failures to obtain credentials, by reason: chain, sts, timeout, unusable, revoked";
        all.register("source_failures", failures, self.failures.clone());
        all.register("proxy_reachable", "Whether the proxy answered when last asked", self.reachable.clone());
        let ready = "Whether the proxy can sign for at least one identity, or could until a source failed";
        all.register("proxy_ready", ready, self.ready.clone());
        let reconciled = "When the proxy last listed what it wants";
        all.register_with_unit("proxy_last_answer", reconciled, seconds(), self.reconciled.clone());
        let unsupplied = "Identities that the proxy wants and that are not supplied";
        all.register("proxy_unsupplied_identities", unsupplied, self.unsupplied.clone());
        all.register("pushes", "Credentials that the proxy accepted", self.pushes.clone());
        all.register("push_failures", "Credentials that the proxy did not accept", self.push_failures.clone());
        let last_push = "When the proxy last accepted credentials";
        all.register_with_unit("last_push", last_push, seconds(), self.last_push.clone());
    }

    /// Records new credentials from a source.
    pub fn renewed(&self, identity: &Identity, credentials: &Credentials) {
        let label = by_identity(identity);
        self.renewals.get_or_create(&label).inc();
        self.obtained.get_or_create(&label).set(unix_seconds(SystemTime::now()));
        match credentials.expiration() {
            Some(expiration) => {
                self.expiry.get_or_create(&label).set(unix_seconds(expiration));
            }
            None => {
                self.expiry.remove(&label);
            }
        }
    }

    /// Records that a source failed.
    pub fn source_failed(&self, identity: &Identity, error: &SourceError) {
        self.failures.get_or_create(&by_failure(identity, error.reason())).inc();
    }

    /// Removes the series of an identity that no proxy wants any longer.
    pub fn remove_identity(&self, identity: &Identity) {
        let label = by_identity(identity);
        self.obtained.remove(&label);
        self.expiry.remove(&label);
        self.renewals.remove(&label);
        for reason in SourceError::REASONS {
            self.failures.remove(&by_failure(identity, reason));
        }
    }

    /// Records the outcome of reconciling a proxy.
    pub fn reconciled(&self, proxy: &ProxyAddress, outcome: &Result<Supply, ProxyError>) {
        let label = by_proxy(proxy);
        self.reachable.get_or_create(&label).set(outcome.is_ok().into());
        let ready = outcome.as_ref().is_ok_and(Supply::is_ready);
        self.ready.get_or_create(&label).set(ready.into());
        let unready_reasons = match outcome {
            Ok(supply) => {
                let unsupplied = &supply.unsupplied;
                self.reconciled.get_or_create(&label).set(unix_seconds(SystemTime::now()));
                self.unsupplied.get_or_create(&label).set(i64::try_from(unsupplied.len()).unwrap_or(i64::MAX));
                let nothing = (!supply.requires).then(|| format!("{proxy}: {NO_POLICY}"));
                nothing.into_iter().chain(unsupplied.iter().map(|lack| format!("{proxy}: {lack}"))).collect()
            }
            Err(error) => vec![format!("{proxy}: {error}")],
        };
        lock(&self.readiness).insert(label.proxy, Readiness { ready, unready_reasons });
    }

    /// Records a push and whether the proxy accepted it.
    pub fn pushed(&self, proxy: &ProxyAddress, taken: bool) {
        let label = by_proxy(proxy);
        if taken {
            self.pushes.get_or_create(&label).inc();
            self.last_push.get_or_create(&label).set(unix_seconds(SystemTime::now()));
        } else {
            self.push_failures.get_or_create(&label).inc();
        }
    }

    /// Returns whether every proxy is ready, and what they lack, one line each. A ready one may lack identities.
    pub fn readiness(&self) -> (bool, String) {
        let all = lock(&self.readiness);
        let lines = all.values().flat_map(|proxy| &proxy.unready_reasons).fold(String::new(), |mut lines, line| {
            let _ = writeln!(lines, "{line}");
            lines
        });
        (all.values().all(|proxy| proxy.ready), lines)
    }

    /// Returns the metrics as OpenMetrics text.
    pub fn metrics(&self) -> String {
        let mut metrics = String::new();
        // Writing into a string can't fail.
        let _ = text::encode(&mut metrics, &self.registry);
        metrics
    }
}

fn by_identity(identity: &Identity) -> ByIdentity {
    ByIdentity { identity: identity.id().to_owned() }
}

fn by_failure(identity: &Identity, reason: &'static str) -> ByFailure {
    ByFailure { identity: identity.id().to_owned(), reason }
}

fn by_proxy(proxy: &ProxyAddress) -> ByProxy {
    ByProxy { proxy: proxy.to_string() }
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
