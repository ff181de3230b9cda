//! Header rules: the headers to allow, to remove and to set.
//!
//! Names are compared in lower case, as Envoy passes them.

use std::fmt;

use super::document::HeaderRulesDocument;
use super::error::{Location, PolicyError};
use crate::signing::{is_hop_by_hop, is_signature_header, may_be_signed};

/// The header by which the proxy's route configuration selects the upstream's scheme (`http`; absent for TLS). Only the
/// signer sets it: a client's is removed from every request.
pub const UPSTREAM_SCHEME_HEADER: &str = "x-sigv4-upstream";

/// The message that a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// The rules for a message's headers, applied in the order `allow`, `remove`, `set`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// `None` allows all.
    allow: Option<Vec<NamePattern>>,
    remove: Vec<NamePattern>,
    set: Vec<SetHeader>,
}

/// A header that the policy sets. Its value may be a secret, so `Debug` shows the name alone.
#[derive(Clone, PartialEq, Eq)]
pub struct SetHeader {
    /// The name, in lower case.
    pub name: String,
    /// The value: visible ASCII, blanks and tabs.
    pub value: String,
}

impl fmt::Debug for SetHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetHeader").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NamePattern {
    Name(String),
    /// A prefix, written with a star after it.
    Beginning(String),
}

impl NamePattern {
    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Name(whole) => whole.as_bytes() == name,
            Self::Beginning(beginning) => name.starts_with(beginning.as_bytes()),
        }
    }
}

impl HeaderRules {
    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.allow.is_none() && self.remove.is_empty() && self.set.is_empty()
    }

    /// Returns whether a message's header of this name (in lower case) is forwarded. One that the policy sets is not,
    /// because the policy's replaces it.
    #[inline]
    pub fn keeps(&self, name: &[u8]) -> bool {
        self.is_empty() || self.rules_keep(name)
    }

    fn rules_keep(&self, name: &[u8]) -> bool {
        let passes = self.allow.as_ref().is_none_or(|allow| allow.iter().any(|pattern| pattern.matches(name)))
            && !self.remove.iter().any(|pattern| pattern.matches(name))
            && !self.set.iter().any(|header| header.name.as_bytes() == name);
        passes || is_protected(name)
    }

    /// Returns the headers to set, after those that are not kept have been removed.
    pub fn set(&self) -> &[SetHeader] {
        &self.set
    }

    pub(super) fn compile(
        document: HeaderRulesDocument,
        direction: Direction,
        location: &Location,
    ) -> Result<Self, PolicyError> {
        let HeaderRulesDocument { allow, remove, set } = document;
        let patterns = |names: Vec<String>, location: Location| {
            let compiled = names.iter().enumerate().map(|(i, name)| pattern(name, &location.index(i)));
            compiled.collect::<Result<Vec<_>, _>>()
        };
        let allow = allow.0.map(|names| patterns(names, location.key("allow"))).transpose()?;
        let remove = patterns(remove.0.unwrap_or_default(), location.key("remove"))?;
        for (i, pattern) in remove.iter().enumerate() {
            if let NamePattern::Name(name) = pattern {
                refuse_protected(name, "removed", direction, &location.key("remove").index(i))?;
            }
        }
        let mut headers: Vec<SetHeader> = Vec::new();
        for (name, value) in set.0.unwrap_or_default().0 {
            let location = location.key("set").key(&name);
            let name = header_name(&name, &location)?;
            refuse_protected(&name, "set", direction, &location)?;
            if headers.iter().any(|known| known.name == name) {
                return Err(location.error(format!("{name:?} is set twice in different spellings; keep one")));
            }
            if http::HeaderValue::from_str(&value).is_err() {
                return Err(location.error("the value must be visible ASCII characters, blanks and tabs"));
            }
            headers.push(SetHeader { name, value });
        }
        Ok(Self { allow, remove, set: headers })
    }
}

fn pattern(written: &str, location: &Location) -> Result<NamePattern, PolicyError> {
    if written.find('*').is_some_and(|star| star + 1 < written.len()) {
        return Err(location.error(format!("{written:?} has a * inside; use it as the last character, as in \"x-*\"")));
    }
    match written.strip_suffix('*') {
        Some("") => Err(location
            .error("\"*\" matches every header; remove allow to let all pass, or to let none pass set \"allow\": []")),
        Some(beginning) => header_name(beginning, location).map(NamePattern::Beginning),
        None => header_name(written, location).map(NamePattern::Name),
    }
}

/// Returns a header's name in lower case.
pub(super) fn header_name(written: &str, location: &Location) -> Result<String, PolicyError> {
    if written.starts_with(':') {
        return Err(location.error(format!("{written:?} is a pseudo header, to which no rule applies; remove it")));
    }
    if written.contains('*') {
        return Err(location.error(format!("{written:?} is a pattern, which is not supported here; list each name")));
    }
    match http::HeaderName::from_bytes(written.as_bytes()) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(location.error(format!("{written:?} is not a header name; use letters, digits and -"))),
    }
}

fn refuse_protected(name: &str, verb: &str, direction: Direction, location: &Location) -> Result<(), PolicyError> {
    if !is_protected(name.as_bytes()) {
        return Ok(());
    }
    let owner = match (name, direction) {
        ("host", Direction::Request) => "comes from the target",
        _ if belongs_to_signing(name.as_bytes()) => "belongs to signing",
        _ => "belongs to the proxy",
    };
    Err(location.error(format!("{name:?} {owner} and can't be {verb}; remove it")))
}

/// Returns whether no rule applies to a header.
fn is_protected(name: &[u8]) -> bool {
    name.starts_with(b":")
        || name == b"host"
        || name == ENVOYS_SCHEME
        || belongs_to_signing(name)
        || is_framing_header(name)
}

/// The scheme, without which Envoy finds no route.
const ENVOYS_SCHEME: &[u8] = b"x-forwarded-proto";

/// Returns whether a header is part of the signature, or the [`UPSTREAM_SCHEME_HEADER`].
fn belongs_to_signing(name: &[u8]) -> bool {
    is_signature_header(name) || name == UPSTREAM_SCHEME_HEADER.as_bytes()
}

/// Returns whether a header belongs to one hop (RFC 9110, 7.6.1) or gives the message's length.
fn is_framing_header(name: &[u8]) -> bool {
    name == b"content-length" || is_hop_by_hop(name)
}

/// Compiles the names of headers to sign in addition to the usual ones.
pub(super) fn signed_headers(names: Vec<String>, location: &Location) -> Result<Vec<String>, PolicyError> {
    let mut signed: Vec<String> = Vec::new();
    for (i, written) in names.iter().enumerate() {
        let location = location.index(i);
        let name = header_name(written, &location)?;
        if name == "host" || is_signature_header(name.as_bytes()) {
            return Err(location.error(format!("{name:?} is signed wherever it is needed; remove it")));
        }
        if name == UPSTREAM_SCHEME_HEADER || is_framing_header(name.as_bytes()) || !may_be_signed(&name) {
            return Err(location
                .error(format!("{name:?} may be changed after signing, and AWS would reject the request; remove it")));
        }
        if !signed.contains(&name) {
            signed.push(name);
        }
    }
    signed.sort_unstable();
    Ok(signed)
}
