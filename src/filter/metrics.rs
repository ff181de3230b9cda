//! What the filter counts, under Envoy's `wasmcustom.` statistics.
//!
//! A name carries its labels as `;label=value`; the stock configuration's `stats_tags` make Prometheus labels of them.

use std::cell::RefCell;
use std::collections::HashMap;

use super::host::{self, HostError, Metric};

/// The counters that this worker has used so far.
#[derive(Default)]
pub(super) struct Metrics(RefCell<HashMap<(usize, &'static str), u32>>);

/// Stands for requests that no route took.
const NO_ROUTE: usize = usize::MAX;

impl Metrics {
    /// Counts a request by its route, given as place and name, and by what became of it.
    pub(super) fn count(&self, route: Option<(usize, &str)>, outcome: &'static str) {
        let (index, name) = route.unwrap_or((NO_ROUTE, "none"));
        if let Err(error) = self.counter(index, name, outcome).and_then(host::increment_metric) {
            log::error!("{error}");
        }
    }

    fn counter(&self, index: usize, route: &str, outcome: &'static str) -> Result<u32, HostError> {
        if let Some(id) = self.0.borrow().get(&(index, outcome)) {
            return Ok(*id);
        }
        let id = host::define_metric(Metric::Counter, &format!("sigv4.requests;route={route};outcome={outcome}"))?;
        self.0.borrow_mut().insert((index, outcome), id);
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
