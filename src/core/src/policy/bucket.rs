//! The bucket that a client puts into the host name, which `{bucket}` in a target stands for.

use crate::aws_endpoint::{S3Host, is_aws_domain, s3_host, strip_domain};

use super::authority::{Authority, HostPattern, NAME_MAX, NameBuffer};
use super::route::Route;
use super::target::{BucketPlace, PLACEHOLDER, Scheme, Target};

/// The reason for refusing a request whose host names a bucket, or should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// The host is not below one of the route's.
    #[error("the host {0:?} names no bucket; send the request to a host that begins with one")]
    Missing(String),
    /// No bucket has such a name.
    #[error("{0:?}, with which the host begins, can't be a bucket's name")]
    Invalid(String),
    /// The name has dots, and would be several labels.
    #[error(
        "the bucket {0:?} has dots, and S3's certificates cover one label before the endpoint; send the bucket in the path, \
         or set {{bucket}} as the first segment of the target's path"
    )]
    Dots(String),
    /// The name is that of something else than a bucket in this place.
    #[error("{0:?} is served under another endpoint than the target's; give it a route of its own")]
    Elsewhere(String),
    /// The target would replace it.
    #[error(
        "the host {0:?} names a bucket, which the route's target would drop; send the bucket in the path (path-style \
         addressing), list the host in the route's hosts, or set {{bucket}} in the target"
    )]
    Dropped(String),
}

impl Target {
    /// Returns the target of a bucket.
    pub(super) fn of_bucket(&self, bucket: &str) -> Self {
        let (mut target, scheme) = (self.clone(), self.scheme);
        match self.bucket {
            Some(BucketPlace::Label) => {
                target.authority = format!("{bucket}.{}", self.authority);
                target.host = format!("{bucket}.{}", self.host);
            }
            Some(BucketPlace::Segment) => target.path = format!("/{bucket}{}", self.path),
            None => {}
        }
        Self { bucket: None, scheme, ..target }
    }

    /// Checks that a name can stand where the target has its bucket.
    ///
    /// # Errors
    /// [`BucketError`].
    pub(super) fn check_bucket(&self, bucket: &str) -> Result<(), BucketError> {
        let refused = |error: fn(String) -> BucketError| Err(error(bucket.to_owned()));
        if !is_bucket_name(bucket) {
            return refused(BucketError::Invalid);
        }
        let place = self.bucket;
        if place == Some(BucketPlace::Label) && bucket.contains('.') {
            return refused(BucketError::Dots);
        }
        if !is_aws_domain(&self.host) {
            return Ok(());
        }
        // A directory bucket has the endpoint of its zone, and the endpoint no other bucket. An alias of an access point stands
        // for a bucket in a host name alone. Aliases on Outposts and of several regions have endpoints of their own.
        let zone = self.host.strip_prefix("s3express-").and_then(|rest| rest.split_once('.')).map(|(zone, _)| zone);
        let own_zone = bucket.strip_suffix("--x-s3").and_then(|rest| rest.rsplit_once("--")).map(|(_, zone)| zone);
        let is_alias = bucket.ends_with("-s3alias") || bucket.ends_with("--ol-s3");
        let is_elsewhere = zone != own_zone
            || (own_zone.is_none() && bucket.ends_with("--x-s3"))
            || (is_alias && place == Some(BucketPlace::Segment))
            || bucket.ends_with("--op-s3")
            || bucket.ends_with(".mrap");
        if is_elsewhere { refused(BucketError::Elsewhere) } else { Ok(()) }
    }

    /// Checks where a policy has its bucket.
    ///
    /// # Errors
    /// What is wrong with it and the cure, for the policy's author.
    pub(super) fn check_bucket_place(&self) -> Result<(), String> {
        let host = match self.bucket {
            Some(BucketPlace::Label) => format!("bucket.{}", self.host),
            Some(BucketPlace::Segment) => self.host.clone(),
            None => return Ok(()),
        };
        match (self.bucket, s3_host(&host)) {
            // Envoy looks up the names that clients choose apart from the policy's, and calls them with TLS alone.
            (Some(BucketPlace::Label), _) if self.scheme == Scheme::Http => {
                Err(format!("{PLACEHOLDER} in the host needs https; write it as the first segment of the path"))
            }
            _ if !is_aws_domain(&self.host) => Ok(()),
            (Some(BucketPlace::Label), S3Host::Bucket { bucket: "bucket", .. }) => Ok(()),
            (Some(BucketPlace::Segment), S3Host::Endpoint) if !host.starts_with("s3express-") => Ok(()),
            _ => Err(format!(
                "{:?} is not an endpoint of S3 that has {PLACEHOLDER} in this place; write \
                 https://{PLACEHOLDER}.s3.REGION.amazonaws.com",
                self.host
            )),
        }
    }
}

