//! A policy's document checked and compiled.
//!
//! Refusals come in the document's order, the first one ends the work.

use std::collections::HashMap;
use std::time::Duration;

use super::confusable::confusable;
use super::document::{
    AlgorithmName, Entries, LocationName, PolicyDocument, RouteDocument, RouteEntry, Routes, Settings, SigningDocument,
    StringOrList, WholeNumber,
};
use super::error::{Place, PolicyError};
use super::headers::{self, Direction, HeaderRules};
use super::host::HostPattern;
use super::matcher::{Matcher, PREFIX_MAX, PrefixSegments};
use super::{Algorithm, Location, PayloadMode, Policy, Route, Scheme, ScopeSource, Target, path_syntax};
use crate::aws_endpoint::{self, S3Host, before, s3_host};
use crate::credentials::{DEFAULT_SESSION_NAME, Identity, Role};
use crate::held::HeldLimits;
use crate::signing::Scope;

/// The longest wait: after five minutes of silence Envoy's default stream idle timeout ends a request by itself.
const CREDENTIALS_WAIT_MAX_MS: u64 = 300_000;

/// `maxHeldRequests`: default and largest value. With the next one it fits a sidecar of 256 MiB with two workers.
const HELD_REQUESTS: (u32, u32) = (1000, 100_000);

/// `maxHeldBytes`: default and largest value. V8 ends a virtual machine whose memory reaches 1 GiB; half of it is left to
/// what is copied.
const HELD_BYTES: (u32, u32) = (32 * 1024 * 1024, 512 * 1024 * 1024);

/// The longest life of a presigned URL, seven days. Source: AWS Signature Version 4 for API requests, `X-Amz-Expires`.
const EXPIRES_MAX_SECONDS: u64 = 604_800;

/// Long enough for a client to follow a redirect, short enough for a URL that leaks into a log.
const EXPIRES_DEFAULT_SECONDS: u64 = 300;

/// How long a session may last, in seconds. Source: STS API reference, AssumeRole, `DurationSeconds`.
const ROLE_DURATION_MIN: u32 = 900;
const ROLE_DURATION_MAX: u32 = 43_200;

/// Source: IAM User Guide, "Role chaining".
const CHAINED_ROLE_DURATION_MAX: u32 = 3600;

/// Source: STS API reference, AssumeRole, `Tags`; there, and in its type `Tag`, are the other bounds too.
const ROLE_TAGS_MAX: usize = 50;

