//! What the filter counts and times, under Envoy's `wasmcustom.` statistics.
//!
//! A name carries its labels as `;label=value`; the stock configuration's `stats_tags` make Prometheus labels of them.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::host::{self, HostError, Metric};
use crate::policy::Route;

/// One request of so many is timed, as the clock and the histogram cost two host calls more.
const TIMED_ONE_OF: u32 = 32;

/// The metrics that this worker has used so far.
pub(super) struct Metrics {
    /// For each route, and one more for no route.
    by_route: RefCell<Vec<Vec<OutcomeMetrics>>>,
    until_timed: Cell<u32>,
}

/// The ids of the metrics of one route and outcome.
#[derive(Clone)]
struct OutcomeMetrics {
    outcome: &'static str,
    requests: Option<u32>,
    signing: Option<u32>,
    held: Option<u32>,
}

impl Metrics {
    /// Metrics of a policy with so many routes.
    pub(super) fn new(routes: usize) -> Self {
        Self { by_route: RefCell::new(vec![Vec::new(); routes + 1]), until_timed: Cell::new(0) }
    }

    /// Counts a request by its route, if one took it, and by what became of it.
    pub(super) fn count(&self, route: Option<&Route>, outcome: &'static str) {
        let id = self.id(route, outcome, "requests", Metric::Counter, |metrics| &mut metrics.requests);
        log_failure(id.and_then(host::increment_metric));
    }

    /// Whether this request is to be timed.
    pub(super) fn is_timed(&self) -> bool {
        let left = self.until_timed.get();
        self.until_timed.set(left.checked_sub(1).unwrap_or(TIMED_ONE_OF - 1));
        left == 0
    }

    /// Says how long the filter took at the headers of a request.
    pub(super) fn took(&self, route: Option<&Route>, outcome: &'static str, time: Duration) {
        let id = self.id(route, outcome, "signing_microseconds", Metric::Histogram, |metrics| &mut metrics.signing);
        log_failure(id.and_then(|id| host::record_metric(id, time.as_micros() as u64)));
    }

    /// Says how long a request was held, for its body or for credentials.
    pub(super) fn held(&self, route: Option<&Route>, outcome: &'static str, time: Duration) {
        let id = self.id(route, outcome, "held_milliseconds", Metric::Histogram, |metrics| &mut metrics.held);
        log_failure(id.and_then(|id| host::record_metric(id, time.as_millis() as u64)));
    }

    fn id(
        &self,
        route: Option<&Route>,
        outcome: &'static str,
        name: &str,
        kind: Metric,
        choose: impl Fn(&mut OutcomeMetrics) -> &mut Option<u32>,
    ) -> Result<u32, HostError> {
        let mut by_route = self.by_route.borrow_mut();
        let last = by_route.len() - 1;
        let (at, label) = route.map_or((last, "none"), |route| (route.index.min(last), route.name.as_str()));
        let of_route = &mut by_route[at];
        let known = of_route.iter().position(|metrics| metrics.outcome == outcome).unwrap_or_else(|| {
            of_route.push(OutcomeMetrics { outcome, requests: None, signing: None, held: None });
            of_route.len() - 1
        });
        let place = choose(&mut of_route[known]);
        match *place {
            Some(id) => Ok(id),
            None => {
                let id = host::define_metric(kind, &format!("sigv4.{name};route={label};outcome={outcome}"))?;
                *place = Some(id);
                Ok(id)
            }
        }
    }

    /// Shows how much longer an identity's credentials hold.
    pub(super) fn remaining_life(&self, identity: &str, remaining: Duration) {
        let gauge =
            host::define_metric(Metric::Gauge, &format!("sigv4.credentials_remaining_seconds;identity={identity}"));
        log_failure(gauge.and_then(|id| host::record_metric(id, remaining.as_secs())));
    }

    /// Shows by how many seconds a host's clock is ahead of the proxy's; what is behind shows as its amount, too.
    pub(super) fn clock_skew(&self, authority: &str, seconds: i64) {
        let gauge = host::define_metric(Metric::Gauge, &format!("sigv4.clock_skew_seconds;host={authority}"));
        log_failure(gauge.and_then(|id| host::record_metric(id, seconds.unsigned_abs())));
    }
}

/// A request does not fail because it could not be counted.
fn log_failure(result: Result<(), HostError>) {
    if let Err(error) = result {
        log::error!("{error}");
    }
}
