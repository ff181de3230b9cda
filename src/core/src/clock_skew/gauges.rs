//! The differences as metrics: by the hosts that a policy names.
//!
//! A metric of the proxy lives as long as the proxy. With a wildcard in `hosts`, clients choose the names, so they have no
//! metric each: the wildcard has one, which shows the largest difference of its hosts.

use std::collections::HashMap;

use crate::policy::{HostPattern, Policy};

/// The values of the gauges of one policy's hosts, in seconds: those of targets by their authority, and those of the `hosts`
/// of routes without a target as the policy writes them.
#[derive(Debug)]
pub struct SkewGauges(HashMap<String, i64>);

impl SkewGauges {
    /// Makes the gauges of a policy, without values.
    pub fn new(policy: &Policy) -> Self {
        let mut shown = HashMap::new();
        for route in policy.routes() {
            match &route.target {
                Some(target) => {
                    // Clients choose the bucket.
                    let any = if route.has_fixed_authority() { "" } else { "*." };
                    shown.insert(format!("{any}{}", target.authority), 0);
                }
                None => shown.extend(route.hosts.iter().map(|pattern| (pattern.to_string(), 0))),
            }
        }
        Self(shown)
    }

    /// Updates the gauges. Calls `show` for each gauge that changes, with its label and the amount by which the clock is
    /// off.
    pub fn update(&mut self, by_host: &HashMap<String, i64>, mut show: impl FnMut(&str, u64)) {
        let mut amounts = HashMap::new();
        for (host, seconds) in by_host {
            let patterns = HostPattern::all_of(host.as_bytes()).into_iter().map(|pattern| pattern.to_string());
            for label in patterns.chain([host.clone()]).filter(|label| self.0.contains_key(label)) {
                let amount = amounts.entry(label).or_insert(0);
                *amount = seconds.abs().max(*amount);
            }
        }
        for (label, shown) in &mut self.0 {
            let amount = amounts.get(label).copied().unwrap_or(0);
            if *shown != amount {
                *shown = amount;
                show(label, amount.unsigned_abs());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauges(routes: &str) -> SkewGauges {
        SkewGauges::new(&Policy::from_json(format!(r#"{{"routes": {routes}}}"#).as_bytes()).unwrap())
    }

    fn update(gauges: &mut SkewGauges, hosts: &[(&str, i64)]) -> Vec<(String, u64)> {
        let by_host = hosts.iter().map(|(host, seconds)| ((*host).to_owned(), *seconds)).collect();
        let mut changed = Vec::new();
        gauges.update(&by_host, |label, value| changed.push((label.to_owned(), value)));
        changed.sort();
        changed
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
