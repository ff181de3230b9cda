//! The target of a route, as the policy writes it.
//!
//! Parsed here instead of by a URL library, whose normalization must not happen: the `url` crate resolves dot segments and
//! rewrites escapes and hosts, and adds some 190 KiB to the filter, including IDNA's Unicode tables; `http::Uri` drops a
//! fragment silently. A target's path is used as written or rejected.

use std::fmt;

use super::authority::{HostAndPort, parse_host_and_port};
use super::path_syntax;

/// A URL scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

/// The placeholder of the bucket.
pub(super) const PLACEHOLDER: &str = "{bucket}";

/// The position of the bucket in a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketPlace {
    /// It is the host's first label.
    Label,
    /// It is the path's first segment.
    Segment,
}

/// The target of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The upstream's scheme.
    pub scheme: Scheme,
    /// Host and port, lower case, without the scheme's default port: the `host` that is sent and signed.
    pub authority: String,
    /// The path as written. Empty if the URL has none, and also for `/` alone, unless the prefix ends in `/`: the two are
    /// equivalent (RFC 3986, 6.2.3).
    pub path: String,
    /// The position of each request's bucket, which `authority` and `path` leave out.
    pub bucket: Option<BucketPlace>,
    pub(super) host: String,
}

impl Target {
    /// Returns the host without its port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// # Errors
    /// Names the defect and the fix, for the policy's author.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return Err("must begin with https:// or http://".to_owned()),
        };
        if rest.contains('#') {
            return Err("a fragment (#…) is never sent to a server; remove it".to_owned());
        }
        if rest.contains('?') {
            return Err("a query (?…) is not allowed in a target; remove it, requests have their own".to_owned());
        }
        let (authority, path) =
            rest.split_at_checked(rest.find(['/', '\\']).unwrap_or(rest.len())).unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err("user info (…@) is not allowed in a target; remove it".to_owned());
        }
        let (bucket, authority, path) = split_bucket(authority, path)?;
        let HostAndPort { host, port } = parse_host_and_port(authority)?;
        path_syntax::check(path)?;
        let default_port = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let authority = match port {
            Some(port) if port != default_port => format!("{host}:{port}"),
            _ => host.clone(),
        };
        Ok(Self { scheme, authority, path: path.to_owned(), bucket, host })
    }
}

/// Takes `{bucket}` off.
fn split_bucket<'a>(authority: &'a str, path: &'a str) -> Result<(Option<BucketPlace>, &'a str, &'a str), String> {
    let label = authority.strip_prefix(PLACEHOLDER).and_then(|rest| rest.strip_prefix('.'));
    let segment = path.strip_prefix('/').and_then(|path| path.strip_prefix(PLACEHOLDER));
    let segment = segment.filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let (bucket, authority, path) = match (label, segment) {
        (Some(rest), _) => (Some(BucketPlace::Label), rest, path),
        (None, Some(rest)) => (Some(BucketPlace::Segment), authority, rest),
        (None, None) => (None, authority, path),
    };
    if authority.contains(PLACEHOLDER) || path.contains(PLACEHOLDER) {
        return Err(format!(
            "{PLACEHOLDER} can stand once, as the host's whole first label or the path's whole first segment; write it there, \
             or leave it out"
        ));
    }
    Ok((bucket, authority, path))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (label, segment) = match self.bucket {
            Some(BucketPlace::Label) => ("{bucket}.", ""),
            Some(BucketPlace::Segment) => ("", "/{bucket}"),
            None => ("", ""),
        };
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        write!(f, "{scheme}://{label}{}{segment}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_taken_as_written() {
        let cases = [
            ("https://h", Scheme::Https, "h", ""),
            ("https://h/", Scheme::Https, "h", "/"),
            ("HTTPS://H.Example.COM:443/v2", Scheme::Https, "h.example.com", "/v2"),
            ("https://h:80/v2/", Scheme::Https, "h:80", "/v2/"),
            ("http://h:80/a//b", Scheme::Http, "h", "/a//b"),
            ("http://[0:0::1]:8080/x", Scheme::Http, "[::1]:8080", "/x"),
            ("https://10.0.0.1/%C3%BC%2Fa:b@c", Scheme::Https, "10.0.0.1", "/%C3%BC%2Fa:b@c"),
        ];
        for (url, scheme, authority, path) in cases {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.scheme, &*target.authority, &*target.path), (scheme, authority, path), "{url}");
        }
        assert_eq!(Target::parse("https://h:8443").unwrap().host(), "h");
    }

    #[test]
    fn a_bucket_is_the_first_label_or_the_first_segment() {
        for (url, bucket) in [
            ("https://{bucket}.s3.eu-west-1.amazonaws.com", BucketPlace::Label),
            ("http://{bucket}.h:9000/a", BucketPlace::Label),
            ("http://h:9000/{bucket}", BucketPlace::Segment),
            ("http://h/{bucket}/a/", BucketPlace::Segment),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.bucket, target.to_string().as_str()), (Some(bucket), url));
        }
        for url in [
            "https://{bucket}",
            "https://x{bucket}.h",
            "https://{bucket}x.h",
            "https://h.{bucket}",
            "https://{bucket}.h/{bucket}",
            "https://h/{bucket}x",
            "https://h/x/{bucket}",
            "https://h/{bucket}/{bucket}",
        ] {
            assert!(Target::parse(url).unwrap_err().starts_with("{bucket} can stand once"), "{url}");
        }
    }
}
