//! Host name → the signing name and region that an AWS endpoint expects in a credential scope.
//!
//! Most host names read `service.region.suffix`, where `service` is the signing name and `suffix` one of AWS's DNS suffixes.
//! Other names are in `table`. A region is recognized by its shape, so a new one needs no release.
//!
//! Nothing is guessed: from a host outside AWS's suffixes, or of an unknown form, nothing is inferred, and the policy must
//! set the scope.

mod s3;
mod table;

pub use s3::{S3Host, bucket_host, s3_host};

use table::{AFTER_REGION, AMBIGUOUS, FAMILIES, GLOBAL, GOVCLOUD_GLOBAL_REGION, MULTI_REGION, NAMES, SUFFIXES, Suffix};

/// The region of an endpoint for all regions, and the region set to sign for. Such an endpoint accepts only SigV4A.
pub const ALL_REGIONS: &str = "*";

/// The length of the longest host name in the DNS.
const NAME_MAX: usize = 253;

/// The scope inferred from a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// The signing name, such as `s3` or `execute-api`.
    pub signing_name: &'a str,
    /// The region, such as `eu-west-1`, or [`ALL_REGIONS`].
    pub region: &'a str,
}

impl Endpoint<'_> {
    /// Returns whether the endpoint accepts only SigV4A, like S3 Multi-Region Access Points.
    pub fn requires_sigv4a(&self) -> bool {
        self.region == ALL_REGIONS
    }
}

/// Returns whether names below `domain` (in lower case) may be AWS endpoints: it is one of AWS's DNS suffixes, or below one.
pub fn is_aws_domain(domain: &str) -> bool {
    SUFFIXES.iter().any(|suffix| domain == suffix.name || strip_domain(domain, suffix.name).is_some())
}

/// Infers the signing name and region of `host`, a host name in lower case without port or trailing dot; `None` if it is not
/// an AWS host name of a known form.
pub fn infer(host: &str) -> Option<Endpoint<'_>> {
    if !is_host_name(host) {
        return None;
    }
    let (labels, suffix) = SUFFIXES.iter().find_map(|suffix| Some((strip_domain(host, suffix.name)?, suffix)))?;
    if let Some(labels) = strip_domain(labels, "vpce") {
        return vpc_endpoint(labels);
    }
    // Dual-stack and newer global endpoints have a mark after the name: `iam.global.api.aws`, `iam.us-gov.api.aws`.
    let govcloud = strip_domain(labels, "us-gov");
    let labels = govcloud.or_else(|| strip_domain(labels, "global")).unwrap_or(labels);

    let (name, last) = split_last(labels);
    if is_region(last) {
        return regional(name, last, suffix);
    }
    if let Some(region) = dashed_s3_region(last) {
        return Some(Endpoint { signing_name: "s3", region });
    }
    let (_, region) = split_last(name);
    if is_region(region)
        && let Some(signing_name) = lookup(AFTER_REGION, without_fips(last))
    {
        return Some(Endpoint { signing_name, region });
    }
    global(labels, suffix, govcloud.is_some())
}

/// Returns whether an authority, in any case and with or without a port, is an endpoint of S3's control API, whose paths
/// hold ARNs: `s3-control`, `s3express-control` and `s3-outposts` as the service's own label. A bucket may have such a name
/// (`s3-control.s3.eu-west-1.amazonaws.com`) but is not such an endpoint.
///
/// Source: the endpoint rules of S3 Control in AWS's SDKs; for `control.vpce-…`, Amazon S3 User Guide, "AWS PrivateLink
/// for Amazon S3".
pub fn is_s3_control(authority: &[u8]) -> bool {
    let mut name = [0; NAME_MAX];
    let host = match authority.iter().rposition(|&byte| byte == b':') {
        Some(colon) => authority.get(..colon).unwrap_or_default(),
        None => authority,
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    let Some(name) = name.get_mut(..host.len()) else { return false };
    name.copy_from_slice(host);
    name.make_ascii_lowercase();
    std::str::from_utf8(name).is_ok_and(names_s3_control)
}

fn names_s3_control(host: &str) -> bool {
    let Some(labels) = SUFFIXES.iter().find_map(|suffix| strip_domain(host, suffix.name)) else { return false };
    let (endpoint, in_vpc) = strip_domain(labels, "vpce").map_or((labels, false), |labels| (labels, true));
    let (name, region) = split_last(endpoint);
    let (resource, service) = split_last(without_fips(strip_domain(name, "dualstack").unwrap_or(name)));
    if !is_region(region) {
        return false;
    }
    let (labels_before_id, id) = split_last(resource);
    match service {
        "s3-control" | "s3express-control" => true,
        // After a resource, it is an access point.
        "s3-outposts" => resource.is_empty() || (in_vpc && labels_before_id.is_empty() && id.starts_with("vpce-")),
        "s3" => in_vpc && id.starts_with("vpce-") && split_last(labels_before_id).1 == "control",
        _ => false,
    }
}

/// Infers from `name.region.suffix`.
fn regional<'a>(name: &'a str, region: &'a str, suffix: &Suffix) -> Option<Endpoint<'a>> {
    let name = without_fips(strip_domain(name, "dualstack").unwrap_or(name));
    if let Some(signing_name) = family(MULTI_REGION, name) {
        return Some(Endpoint { signing_name, region: ALL_REGIONS });
    }
    let signing_name = if suffix.names_services { service(name)? } else { family(FAMILIES, name)? };
    Some(Endpoint { signing_name, region })
}

/// Infers from `name.suffix`.
fn global<'a>(name: &'a str, suffix: &Suffix, govcloud: bool) -> Option<Endpoint<'a>> {
    let name = without_fips(name);
    if let Some(signing_name) = family(MULTI_REGION, name) {
        return Some(Endpoint { signing_name, region: ALL_REGIONS });
    }
    let signing_name = lookup(GLOBAL, name).or_else(|| {
        let with_bucket = ["s3", "s3-external-1"].iter().any(|endpoint| strip_domain(name, endpoint).is_some());
        with_bucket.then_some("s3")
    })?;
    let region = match signing_name {
        _ if govcloud => GOVCLOUD_GLOBAL_REGION,
        "iam" => suffix.iam_region,
        _ => suffix.global_region,
    };
    Some(Endpoint { signing_name, region })
}