impl PolicyDocument {
    /// Reads the document; its values are not looked at yet.
    ///
    /// # Errors
    /// What is no JSON, or not of the policy's shape.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        let mut json_text = serde_json::Deserializer::from_slice(json);
        let document = serde_path_to_error::deserialize(&mut json_text)?;
        json_text.end().map_err(|error| PolicyError::Syntax {
            problem: "something stands behind the policy's last brace".to_owned(),
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
    /// The first value that can't be used, with its place and the cure.
    pub fn compile(document: PolicyDocument) -> Result<Self, PolicyError> {
        compile_at(document, &Place::default())
    }
}

fn compile_at(document: PolicyDocument, top: &Place) -> Result<Policy, PolicyError> {
    let PolicyDocument { settings, backstage_routes } = document;
    let Settings {
        routes,
        unmatched,
        allow_unauthenticated_requests,
        credentials_wait_ms,
        max_held_requests,
        max_held_bytes,
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
            && access_log.is_none()
            && route_metadata.is_none()
            && backstage_routes.0.is_empty();
        let place = top.key("proxysigv4");
        if !alone || !top.is_policy() {
            return Err(place.refuse("is a policy in itself and must stand alone; move what stands beside it into it"));
        }
        return compile_at(*section, &place);
    }

    let allow_unauthenticated = allow_unauthenticated_requests.unwrap_or(true);
    let (routes, identities) = compile_routes(routes, backstage_routes, allow_unauthenticated, top)?;
    let wait_ms = credentials_wait_ms.map_or(0, |WholeNumber(ms)| ms);
    if wait_ms > CREDENTIALS_WAIT_MAX_MS {
        return Err(top.key("credentialsWaitMs").refuse(format!(
            "{wait_ms} ms is too long: Envoy's stream idle timeout ends a request before; write at most {CREDENTIALS_WAIT_MAX_MS}"
        )));
    }
    let held_limits = HeldLimits {
        requests: bound(max_held_requests, HELD_REQUESTS, &top.key("maxHeldRequests"))?,
        bytes: bound(max_held_bytes, HELD_BYTES, &top.key("maxHeldBytes"))?,
    };
    Ok(Policy {
        matcher: Matcher::new(&routes),
        routes,
        identities,
        unmatched: unmatched.unwrap_or_default(),
        credentials_wait: Duration::from_millis(wait_ms),
        held_limits,
        access_log: access_log.unwrap_or(false),
        route_metadata: route_metadata.unwrap_or(true),
    })
}

/// Compiles the routes of a policy in either form, and what they sign as.
fn compile_routes(
    routes: Option<Routes>,
    backstage_routes: Entries<RouteEntry>,
    allow_unauthenticated: bool,
    top: &Place,
) -> Result<(Vec<Route>, Vec<Identity>), PolicyError> {
    let mut compiler = Compiler { allow_unauthenticated, routes: Vec::new(), identities: Vec::new() };
    let place = top.key("routes");
    match routes {
        Some(_) if !backstage_routes.0.is_empty() => {
            let beside = backstage_routes.0.first().map(|(prefix, _)| prefix.as_str()).unwrap_or_default();
            return Err(place.refuse(format!("stands beside the route {beside:?}; move that one into routes")));
        }
        Some(Routes::Keyed(entries)) => compiler.keyed_routes(entries.0, &place)?,
        Some(Routes::Listed(list)) => {
            for (i, mut route) in list.into_iter().enumerate() {
                let place = place.index(i);
                let prefix = route.prefix.take();
                let prefix =
                    prefix.ok_or_else(|| place.refuse("has no prefix; add one, such as \"prefix\": \"/orders\""))?;
                compiler.route(prefix, route, &place, &place.key("prefix"))?;
            }
        }
        None => compiler.keyed_routes(backstage_routes.0, top)?,
    }
    let Compiler { mut routes, identities, .. } = compiler;
    if routes.is_empty() {
        return Err(place.refuse("has no route; add one, such as {\"/orders\": \"https://…\"}"));
    }
    refuse_duplicates(&routes)?;
    refuse_confusable(&routes)?;
    name_apart(&mut routes);
    Ok((routes.into_iter().map(|(route, _)| route).collect(), identities))
}

/// Reads a bound, whose default and largest value are given.
fn bound(written: Option<WholeNumber>, (default, most): (u32, u32), place: &Place) -> Result<u32, PolicyError> {
    match written.map(|WholeNumber(number)| u32::try_from(number).unwrap_or(u32::MAX)) {
        None => Ok(default),
        Some(number) if (1..=most).contains(&number) => Ok(number),
        Some(_) => Err(place.refuse(format!("is out of range; write 1 to {most}"))),
    }
}

/// What grows while routes are compiled.
struct Compiler {
    /// The policy's own value, for routes without one.
    allow_unauthenticated: bool,
    /// With the place of each one's prefix.
    routes: Vec<(Route, Place)>,
    identities: Vec<Identity>,
}

impl Compiler {
    fn keyed_routes(&mut self, entries: Vec<(String, RouteEntry)>, place: &Place) -> Result<(), PolicyError> {
        for (prefix, entry) in entries {
            let place = place.key(&prefix);
            match entry {
                RouteEntry::Short(target) => {
                    let route = RouteDocument { target: Some(target), ..RouteDocument::default() };
                    self.route(prefix, route, &place, &place)?;
                }
                RouteEntry::Expanded(route) => {
                    if route.prefix.is_some() {
                        return Err(place
                            .key("prefix")
                            .refuse("the route's key is its prefix already; leave this out"));
                    }
                    self.route(prefix, *route, &place, &place)?;
                }
            }
        }
        Ok(())
    }

    fn route(
        &mut self,
        prefix: String,
        document: RouteDocument,
        place: &Place,
        prefix_place: &Place,
    ) -> Result<(), PolicyError> {
        check_prefix(&prefix).map_err(|problem| prefix_place.refuse(problem))?;
        let mut target = document
            .target
            .map(|url| Target::parse(&url).map_err(|problem| place.key("target").refuse(problem)))
            .transpose()?;
        let hosts = host_patterns(document.hosts, &place.key("hosts"))?;
        let upstream_tls = upstream_tls(document.upstream_tls, target.as_ref(), &place.key("upstreamTls"))?;
        let s3_domain = s3_domain(document.s3_domain, target.as_ref(), &hosts, &place.key("s3Domain"))?;
        let takes_off_slash = prefix.len() > 1 && prefix.ends_with('/');
        if let Some(target) = target.as_mut().filter(|target| target.path == "/" && !takes_off_slash) {
            target.path.clear();
        }
        match &target {
            None if hosts.is_empty() => {
                return Err(place.refuse(
                    "has no target; add \"target\": \"https://…\", or \"hosts\" to sign for the request's own authority",
                ));
            }
            Some(target) if takes_off_slash && !target.path.ends_with('/') => {
                return Err(prefix_place.refuse(format!(
                    "the prefix {prefix:?} takes off a slash that the target's path does not give back; end both in / or neither"
                )));
            }
            _ => {}
        }
        let role = RoleDocument {
            arn: document.role_arn,
            session_name: document.role_session_name,
            external_id: document.external_id,
            duration_seconds: document.role_duration_seconds,
            tags: document.role_tags,
            chain: document.role_chain,
        }
        .compile(place)?;
        let identity = self.identity(role.map_or_else(Identity::default_chain, Identity::assumed));

        let signing_place = place.key("signing");
        let signing = document.signing.unwrap_or_default();
        let scope_source = signing.scope.unwrap_or_default();
        let redirect = signing.redirect.unwrap_or_default();
        let algorithm = algorithm(&signing, &signing_place)?;
        let location = location(&signing, &signing_place)?;
        let payload = document.payload.unwrap_or_default();

        check_name("service", document.service.as_deref(), place)?;
        check_name("region", document.region.as_deref(), place)?;
        let scope = ScopeQuestion {
            service: document.service.as_deref(),
            region: document.region.as_deref(),
            target: target.as_ref(),
            hosts: &hosts,
            source: scope_source,
            algorithm: &algorithm,
        }
        .answer(place)?;

        let signed_headers =
            headers::signed_headers(document.signed_headers.unwrap_or_default(), &place.key("signedHeaders"))?;
        if location != Location::Header && payload == PayloadMode::Client {
            return Err(place.key("payload").refuse(
                "\"client\" needs a header that a presigned URL does not have; write \"auto\", \"signed\" or \"unsigned\"",
            ));
        }
        if redirect {
            check_redirect(location, payload, target.as_ref(), &signed_headers, place)?;
        }
        let header_rules = |document: Option<_>, direction, key| {
            HeaderRules::compile(document.unwrap_or_default(), direction, &place.key(key))
        };
        let route = Route {
            index: self.routes.len(),
            name: prefix.clone(),
            prefix,
            hosts,
            target,
            upstream_tls,
            s3_domain,
            identity,
            scope,
            service: document.service,
            region: document.region,
            scope_source,
            payload,
            algorithm,
            location,
            redirect,
            request_headers: header_rules(document.request_headers, Direction::Request, "requestHeaders")?,
            response_headers: header_rules(document.response_headers, Direction::Response, "responseHeaders")?,
            signed_headers,
            allow_unauthenticated: document.allow_unauthenticated_requests.unwrap_or(self.allow_unauthenticated),
        };
        self.routes.push((route, prefix_place.clone()));
        Ok(())
    }

    fn identity(&mut self, identity: Identity) -> usize {
        self.identities.iter().position(|known| *known == identity).unwrap_or_else(|| {
            self.identities.push(identity);
            self.identities.len() - 1
        })
    }
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    if !prefix.starts_with('/') {
        return Err(format!("the prefix {prefix:?} must begin with /"));
    }
    if prefix.len() > PREFIX_MAX {
        return Err(format!("the prefix has {} bytes; write at most {PREFIX_MAX}", prefix.len()));
    }
    path_syntax::check(prefix)
}

fn host_patterns(written: Option<Vec<String>>, place: &Place) -> Result<Vec<HostPattern>, PolicyError> {
    let Some(written) = written else { return Ok(Vec::new()) };
    if written.is_empty() {
        return Err(place.refuse("names no host, so that nothing would match; name one, or leave hosts out for all"));
    }
    let mut hosts = Vec::new();
    for (i, written) in written.iter().enumerate() {
        let host = HostPattern::parse(written).map_err(|problem| place.index(i).refuse(problem))?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// Returns whether the route's upstream has TLS.
fn upstream_tls(written: Option<bool>, target: Option<&Target>, place: &Place) -> Result<bool, PolicyError> {
    match (written, target) {
        (Some(_), Some(_)) => Err(place
            .refuse("is for a route without a target; leave it out: the scheme of the target, https or http, says it")),
        (None, Some(target)) => Ok(target.scheme == Scheme::Https),
        (written, None) => Ok(written.unwrap_or(true)),
    }
}

/// Returns the domain before which the hosts of a route name a bucket.
fn s3_domain(
    written: Option<String>,
    target: Option<&Target>,
    hosts: &[HostPattern],
    place: &Place,
) -> Result<Option<String>, PolicyError> {
    let Some(written) = written else { return Ok(None) };
    let HostPattern { wildcard, name: domain, port } =
        HostPattern::parse(&written).map_err(|problem| place.refuse(problem))?;
    if wildcard || port.is_some() || s3_host(&format!("bucket.{domain}")) != S3Host::Foreign {
        return Err(place.refuse(format!("{written:?} must be the name of a domain outside of AWS, without a port")));
    }
    let own = match target {
        Some(target) => vec![target.host()],
        None => hosts.iter().map(|host| host.name.as_str()).collect(),
    };
    match own.into_iter().find(|host| *host != domain && before(host, &domain).is_none()) {
        Some(host) => {
            Err(place.refuse(format!("the host {host:?} is not below {domain:?}; set the domain of its buckets")))
        }
        None => Ok(Some(domain)),
    }
}

/// What a route says of its role.
struct RoleDocument {
    arn: Option<String>,
    session_name: Option<String>,
    external_id: Option<String>,
    duration_seconds: Option<WholeNumber>,
    tags: Option<Entries<String>>,
    chain: Option<Vec<String>>,
}

impl RoleDocument {
    /// Source: IAM and STS API references, the patterns and lengths of AssumeRole's parameters.
    fn compile(self, place: &Place) -> Result<Option<Role>, PolicyError> {
        let Some(arn) = self.arn else {
            let members = [
                ("roleSessionName", self.session_name.is_some()),
                ("externalId", self.external_id.is_some()),
                ("roleDurationSeconds", self.duration_seconds.is_some()),
                ("roleTags", self.tags.is_some()),
                ("roleChain", self.chain.is_some()),
            ];
            return match members.into_iter().find(|(_, is_written)| *is_written) {
                Some((key, _)) => Err(place.key(key).refuse("belongs to a role; add \"roleArn\", or leave this out")),
                None => Ok(None),
            };
        };
        check_role_arn(&arn, &place.key("roleArn"))?;
        let session_name = self.session_name.unwrap_or_else(|| DEFAULT_SESSION_NAME.to_owned());
        if !(2..=64).contains(&session_name.len()) || !session_name.bytes().all(|b| is_word(b, b"+=,.@-")) {
            return Err(place.key("roleSessionName").refuse("must be 2 to 64 letters, digits and _+=,.@-"));
        }
        if let Some(id) = &self.external_id
            && (!(2..=1224).contains(&id.len()) || !id.bytes().all(|b| is_word(b, b"+=,.@:/-")))
        {
            return Err(place.key("externalId").refuse("must be 2 to 1224 letters, digits and _+=,.@:/-"));
        }
        let chain = role_chain(self.chain, &place.key("roleChain"))?;
        Ok(Some(Role {
            arn,
            session_name,
            external_id: self.external_id,
            duration_seconds: role_duration(self.duration_seconds, &chain, &place.key("roleDurationSeconds"))?,
            tags: role_tags(self.tags, &place.key("roleTags"))?,
            chain,
        }))
    }
}

fn role_chain(written: Option<Vec<String>>, place: &Place) -> Result<Vec<String>, PolicyError> {
    let Some(chain) = written else { return Ok(Vec::new()) };
    if chain.is_empty() {
        return Err(place.refuse("names no role; name those to assume before roleArn, or leave this out"));
    }
    for (i, arn) in chain.iter().enumerate() {
        check_role_arn(arn, &place.index(i))?;
    }
    Ok(chain)
}

fn role_duration(written: Option<WholeNumber>, chain: &[String], place: &Place) -> Result<Option<u32>, PolicyError> {
    let Some(WholeNumber(seconds)) = written else { return Ok(None) };
    let longest = if chain.is_empty() { ROLE_DURATION_MAX } else { CHAINED_ROLE_DURATION_MAX };
    match u32::try_from(seconds) {
        Ok(seconds) if (ROLE_DURATION_MIN..=longest).contains(&seconds) => Ok(Some(seconds)),
        Ok(seconds) if (CHAINED_ROLE_DURATION_MAX..=ROLE_DURATION_MAX).contains(&seconds) => {
            Err(place.refuse(format!(
                "{seconds} is too long: AWS ends a session behind a roleChain after an hour; write at most {longest}"
            )))
        }
        _ => Err(place.refuse(format!("{seconds} is out of range; write {ROLE_DURATION_MIN} to {longest}"))),
    }
}

fn role_tags(written: Option<Entries<String>>, place: &Place) -> Result<Vec<(String, String)>, PolicyError> {
    let Some(Entries(mut tags)) = written else { return Ok(Vec::new()) };
    if tags.len() > ROLE_TAGS_MAX {
        return Err(place.refuse(format!("has {} tags; AWS takes at most {ROLE_TAGS_MAX}", tags.len())));
    }
    for (i, (key, value)) in tags.iter().enumerate() {
        let place = place.key(key);
        if !(1..=128).contains(&key.chars().count()) || !key.chars().all(is_tag_character) {
            return Err(place.refuse("the key must be 1 to 128 letters, digits, blanks and _.:/=+-@"));
        }
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(place.refuse("AWS keeps keys that begin with aws: for itself; write another"));
        }
        if value.chars().count() > 256 || !value.chars().all(is_tag_character) {
            return Err(place.refuse("the value must be up to 256 letters, digits, blanks and _.:/=+-@"));
        }
        // To AWS, they would be one key.
        if let Some((twin, _)) = tags.iter().take(i).find(|(other, _)| other.eq_ignore_ascii_case(key)) {
            return Err(place.refuse(format!("is {twin:?} in another spelling; keep one")));
        }
    }
    // Whose order tells nothing apart.
    tags.sort_unstable();
    Ok(tags)
}

fn is_tag_character(character: char) -> bool {
    character.is_alphanumeric() || " _.:/=+-@".contains(character)
}

fn check_role_arn(arn: &str, place: &Place) -> Result<(), PolicyError> {
    if is_role_arn(arn) {
        return Ok(());
    }
    Err(place.refuse(format!("{arn:?} is no ARN of an IAM role; write it as arn:aws:iam::123456789012:role/name")))
}

fn is_role_arn(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else { return false };
    let lower = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let partition =
        partition == "aws" || partition.strip_prefix("aws-").is_some_and(|rest| !rest.is_empty() && lower(rest));
    let account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    // A path is printable ASCII, a name `[\w+=,.@-]{1,64}`.
    let name = resource.strip_prefix("role/").and_then(|path_and_name| path_and_name.rsplit('/').next());
    let name = name.is_some_and(|name| (1..=64).contains(&name.len()) && name.bytes().all(|b| is_word(b, b"+=,.@-")));
    partition && account && name && arn.len() <= 2048 && arn.bytes().all(|b| b.is_ascii_graphic())
}

fn is_word(byte: u8, more: &[u8]) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || more.contains(&byte)
}

fn algorithm(signing: &SigningDocument, place: &Place) -> Result<Algorithm, PolicyError> {
    let place = place.key("regionSet");
    match (signing.algorithm.unwrap_or(AlgorithmName::SigV4), &signing.region_set) {
        (AlgorithmName::SigV4, None) => Ok(Algorithm::SigV4),
        (AlgorithmName::SigV4, Some(_)) => {
            Err(place.refuse("belongs to \"algorithm\": \"sigv4a\"; write that, or leave this out and set \"region\""))
        }
        (AlgorithmName::SigV4a, None) => Ok(Algorithm::SigV4a { region_set: aws_endpoint::ALL_REGIONS.to_owned() }),
        (AlgorithmName::SigV4a, Some(StringOrList(regions))) => {
            let regions: Vec<&str> = regions.iter().flat_map(|regions| regions.split(',')).map(str::trim).collect();
            for region in &regions {
                if region.is_empty() || !region.bytes().all(|b| is_scope_byte(b) || b == b'*') {
                    return Err(place.refuse(format!(
                        "{region:?} is no region; write names or patterns such as \"us-east-1\", \"us-*\" or \"*\""
                    )));
                }
            }
            if regions.is_empty() {
                return Err(place.refuse("names no region; name one, or leave this out for all"));
            }
            Ok(Algorithm::SigV4a { region_set: regions.join(",") })
        }
    }
}

fn location(signing: &SigningDocument, place: &Place) -> Result<Location, PolicyError> {
    let place = place.key("expiresSeconds");
    let expires = signing.expires_seconds.map(|WholeNumber(seconds)| seconds);
    match signing.location.unwrap_or(LocationName::Header) {
        LocationName::Header if expires.is_some() => {
            Err(place.refuse("belongs to \"location\": \"query\"; write that, or leave this out"))
        }
        LocationName::Header => Ok(Location::Header),
        LocationName::Query => {
            let seconds = expires.unwrap_or(EXPIRES_DEFAULT_SECONDS);
            if !(1..=EXPIRES_MAX_SECONDS).contains(&seconds) {
                return Err(
                    place.refuse(format!("{seconds} is out of range; write 1 to {EXPIRES_MAX_SECONDS} (seven days)"))
                );
            }
            Ok(Location::Query { expires: Duration::from_secs(seconds) })
        }
    }
}

fn check_redirect(
    location: Location,
    payload: PayloadMode,
    target: Option<&Target>,
    signed_headers: &[String],
    place: &Place,
) -> Result<(), PolicyError> {
    let redirect = place.key("signing").key("redirect");
    if location == Location::Header {
        return Err(redirect.refuse("sends the client a presigned URL; add \"location\": \"query\""));
    }
    if target.is_none() {
        return Err(redirect.refuse("needs a target; without one the client would be sent to where it came from"));
    }
    if payload == PayloadMode::Signed {
        return Err(place.key("payload").refuse(
            "\"signed\" needs the body, which a redirected client sends elsewhere; write \"auto\" or \"unsigned\"",
        ));
    }
    if !signed_headers.is_empty() {
        return Err(place.key("signedHeaders").refuse("a redirected client does not send them; leave this out"));
    }
    Ok(())
}

fn check_name(key: &str, name: Option<&str>, place: &Place) -> Result<(), PolicyError> {
    match name {
        Some(name) if name.is_empty() || !name.bytes().all(is_scope_byte) => Err(place
            .key(key)
            .refuse(format!("{name:?} can't stand in a credential scope; write letters, digits, - and _"))),
        _ => Ok(()),
    }
}

/// A slash or comma in a name would shift the parts of the credential scope.
fn is_scope_byte(byte: u8) -> bool {
    is_word(byte, b"-")
}

/// What service and region a route signs for, and whether that can be known.
struct ScopeQuestion<'a> {
    service: Option<&'a str>,
    region: Option<&'a str>,
    target: Option<&'a Target>,
    hosts: &'a [HostPattern],
    source: ScopeSource,
    algorithm: &'a Algorithm,
}

impl ScopeQuestion<'_> {
    /// The scope where the policy alone tells it; `None` where each request tells.
    fn answer(&self, place: &Place) -> Result<Option<Scope>, PolicyError> {
        let Some(target) = self.target else {
            for (i, host) in self.hosts.iter().enumerate() {
                let place = place.key("hosts").index(i);
                if host.wildcard {
                    self.tells(aws_endpoint::is_aws_domain(&host.name), &host.to_string(), &place)?;
                } else {
                    self.on(&host.name, &place)?;
                }
            }
            return Ok(self.scope(None));
        };
        self.on(target.host(), place)
    }

