//! What the filter counts, under Envoy's `wasmcustom.` statistics.
//!
//! A name carries its labels as `;label=value`; the stock configuration's `stats_tags` make Prometheus labels of them.

use std::cell::RefCell;

use super::host::{self, HostError, Metric};

/// The counters that this worker has used so far: for each route, and one more for requests that no route took, by
/// outcome.
pub(super) struct Metrics(RefCell<Vec<Vec<(&'static str, u32)>>>);

impl Metrics {
    /// Metrics of a policy with so many routes.
    pub(super) fn new(routes: usize) -> Self {
        Self(RefCell::new(vec![Vec::new(); routes + 1]))
    }

    /// Counts a request by its route, given as place and name, and by what became of it.
    pub(super) fn count(&self, route: Option<(usize, &str)>, outcome: &'static str) {
        let (index, name) = route.unwrap_or((usize::MAX, "none"));
        if let Err(error) = self.counter(index, name, outcome).and_then(host::increment_metric) {
            log::error!("{error}");
        }
    }

    fn counter(&self, index: usize, route: &str, outcome: &'static str) -> Result<u32, HostError> {
        let mut counters = self.0.borrow_mut();
        let at = index.min(counters.len() - 1);
        let of_route = &mut counters[at];
        if let Some((_, id)) = of_route.iter().find(|(known, _)| *known == outcome) {
            return Ok(*id);
        }
        let id = host::define_metric(Metric::Counter, &format!("sigv4.requests;route={route};outcome={outcome}"))?;
        of_route.push((outcome, id));
        Ok(id)
    }

    /// Shows by how many seconds a host's clock is ahead of the proxy's; what is behind shows as its amount, too.
    pub(super) fn clock_skew(&self, authority: &str, seconds: i64) {
        let gauge = host::define_metric(Metric::Gauge, &format!("sigv4.clock_skew_seconds;host={authority}"));
        if let Err(error) = gauge.and_then(|id| host::record_metric(id, seconds.unsigned_abs())) {
            log::error!("{error}");
        }
    }
}
