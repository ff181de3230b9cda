//! The hosts of recent requests, and the endpoints inferred from their names.
//!
//! The requests of a mesh go to a few hosts. Inferring an endpoint takes a fifth of a signed request's instructions; a hit
//! takes almost none.

use super::authority::{Authority, NAME_MAX};
use crate::aws_endpoint::{self, Endpoint};
use crate::signing::Scope;

/// The number of hosts that are kept. A further one replaces the oldest.
const CAPACITY: usize = 8;

/// The last [`CAPACITY`] hosts of a worker's requests.
#[derive(Debug, Default)]
pub struct RecentHosts {
    hosts: Vec<RecentHost>,
    oldest: usize,
}

/// A host and its endpoint.
#[derive(Debug)]
pub(super) struct RecentHost {
    /// The authority, as requests spell it. No longer than a host name, a dot and a port.
    authority: Vec<u8>,
    name: String,
    endpoint: Option<Scope>,
}

impl RecentHosts {
    /// Returns the host in an authority; `None` if there is none.
    pub(super) fn find_or_infer(&mut self, authority: &[u8]) -> Option<&RecentHost> {
        let at = match self.hosts.iter().position(|host| host.authority == authority) {
            Some(at) => at,
            None => self.insert(RecentHost::of(authority)?),
        };
        self.hosts.get(at)
    }

    #[cold]
    fn insert(&mut self, host: RecentHost) -> usize {
        if self.hosts.len() < CAPACITY {
            self.hosts.push(host);
            return self.hosts.len() - 1;
        }
        let at = self.oldest;
        if let Some(replaced) = self.hosts.get_mut(at) {
            *replaced = host;
        }
        self.oldest = (at + 1) % CAPACITY;
        at
    }
}

impl RecentHost {
    fn of(authority: &[u8]) -> Option<Self> {
        let mut buffer = [0; NAME_MAX];
        let name = Authority::parse(authority, &mut buffer)?.name;
        let endpoint = aws_endpoint::infer(name).map(|Endpoint { signing_name, region }| Scope {
            region: region.to_owned(),
            service: signing_name.to_owned(),
        });
        Some(Self { authority: authority.to_owned(), name: name.to_owned(), endpoint })
    }

    /// Returns the name, in lower case, without port or trailing dot.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the endpoint that its name implies.
    pub(super) fn endpoint(&self) -> Option<Endpoint<'_>> {
        self.endpoint.as_ref().map(|Scope { region, service }| Endpoint { signing_name: service, region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of the hosts that are kept.
    fn names(hosts: &RecentHosts) -> Vec<&str> {
        let mut names: Vec<_> = hosts.hosts.iter().map(RecentHost::name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_host_has_the_same_endpoint_however_often_it_comes() {
        let services = ["sqs", "sns", "kms", "lambda", "dynamodb", "logs", "events", "states", "kinesis", "athena"];
        for kept in [1, 3, CAPACITY, CAPACITY + 1, services.len()] {
            let mut hosts = RecentHosts::default();
            for round in 0..5 {
                for service in &services[..kept] {
                    let host = format!("{service}.eu-west-1.amazonaws.com");
                    let before = hosts.hosts.len();
                    let found = hosts.find_or_infer(host.as_bytes()).and_then(RecentHost::endpoint);
                    assert_eq!(found, Some(Endpoint { signing_name: service, region: "eu-west-1" }));
                    assert!(round == 0 || hosts.hosts.len() == before, "{host} is kept once");
                }
            }
            assert_eq!(hosts.hosts.len(), kept.min(CAPACITY));
        }
    }

    #[test]
    fn spellings_of_a_host_have_one_name() {
        let mut hosts = RecentHosts::default();
        for authority in
            ["SQS.eu-west-1.amazonaws.com", "sqs.eu-west-1.amazonaws.com.", "sqs.eu-west-1.amazonaws.com:443"]
        {
            for _ in 0..2 {
                let host = hosts.find_or_infer(authority.as_bytes());
                assert_eq!(host.map(RecentHost::name), Some("sqs.eu-west-1.amazonaws.com"));
            }
        }
    }

    #[test]
    fn a_further_host_replaces_the_oldest() {
        let mut hosts = RecentHosts::default();
        let mut come = |name: &str| hosts.find_or_infer(name.as_bytes()).is_some();
        assert!(["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().all(&mut come));
        assert!(["b", "i", "j"].into_iter().all(&mut come));
        assert_eq!(names(&hosts), ["c", "d", "e", "f", "g", "h", "i", "j"]);
    }

    #[test]
    fn what_is_no_host_is_not_kept() {
        let mut hosts = RecentHosts::default();
        let padded = format!("host.example:{}443", "0".repeat(10_000));
        for authority in ["no host", "a..b", &padded, &"a.".repeat(10_000)] {
            assert!(hosts.find_or_infer(authority.as_bytes()).is_none(), "{authority}");
        }
        assert_eq!(names(&hosts), [""; 0]);
    }
}
