//! The callers that a route admits: patterns for what Envoy has verified of a client.
//!
//! A pattern is a URI or DNS name of the client's certificate, or an issuer and claims of a verified token. In a SPIFFE id,
//! `*` stands for one whole segment of the path.

use std::fmt;

use crate::header_map::HeaderMap;

use super::document::{CallerEntry, TokenCaller};
use super::error::{Location, PolicyError};
use super::placeholder::Placeholder;

/// A client as Envoy has verified it, as far as patterns ask for it.
#[derive(Debug, Default)]
pub struct Caller {
    /// The first URI of the client certificate's SAN.
    pub uri: Option<Vec<u8>>,
    /// The first DNS name of the client certificate's SAN.
    pub dns: Option<Vec<u8>>,
    /// The payloads of verified tokens, a map of maps in the proxy's form.
    pub tokens: Option<HeaderMap>,
}

/// The sources that have to be read to match a client with patterns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallerSources {
    /// [`Caller::uri`].
    pub uri: bool,
    /// [`Caller::dns`].
    pub dns: bool,
    /// [`Caller::tokens`].
    pub tokens: bool,
}

impl CallerSources {
    /// Adds what a pattern asks for.
    pub(super) fn add(&mut self, pattern: &CallerPattern) {
        match pattern.kind {
            Kind::Spiffe { .. } | Kind::Uri(_) => self.uri = true,
            Kind::Dns(_) => self.dns = true,
            Kind::Token { .. } => self.tokens = true,
        }
    }
}

/// A pattern of callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerPattern {
    kind: Kind,
    exactness: Exactness,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The trust domain, and the segments of the path; `None` for `*`.
    Spiffe {
        trust_domain: String,
        segments: Vec<Option<String>>,
    },
    Uri(String),
    Dns(String),
    /// Claims by name, each once.
    Token {
        issuer: String,
        claims: Vec<(String, String)>,
    },
}

/// The order of patterns: one without `*` before one with, then by the number of literal segments, then of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exactness {
    has_no_wildcard: bool,
    literal_segments: usize,
    claims: usize,
}

