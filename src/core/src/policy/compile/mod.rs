//! Compiles a policy's document.
//!
//! The first error in the document's order is reported.

mod role;
mod route;
mod session_policy;
mod siblings;
mod signing;

use std::collections::HashMap;
use std::time::Duration;

use super::confusable::confusable;
use super::document::{Entries, PolicyDocument, RouteDocument, RouteEntry, Routes, Settings, WholeNumber, Written};
use super::error::{Location, PolicyError};
use super::matcher::Matcher;
use super::role_template::RoleTemplate;
use super::{Policy, Route, RouteIdentity};
use crate::credentials::Identity;
use crate::held::HeldLimits;

/// The longest wait: after five minutes of silence Envoy's default stream idle timeout ends a request by itself.
const CREDENTIALS_WAIT_MAX_MS: u64 = 300_000;

/// The longest time, in milliseconds, that a request waits by default for the credentials of its caller's identity.
const CALLER_WAIT_MS: u64 = 5000;

/// `maxCallerIdentities`: default and largest value.
const CALLER_IDENTITIES: (u32, u32) = (1000, 10_000);

/// `maxHeldRequests`: default and largest value. With the default of `maxHeldBytes`, two workers fit a sidecar of 256 MiB.
const HELD_REQUESTS: (u32, u32) = (1000, 100_000);

/// `maxHeldBytes`: default and largest value. V8 terminates a virtual machine whose memory reaches 1 GiB; half of it is
/// reserved for copies.
const HELD_BYTES: (u32, u32) = (32 * 1024 * 1024, 512 * 1024 * 1024);

impl PolicyDocument {
    /// Parses the document; its values are not checked yet.
    ///
    /// # Errors
    /// If it is not JSON, or not of the policy's shape.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        let mut json_text = serde_json::Deserializer::from_slice(json);
        let document = serde_path_to_error::deserialize(&mut json_text)?;
        json_text.end().map_err(|error| PolicyError::Syntax {
            problem: "text follows the policy's last brace; remove it".to_owned(),
            line: error.line(),
            column: error.column(),
        })?;
        Ok(document)
    }
}

impl Policy {
    /// Checks a document and compiles it.
    ///
    /// # Errors
    /// The first invalid value, with its location and the fix.
    pub fn compile(document: PolicyDocument) -> Result<Self, PolicyError> {
        compile_at(document, &Location::default())
    }
}

fn compile_at(document: PolicyDocument, top: &Location) -> Result<Policy, PolicyError> {
    let PolicyDocument { settings, backstage_routes } = document;
    let Settings {
        routes,
        unmatched,
        allow_unauthenticated_requests,
        credentials_wait_ms,
        max_held_requests,
        max_held_bytes,
        max_caller_identities,
        access_log,
        route_metadata,
        proxysigv4,
    } = settings;

    if let Some(section) = proxysigv4 {
        let alone = routes.is_none()
            && unmatched.is_none()
            && allow_unauthenticated_requests.is_none()
            && credentials_wait_ms.is_none()
            && max_held_requests.is_none()
            && max_held_bytes.is_none()
            && max_caller_identities.is_none()
            && access_log.is_none()
            && route_metadata.is_none()
            && backstage_routes.0.is_empty();
        let location = top.key("proxysigv4");
        if !alone || !top.is_policy() {
            return Err(location.error("must be the only key; move the other keys into it"));
        }
        return compile_at(*section, &location);
    }

    let allow_unauthenticated = allow_unauthenticated_requests.unwrap_or(true);
    let (mut routes, identities) = compile_routes(routes, backstage_routes, allow_unauthenticated, top)?;
    set_credentials_wait(&mut routes, credentials_wait_ms.0, &top.key("credentialsWaitMs"))?;
    let held_limits = HeldLimits {
        requests: bound(max_held_requests.0, HELD_REQUESTS, &top.key("maxHeldRequests"))?,
        bytes: bound(max_held_bytes.0, HELD_BYTES, &top.key("maxHeldBytes"))?,
    };
    Ok(Policy {
        matcher: Matcher::new(&routes),
        has_caller_identities: routes.iter().any(|route| matches!(route.identity, RouteIdentity::Caller(_))),
        routes,
        identities,
        unmatched: unmatched.unwrap_or_default(),
        max_caller_identities: bound(max_caller_identities.0, CALLER_IDENTITIES, &top.key("maxCallerIdentities"))?,
        held_limits,
        access_log: access_log.unwrap_or(false),
        route_metadata: route_metadata.unwrap_or(false),
    })
}