/// Infers from `[resource.]vpce-id.name.region`, an interface endpoint. A private endpoint service has `vpce-svc-id` instead
/// of the name.
fn vpc_endpoint(labels: &str) -> Option<Endpoint<'_>> {
    let (rest, region) = split_last(labels);
    let is_endpoint_id = |label: &str| label.starts_with("vpce-");
    let id = rest.rsplit('.').find(|label| is_endpoint_id(label))?;
    let name = without_fips(rest.rsplit_once(id)?.1.strip_prefix('.')?);
    let signing_name = service(name)?;
    is_region(region).then_some(Endpoint { signing_name, region })
}

/// Returns the signing name for a service's name in host names. A single label that is not in a table is a signing name
/// itself.
fn service(name: &str) -> Option<&str> {
    if let Some(signing_name) = lookup(NAMES, name) {
        return Some(signing_name);
    }
    if suffixes(name).any(|tail| AMBIGUOUS.contains(&tail)) {
        return None;
    }
    // Directory buckets are served per availability zone: `s3express-usw2-az1`.
    if split_last(name).1.starts_with("s3express-") {
        return Some("s3express");
    }
    family(FAMILIES, name).or_else(|| Some(name).filter(|name| is_signing_name(name)))
}

/// Returns the `us-west-2` of the older S3 form `s3-us-west-2.amazonaws.com`.
fn dashed_s3_region(label: &str) -> Option<&str> {
    let region = label.strip_prefix("s3-")?;
    Some(region.strip_prefix("fips-").unwrap_or(region)).filter(|region| is_region(region))
}

/// Removes the mark of FIPS endpoints, which follows or precedes the name: `kms-fips`, `fips.batch`.
fn without_fips(name: &str) -> &str {
    name.strip_suffix("-fips").or_else(|| name.strip_prefix("fips.")).unwrap_or(name)
}

/// Returns the value of the longest tail of `name` that is in the table.
fn family(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    suffixes(name).find_map(|tail| lookup(table, tail))
}

fn lookup(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    let index = table.binary_search_by_key(&name, |&(name, _)| name).ok()?;
    table.get(index).map(|&(_, signing_name)| signing_name)
}

/// Returns `a.b.c`, `b.c`, `c`.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, tail)| tail))
}

/// Returns the labels before `tail`, if `name` ends in it and has more.
pub(crate) fn strip_domain<'a>(name: &'a str, tail: &str) -> Option<&'a str> {
    name.strip_suffix(tail)?.strip_suffix('.')
}

/// Splits `a.b.c` into `a.b` and `c`.
fn split_last(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

/// Returns whether `host` is letters, digits and hyphens between single dots. An underscore is allowed: old buckets have
/// them.
fn is_host_name(host: &str) -> bool {
    host.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    })
}

fn is_signing_name(label: &str) -> bool {
    label.starts_with(|first: char| first.is_ascii_lowercase())
        && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Returns whether a label is a partition's letters, at least one word, and a number: `eu-west-1`, `us-gov-east-1`,
/// `eusc-de-east-1`.
fn is_region(label: &str) -> bool {
    let mut parts = label.split('-');
    let (Some(partition), Some(number)) = (parts.next(), parts.next_back()) else { return false };
    let mut words = parts.peekable();
    (2..=4).contains(&partition.len())
        && partition != "fips"
        && words.peek().is_some()
        && std::iter::once(partition)
            .chain(words)
            .all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
