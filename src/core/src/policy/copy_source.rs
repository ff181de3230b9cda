//! The headers by which S3's API names an object other than the path's.
//!
//! A copy reads the object that `x-amz-copy-source` names, with the route's credentials. So that object must be one that a
//! request on the same route could name by its path: under the target's bucket and path, and with no reading that leads to
//! another route. The value is converted to the path that a client would send for the object, and that path is checked like
//! any other.
//!
//! Source: Amazon S3 API reference, `CopyObject`, `UploadPartCopy` and `RenameObject`.

use super::authority::{Authority, NAME_MAX};
use super::{BucketPlace, Policy, Route, Target};
use crate::aws_endpoint::{S3Host, bucket_host, s3_host, strip_domain};
use crate::path::percent::{self, Decode};
use crate::path::{PathError, SafePath};
use crate::signing::write_encoded;

/// Every request header of S3's API that names an object, in lower case.
const HEADERS: [&str; 2] = ["x-amz-copy-source", "x-amz-rename-source"];

/// Longer than any value that S3 accepts: a key has at most 1,024 bytes, or three times as many encoded.
const VALUE_MAX: usize = 8192;

/// Returns the name of a header that names another object, if this is one.
pub fn copy_source_header(name: &[u8]) -> Option<&'static str> {
    HEADERS.into_iter().find(|header| header.as_bytes() == name)
}

