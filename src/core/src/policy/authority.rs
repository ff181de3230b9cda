//! Host names: those in a policy, and a request's authority.

use std::fmt;
use std::net::Ipv6Addr;

use crate::aws_endpoint::strip_domain;

/// The longest host name of the DNS.
pub(super) const NAME_MAX: usize = 253;

/// The hosts of a route: one name, or all names below a domain. Lower case, without trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// `true` for `*.domain`: every name below `name`, but not `name` itself.
    pub(super) wildcard: bool,
    pub(super) name: String,
    /// The only port that matches; `None` for every port.
    pub(super) port: Option<u16>,
}

impl HostPattern {
    /// Returns whether some host matches both patterns.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let takes = |pattern: &Self, name: &str| pattern.wildcard && strip_domain(name, &pattern.name).is_some();
        let ports = self.port.is_none() || other.port.is_none() || self.port == other.port;
        let same = self.wildcard == other.wildcard && self.name == other.name;
        ports && (same || takes(self, &other.name) || takes(other, &self.name))
    }

    pub(super) fn parse(written: &str) -> Result<Self, String> {
        if written == "*" {
            return Err("\"*\" matches every host; remove hosts instead, and set a target".to_owned());
        }
        let (wildcard, rest) = match written.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, written),
        };
        if rest.contains('*') {
            return Err(format!("{written:?} has a * that is not the first label; use a name, or *. and a domain"));
        }
        if rest.contains("://") {
            return Err(format!("{written:?} is a URL; use its host alone"));
        }
        let HostAndPort { host, port } = parse_host_and_port(rest)?;
        if wildcard && host.starts_with('[') {
            return Err(format!("{written:?} has a * before an address; use the address alone"));
        }
        Ok(Self { wildcard, name: host, port })
    }

    /// Returns all patterns that an authority matches, the most exact first; none if it is not a host.
    pub fn all_of(authority: &[u8]) -> Vec<Self> {
        let mut buffer = [0; NAME_MAX];
        let Some(host) = Authority::parse(authority, &mut buffer) else { return Vec::new() };
        let domains = host.name.match_indices('.').filter_map(|(dot, _)| host.name.get(dot + 1..));
        let names = std::iter::once((false, host.name)).chain(domains.map(|domain| (true, domain)));
        let ports = host.port.map(Some).into_iter().chain([None]);
        names
            .flat_map(|(wildcard, name)| ports.clone().map(move |port| Self { wildcard, name: name.to_owned(), port }))
            .collect()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A host and port in a policy, validated; the host in lower case, an IPv6 address in brackets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HostAndPort {
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// # Errors
/// Names the defect and the fix, for the policy's author.
pub(super) fn parse_host_and_port(written: &str) -> Result<HostAndPort, String> {
    let (host, port) = split_port(written).ok_or_else(|| {
        format!("{written:?} is not a host name with an optional port; put an IPv6 address in brackets")
    })?;
    let port = match port {
        None => None,
        Some(digits) => match parse_port(digits) {
            Some(port) => Some(port),
            None => return Err(format!("the port {digits:?} is not a number from 1 to 65535")),
        },
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| format!("{host:?} is not an IPv6 address"))?;
        return Ok(HostAndPort { host: format!("[{address}]"), port });
    }
    if !host.is_ascii() {
        return Err(format!("the host {host:?} has letters outside ASCII; use its punycode form (xn--…)"));
    }
    if let Some(name) = host.strip_suffix('.') {
        return Err(format!("the host {host:?} ends in a dot; use {name:?}"));
    }
    let lower = host.to_ascii_lowercase();
    if !is_name(lower.as_bytes()) {
        return Err(format!(
            "{host:?} is not a host name; use labels of 1 to 63 letters, digits, - and _ separated by dots, at most {NAME_MAX} in all"
        ));
    }
    Ok(HostAndPort { host: lower, port })
}

/// Splits `host`, `host:port`, `[v6]` and `[v6]:port`; `None` if the text is none of these.
fn split_port(written: &str) -> Option<(&str, Option<&str>)> {
    let port_at = match written.strip_prefix('[') {
        Some(_) => written.find(']')? + 1,
        None => written.find(':').unwrap_or(written.len()),
    };
    let (host, rest) = written.split_at_checked(port_at)?;
    match rest.strip_prefix(':') {
        Some(port) if !port.contains(':') => Some((host, Some(port))),
        None if rest.is_empty() => Some((host, None)),
        _ => None,
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    // Zeros before a port are read by some and not by others, and without end they would be kept with the host.
    let is_number = digits.len() <= "65535".len() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|port| is_number && *port != 0)
}

/// Returns whether this is a host name in lower case: labels of letters, digits, `-` and `_`, or an IPv4 address.
fn is_name(host: &[u8]) -> bool {
    host.len() <= NAME_MAX
        && host.split(|b| *b == b'.').all(|label| {
            (1..=63).contains(&label.len())
                && label.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        })
}

/// The authority of a request, in the form of patterns: lower case, without trailing dot.
pub(super) struct Authority<'a> {
    pub(super) name: &'a str,
    pub(super) port: Option<u16>,
}

/// Room for a host name in lower case.
pub(super) type NameBuffer = [u8; NAME_MAX];