/// The part of a caller that a pattern admits.
#[derive(Debug, Clone, Copy)]
pub enum Admitted<'c> {
    /// A name in the client's certificate.
    Name(&'c [u8]),
    /// The payload of a token.
    Token(HeaderMap<&'c [u8]>),
}

impl<'c> Admitted<'c> {
    /// Returns a value of the caller; `None` if it has none.
    pub(super) fn value(&self, placeholder: &Placeholder) -> Option<&'c [u8]> {
        match (self, placeholder) {
            (Self::Token(payload), Placeholder::Claim(name)) => {
                payload.entries().find(|(claim, _)| *claim == name.as_bytes()).map(|(_, value)| value)
            }
            (Self::Name(name), Placeholder::TrustDomain) => spiffe_parts(name)?.next(),
            (Self::Name(name), Placeholder::Namespace | Placeholder::ServiceAccount) => {
                let parts: Vec<_> = spiffe_parts(name)?.skip(1).collect();
                match (&parts[..], placeholder) {
                    ([b"ns", namespace, b"sa", _], Placeholder::Namespace) => Some(*namespace),
                    ([b"ns", _, b"sa", account], Placeholder::ServiceAccount) => Some(*account),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Returns the trust domain and the segments of a SPIFFE id.
fn spiffe_parts(id: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    Some(id.strip_prefix(SPIFFE.as_bytes())?.split(|byte| *byte == b'/'))
}

const SPIFFE: &str = "spiffe://";

impl CallerPattern {
    /// Compiles one entry of a route's `callers`.
    pub(super) fn compile(entry: CallerEntry, location: &Location) -> Result<Self, PolicyError> {
        let kind = match entry {
            CallerEntry::Name(name) => Kind::of_name(name).map_err(|problem| location.error(problem))?,
            CallerEntry::Token(token) => Kind::of_token(*token, location)?,
        };
        Ok(Self { exactness: kind.exactness(), kind })
    }

    /// Returns issuer and claims of a pattern of tokens; `None` for one of names in a certificate, which is its text.
    pub fn token(&self) -> Option<(&str, &[(String, String)])> {
        match &self.kind {
            Kind::Token { issuer, claims } => Some((issuer, claims)),
            Kind::Spiffe { .. } | Kind::Uri(_) | Kind::Dns(_) => None,
        }
    }

    /// Returns how exact the pattern is.
    pub fn exactness(&self) -> Exactness {
        self.exactness
    }

    /// Returns the part of a caller that the pattern admits; `None` if it does not admit the caller.
    pub fn admits<'c>(&self, caller: &'c Caller) -> Option<Admitted<'c>> {
        let name = |name: &'c Option<Vec<u8>>| name.as_deref().filter(|name| self.kind.is_name(name));
        match &self.kind {
            Kind::Spiffe { .. } | Kind::Uri(_) => name(&caller.uri).map(Admitted::Name),
            Kind::Dns(_) => name(&caller.dns).map(Admitted::Name),
            Kind::Token { issuer, claims } => {
                let payloads = caller.tokens.as_ref()?.iter().map(|(_, payload)| HeaderMap(payload));
                let mut admitted = payloads.filter(|payload| {
                    payload.get(b"iss") == Some(issuer.as_bytes())
                        && claims.iter().all(|(name, value)| has_claim(payload, name, value))
                });
                let first = admitted.next()?;
                // Envoy may show one token under several names. Of different ones, the order says nothing.
                admitted.all(|other| other.0 == first.0).then_some(Admitted::Token(first))
            }
        }
    }

    /// Returns whether every caller that the pattern admits may have this value.
    pub(super) fn gives(&self, placeholder: &Placeholder) -> bool {
        match (&self.kind, placeholder) {
            (Kind::Spiffe { segments, .. }, Placeholder::Namespace | Placeholder::ServiceAccount) => {
                matches!(&segments[..], [Some(ns), _, Some(sa), _] if ns == "ns" && sa == "sa")
            }
            (Kind::Spiffe { .. }, Placeholder::TrustDomain) | (Kind::Token { .. }, Placeholder::Claim(_)) => true,
            _ => false,
        }
    }

    /// Returns whether two patterns are equally exact and admit a caller in common, as far as their text shows. Patterns
    /// with different values of one claim, which may be a list, are told apart by each request.
    pub(super) fn ties_with(&self, other: &Self) -> bool {
        self.exactness == other.exactness
            && match (&self.kind, &other.kind) {
                (
                    Kind::Spiffe { trust_domain, segments },
                    Kind::Spiffe { trust_domain: other_domain, segments: others },
                ) => {
                    trust_domain == other_domain
                        && segments.len() == others.len()
                        && segments
                            .iter()
                            .zip(others)
                            .all(|(one, other)| one.is_none() || other.is_none() || one == other)
                }
                (Kind::Token { issuer, claims }, Kind::Token { issuer: other_issuer, claims: others }) => {
                    let differs = |(name, value): &(String, String)| {
                        others.iter().any(|(other, another)| name == other && value != another)
                    };
                    issuer == other_issuer && !claims.iter().any(differs)
                }
                (one, other) => one == other,
            }
    }
}

impl Kind {
    fn of_name(name: String) -> Result<Self, String> {
        if let Some(id) = name.strip_prefix(SPIFFE) {
            let mut parts = id.split('/');
            let trust_domain = parts.next().unwrap_or_default().to_owned();
            if !is_trust_domain(&trust_domain) {
                return Err(format!(
                    "{trust_domain:?} is not a trust domain; use lower-case letters, digits, - . and _, without *"
                ));
            }
            let segment = |text: &str| match text {
                "*" => Ok(None),
                _ if text.contains('*') => {
                    Err(format!("{text:?} has a * inside; use it as a whole segment of the path"))
                }
                _ if is_segment(text.as_bytes()) => Ok(Some(text.to_owned())),
                _ => Err(format!("{text:?} is not a segment of a SPIFFE id; use letters, digits, - . and _")),
            };
            return Ok(Self::Spiffe { trust_domain, segments: parts.map(segment).collect::<Result<_, _>>()? });
        }
        if name.contains('*') {
            return Err(format!("{name:?} has a *, which is for SPIFFE ids alone; write the whole name"));
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{name:?} is not a name in a certificate; write a URI or a DNS name"));
        }
        Ok(if name.contains(':') { Self::Uri(name) } else { Self::Dns(name.to_ascii_lowercase()) })
    }

    fn of_token(token: TokenCaller, location: &Location) -> Result<Self, PolicyError> {
        let TokenCaller { issuer, claims } = token;
        if issuer.is_empty() {
            return Err(location.key("issuer").error("is empty; set the token's iss, such as https://issuer.example"));
        }
        Ok(Self::Token { issuer, claims: claims.0.unwrap_or_default().0 })
    }

    fn exactness(&self) -> Exactness {
        let exactness =
            |has_no_wildcard, literal_segments, claims| Exactness { has_no_wildcard, literal_segments, claims };
        match self {
            Self::Spiffe { segments, .. } => {
                let literal = segments.iter().flatten().count();
                exactness(literal == segments.len(), literal, 0)
            }
            Self::Uri(name) => exactness(true, name.split('/').skip(1).filter(|part| !part.is_empty()).count(), 0),
            Self::Dns(_) => exactness(true, 1, 0),
            Self::Token { claims, .. } => exactness(true, 0, claims.len()),
        }
    }

    /// Returns whether a name of the certificate is the pattern's.
    fn is_name(&self, name: &[u8]) -> bool {
        match self {
            Self::Spiffe { trust_domain, segments } => {
                let Some(mut parts) = spiffe_parts(name) else { return false };
                parts.next() == Some(trust_domain.as_bytes())
                    && segments.iter().all(|expected| match (expected, parts.next()) {
                        (Some(expected), Some(part)) => part == expected.as_bytes(),
                        (None, Some(part)) => is_segment(part),
                        (_, None) => false,
                    })
                    && parts.next().is_none()
            }
            Self::Uri(uri) => name == uri.as_bytes(),
            Self::Dns(dns) => name.eq_ignore_ascii_case(dns.as_bytes()),
            Self::Token { .. } => false,
        }
    }
}

impl fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Spiffe { trust_domain, segments } => {
                write!(f, "{SPIFFE}{trust_domain}")?;
                segments.iter().try_for_each(|segment| write!(f, "/{}", segment.as_deref().unwrap_or("*")))
            }
            Kind::Uri(name) | Kind::Dns(name) => f.write_str(name),
            Kind::Token { issuer, claims } => {
                f.write_str(issuer)?;
                claims.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
        }
    }
}

/// Returns whether a payload has a claim with this value: a string, or a list with it as a member.
///
/// The proxy writes a list like a map whose names are the members and whose values are empty.
fn has_claim(payload: &HeaderMap<&[u8]>, name: &str, value: &str) -> bool {
    payload.get(name.as_bytes()).is_some_and(|claim| {
        claim == value.as_bytes()
            || HeaderMap(claim).iter().any(|(member, rest)| member == value.as_bytes() && rest.is_empty())
    })
}

/// Returns whether `name` can be a trust domain. Source: SPIFFE-ID, 2.1, "Trust Domain".
fn is_trust_domain(name: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    !name.is_empty() && name.bytes().all(is_allowed)
}

/// Returns whether `segment` can be one of a path. Source: SPIFFE-ID, 2.2, "Path".
fn is_segment(segment: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !matches!(segment, b"" | b"." | b"..") && segment.iter().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::super::document::{Entries, Written};
    use super::*;

    fn pattern(name: &str) -> CallerPattern {
        CallerPattern::compile(CallerEntry::Name(name.to_owned()), &Location::default()).unwrap()
    }

    fn token(issuer: &str, claims: &[(&str, &str)]) -> CallerPattern {
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let entry = TokenCaller { issuer: issuer.to_owned(), claims: Written(Some(Entries(claims))) };
        CallerPattern::compile(CallerEntry::Token(entry.into()), &Location::default()).unwrap()
    }

    fn with_uri(uri: &[u8]) -> Caller {
        Caller { uri: Some(uri.to_vec()), ..Caller::default() }
    }

    #[test]
    fn a_wildcard_stands_for_one_whole_segment() {
        let orders = pattern("spiffe://cluster.local/ns/orders/sa/*");
        for admitted in ["spiffe://cluster.local/ns/orders/sa/default", "spiffe://cluster.local/ns/orders/sa/a.b_c-1"] {
            assert!(orders.admits(&with_uri(admitted.as_bytes())).is_some(), "{admitted}");
        }
        for refused in [
            "spiffe://cluster.local/ns/orders/sa/",
            "spiffe://cluster.local/ns/orders/sa",
            "spiffe://cluster.local/ns/orders/sa/a/b",
            "spiffe://cluster.local/ns/orders/sa/a/",
            "spiffe://cluster.local/ns/orders/sa/..",
            "spiffe://cluster.local/ns/orders/sa/a%2Fb",
            "spiffe://cluster.local/ns/orders/sa/*",
            "spiffe://cluster.local/ns/orders/sa/a?b",
            "spiffe://cluster.local/ns/orders/sa/a#b",
            "spiffe://cluster.local/ns/orders2/sa/a",
            "spiffe://cluster.local//ns/orders/sa/a",
            "spiffe://cluster.localx/ns/orders/sa/a",
            "spiffe://other/ns/orders/sa/a",
            "SPIFFE://cluster.local/ns/orders/sa/a",
            "https://cluster.local/ns/orders/sa/a",
            "",
        ] {
            assert!(orders.admits(&with_uri(refused.as_bytes())).is_none(), "{refused}");
        }
        let dns = Caller { dns: Some(b"spiffe://cluster.local/ns/orders/sa/a".to_vec()), ..Caller::default() };
        assert!(orders.admits(&dns).is_none());
    }

    #[test]
    fn a_dns_name_and_another_uri_are_matched_whole() {
        let dns = |name: &str| Caller { dns: Some(name.as_bytes().to_vec()), ..Caller::default() };
        assert!(pattern("Orders.internal").admits(&dns("orders.INTERNAL")).is_some());
        assert!(pattern("orders.internal").admits(&dns("x.orders.internal")).is_none());
        assert!(pattern("orders.internal").admits(&with_uri(b"orders.internal")).is_none());
        assert!(pattern("urn:orders").admits(&with_uri(b"urn:orders")).is_some());
        assert!(pattern("urn:orders").admits(&with_uri(b"urn:orders:x")).is_none());
    }

    #[test]
    fn a_token_is_admitted_by_issuer_and_claims_of_one_payload() {
        let list = HeaderMap::serialize(&[("orders", ""), ("billing", "")]).0;
        let payload = |issuer: &str, team: &[u8]| HeaderMap::serialize(&[("iss", issuer.as_bytes()), ("team", team)]).0;
        let caller =
            |payloads: &[(&str, Vec<u8>)]| Caller { tokens: Some(HeaderMap::serialize(payloads)), ..Caller::default() };
        let orders = token("https://a", &[("team", "orders")]);
        assert!(orders.admits(&caller(&[("jwt", payload("https://a", b"orders"))])).is_some());
        assert!(orders.admits(&caller(&[("jwt", payload("https://a", &list))])).is_some());
        let twice = ["one", "two"].map(|name| (name, payload("https://a", b"orders")));
        assert!(orders.admits(&caller(&twice)).is_some());
        let issuers = HeaderMap::serialize(&[("https://a", ""), ("https://b", "")]).0;
        let by_list = HeaderMap::serialize(&[("iss", &issuers[..]), ("team", b"orders")]).0;
        assert!(orders.admits(&caller(&[("jwt", by_list)])).is_none());
        assert!(token("https://a", &[]).admits(&caller(&[("jwt", payload("https://a", b""))])).is_some());
        for payloads in [
            vec![("jwt", payload("https://b", b"orders"))],
            vec![("jwt", payload("https://a", b"billing"))],
            vec![("jwt", payload("https://a", b""))],
            // The issuer of one token, and the claim of another.
            vec![("one", payload("https://a", b"x")), ("two", payload("https://b", b"orders"))],
            // Two tokens of one caller: which of them is it?
            vec![("one", payload("https://a", b"orders")), ("two", payload("https://a", &list))],
            vec![("failed", HeaderMap::serialize(&[("code", "1"), ("message", "https://a")]).0)],
            vec![("text", b"https://a".to_vec())],
            vec![],
        ] {
            assert!(orders.admits(&caller(&payloads)).is_none(), "{payloads:?}");
        }
        assert!(orders.admits(&Caller::default()).is_none());
    }

    #[test]
    fn patterns_are_ordered_by_exactness() {
        let falling = [
            pattern("spiffe://td/ns/orders/sa/default"),
            pattern("spiffe://td/ns/orders"),
            token("https://a", &[("team", "orders"), ("role", "x")]),
            token("https://a", &[("team", "orders")]),
            token("https://a", &[]),
            pattern("spiffe://td/ns/orders/sa/*"),
            pattern("spiffe://td/ns/*/sa/*"),
        ];
        assert!(falling.windows(2).all(|pair| pair[0].exactness() > pair[1].exactness()));
    }

    #[test]
    fn a_tie_is_between_equally_exact_patterns_that_admit_one_caller() {
        let tie = |one: &CallerPattern, other: &CallerPattern| {
            assert_eq!(one.ties_with(other), other.ties_with(one));
            one.ties_with(other)
        };
        let [any_sa, any_ns] = ["spiffe://td/ns/orders/sa/*", "spiffe://td/ns/*/sa/x"].map(pattern);
        assert!(tie(&any_sa, &any_ns) && tie(&any_sa, &any_sa));
        assert!(!tie(&any_sa, &pattern("spiffe://td/ns/billing/sa/*")));
        assert!(!tie(&any_sa, &pattern("spiffe://other/ns/orders/sa/*")));
        assert!(!tie(&any_sa, &pattern("spiffe://td/ns/orders/sa/x")));
        let team = |team| token("https://a", &[("team", team)]);
        assert!(tie(&team("a"), &team("a")) && tie(&team("a"), &token("https://a", &[("role", "x")])));
        assert!(!tie(&team("a"), &team("b")) && !tie(&team("a"), &token("https://b", &[("team", "a")])));
    }

    #[test]
    fn a_name_that_no_certificate_has_is_refused() {
        for (name, problem) in [
            ("spiffe://td/ns/a*/sa/x", "\"a*\" has a * inside; use it as a whole segment of the path"),
            ("spiffe://*/ns/a", "\"*\" is not a trust domain"),
            ("spiffe:///ns/a", "\"\" is not a trust domain"),
            ("spiffe://TD/ns/a", "\"TD\" is not a trust domain"),
            ("spiffe://td/ns//sa/x", "\"\" is not a segment of a SPIFFE id"),
            ("spiffe://td/ns/../x", "\"..\" is not a segment of a SPIFFE id"),
            ("spiffe://td/ns/%2F/x", "\"%2F\" is not a segment of a SPIFFE id"),
            ("*.orders.internal", "\"*.orders.internal\" has a *, which is for SPIFFE ids alone"),
            ("", "\"\" is not a name in a certificate"),
            ("a b", "\"a b\" is not a name in a certificate"),
        ] {
            let error = CallerPattern::compile(CallerEntry::Name(name.to_owned()), &Location::default()).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }
}
