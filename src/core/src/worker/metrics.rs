//! The filter's metrics, under Envoy's `wasmcustom.` statistics.
//!
//! A name has its labels as `;label=value`; the stock configuration's `stats_tags` convert them to Prometheus labels.

use std::cell::RefCell;
use std::time::Duration;

use crate::host::{Host, HostError, MetricKind};
use crate::local_reply::Outcome;
use crate::policy::Route;

/// The metrics that this worker has used so far.
pub(crate) struct Metrics<H: Host> {
    host: H,
    known: RefCell<Known>,
}

struct Known {
    /// The metrics of each route, and a last entry for no route.
    by_route: Vec<Vec<OutcomeMetrics>>,
    /// The indexes with unpublished requests.
    unpublished: Vec<MetricIndex>,
}

/// The indexes of a route's metrics, and there of an outcome's.
type MetricIndex = (usize, usize);

/// The metrics of one route and outcome, by the ids that the proxy gave them.
#[derive(Default)]
struct OutcomeMetrics {
    outcome: &'static str,
    requests: u32,
    /// Requests that have been counted but not published.
    unpublished: u32,
    signing: Option<u32>,
    held: Option<u32>,
    scope_mismatches: Option<u32>,
}

impl<H: Host> Metrics<H> {
    /// Makes the metrics of a policy with this number of routes.
    pub(crate) fn new(host: H, routes: usize) -> Self {
        let by_route = (0..=routes).map(|_| Vec::new()).collect();
        Self { host, known: RefCell::new(Known { by_route, unpublished: Vec::new() }) }
    }

    /// Counts a request by its route, if any, and its outcome. The count reaches the proxy when it is
    /// [published](Self::publish).
    pub(crate) fn count(&self, route: Option<&Route>, outcome: Outcome<'_>) {
        let Known { by_route, unpublished } = &mut *self.known.borrow_mut();
        log_failure(self.index_of(by_route, route, outcome).map(|index| {
            let metrics = &mut by_route[index.0][index.1];
            if metrics.unpublished == 0 {
                unpublished.push(index);
            }
            metrics.unpublished += 1;
        }));
    }

    /// Adds the unpublished counts to the proxy's counters.
    pub(crate) fn publish(&self) {
        let Known { by_route, unpublished } = &mut *self.known.borrow_mut();
        for (route, outcome) in unpublished.drain(..) {
            let metrics = &mut by_route[route][outcome];
            log_failure(self.host.increment_metric(metrics.requests, std::mem::take(&mut metrics.unpublished)));
        }
    }

    /// Records the time that the filter took for the headers of a request.
    pub(crate) fn took(&self, route: Option<&Route>, outcome: Outcome<'_>, time: Duration) {
        let histogram = (MetricKind::Histogram, "signing_microseconds");
        let id = self.metric(route, outcome, histogram, |metrics| &mut metrics.signing);
        log_failure(id.and_then(|id| self.host.record_metric(id, time.as_micros() as u64)));
    }

    /// Records the time that a request was held, for its body or for credentials.
    pub(crate) fn held(&self, route: Option<&Route>, outcome: Outcome<'_>, time: Duration) {
        let histogram = (MetricKind::Histogram, "held_milliseconds");
        let id = self.metric(route, outcome, histogram, |metrics| &mut metrics.held);
        log_failure(id.and_then(|id| self.host.record_metric(id, time.as_millis() as u64)));
    }

    /// Counts a request that was signed for another scope than its client signed for.
    pub(crate) fn scope_mismatch(&self, route: &Route) {
        let counter = (MetricKind::Counter, "scope_mismatches");
        let id = self.metric(Some(route), Outcome::Signed, counter, |metrics| &mut metrics.scope_mismatches);
        log_failure(id.and_then(|id| self.host.increment_metric(id, 1)));
    }

    fn metric(
        &self,
        route: Option<&Route>,
        outcome: Outcome<'_>,
        (kind, name): (MetricKind, &str),
        choose: impl Fn(&mut OutcomeMetrics) -> &mut Option<u32>,
    ) -> Result<u32, HostError> {
        let Known { by_route, .. } = &mut *self.known.borrow_mut();
        let (at, which) = self.index_of(by_route, route, outcome)?;
        let id = choose(&mut by_route[at][which]);
        match *id {
            Some(id) => Ok(id),
            None => Ok(*id.insert(self.define(kind, name, route, outcome.code())?)),
        }
    }

    /// Sets the gauge of the time left before an identity's credentials expire.
    pub(crate) fn remaining_life(&self, identity: &str, remaining: Duration) {
        let gauge = self
            .host
            .define_metric(MetricKind::Gauge, &format!("sigv4.credentials_remaining_seconds;identity={identity}"));
        log_failure(gauge.and_then(|id| self.host.record_metric(id, remaining.as_secs())));
    }

    /// Sets the gauge of the difference between a host's clock and the proxy's, in seconds. `host` is one that the policy
    /// names.
    pub(crate) fn clock_skew(&self, host: &str, seconds: u64) {
        let gauge = self.host.define_metric(MetricKind::Gauge, &format!("sigv4.clock_skew_seconds;host={host}"));
        log_failure(gauge.and_then(|id| self.host.record_metric(id, seconds)));
    }

    /// Counts a sampled request whose route in Envoy has metadata that the policy ignores.
    pub(crate) fn count_ignored_override(&self) {
        let counter = self.host.define_metric(MetricKind::Counter, "sigv4.ignored_route_metadata");
        log_failure(counter.and_then(|id| self.host.increment_metric(id, 1)));
    }

    /// Returns the index of the metrics of a route and outcome; the first call defines their counter.
    fn index_of(
        &self,
        by_route: &mut [Vec<OutcomeMetrics>],
        route: Option<&Route>,
        outcome: Outcome<'_>,
    ) -> Result<MetricIndex, HostError> {
        let last = by_route.len() - 1;
        let at = route.map_or(last, |route| route.index.min(last));
        let (of_route, outcome) = (&mut by_route[at], outcome.code());
        let which = match of_route.iter().position(|metrics| metrics.outcome == outcome) {
            Some(which) => which,
            None => {
                let requests = self.define(MetricKind::Counter, "requests", route, outcome)?;
                of_route.push(OutcomeMetrics { outcome, requests, ..OutcomeMetrics::default() });
                of_route.len() - 1
            }
        };
        Ok((at, which))
    }

    fn define(&self, kind: MetricKind, name: &str, route: Option<&Route>, outcome: &str) -> Result<u32, HostError> {
        let label = route.map_or("none", |route| route.name.as_str());
        self.host.define_metric(kind, &format!("sigv4.{name};route={label};outcome={outcome}"))
    }
}

impl<H: Host> Drop for Metrics<H> {
    /// Publishes the last counts of a policy that is replaced.
    fn drop(&mut self) {
        self.publish();
    }
}

/// Logs a failed call, because a request must not fail when it can't be counted.
fn log_failure(result: Result<(), HostError>) {
    if let Err(error) = result {
        log::error!("{error}");
    }
}