    fn on(&self, host: &str, place: &Place) -> Result<Option<Scope>, PolicyError> {
        let endpoint = aws_endpoint::infer(host);
        if *self.algorithm == Algorithm::SigV4 && self.region.is_none() && endpoint.is_some_and(|e| e.requires_sigv4a())
        {
            return Err(place.refuse(format!(
                "{host:?} answers for all regions and takes SigV4A alone; add \"signing\": {{\"algorithm\": \"sigv4a\"}}"
            )));
        }
        self.tells(endpoint.is_some(), host, place)?;
        Ok(self.scope(endpoint))
    }

    fn scope(&self, endpoint: Option<aws_endpoint::Endpoint<'_>>) -> Option<Scope> {
        let service = self.service.or(endpoint.map(|endpoint| endpoint.signing_name))?;
        let region = self.region.or(endpoint.map(|endpoint| endpoint.region));
        let region = match self.algorithm {
            Algorithm::SigV4 => region?,
            // The region set stands in its place.
            Algorithm::SigV4a { .. } => region.unwrap_or_default(),
        };
        Some(Scope { region: region.to_owned(), service: service.to_owned() })
    }

    /// Refuses a route that could never be signed for, because nothing tells its service or region.
    fn tells(&self, host_tells: bool, host: &str, place: &Place) -> Result<(), PolicyError> {
        if host_tells || self.source == ScopeSource::Client {
            return Ok(());
        }
        let needs_region = *self.algorithm == Algorithm::SigV4;
        let (missing, cure) = match (self.service.is_none(), needs_region && self.region.is_none()) {
            (false, false) => return Ok(()),
            (true, false) => ("its service", "\"service\", such as \"execute-api\""),
            (false, true) => ("its region", "\"region\", such as \"eu-west-1\""),
            (true, true) => {
                ("its service and region", "\"service\" and \"region\", such as \"execute-api\" and \"eu-west-1\"")
            }
        };
        Err(place.refuse(format!("{host:?} is no AWS host name that tells {missing}; add {cure}")))
    }
}

