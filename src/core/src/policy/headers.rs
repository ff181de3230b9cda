//! Header rules: which headers pass, which are dropped, and which are set.
//!
//! Names are compared in lower case, the form in which Envoy hands headers over.

use std::fmt;

use super::document::HeaderRulesDocument;
use super::error::{Location, PolicyError};
use crate::signing::{is_signature_header, may_be_signed};

/// The header by which the filter tells the proxy's route configuration how to speak to the upstream (`http`; absent for
/// TLS). Only the signer sets it: a client's is removed from every request.
pub const UPSTREAM_SCHEME_HEADER: &str = "x-sigv4-upstream";

/// Which way the headers travel that a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// What becomes of a message's headers: `allow`, then `remove`, then `set`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// `None` lets all pass.
    allow: Option<Vec<NamePattern>>,
    remove: Vec<NamePattern>,
    set: Vec<SetHeader>,
}

/// A header that the policy sets. Its value may be a key to something: `Debug` shows the name alone.
#[derive(Clone, PartialEq, Eq)]
pub struct SetHeader {
    /// In lower case.
    pub name: String,
    /// Visible ASCII, blanks and tabs.
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
    /// Written with a star behind it.
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
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.allow.is_none() && self.remove.is_empty() && self.set.is_empty()
    }

    /// Whether a header of this name (in lower case) that came with the message goes on. One that is to be set does
    /// not: it gives way to the policy's.
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

    /// The headers to set, after all that are not kept are gone.
    pub fn set(&self) -> &[SetHeader] {
        &self.set
    }

    pub(super) fn compile(
        document: HeaderRulesDocument,
        direction: Direction,
        place: &Location,
    ) -> Result<Self, PolicyError> {
        let HeaderRulesDocument { allow, remove, set } = document;
        let patterns = |names: Vec<String>, place: Location| {
            let compiled = names.iter().enumerate().map(|(i, name)| pattern(name, &place.index(i)));
            compiled.collect::<Result<Vec<_>, _>>()
        };
        let allow = allow.map(|names| patterns(names, place.key("allow"))).transpose()?;
        let remove = patterns(remove.unwrap_or_default(), place.key("remove"))?;
        for (i, pattern) in remove.iter().enumerate() {
            if let NamePattern::Name(name) = pattern {
                refuse_protected(name, "removed", direction, &place.key("remove").index(i))?;
            }
        }
        let mut headers: Vec<SetHeader> = Vec::new();
        for (name, value) in set.unwrap_or_default().0 {
            let place = place.key("set").key(&name);
            let name = header_name(&name, &place)?;
            refuse_protected(&name, "set", direction, &place)?;
            if headers.iter().any(|known| known.name == name) {
                return Err(place.error(format!("{name:?} is set twice in different spellings; keep one")));
            }
            if http::HeaderValue::from_str(&value).is_err() {
                return Err(place.error("the value may hold visible ASCII characters, blanks and tabs only"));
            }
            headers.push(SetHeader { name, value });
        }
        Ok(Self { allow, remove, set: headers })
    }
}

fn pattern(written: &str, place: &Location) -> Result<NamePattern, PolicyError> {
    if written.find('*').is_some_and(|star| star + 1 < written.len()) {
        return Err(place.error(format!("{written:?} has a * inside; write it as the last character, as in \"x-*\"")));
    }
    match written.strip_suffix('*') {
        Some("") => Err(place.error(
            "\"*\" would be every header; to let all pass leave allow out, to let none pass write \"allow\": []",
        )),
        Some(beginning) => header_name(beginning, place).map(NamePattern::Beginning),
        None => header_name(written, place).map(NamePattern::Name),
    }
}

/// A header's name in lower case.
pub(super) fn header_name(written: &str, place: &Location) -> Result<String, PolicyError> {
    if written.starts_with(':') {
        return Err(place.error(format!("{written:?} is a pseudo header, which no rule touches; leave it out")));
    }
    if written.contains('*') {
        return Err(place.error(format!("{written:?} is a pattern, which has no place here; write each name")));
    }
    match http::HeaderName::from_bytes(written.as_bytes()) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(place.error(format!("{written:?} is no header name; write letters, digits and -"))),
    }
}

fn refuse_protected(name: &str, verb: &str, direction: Direction, place: &Location) -> Result<(), PolicyError> {
    if !is_protected(name.as_bytes()) {
        return Ok(());
    }
    let owner = match (name, direction) {
        ("host", Direction::Request) => "comes from the target",
        _ if belongs_to_signing(name.as_bytes()) => "belongs to signing",
        _ => "belongs to the proxy",
    };
    Err(place.error(format!("{name:?} {owner} and can't be {verb}; leave it out")))
}

/// Headers that no rule touches.
fn is_protected(name: &[u8]) -> bool {
    name.starts_with(b":")
        || name == b"host"
        || name == ENVOYS_SCHEME
        || belongs_to_signing(name)
        || is_framing_header(name)
}

/// The scheme by which Envoy chooses a route. Without it Envoy finds none.
const ENVOYS_SCHEME: &[u8] = b"x-forwarded-proto";

/// Returns whether a header is part of the signature, or the [`UPSTREAM_SCHEME_HEADER`].
fn belongs_to_signing(name: &[u8]) -> bool {
    is_signature_header(name) || name == UPSTREAM_SCHEME_HEADER.as_bytes()
}

/// Headers of one hop (RFC 9110, 7.6.1) and those that say how long the message is.
fn is_framing_header(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"content-length"
            | b"expect"
            | b"keep-alive"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-connection"
            | b"te"
            | b"trailer"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// Compiles the names of headers that are signed beside the usual ones.
pub(super) fn signed_headers(names: Vec<String>, place: &Location) -> Result<Vec<String>, PolicyError> {
    let mut signed: Vec<String> = Vec::new();
    for (i, written) in names.iter().enumerate() {
        let place = place.index(i);
        let name = header_name(written, &place)?;
        if name == "host" || is_signature_header(name.as_bytes()) {
            return Err(place.error(format!("{name:?} is signed wherever it is needed; leave it out")));
        }
        if name == UPSTREAM_SCHEME_HEADER || is_framing_header(name.as_bytes()) || !may_be_signed(&name) {
            return Err(place.error(format!(
                "{name:?} may be changed on the way, after signing, and AWS would refuse the request; leave it out"
            )));
        }
        if !signed.contains(&name) {
            signed.push(name);
        }
    }
    signed.sort_unstable();
    Ok(signed)
}