impl Route {
    /// Returns the route's target for the bucket that a request's host names.
    ///
    /// # Errors
    /// [`BucketError`], if there is no bucket that can go there.
    #[cold]
    pub fn target_of_bucket(&self, target: &Target, authority: &[u8]) -> Result<Target, BucketError> {
        let mut name = [0; NAME_MAX];
        let Some((bucket, _)) = self.split_host(authority, &mut name) else {
            return Err(BucketError::Missing(String::from_utf8_lossy(authority).into_owned()));
        };
        target.check_bucket(bucket)?;
        Ok(target.of_bucket(bucket))
    }

    /// Returns the authority by which a client names another bucket than with this one.
    pub(super) fn authority_of_bucket(&self, authority: &[u8], bucket: &str) -> Option<String> {
        let mut name = [0; NAME_MAX];
        let (_, domain) = self.split_host(authority, &mut name)?;
        Some(format!("{bucket}.{domain}"))
    }

    /// Splits a host into what `*` matched and the rest, with its port; by the longest domain, if several match.
    fn split_host<'b>(&self, authority: &[u8], buffer: &'b mut NameBuffer) -> Option<(&'b str, String)> {
        let host = Authority::parse(authority, buffer)?;
        let matched = |pattern: &&HostPattern| {
            pattern.wildcard
                && (pattern.port.is_none() || pattern.port == host.port)
                && strip_domain(host.name, &pattern.name).is_some()
        };
        let pattern = self.hosts.iter().filter(matched).max_by_key(|pattern| pattern.name.len())?;
        let port = host.port.map_or(String::new(), |port| format!(":{port}"));
        Some((strip_domain(host.name, &pattern.name)?, format!("{}{port}", pattern.name)))
    }

    /// Checks that the route's target does not drop a bucket that the host names. It does not if the host is the target's, or
    /// one that the route lists.
    ///
    /// # Errors
    /// [`BucketError::Dropped`].
    #[inline(never)]
    pub fn check_host_names_no_bucket(&self, authority: &[u8]) -> Result<(), BucketError> {
        let Some(target) = self.target.as_ref().filter(|target| target.bucket.is_none()) else { return Ok(()) };
        let mut name = [0; NAME_MAX];
        let Some(host) = Authority::parse(authority, &mut name).map(|host| host.name) else {
            let dropped = || BucketError::Dropped(String::from_utf8_lossy(authority).into_owned());
            return if may_name_bucket(authority) { Err(dropped()) } else { Ok(()) };
        };
        let is_meant = || host == target.host() || self.hosts.iter().any(|own| !own.wildcard && own.name == host);
        let names_bucket = match s3_host(host) {
            S3Host::Endpoint => false,
            S3Host::Foreign => host.split('.').skip(1).any(|label| label == "s3"),
            _ => true,
        };
        if names_bucket && !is_meant() { Err(BucketError::Dropped(host.to_owned())) } else { Ok(()) }
    }

    /// Returns whether a client may lose a bucket that it puts into a host name, as the route takes hosts that are not listed.
    pub fn may_drop_bucket(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.bucket.is_none())
            && (self.hosts.is_empty() || self.hosts.iter().any(|host| host.wildcard))
    }
}

/// Returns whether an authority that is not a host with an optional port, as with an empty port, may name a bucket
/// nevertheless: it has a label of S3's after the first one.
fn may_name_bucket(authority: &[u8]) -> bool {
    let is_of_s3 = |label: &[u8]| label.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"s3"));
    let host = authority.split(|byte| *byte == b':').next().unwrap_or_default();
    host.split(|byte| *byte == b'.').skip(1).any(is_of_s3)
}