/// Refuses two routes that would take the same requests.
fn refuse_duplicates(routes: &[(Route, Place)]) -> Result<(), PolicyError> {
    let mut taken: HashMap<(PrefixSegments, Option<&HostPattern>), &Place> = HashMap::new();
    for (route, place) in routes {
        let every_host = route.hosts.is_empty().then_some(None);
        for host in route.hosts.iter().map(Some).chain(every_host) {
            if let Some(first) = taken.insert((PrefixSegments::of(&route.prefix), host), place) {
                let host = host.map(|host| format!(" with the host \"{host}\"")).unwrap_or_default();
                return Err(place.refuse(format!(
                    "the prefix {:?}{host} is already taken by {first}; keep one, or give each other hosts",
                    route.prefix
                )));
            }
        }
    }
    Ok(())
}

fn refuse_confusable(routes: &[(Route, Place)]) -> Result<(), PolicyError> {
    let read: Vec<_> = routes.iter().map(|(route, _)| (route.prefix.as_str(), route.hosts.as_slice())).collect();
    let Some((one, other)) = confusable(&read) else { return Ok(()) };
    let (Some((route, place)), Some((_, other))) = (routes.get(one), routes.get(other)) else { return Ok(()) };
    Err(place.refuse(format!(
        "an upstream may read the prefix {:?} as one whose paths {other} takes, or the other way round; write it without \
         `//`, `;`, %2F, %5C, %3B, %3F, %23 and %00",
        route.prefix
    )))
}

/// Routes that share a prefix get their first host into their name.
fn name_apart(routes: &mut [(Route, Place)]) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for (route, _) in routes.iter() {
        *uses.entry(route.prefix.clone()).or_default() += 1;
    }
    for (route, _) in routes {
        if let (Some(host), Some(2..)) = (route.hosts.first(), uses.get(&route.prefix)) {
            route.name = format!("{host}{}", route.prefix);
        }
    }
}