/// The reason for rejecting a request that names another object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopySourceError {
    /// S3 does not accept the value.
    #[error(
        "{0} must be bucket/key, percent-encoded, with an optional ?versionId=, or the ARN of an object of an access point"
    )]
    Malformed(&'static str),
    /// The header has more than one line.
    #[error("{0} is sent more than once; send it once")]
    Repeated(&'static str),
    /// The object's path has a dot segment, a malformed escape or a control character.
    #[error("in {0}, {1}")]
    Path(&'static str, PathError),
    /// The object is outside of the route's target.
    #[error("{0} names an object that this route does not reach; name one under the route's target")]
    Outside(&'static str),
    /// The host may or may not begin with a bucket.
    #[error(
        "{0} can't be checked, as the host may begin with a bucket; set the route's s3Domain to the domain below which \
         buckets are named, or to the host itself if they are named in the path"
    )]
    BucketUnclear(&'static str),
    /// The header was sent as a query parameter, which a presigned URL allows.
    #[error("{0} is a query parameter; send it as a header")]
    InQuery(&'static str),
}

impl Policy {
    /// Checks that a request names no object outside of its route, by a header (`name`, `value`) of S3's API.
    ///
    /// # Errors
    /// [`CopySourceError`], with the header's name.
    pub fn check_copy_source(
        &self,
        route: &Route,
        (authority, path): (&[u8], &SafePath<'_>),
        (name, value): (&'static str, &[u8]),
    ) -> Result<(), CopySourceError> {
        // A route named by Envoy's metadata is not the policy's choice, and accepts any path.
        let is_chosen =
            self.find(authority, path).is_ok_and(|found| found.is_some_and(|found| found.is_sibling_of(route)));
        let request = Request { policy: self, route, authority, is_chosen };
        // Some decoders read `+` as a blank.
        let blank = value.contains(&b'+').then(|| value.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect());
        std::iter::once(value.to_vec()).chain(blank).try_for_each(|value: Vec<u8>| {
            let object = Some(&value).filter(|value| value.len() <= VALUE_MAX).and_then(|value| Object::parse(value));
            let object = object.ok_or(CopySourceError::Malformed(name))?;
            request.check(name, &object)
        })
    }
}

/// Checks that a query has no parameter that is one of these headers: S3 reads headers there in a presigned URL.
///
/// # Errors
/// [`CopySourceError::InQuery`].
pub fn check_query(query: &[u8]) -> Result<(), CopySourceError> {
    let mut room = [0; 32];
    for pair in query.split(|&byte| byte == b'&') {
        let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
        if let Some(name) = percent::decode_into(name, &mut room)
            && let Some(header) = HEADERS.into_iter().find(|header| header.as_bytes().eq_ignore_ascii_case(name))
        {
            return Err(CopySourceError::InQuery(header));
        }
    }
    Ok(())
}

/// An object that a header names, decoded.
#[derive(Debug, PartialEq, Eq)]
struct Object {
    bucket: Vec<u8>,
    key: Vec<u8>,
    /// The bucket is the ARN of an access point.
    by_arn: bool,
}

impl Object {
    /// Reads `[/]bucket/key[?versionId=…]` or `[/]arn:…:accesspoint/name/object/key[?versionId=…]`. S3 decodes the value
    /// before it splits it.
    fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = value.splitn(2, |&byte| byte == b'?');
        let object = parts.next().unwrap_or_default();
        if parts.next().is_some_and(|query| !query.starts_with(b"versionId=")) {
            return None;
        }
        if Decode::new(object).any(|byte| !byte.escaped && (byte.value == b'%' || byte.value.is_ascii_control())) {
            return None;
        }
        let object = percent::decode(object);
        let object = object.strip_prefix(b"/").unwrap_or(&object);
        let by_arn = object.starts_with(b"arn:");
        let split = match by_arn {
            true => {
                // An access point may itself be named `object`.
                let name = find(object, b":accesspoint/").map_or(0, |at| at + b":accesspoint/".len());
                find(object.get(name..)?, b"/object/").map(|at| (name + at, name + at + b"/object/".len()))
            }
            false => object.iter().position(|&byte| byte == b'/').map(|at| (at, at + 1)),
        };
        let (bucket_end, key_start) = split?;
        let (bucket, key) = (object.get(..bucket_end)?.to_vec(), object.get(key_start..)?.to_vec());
        (!bucket.is_empty() && !key.is_empty()).then_some(Self { bucket, key, by_arn })
    }

    /// Returns whether the object is one of the access point.
    fn is_of_access_point(&self, name_and_account: &str, region: &str) -> bool {
        self.access_point().is_some_and(|(own, own_region)| own_region == region && own == name_and_account)
    }

    /// Returns the host name of the access point whose object this is.
    fn host_of_access_point(&self) -> Option<String> {
        let (name_and_account, region) = self.access_point()?;
        Some(format!("{name_and_account}.s3-accesspoint.{region}.amazonaws.com"))
    }

    /// Returns the access point whose object this is: its name and account, as in its host name, and its region.
    fn access_point(&self) -> Option<(String, &str)> {
        let arn = std::str::from_utf8(&self.bucket).ok().filter(|_| self.by_arn)?;
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", _, "s3", region, account, resource] = parts[..] else { return None };
        Some((format!("{}-{account}", resource.strip_prefix("accesspoint/")?), region))
    }

    /// Returns the path of the object if the bucket is in the path.
    fn path_with_bucket(&self) -> Vec<u8> {
        [b"/", self.bucket.as_slice(), b"/", &self.key].concat()
    }

    /// Returns the path of the object if the bucket is in the host.
    fn path_in_bucket(&self) -> Vec<u8> {
        [b"/", self.key.as_slice()].concat()
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// The request that names an object.
struct Request<'a> {
    policy: &'a Policy,
    route: &'a Route,
    authority: &'a [u8],
    /// `true` if the policy chose this route for the request itself.
    is_chosen: bool,
}

impl Request<'_> {
    /// Checks that a request on the same route could name the object by its path.
    fn check(&self, header: &'static str, object: &Object) -> Result<(), CopySourceError> {
        if let Some(target) = self.route.target.as_ref().filter(|target| target.bucket.is_some()) {
            return self.check_bucket(header, object, target);
        }
        let mut buffer = [0; NAME_MAX];
        let (host, port) = match &self.route.target {
            Some(target) => (target.host(), None),
            None => Authority::parse(self.authority, &mut buffer).map_or(("", None), |host| (host.name, host.port)),
        };
        let place = match (s3_host(host), self.route.s3_domain.as_deref()) {
            (S3Host::Foreign, Some(domain)) if host == domain => S3Host::Endpoint,
            (S3Host::Foreign, domain) => {
                let bucket = domain.and_then(|endpoint| Some((strip_domain(host, endpoint)?, endpoint)));
                let (bucket, endpoint) = bucket.ok_or(CopySourceError::BucketUnclear(header))?;
                S3Host::Bucket { bucket, endpoint }
            }
            (place, _) => place,
        };
        let reached = match &self.route.target {
            Some(target) => self.target_reaches(place, target, object),
            None => self.authority_reaches(place, port, object),
        };
        match reached {
            Ok(true) => Ok(()),
            Ok(false) | Err(PathError::Ambiguous) => Err(CopySourceError::Outside(header)),
            Err(error) => Err(CopySourceError::Path(header, error)),
        }
    }

    /// Checks that a request to the host of the object's bucket could name the object by its path.
    fn check_bucket(&self, header: &'static str, object: &Object, target: &Target) -> Result<(), CopySourceError> {
        let outside = CopySourceError::Outside(header);
        let bucket = std::str::from_utf8(&object.bucket).ok().filter(|bucket| target.check_bucket(bucket).is_ok());
        let bucket = bucket.ok_or(outside)?;
        let authority = self.route.authority_of_bucket(self.authority, bucket).ok_or(outside)?;
        let place = match target.bucket {
            Some(BucketPlace::Label) => S3Host::Bucket { bucket, endpoint: target.host() },
            _ => S3Host::Endpoint,
        };
        let request = Request { authority: authority.as_bytes(), ..*self };
        match request.target_reaches(place, &target.of_bucket(bucket), object) {
            Ok(true) => Ok(()),
            Ok(false) | Err(PathError::Ambiguous) => Err(outside),
            Err(error) => Err(CopySourceError::Path(header, error)),
        }
    }

    fn target_reaches(&self, place: S3Host<'_>, target: &Target, object: &Object) -> Result<bool, PathError> {
        let Some(path) = path_on(place, object) else { return Ok(false) };
        let target_path = percent::decode(target.path.as_bytes());
        let Some(rest) = path.strip_prefix(target_path.as_slice()) else { return Ok(false) };
        // A target's path ends at a segment's end.
        if !(target_path.is_empty() || target_path.ends_with(b"/") || rest.starts_with(b"/")) {
            return Ok(false);
        }
        // The client's path from which `join` would make that path.
        let prefix = self.route.prefix.as_str();
        let mut sent = if prefix == "/" { Vec::new() } else { prefix.as_bytes().to_vec() };
        if !(rest.is_empty() || rest.starts_with(b"/") || sent.ends_with(b"/")) || sent.is_empty() && rest.is_empty() {
            sent.push(b'/');
        }
        append_encoded(rest, &mut sent);
        self.leads_here(self.authority, &sent)
    }

    /// Checks, for a route without a target, that the object can be named on the request's own host, or on that of its
    /// bucket.
    fn authority_reaches(&self, place: S3Host<'_>, port: Option<u16>, object: &Object) -> Result<bool, PathError> {
        let mut sent = Vec::new();
        if let Some(path) = path_on(place, object) {
            append_encoded(&path, &mut sent);
            return self.leads_here(self.authority, &sent);
        }
        let host = match place {
            _ if object.by_arn => object.host_of_access_point(),
            // A host name is case-insensitive, a bucket's name is not.
            S3Host::Bucket { endpoint, .. } if !object.bucket.iter().any(u8::is_ascii_uppercase) => {
                std::str::from_utf8(&object.bucket).ok().and_then(|bucket| bucket_host(bucket, endpoint))
            }
            _ => None,
        };
        let Some(mut authority) = host else { return Ok(false) };
        if let Some(port) = port {
            authority.push_str(&format!(":{port}"));
        }
        append_encoded(&object.path_in_bucket(), &mut sent);
        // S3 finds the bucket by its name alone, even in another region: no route that names it may match the request.
        let named =
            |host: &str| matches!(s3_host(host), S3Host::Bucket { bucket, .. } if bucket.as_bytes() == object.bucket);
        let hosts = self.policy.routes().iter().flat_map(|route| &route.hosts);
        for name in hosts.filter(|host| !host.wildcard && named(&host.name)).map(|host| &host.name) {
            if !self.leads_here(name.as_bytes(), &sent)? {
                return Ok(false);
            }
        }
        self.leads_here(authority.as_bytes(), &sent)
    }

    /// Returns whether the policy chooses the same route for such a request.
    fn leads_here(&self, authority: &[u8], path: &[u8]) -> Result<bool, PathError> {
        let path = SafePath::check(path)?;
        Ok(!self.is_chosen || self.policy.find(authority, &path)?.is_some_and(|found| found.is_sibling_of(self.route)))
    }
}

/// Returns the decoded path of an object on a host; `None` if the host is another bucket's.
fn path_on(host: S3Host<'_>, object: &Object) -> Option<Vec<u8>> {
    match host {
        S3Host::Endpoint => Some(object.path_with_bucket()),
        S3Host::Bucket { bucket, .. } => (object.bucket == bucket.as_bytes()).then(|| object.path_in_bucket()),
        S3Host::AccessPoint { name_and_account, region } => {
            object.is_of_access_point(name_and_account, region).then(|| object.path_in_bucket())
        }
        S3Host::Foreign | S3Host::Other => None,
    }
}

/// Appends a decoded path as a client would send it.
fn append_encoded(path: &[u8], out: &mut Vec<u8>) {
    for (i, segment) in path.split(|&byte| byte == b'/').enumerate() {
        if i > 0 {
            out.push(b'/');
        }
        write_encoded(segment, out);
    }
}

#[cfg(test)]
mod tests;
