//! The headers by which S3's API names another object than the path does.
//!
//! A copy reads the object that `x-amz-copy-source` names, with the route's credentials. So that object has to be one that
//! a request on the same route could name by its path: under the target's bucket and path, and with no reading that leads to
//! another route. The value is taken back to the path that a client would send for the object, and that path is checked
//! like any other.
//!
//! Source: Amazon S3 API reference, `CopyObject`, `UploadPartCopy` and `RenameObject`.

use super::host::{NAME_MAX, RequestHost};
use super::{Policy, Route, Target};
use crate::aws_endpoint::{S3Host, s3_host};
use crate::path::percent::{self, Decode};
use crate::path::{PathError, SafePath};
use crate::signing::write_encoded;

/// Every request header of S3's API that names an object, in lower case.
const HEADERS: [&str; 2] = ["x-amz-copy-source", "x-amz-rename-source"];

/// Returns the name of the header that names another object, if this is one.
pub fn copy_source_header(name: &[u8]) -> Option<&'static str> {
    HEADERS.into_iter().find(|header| header.as_bytes() == name)
}

/// Why a request that names another object is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopySourceError {
    /// The value is not one that S3 takes.
    #[error(
        "{0} must be bucket/key, percent-encoded, with an optional ?versionId=, or the ARN of an object of an access point"
    )]
    Malformed(&'static str),
    /// The object's path has a dot segment, a malformed escape or a control character.
    #[error("in {0}, {1}")]
    Path(&'static str, PathError),
    /// The object is outside of the route's target.
    #[error("{0} names an object that this route does not reach; name one under the route's target")]
    Outside(&'static str),
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
        let request = Request { policy: self, route, authority, path };
        // `+` is a blank to some decoders.
        let blank = value.contains(&b'+').then(|| value.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect());
        std::iter::once(value.to_vec()).chain(blank).try_for_each(|value: Vec<u8>| {
            let object = Object::parse(&value).ok_or(CopySourceError::Malformed(name))?;
            match request.reaches(&object) {
                Ok(true) => Ok(()),
                Ok(false) | Err(PathError::Ambiguous) => Err(CopySourceError::Outside(name)),
                Err(error) => Err(CopySourceError::Path(name, error)),
            }
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
            true => object.windows(b"/object/".len()).position(|part| part == b"/object/").map(|at| (at, at + 8)),
            false => object.iter().position(|&byte| byte == b'/').map(|at| (at, at + 1)),
        };
        let (bucket_end, key_start) = split?;
        let (bucket, key) = (object.get(..bucket_end)?.to_vec(), object.get(key_start..)?.to_vec());
        (!bucket.is_empty() && !key.is_empty()).then_some(Self { bucket, key, by_arn })
    }

    /// Returns whether the object is one of the access point.
    fn is_of_access_point(&self, name_and_account: &str, region: &str) -> bool {
        let Ok(arn) = std::str::from_utf8(&self.bucket) else { return false };
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", _, "s3", arn_region, account, resource] = parts[..] else { return false };
        let name = resource.strip_prefix("accesspoint/").unwrap_or_default();
        self.by_arn && region == arn_region && format!("{name}-{account}") == name_and_account
    }

    /// The path that names the object where the bucket is in the path.
    fn path_with_bucket(&self) -> Vec<u8> {
        [b"/", self.bucket.as_slice(), b"/", &self.key].concat()
    }

    /// The path that names the object where the bucket is in the host.
    fn path_in_bucket(&self) -> Vec<u8> {
        [b"/", self.key.as_slice()].concat()
    }
}

/// The request that names an object.
struct Request<'a> {
    policy: &'a Policy,
    route: &'a Route,
    authority: &'a [u8],
    path: &'a SafePath<'a>,
}

impl Request<'_> {
    /// Returns whether a request on the same route could name the object by its path.
    fn reaches(&self, object: &Object) -> Result<bool, PathError> {
        match &self.route.target {
            Some(target) => self.target_reaches(target, object),
            None => self.authority_reaches(object),
        }
    }

    fn target_reaches(&self, target: &Target, object: &Object) -> Result<bool, PathError> {
        let Some(path) = path_on(s3_host(target.host()), object) else { return Ok(false) };
        let target_path = percent::decode(target.path.as_bytes());
        let Some(rest) = path.strip_prefix(target_path.as_slice()) else { return Ok(false) };
        // A target's path ends at a segment's end.
        if !(target_path.is_empty() || target_path.ends_with(b"/") || rest.starts_with(b"/")) {
            return Ok(false);
        }
        // What `join` would make that path of.
        let prefix = self.route.prefix.as_str();
        let mut sent = if prefix == "/" { Vec::new() } else { prefix.as_bytes().to_vec() };
        if !(rest.is_empty() || rest.starts_with(b"/") || sent.ends_with(b"/")) || sent.is_empty() && rest.is_empty() {
            sent.push(b'/');
        }
        append_encoded(rest, &mut sent);
        self.leads_here(self.authority, &sent)
    }

    /// Without a target, the object may be named on the request's own host, or on that of its bucket.
    fn authority_reaches(&self, object: &Object) -> Result<bool, PathError> {
        let mut buffer = [0; NAME_MAX];
        let Some(host) = RequestHost::read(self.authority, &mut buffer) else { return Ok(false) };
        let place = s3_host(host.name);
        let mut sent = Vec::new();
        if let Some(path) = path_on(place, object) {
            append_encoded(&path, &mut sent);
            return self.leads_here(self.authority, &sent);
        }
        let (S3Host::Bucket { endpoint, .. }, false) = (place, object.by_arn) else { return Ok(false) };
        append_encoded(&object.path_in_bucket(), &mut sent);
        let port = host.port.map(|port| format!(":{port}")).unwrap_or_default();
        let authority = [object.bucket.as_slice(), b".", endpoint.as_bytes(), port.as_bytes()].concat();
        self.leads_here(&authority, &sent)
    }

    /// Returns whether the policy sends such a request by the same route. A route that Envoy's metadata named is not the
    /// policy's choice, and takes any path.
    fn leads_here(&self, authority: &[u8], path: &[u8]) -> Result<bool, PathError> {
        let path = SafePath::check(path)?;
        let is_here = |found: Option<&Route>| found.is_some_and(|route| route.index == self.route.index);
        let chosen_by_policy = self.policy.find(self.authority, self.path).is_ok_and(is_here);
        Ok(!chosen_by_policy || is_here(self.policy.find(authority, &path)?))
    }
}

/// The decoded path that names an object on a host; `None` if the host is another bucket's.
fn path_on(host: S3Host<'_>, object: &Object) -> Option<Vec<u8>> {
    match host {
        S3Host::Endpoint => Some(object.path_with_bucket()),
        S3Host::Bucket { bucket, .. } => (object.bucket == bucket.as_bytes()).then(|| object.path_in_bucket()),
        S3Host::AccessPoint { name_and_account, region } => {
            object.is_of_access_point(name_and_account, region).then(|| object.path_in_bucket())
        }
        S3Host::Other => None,
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
