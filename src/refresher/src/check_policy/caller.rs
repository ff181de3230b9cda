//! The caller that `check-policy` is asked about, and the routes that take its requests.

use std::fmt;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use sigv4_core::credentials::Identity;
use sigv4_core::header_map::HeaderMap;
use sigv4_core::policy::{Admitted, Caller, NotAdmitted, Policy, Route, RouteIdentity};

use super::session::session;
use super::table::write_table;

/// The options that describe a caller.
#[derive(Debug, Default, Args)]
pub(super) struct CallerOptions {
    /// Show which route takes the requests of a client whose certificate has this name, a URI such as
    /// spiffe://cluster.local/ns/orders/sa/default, or a DNS name. Exits with 3 if none does. May be given for one of
    /// each.
    #[arg(long = "caller", value_name = "NAME")]
    names: Vec<String>,

    /// The same for a client with a verified token of these claims, as a JSON object: '{"iss": "https://issuer.example",
    /// "team": "orders"}'. May be repeated, for several tokens.
    #[arg(long = "caller-claims", value_name = "JSON")]
    claims: Vec<String>,
}

impl CallerOptions {
    /// Returns the caller, if there is one; a message if it could not come from Envoy.
    pub(super) fn caller(&self) -> Result<Option<Caller>, String> {
        if self.names.is_empty() && self.claims.is_empty() {
            return Ok(None);
        }
        let mut caller = Caller::default();
        for name in &self.names {
            let (slot, kind) = match name.contains(':') {
                true => (&mut caller.uri, "URI"),
                false => (&mut caller.dns, "DNS name"),
            };
            if name.is_empty() {
                return Err("--caller is empty; give a URI or a DNS name".to_owned());
            }
            if slot.replace(name.clone().into_bytes()).is_some() {
                return Err(format!(
                    "--caller {name:?} is a second {kind}; of a certificate only the first counts, so give one"
                ));
            }
        }
        let tokens = self.claims.iter().map(|claims| Ok((format!("token {claims}"), payload(claims)?)));
        let tokens = tokens.collect::<Result<Vec<_>, String>>()?;
        caller.tokens = (!tokens.is_empty()).then(|| HeaderMap::serialize(&tokens));
        Ok(Some(caller))
    }
}

/// Returns a token's payload in the proxy's form.
fn payload(claims: &str) -> Result<Vec<u8>, String> {
    let error = |problem: String| format!("--caller-claims {claims}: {problem}");
    let claims: Value = serde_json::from_str(claims).map_err(|problem| error(format!("is not JSON: {problem}")))?;
    match &claims {
        Value::Object(members) if !members.contains_key("iss") => {
            Err(error("has no \"iss\"; add the token's issuer".to_owned()))
        }
        Value::Object(_) => serialize(&claims).map_err(error),
        _ => Err(error("is not an object; write {\"iss\": …, …}".to_owned())),
    }
}

/// Returns a value as the proxy serializes it for the filter.
///
/// Source: Envoy's `source/extensions/common/wasm/context.cc`, `serializeValue`.
fn serialize(value: &Value) -> Result<Vec<u8>, String> {
    Ok(match value {
        Value::Null => {
            return Err("has a null, which Envoy can't show to the filter: such a token is not read".to_owned());
        }
        Value::Bool(flag) => vec![u8::from(*flag)],
        Value::Number(number) => number.as_f64().unwrap_or_default().to_le_bytes().to_vec(),
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(members) => {
            let members = members.iter().map(|member| Ok((serialize(member)?, Vec::new())));
            HeaderMap::serialize(&members.collect::<Result<Vec<_>, String>>()?).0
        }
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| Ok((name, serialize(value)?)));
            HeaderMap::serialize(&members.collect::<Result<Vec<_>, String>>()?).0
        }
    })
}

/// The routes that take a caller's requests.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallerSummary {
    /// The caller's name in the access log.
    name: String,
    /// By prefix and hosts, in order of precedence.
    routes: Vec<Selection>,
}

/// The route of one prefix and hosts that takes a caller's requests, or the reply to them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Selection {
    prefix: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    /// The code of the local reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl CallerSummary {
    /// Selects a route of each prefix and hosts, as the filter does.
    pub(super) fn new(policy: &Policy, caller: &Caller) -> Self {
        let leads = |route: &&Route| route.siblings.first().is_none_or(|first| *first == route.index);
        let routes = policy.routes_by_precedence().into_iter().filter(leads);
        Self { name: caller.text(None), routes: routes.map(|route| Selection::new(policy, route, caller)).collect() }
    }

    /// Returns whether a route admits the caller.
    pub(super) fn is_admitted(&self) -> bool {
        self.routes.iter().any(|selection| selection.route.is_some())
    }
}

impl Selection {
    fn new(policy: &Policy, first: &Route, caller: &Caller) -> Self {
        let hosts = first.hosts.iter().map(ToString::to_string).collect();
        let prefix = first.prefix.clone();
        let selection = Self { prefix, hosts, route: None, identity: None, reply: None, message: None };
        let selected = policy.admit(first, caller);
        match selected.and_then(|(route, admitted)| Ok((route, identity(policy, route, admitted)?))) {
            Ok((route, identity)) => Self { route: Some(route.name.clone()), identity, ..selection },
            Err(cause) => Self { reply: Some("CallerNotAllowed"), message: Some(cause.to_string()), ..selection },
        }
    }
}

/// Returns the identity that signs the requests of an admitted caller.
fn identity(policy: &Policy, route: &Route, admitted: Option<Admitted<'_>>) -> Result<Option<Identity>, NotAdmitted> {
    match (&route.identity, admitted) {
        (RouteIdentity::Fixed(identity), _) => Ok(policy.identities().get(*identity).cloned()),
        (RouteIdentity::Caller(template), Some(admitted)) => {
            let mut values = Vec::new();
            template.values(&admitted, &mut values)?;
            Ok(Some(Identity::assumed(template.expand(&values)?)))
        }
        (RouteIdentity::Caller(_), None) => Ok(None),
    }
}

impl fmt::Display for CallerSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Requests of {}:\n", self.name)?;
        let rows = self.routes.iter().map(|selection| {
            let hosts = if selection.hosts.is_empty() { "every".to_owned() } else { selection.hosts.join(",") };
            let mut cells = vec![selection.prefix.clone(), hosts];
            match (&selection.route, &selection.identity) {
                (Some(route), identity) => {
                    cells.extend([route.clone(), identity.as_ref().map_or("", Identity::id).to_owned()]);
                    let role = identity.as_ref().and_then(Identity::role);
                    cells.extend(role.map(|role| format!("{}, {}", role.arn, session(role))));
                }
                (None, _) => cells.extend([
                    format!("403 {}", selection.reply.unwrap_or_default()),
                    selection.message.clone().unwrap_or_default(),
                ]),
            }
            cells.resize(5, String::new());
            cells
        });
        write_table(f, &["PREFIX", "HOSTS", "TAKEN BY", "IDENTITY", "ROLE"], rows)
    }
}