/// Compiles the routes of a policy in either form, and their identities.
fn compile_routes(
    routes: Option<Routes>,
    backstage_routes: Entries<RouteEntry>,
    allow_unauthenticated: bool,
    top: &Location,
) -> Result<(Vec<Route>, Vec<Identity>), PolicyError> {
    let mut compiler = Compiler {
        allow_unauthenticated,
        routes: Vec::new(),
        identities: Vec::new(),
        identity_indexes: HashMap::new(),
    };
    let location = top.key("routes");
    match routes {
        Some(_) if !backstage_routes.0.is_empty() => {
            let beside = backstage_routes.0.first().map(|(prefix, _)| prefix.as_str()).unwrap_or_default();
            return Err(location.error(format!("conflicts with the route {beside:?}; move that one into routes")));
        }
        Some(Routes::Keyed(entries)) => compiler.keyed_routes(entries.0, &location)?,
        Some(Routes::Listed(list)) => {
            for (i, mut route) in list.into_iter().enumerate() {
                let location = location.index(i);
                let prefix = route.prefix.take();
                let prefix =
                    prefix.ok_or_else(|| location.error("has no prefix; add one, such as \"prefix\": \"/orders\""))?;
                compiler.route(prefix, route, &location, &location.key("prefix"))?;
            }
        }
        None => compiler.keyed_routes(backstage_routes.0, top)?,
    }
    let Compiler { mut routes, identities, .. } = compiler;
    if routes.is_empty() {
        return Err(location.error("has no route; add one, such as {\"/orders\": \"https://…\"}"));
    }
    siblings::link(&mut routes)?;
    refuse_confusable(&routes)?;
    disambiguate_names(&mut routes);
    Ok((routes.into_iter().map(|(route, _)| route).collect(), identities))
}

/// Sets the longest time that requests wait for credentials: as written, or the default of each route.
fn set_credentials_wait(
    routes: &mut [Route],
    written: Option<WholeNumber>,
    location: &Location,
) -> Result<(), PolicyError> {
    let wait_ms = written.map(|WholeNumber(ms)| ms);
    if let Some(wait_ms) = wait_ms.filter(|ms| *ms > CREDENTIALS_WAIT_MAX_MS) {
        return Err(location.error(format!(
            "{wait_ms} ms is too long: Envoy's stream idle timeout ends a request before; use at most {CREDENTIALS_WAIT_MAX_MS}"
        )));
    }
    for route in routes {
        let default = if matches!(route.identity, RouteIdentity::Caller(_)) { CALLER_WAIT_MS } else { 0 };
        route.credentials_wait = Duration::from_millis(wait_ms.unwrap_or(default));
    }
    Ok(())
}

/// Returns a bound, checked against its largest value, or its default.
fn bound(written: Option<WholeNumber>, (default, most): (u32, u32), location: &Location) -> Result<u32, PolicyError> {
    match written.map(|WholeNumber(number)| u32::try_from(number).unwrap_or(u32::MAX)) {
        None => Ok(default),
        Some(number) if (1..=most).contains(&number) => Ok(number),
        Some(_) => Err(location.error(format!("is out of range; use 1 to {most}"))),
    }
}

/// Accumulates routes and identities while compiling.
struct Compiler {
    /// The policy's value, for routes without their own.
    allow_unauthenticated: bool,
    /// The routes, each with the location of its prefix.
    routes: Vec<(Route, Location)>,
    identities: Vec<Identity>,
    /// The index of each identity's id.
    identity_indexes: HashMap<String, usize>,
}

impl Compiler {
    fn keyed_routes(&mut self, entries: Vec<(String, RouteEntry)>, location: &Location) -> Result<(), PolicyError> {
        for (prefix, entry) in entries {
            let location = location.key(&prefix);
            match entry {
                RouteEntry::Short(target) => {
                    let route = RouteDocument { target: Written(Some(target)), ..RouteDocument::default() };
                    self.route(prefix, route, &location, &location)?;
                }
                RouteEntry::Expanded(route) => {
                    if route.prefix.is_some() {
                        return Err(location.key("prefix").error("the route's key is its prefix; remove this"));
                    }
                    self.route(prefix, *route, &location, &location)?;
                }
            }
        }
        Ok(())
    }

