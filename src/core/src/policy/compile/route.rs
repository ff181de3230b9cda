//! Compiles one route of a policy.

use std::time::Duration;

use crate::aws_endpoint::{S3Host, s3_host, strip_domain};
use crate::credentials::Identity;
use crate::signing::{Scope, is_s3};

use super::super::authority::HostPattern;
use super::super::caller::{CallerPattern, CallerSources};
use super::super::document::{CallerEntry, HeaderRulesDocument, Object, RouteDocument, Written};
use super::super::error::{Location, PolicyError};
use super::super::headers::{self, Direction, HeaderRules};
use super::super::iam_names::is_scope_byte;
use super::super::matcher::PREFIX_MAX;
use super::super::scope::ScopeRule;
use super::super::{PayloadMode, Route, RouteIdentity, Scheme, SignatureLocation, Target, path_syntax};
use super::role::RoleSettings;
use super::signing;

/// Compiles a route and its identity. The caller sets what depends on the whole policy: its index, its identity's, and
/// whether it requires authentication.
pub(super) fn compile(
    prefix: String,
    mut document: RouteDocument,
    location: &Location,
    prefix_location: &Location,
) -> Result<(Route, Identity), PolicyError> {
    let role_settings = RoleSettings::take(&mut document);
    check_prefix(&prefix).map_err(|problem| prefix_location.error(problem))?;
    let hosts = host_patterns(document.hosts.0, &location.key("hosts"))?;
    let target = target(document.target.0, &prefix, &hosts, location, prefix_location)?;
    let upstream_tls = upstream_tls(document.upstream_tls.0, target.as_ref(), &location.key("upstreamTls"))?;
    check_bucket(target.as_ref(), &hosts, document.s3_domain.is_some(), location)?;
    let s3_domain = s3_domain(document.s3_domain.0, target.as_ref(), &hosts, &location.key("s3Domain"))?;
    let role = role_settings.compile(location)?;
    let callers = callers(document.callers.0, &location.key("callers"))?;
    let signing_location = location.key("signing");
    let settings = document.signing.unwrap_or_default();
    let (scope_source, redirect) = (settings.scope.unwrap_or_default(), settings.redirect.unwrap_or_default());
    let algorithm = signing::algorithm(&settings, &signing_location)?;
    let signature_location = signing::location(&settings, &signing_location)?;
    let (service, region) = (document.service.as_deref(), document.region.as_deref());
    let rule = ScopeRule { service, region, source: scope_source, algorithm: &algorithm };
    let scope = scope(&rule, target.as_ref(), &hosts, location)?;
    let signed_headers =
        headers::signed_headers(document.signed_headers.0.unwrap_or_default(), &location.key("signedHeaders"))?;
    let payload = payload(document.payload.unwrap_or_default(), signature_location, &location.key("payload"))?;
    if redirect {
        signing::check_redirect(signature_location, payload, target.as_ref(), &signed_headers, location)?;
    }
    let route = Route {
        index: 0,
        name: prefix.clone(),
        prefix,
        hosts,
        target,
        upstream_tls,
        s3_domain,
        identity: RouteIdentity::Fixed(0),
        credentials_wait: Duration::ZERO,
        scope,
        service: document.service.0,
        region: document.region.0,
        scope_source,
        payload,
        algorithm,
        location: signature_location,
        redirect,
        request_headers: header_rules(document.request_headers, Direction::Request, location)?,
        response_headers: header_rules(document.response_headers, Direction::Response, location)?,
        signed_headers,
        allow_unauthenticated: false,
        callers,
        siblings: Vec::new(),
        caller_sources: CallerSources::default(),
    };
    Ok((route, role.map_or_else(Identity::default_chain, Identity::assumed)))
}

/// Compiles the target, to which the rest of a path is appended.
fn target(
    written: Option<String>,
    prefix: &str,
    hosts: &[HostPattern],
    location: &Location,
    prefix_location: &Location,
) -> Result<Option<Target>, PolicyError> {
    let Some(url) = written else {
        if hosts.is_empty() {
            return Err(location.error(
                "has no target; add \"target\": \"https://…\", or \"hosts\" to sign for the request's own authority",
            ));
        }
        return Ok(None);
    };
    let mut target = Target::parse(&url).map_err(|problem| location.key("target").error(problem))?;
    let removes_slash = prefix.len() > 1 && prefix.ends_with('/');
    if target.path == "/" && !removes_slash {
        target.path.clear();
    }
    if removes_slash && !target.path.ends_with('/') {
        return Err(prefix_location.error(format!(
            "the prefix {prefix:?} ends in a slash but the target's path does not; end both with a slash, or neither"
        )));
    }
    Ok(Some(target))
}

/// Compiles the rules for the headers of one direction.
fn header_rules(
    written: Written<Object<HeaderRulesDocument>>,
    direction: Direction,
    location: &Location,
) -> Result<HeaderRules, PolicyError> {
    let Object(document) = written.0.unwrap_or_default();
    let key = match direction {
        Direction::Request => "requestHeaders",
        Direction::Response => "responseHeaders",
    };
    HeaderRules::compile(document, direction, &location.key(key))
}

