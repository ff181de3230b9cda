//! The hosts of recent requests, and the endpoints inferred from their names.
//!
//! The requests of a mesh go to a few hosts. To infer an endpoint takes a fifth of the instructions of a signed request,
//! and to find it here next to none.

use super::authority::{Authority, NAME_MAX};
use crate::aws_endpoint::{self, Endpoint};
use crate::signing::Scope;

/// The number of hosts that are kept. A further one replaces the oldest.
const CAPACITY: usize = 8;

/// The longest authority that is kept: a host name, a trailing dot and a port.
const AUTHORITY_MAX: usize = NAME_MAX + ".:65535".len();

/// What is known of the last [`CAPACITY`] hosts. A worker has one.
#[derive(Debug, Default)]
pub struct RecentHosts {
    hosts: Vec<RecentHost>,
    oldest: usize,
}

/// A host and its endpoint.
#[derive(Debug)]
pub(super) struct RecentHost {
    /// As requests have it.
    authority: Vec<u8>,
    name: String,
    endpoint: Option<Scope>,
}

impl RecentHosts {
    /// Returns the host in an authority; `None` if there is none, or its port has endless zeros.
    pub(super) fn get(&mut self, authority: &[u8]) -> Option<&RecentHost> {
        if authority.len() > AUTHORITY_MAX {
            return None;
        }
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

    fn endpoint_of(hosts: &mut RecentHosts, authority: &str) -> Option<(String, String)> {
        let host = hosts.get(authority.as_bytes()).expect("it is a host");
        host.endpoint().map(|endpoint| (endpoint.signing_name.to_owned(), endpoint.region.to_owned()))
    }

    #[test]
    fn each_of_many_hosts_has_its_own_endpoint_however_often_they_come() {
        let mut hosts = RecentHosts::default();
        let services = ["sqs", "sns", "kms", "lambda", "dynamodb", "logs", "events", "states", "kinesis", "athena"];
        for step in [1, 3, 7] {
            for number in 0..5 * services.len() {
                let service = services[number * step % services.len()];
                let region = format!("eu-west-{}", 1 + number % 3);
                let found = endpoint_of(&mut hosts, &format!("{service}.{region}.amazonaws.com"));
                assert_eq!(found, Some((service.to_owned(), region)));
            }
        }
    }

    #[test]
    fn spellings_of_a_host_have_one_name() {
        let mut hosts = RecentHosts::default();
        for authority in
            ["SQS.eu-west-1.amazonaws.com", "sqs.eu-west-1.amazonaws.com.", "sqs.eu-west-1.amazonaws.com:443"]
        {
            assert_eq!(hosts.get(authority.as_bytes()).map(RecentHost::name), Some("sqs.eu-west-1.amazonaws.com"));
        }
    }

    #[test]
    fn as_many_hosts_are_kept_as_a_worker_has_room_for() {
        let mut hosts = RecentHosts::default();
        for number in 0..100 {
            assert!(hosts.get(format!("host-{number}.example").as_bytes()).is_some());
            assert!(hosts.get(b"no host").is_none());
            assert!(hosts.get(format!("host.example:{}443", "0".repeat(10_000)).as_bytes()).is_none());
        }
        assert_eq!(hosts.hosts.len(), CAPACITY);
        assert!(hosts.hosts.iter().any(|host| host.name == "host-99.example"), "the last one is among them");
    }
}