/// Returns whether a bucket can have a name: 3 to 63 lower-case letters, digits, hyphens and single dots, with a letter or
/// digit at both ends and around dots, and not an IPv4 address.
///
/// Source: Amazon S3 User Guide, "General purpose bucket naming rules".
fn is_bucket_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    (3..=63).contains(&name.len()) && name.split('.').all(is_label) && name.parse::<std::net::Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::Policy;

    fn route(target: &str, hosts: &str) -> Policy {
        let policy = format!(
            r#"{{"routes": {{"/": {{"target": "{target}", "hosts": {hosts}, "service": "s3", "region": "eu-west-1"}}}}}}"#
        );
        Policy::from_json(policy.as_bytes()).unwrap_or_else(|error| panic!("{policy}: {error}"))
    }

    fn sent_to(policy: &Policy, authority: &str) -> Result<String, BucketError> {
        let route = &policy.routes()[0];
        let target = route.target_of_bucket(route.target.as_ref().unwrap(), authority.as_bytes())?;
        Ok(format!("{}{}", target.authority, target.path))
    }

    #[test]
    fn the_bucket_takes_its_place_in_the_target() {
        let hosts = r#"["*.s3.localhost", "*.localhost:8080", "*.a.s3.localhost"]"#;
        let label = route("https://{bucket}.s3.eu-west-1.amazonaws.com", hosts);
        let segment = route("http://minio.example:9000/{bucket}/reports", hosts);
        for (authority, bucket) in [
            ("mine.s3.localhost", "mine"),
            ("Mine.S3.Localhost.:8080", "mine"),
            ("mine.localhost:8080", "mine"),
            ("mine.a.s3.localhost", "mine"),
        ] {
            assert_eq!(sent_to(&label, authority), Ok(format!("{bucket}.s3.eu-west-1.amazonaws.com")), "{authority}");
            assert_eq!(sent_to(&segment, authority), Ok(format!("minio.example:9000/{bucket}/reports")), "{authority}");
        }
        assert_eq!(sent_to(&segment, "my.data.s3.localhost").as_deref(), Ok("minio.example:9000/my.data/reports"));
        assert_eq!(sent_to(&label, "my.data.s3.localhost"), Err(BucketError::Dots("my.data".to_owned())));
        for authority in
            ["s3.localhost.", "elsewhere", "mine.localhost", "", "mine.s3.localhost/", "\u{fc}.s3.localhost"]
        {
            assert!(matches!(sent_to(&label, authority), Err(BucketError::Missing(_))), "{authority}");
        }
    }

    #[test]
    fn only_a_buckets_name_takes_the_place() {
        let policy = route("http://minio.example/{bucket}", r#"["*.s3.localhost"]"#);
        for name in ["ab", "a_b", "-ab", "ab-", "a.-b", "127.0.0.1", "a"] {
            assert!(
                matches!(sent_to(&policy, &format!("{name}.s3.localhost")), Err(BucketError::Invalid(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn names_of_other_things_go_where_s3_has_them() {
        let hosts = r#"["*.s3.localhost"]"#;
        let label = route("https://{bucket}.s3.eu-west-1.amazonaws.com", hosts);
        let segment = route("https://s3.eu-west-1.amazonaws.com/{bucket}", hosts);
        let zonal = route("https://{bucket}.s3express-euw1-az1.eu-west-1.amazonaws.com", hosts);
        let own = route("https://{bucket}.minio.example", hosts);
        for (name, to_label, to_segment, to_zonal) in [
            ("mine", true, true, false),
            ("mine--euw1-az1--x-s3", false, false, true),
            ("mine--euw1-az2--x-s3", false, false, false),
            ("mine--x-s3", false, false, false),
            ("mine-1a2b-s3alias", true, false, false),
            ("mine-1a2b--ol-s3", true, false, false),
            ("mine-1a2b--op-s3", false, false, false),
        ] {
            let authority = format!("{name}.s3.localhost");
            for (policy, takes) in [(&label, to_label), (&segment, to_segment), (&zonal, to_zonal), (&own, true)] {
                assert_eq!(sent_to(policy, &authority).is_ok(), takes, "{name} {:?}", policy.routes()[0].target);
            }
        }
    }

    #[test]
    fn a_host_with_a_bucket_is_not_replaced_by_a_target() {
        let policy = |hosts: &str| {
            let policy =
                format!(r#"{{"routes": {{"/": {{"target": "https://b.s3.eu-west-1.amazonaws.com"{hosts}}}}}}}"#);
            Policy::from_json(policy.as_bytes()).unwrap()
        };
        let dropped = |hosts: &str, authority: &str| {
            policy(hosts).routes()[0].check_host_names_no_bucket(authority.as_bytes()).is_err()
        };
        for authority in
            ["mine.s3.localhost", "mine.s3.localhost:8080", "a.b.S3.example", "mine.s3.eu-west-1.amazonaws.com"]
        {
            assert!(dropped("", authority), "{authority}");
            assert!(dropped(r#", "hosts": ["*.localhost", "*.example", "*.amazonaws.com"]"#, authority), "{authority}");
        }
        for not_a_host in
            ["mine.s3.localhost:", "mine.S3-eu-west-1.amazonaws.com:0", "a..b.s3.example", "%6dine.s3.example:80"]
        {
            assert!(dropped("", not_a_host), "{not_a_host}");
        }
        for authority in ["s3.localhost:", "localhost:", "my..proxy", "my.proxy:s3.s3", "", "[::1]:"] {
            assert!(!dropped("", authority), "{authority}");
        }
        for authority in
            ["s3.localhost", "localhost", "127.0.0.1:80", "[::1]", "b.s3.eu-west-1.amazonaws.com", "my.proxy"]
        {
            assert!(!dropped("", authority), "{authority}");
        }
        assert!(!dropped(r#", "hosts": ["mine.s3.localhost"]"#, "mine.s3.localhost"));
    }

    proptest! {
        #[test]
        fn a_bucket_never_leaves_its_place(name in "[a-z0-9._/%@:?#-]{0,20}") {
            let hosts = r#"["*.s3.localhost"]"#;
            if let Ok(sent) = sent_to(&route("https://{bucket}.s3.eu-west-1.amazonaws.com", hosts), &format!("{name}.s3.localhost")) {
                prop_assert!(sent.strip_suffix(".s3.eu-west-1.amazonaws.com").is_some_and(|label| !label.contains(['.', '/', ':', '@', '%'])));
            }
            if let Ok(sent) = sent_to(&route("http://minio.example/{bucket}", hosts), &format!("{name}.s3.localhost")) {
                let segment = sent.strip_prefix("minio.example/").unwrap();
                prop_assert!(segment.starts_with(|c: char| c.is_ascii_alphanumeric()) && !segment.contains(['/', ':', '@', '%', '?', '#']));
            }
        }
    }
}