/// Compiles the scope. A target with `{bucket}` must be signed for S3.
fn scope(
    rule: &ScopeRule<'_>,
    target: Option<&Target>,
    hosts: &[HostPattern],
    location: &Location,
) -> Result<Option<Scope>, PolicyError> {
    check_name("service", rule.service, location)?;
    check_name("region", rule.region, location)?;
    let scope = rule.resolve(target, hosts, location)?;
    let service = rule.service.or(scope.as_ref().map(|scope| scope.service.as_str()));
    if target.is_some_and(|target| target.bucket.is_some()) && !service.is_some_and(is_s3) {
        return Err(location.key("target").error("{bucket} is for S3; set \"service\": \"s3\", or leave it out"));
    }
    Ok(scope)
}

/// Checks a target if it has `{bucket}`.
fn check_bucket(
    target: Option<&Target>,
    hosts: &[HostPattern],
    has_s3_domain: bool,
    location: &Location,
) -> Result<(), PolicyError> {
    let Some(target) = target.filter(|target| target.bucket.is_some()) else { return Ok(()) };
    target.check_bucket_place().map_err(|problem| location.key("target").error(problem))?;
    if hosts.is_empty() || hosts.iter().any(|host| !host.wildcard) {
        return Err(location.key("hosts").error(
            "{bucket} stands for what * matched, so each host must have one; write \"*.s3.localhost\", and give hosts \
             without * a route of their own",
        ));
    }
    if has_s3_domain {
        return Err(location
            .key("s3Domain")
            .error("the target says with {bucket} where buckets stand; leave this out"));
    }
    Ok(())
}

/// Checks the prefix as written.
fn check_prefix(prefix: &str) -> Result<(), String> {
    if !prefix.starts_with('/') {
        return Err(format!("the prefix {prefix:?} must begin with /"));
    }
    if prefix.len() > PREFIX_MAX {
        return Err(format!("the prefix has {} bytes; use at most {PREFIX_MAX}", prefix.len()));
    }
    path_syntax::check(prefix)
}

/// Compiles the hosts, each once.
fn host_patterns(written: Option<Vec<String>>, location: &Location) -> Result<Vec<HostPattern>, PolicyError> {
    let Some(written) = written else { return Ok(Vec::new()) };
    if written.is_empty() {
        return Err(location.error("is empty and matches nothing; list a host, or remove hosts to match all"));
    }
    let mut hosts = Vec::new();
    for (i, written) in written.iter().enumerate() {
        let host = HostPattern::parse(written).map_err(|problem| location.index(i).error(problem))?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

/// Compiles the callers, each once.
fn callers(written: Option<Vec<CallerEntry>>, location: &Location) -> Result<Vec<CallerPattern>, PolicyError> {
    let Some(written) = written else { return Ok(Vec::new()) };
    if written.is_empty() {
        return Err(location.error("is empty and admits nobody; list a caller, or remove callers to admit everyone"));
    }
    let mut callers = Vec::new();
    for (i, entry) in written.into_iter().enumerate() {
        let caller = CallerPattern::compile(entry, &location.index(i))?;
        if !callers.contains(&caller) {
            callers.push(caller);
        }
    }
    Ok(callers)
}

/// Returns whether the route's upstream has TLS.
fn upstream_tls(written: Option<bool>, target: Option<&Target>, location: &Location) -> Result<bool, PolicyError> {
    match (written, target) {
        (Some(_), Some(_)) => {
            Err(location
                .error("is for a route without a target; remove it: the target's scheme, https or http, decides"))
        }
        (None, Some(target)) => Ok(target.scheme == Scheme::Https),
        (written, None) => Ok(written.unwrap_or(true)),
    }
}

/// Returns the domain below which the hosts of a route name a bucket.
fn s3_domain(
    written: Option<String>,
    target: Option<&Target>,
    hosts: &[HostPattern],
    location: &Location,
) -> Result<Option<String>, PolicyError> {
    let Some(written) = written else { return Ok(None) };
    let HostPattern { wildcard, name: domain, port } =
        HostPattern::parse(&written).map_err(|problem| location.error(problem))?;
    if wildcard || port.is_some() || s3_host(&format!("bucket.{domain}")) != S3Host::Foreign {
        return Err(location.error(format!("{written:?} must be the name of a domain outside of AWS, without a port")));
    }
    let own = match target {
        Some(target) => vec![target.host()],
        None => hosts.iter().map(|host| host.name.as_str()).collect(),
    };
    match own.into_iter().find(|host| *host != domain && strip_domain(host, &domain).is_none()) {
        Some(host) => {
            Err(location.error(format!("the host {host:?} is not below {domain:?}; set the domain of its buckets")))
        }
        None => Ok(Some(domain)),
    }
}

/// Checks that the payload mode is compatible with the signature's location.
fn payload(
    mode: PayloadMode,
    signature_location: SignatureLocation,
    location: &Location,
) -> Result<PayloadMode, PolicyError> {
    if signature_location != SignatureLocation::Header && mode == PayloadMode::Client {
        return Err(location.error(
            "\"client\" needs a header that a presigned URL does not have; use \"auto\", \"signed\" or \"unsigned\"",
        ));
    }
    Ok(mode)
}

/// Checks a part of the credential scope.
fn check_name(key: &str, name: Option<&str>, location: &Location) -> Result<(), PolicyError> {
    match name {
        Some(name) if name.is_empty() || !name.bytes().all(is_scope_byte) => Err(location
            .key(key)
            .error(format!("{name:?} is not valid in a credential scope; use letters, digits, - and _"))),
        _ => Ok(()),
    }
}