    fn route(
        &mut self,
        prefix: String,
        document: RouteDocument,
        location: &Location,
        prefix_location: &Location,
    ) -> Result<(), PolicyError> {
        if document.callers.is_some() && document.allow_unauthenticated_requests.0 == Some(true) {
            return Err(location
                .key("allowUnauthenticatedRequests")
                .error("callers admits only authenticated ones; remove one of the two"));
        }
        let allow_unauthenticated =
            document.callers.is_none() && document.allow_unauthenticated_requests.unwrap_or(self.allow_unauthenticated);
        let (mut route, identity) = route::compile(prefix, document, location, prefix_location)?;
        route.index = self.routes.len();
        route.identity = match caller_identity(&identity, &route, location)? {
            Some(template) => RouteIdentity::Caller(Box::new(template)),
            None => RouteIdentity::Fixed(self.identity(identity, location)?),
        };
        route.allow_unauthenticated = allow_unauthenticated;
        self.routes.push((route, prefix_location.clone()));
        Ok(())
    }

    /// Returns the index of an identity, each of which is kept once.
    fn identity(&mut self, identity: Identity, location: &Location) -> Result<usize, PolicyError> {
        let next = self.identities.len();
        let index = *self.identity_indexes.entry(identity.id().to_owned()).or_insert(next);
        match self.identities.get(index) {
            Some(known) if *known == identity => Ok(index),
            Some(known) => Err(location.error(format!(
                "its role has the id {:?}, as a role with other settings has by chance; change its roleSessionName",
                known.id()
            ))),
            None => {
                self.identities.push(identity);
                Ok(next)
            }
        }
    }
}

/// Returns the template of an identity whose role has placeholders, for which each of the route's callers has a value.
fn caller_identity(
    identity: &Identity,
    route: &Route,
    location: &Location,
) -> Result<Option<RoleTemplate>, PolicyError> {
    let template = identity.role().map(RoleTemplate::of).transpose();
    let Some(template) = template.map_err(|problem| location.error(problem))?.flatten() else { return Ok(None) };
    if route.callers.is_empty() {
        return Err(location.error("a placeholder stands for the caller's value; add callers"));
    }
    for (i, caller) in route.callers.iter().enumerate() {
        if let Some(placeholder) = template.lacks(caller) {
            return Err(location.key("callers").index(i).error(format!(
                "\"{caller}\" has no {placeholder}; {{namespace}} and {{serviceAccount}} need a SPIFFE id with \
                 /ns/…/sa/…, {{trustDomain}} one of any path, and {{claim:NAME}} an issuer"
            )));
        }
    }
    Ok(Some(template))
}

/// Rejects two routes if an upstream may confuse the requests of one with those of the other.
fn refuse_confusable(routes: &[(Route, Location)]) -> Result<(), PolicyError> {
    let routes: Vec<_> = routes.iter().filter(|(route, _)| route.leads()).collect();
    let read: Vec<_> = routes.iter().map(|(route, _)| (route.prefix.as_str(), route.hosts.as_slice())).collect();
    let Some((one, other)) = confusable(&read) else { return Ok(()) };
    let (Some((route, location)), Some((_, other))) = (routes.get(one), routes.get(other)) else { return Ok(()) };
    Err(location.error(format!(
        "an upstream may read the prefix {:?} as one whose paths {other} matches, or vice versa; remove \
         `//`, `;`, %2F, %5C, %3B, %3F, %23 and %00",
        route.prefix
    )))
}

/// Adds the first host to the names of routes that share a prefix, and the first caller to those of siblings.
fn disambiguate_names(routes: &mut [(Route, Location)]) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for (route, _) in routes.iter() {
        *uses.entry(route.prefix.clone()).or_default() += 1;
    }
    for (route, _) in routes {
        if let (Some(host), Some(2..)) = (route.hosts.first(), uses.get(&route.prefix)) {
            route.name = format!("{host}{}", route.prefix);
        }
        if !route.siblings.is_empty() {
            let caller = route.callers.first().map_or_else(|| "everyone".to_owned(), ToString::to_string);
            route.name = format!("{} for {caller}", route.name);
        }
    }
}
