//! The differences as metrics show them: by the hosts that a policy names.
//!
//! A metric of the proxy stays until the proxy ends. Where `hosts` has a wildcard, clients choose the names, so there is
//! no metric for each of them: the wildcard has one, which shows the largest difference of its hosts.

use std::collections::HashMap;

use crate::policy::{HostPattern, Policy};

/// The gauges of one policy's hosts.
#[derive(Debug, Default)]
pub struct SkewGauges {
    /// The gauges of targets, by authority.
    targets: HashMap<String, usize>,
    /// The gauges of the `hosts` of routes without a target.
    patterns: HashMap<HostPattern, usize>,
    gauges: Vec<Gauge>,
}

#[derive(Debug)]
struct Gauge {
    label: String,
    /// What it shows; `None` while it was never needed.
    shown: Option<u64>,
}

impl SkewGauges {
    /// Makes the gauges of a policy. None of them shows anything yet.
    pub fn new(policy: &Policy) -> Self {
        let Self { mut targets, mut patterns, mut gauges } = Self::default();
        // A host may be one route's target and in another's `hosts`.
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut place = |label: String| {
            *places.entry(label).or_insert_with_key(|label| {
                gauges.push(Gauge { label: label.clone(), shown: None });
                gauges.len() - 1
            })
        };
        for route in policy.routes() {
            match &route.target {
                Some(target) => {
                    targets.insert(target.authority.clone(), place(target.authority.clone()));
                }
                None => {
                    patterns.extend(route.hosts.iter().map(|pattern| (pattern.clone(), place(pattern.to_string()))));
                }
            }
        }
        Self { targets, patterns, gauges }
    }

    /// Returns the gauges that change, as their label and their value: the amount in seconds by which a clock is off.
    pub fn update<'a>(&mut self, hosts: impl Iterator<Item = (&'a str, i64)>) -> impl Iterator<Item = (&str, u64)> {
        let mut values = vec![0; self.gauges.len()];
        for (host, seconds) in hosts {
            let patterns = HostPattern::all_of(host.as_bytes());
            let patterns = patterns.iter().filter_map(|pattern| self.patterns.get(pattern));
            for gauge in self.targets.get(host).into_iter().chain(patterns) {
                values[*gauge] = seconds.unsigned_abs().max(values[*gauge]);
            }
        }
        self.gauges.iter_mut().zip(values).filter_map(|(gauge, value)| {
            let changes = gauge.shown.unwrap_or(0) != value;
            changes.then(|| (gauge.label.as_str(), *gauge.shown.insert(value)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauges(routes: &str) -> SkewGauges {
        SkewGauges::new(&Policy::from_json(format!(r#"{{"routes": {routes}}}"#).as_bytes()).unwrap())
    }

    fn update(gauges: &mut SkewGauges, hosts: &[(&str, i64)]) -> Vec<(String, u64)> {
        gauges.update(hosts.iter().copied()).map(|(label, value)| (label.to_owned(), value)).collect()
    }

    fn changed(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
        expected.iter().map(|(label, value)| ((*label).to_owned(), *value)).collect()
    }

    #[test]
    fn a_target_has_a_gauge_of_its_own_once_its_clock_was_off() {
        let mut gauges = gauges(
            r#"{"/a": {"target": "https://S3.eu-west-1.amazonaws.com", "hosts": ["a.test"]},
                "/b": "https://s3.eu-west-1.amazonaws.com/bucket",
                "/c": "https://sts.eu-west-1.amazonaws.com"}"#,
        );
        assert_eq!(update(&mut gauges, &[]), []);
        let host = "s3.eu-west-1.amazonaws.com";
        assert_eq!(update(&mut gauges, &[(host, -3600), ("a.test", 60)]), changed(&[(host, 3600)]));
        assert_eq!(update(&mut gauges, &[(host, -3600)]), []);
        assert_eq!(update(&mut gauges, &[]), changed(&[(host, 0)]));
    }

    #[test]
    fn a_host_that_is_named_twice_has_one_gauge() {
        let mut gauges = gauges(r#"{"/a": "https://sts.amazonaws.com", "/": {"hosts": ["sts.amazonaws.com"]}}"#);
        let expected = changed(&[("sts.amazonaws.com", 600)]);
        assert_eq!(update(&mut gauges, &[("sts.amazonaws.com", 600), ("sts.amazonaws.com:443", 300)]), expected);
    }

    #[test]
    fn hosts_that_clients_choose_share_the_gauge_of_their_pattern() {
        let mut gauges = gauges(r#"{"/": {"hosts": ["*.amazonaws.com", "sts.amazonaws.com"]}}"#);
        let names: Vec<String> = (0..1000).map(|number| format!("b{number}.s3.amazonaws.com")).collect();
        let hosts: Vec<(&str, i64)> = (300..).zip(&names).map(|(seconds, name)| (name.as_str(), seconds)).collect();
        assert_eq!(update(&mut gauges, &hosts), changed(&[("*.amazonaws.com", 1299)]));
        let hosts = [("sts.amazonaws.com:443", -600), ("other.test", 900)];
        let expected = changed(&[("*.amazonaws.com", 600), ("sts.amazonaws.com", 600)]);
        assert_eq!(update(&mut gauges, &hosts), expected);
    }
}