impl<'a> Authority<'a> {
    /// Parses an authority; `None` if it is not a host with an optional port. No pattern matches such an authority: a route
    /// that keeps the request's own authority would sign and send it to whatever host a laxer parser reads in it.
    pub(super) fn parse(authority: &[u8], buffer: &'a mut NameBuffer) -> Option<Self> {
        let (host, port) = split_port(std::str::from_utf8(authority).ok()?)?;
        let port = match port {
            None => None,
            Some(digits) => Some(parse_port(digits)?),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let lower = buffer.get_mut(..host.len())?;
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        let lower: &'a [u8] = lower;
        let name = std::str::from_utf8(lower).ok()?;
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let valid = address.map_or_else(|| is_name(lower), |address| address.parse::<Ipv6Addr>().is_ok());
        valid.then_some(Self { name, port })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(authority: &str) -> Option<(String, Option<u16>)> {
        let mut buffer = [0; NAME_MAX];
        Authority::parse(authority.as_bytes(), &mut buffer).map(|host| (host.name.to_owned(), host.port))
    }

    #[test]
    fn an_authority_is_read_without_regard_to_case_and_trailing_dot() {
        assert_eq!(read("API.Example.com."), Some(("api.example.com".to_owned(), None)));
        assert_eq!(read("api.example.com.:8443"), Some(("api.example.com".to_owned(), Some(8443))));
        assert_eq!(read("[::1]:80"), Some(("[::1]".to_owned(), Some(80))));
        assert_eq!(read("10.0.0.1"), Some(("10.0.0.1".to_owned(), None)));
    }

    #[test]
    fn what_is_no_authority_is_no_host() {
        let label = "a".repeat(64);
        let name = "a.".repeat(200);
        for authority in [
            "",
            ".",
            "..",
            "a..b",
            "u@a.amazonaws.com",
            "evil.com#.amazonaws.com",
            "evil.com/.amazonaws.com",
            "evil.com:80.amazonaws.com",
            "a:",
            "a:0",
            "a:+80",
            "a:65536",
            "a:80:80",
            "a:000080",
            "[::1",
            "::1]",
            "[::1]x",
            "[x]",
            "a b.com",
            "a\0.com",
            "ü.com",
            &label,
            &name,
        ] {
            assert_eq!(read(authority), None, "{authority:?}");
        }
        let mut buffer = [0; NAME_MAX];
        assert!(Authority::parse(b"\xff.amazonaws.com", &mut buffer).is_none());
    }

    proptest! {
        #[test]
        fn an_authority_is_read_as_a_host_in_a_policy_is(
            authority in "\\[?([a-cA-C0-9_-]{0,2}|[a-c]{62,64}|([a-c]{9}\\.){24,26}|::1)(\\.[a-cA-C_-]{0,3}){0,3}(\\]|\\.|é| |@a)?(:[0-9]{0,6})?"
        ) {
            // A policy's host has no trailing dot, and may have more than the longest name before one.
            let (host, port) = authority.rsplit_once(':').filter(|(host, _)| !host.ends_with(':')).unzip();
            let host = host.unwrap_or(&authority);
            let written = host.strip_suffix('.').filter(|host| !host.ends_with(']')).unwrap_or(host).to_owned()
                + &port.map(|port| format!(":{port}")).unwrap_or_default();
            let expected = parse_host_and_port(&written).ok().map(|HostAndPort { host, port }| (host, port));
            prop_assert_eq!(read(&authority), expected, "{}", authority);
        }
    }

    #[test]
    fn a_trailing_dot_does_not_count_for_the_longest_name() {
        let longest = format!("{}{}", format!("{}.", "a".repeat(63)).repeat(3), "b".repeat(61));
        assert_eq!(longest.len(), NAME_MAX);
        for suffix in ["", ".", ":80", ".:80"] {
            assert_eq!(read(&format!("{longest}{suffix}")).map(|(name, _)| name), Some(longest.clone()), "{suffix}");
            assert_eq!(read(&format!("{longest}b{suffix}")), None, "{suffix}");
            assert_eq!(read(&format!("{longest}.b{suffix}")), None, "{suffix}");
        }
    }

    #[test]
    fn the_patterns_of_an_authority_are_those_that_match_it() {
        for (authority, patterns) in [
            ("A.example.com.", &["a.example.com", "*.example.com", "*.com"][..]),
            ("example.com:80", &["example.com:80", "example.com", "*.com:80", "*.com"]),
            ("[::1]:80", &["[::1]:80", "[::1]"]),
            ("localhost", &["localhost"]),
            ("a..b", &[]),
        ] {
            let shown: Vec<_> = HostPattern::all_of(authority.as_bytes()).iter().map(ToString::to_string).collect();
            assert_eq!(shown, patterns, "{authority}");
        }
    }

    #[test]
    fn a_pattern_is_shown_in_its_plain_form() {
        for (written, shown) in
            [("API.example.com", "api.example.com"), ("*.Example.com:8443", "*.example.com:8443"), ("[0::1]", "[::1]")]
        {
            assert_eq!(HostPattern::parse(written).unwrap().to_string(), shown);
        }
    }
}
