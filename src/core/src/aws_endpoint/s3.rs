//! Parses S3 host names, in which a bucket may be named instead of in the path.

use super::table::SUFFIXES;
use super::{is_region, split_last, strip_domain};

/// The resource in the host name of an S3 endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Host<'a> {
    /// The endpoint alone: the bucket is the path's first segment.
    Endpoint,
    /// A bucket, or the alias of an access point.
    Bucket {
        /// Its name, which may have dots.
        bucket: &'a str,
        /// The rest of the host name.
        endpoint: &'a str,
    },
    /// An access point.
    AccessPoint {
        /// Its name and its account's id, joined with `-`.
        name_and_account: &'a str,
        /// Its region.
        region: &'a str,
    },
    /// A name outside of AWS's domains, which may begin with a bucket.
    Foreign,
    /// Something else that holds objects: an access point on Outposts, of several regions, or with a Lambda function.
    Other,
}

/// Reads an S3 host name, in lower case without port or trailing dot.
///
/// Source: Amazon S3 User Guide, "Virtual hosting of general purpose buckets", "Using Amazon S3 access points", and
/// "AWS PrivateLink for Amazon S3".
pub fn s3_host(host: &str) -> S3Host<'_> {
    let Some(labels) = SUFFIXES.iter().find_map(|suffix| strip_domain(host, suffix.name)) else {
        // An address has no labels. A bucket's name has at least three letters, so `s3` is not one.
        let is_address = host.starts_with('[') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let may_have_bucket = host.contains('.') && !host.starts_with("s3.") && !is_address;
        return if may_have_bucket { S3Host::Foreign } else { S3Host::Endpoint };
    };
    if let Some(labels) = strip_domain(labels, "vpce") {
        return vpc_endpoint(host, labels);
    }
    let (name, last) = split_last(labels);
    let (name, region) =
        if is_region(last) { (strip_domain(name, "dualstack").unwrap_or(name), last) } else { (labels, "") };
    let name = strip_domain(name, "dualstack").unwrap_or(name);
    let (resource, service) = split_last(name);
    match service.strip_suffix("-fips").unwrap_or(service) {
        _ if resource.is_empty() => S3Host::Endpoint,
        "s3-accesspoint" => S3Host::AccessPoint { name_and_account: resource, region },
        "s3-outposts" | "s3-object-lambda" | "s3-global" | "s3-control" | "s3express-control" => S3Host::Other,
        service if service == "s3" || service.starts_with("s3-") || service.starts_with("s3express-") => {
            bucket(host, resource)
        }
        _ => S3Host::Other,
    }
}

/// Parses `resource.vpce-id.s3.region`, where `resource` is `bucket`, `name.bucket` or `name.accesspoint`.
fn vpc_endpoint<'a>(host: &'a str, labels: &'a str) -> S3Host<'a> {
    let (rest, region) = split_last(labels);
    let (rest, _service) = split_last(rest);
    let (resource, _endpoint_id) = split_last(rest);
    match split_last(resource) {
        ("", "bucket") => S3Host::Endpoint,
        (name, "bucket") => bucket(host, name),
        (name, "accesspoint") => S3Host::AccessPoint { name_and_account: name, region },
        _ => S3Host::Other,
    }
}

fn bucket<'a>(host: &'a str, bucket: &'a str) -> S3Host<'a> {
    let endpoint = host.get(bucket.len() + 1..).unwrap_or_default();
    S3Host::Bucket { bucket, endpoint }
}

/// Returns the host name of a bucket, derived from the endpoint in another bucket's host name. A directory bucket names its
/// zone (`name--zone--x-s3`); its region can't be derived from the endpoint of a general purpose bucket.
///
/// Source: Amazon S3 User Guide, "Regional and Zonal endpoints for directory buckets".
pub fn bucket_host(bucket: &str, endpoint: &str) -> Option<String> {
    let zone = bucket.strip_suffix("--x-s3").and_then(|rest| rest.rsplit_once("--")).map(|(_, zone)| zone);
    let zonal = endpoint.starts_with("s3express-").then(|| endpoint.split_once('.')).flatten();
    Some(match (zone, zonal) {
        (Some(zone), Some((_, region))) => format!("{bucket}.s3express-{zone}.{region}"),
        (Some(_), None) => return None,
        (None, Some((_, region))) => format!("{bucket}.s3.{region}"),
        (None, None) => format!("{bucket}.{endpoint}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_in_the_host_is_found() {
        for (host, bucket, endpoint) in [
            ("b.s3.eu-west-1.amazonaws.com", "b", "s3.eu-west-1.amazonaws.com"),
            ("my.dotted.name.s3.eu-west-1.amazonaws.com", "my.dotted.name", "s3.eu-west-1.amazonaws.com"),
            ("s3.s3.eu-west-1.amazonaws.com", "s3", "s3.eu-west-1.amazonaws.com"),
            ("b.s3.dualstack.eu-west-1.amazonaws.com", "b", "s3.dualstack.eu-west-1.amazonaws.com"),
            ("b.s3-fips.dualstack.us-east-1.amazonaws.com", "b", "s3-fips.dualstack.us-east-1.amazonaws.com"),
            ("b.s3-us-west-2.amazonaws.com", "b", "s3-us-west-2.amazonaws.com"),
            ("b.s3.amazonaws.com", "b", "s3.amazonaws.com"),
            ("b.s3-accelerate.amazonaws.com", "b", "s3-accelerate.amazonaws.com"),
            ("b.s3-accelerate.dualstack.amazonaws.com", "b", "s3-accelerate.dualstack.amazonaws.com"),
            ("b.s3.cn-north-1.amazonaws.com.cn", "b", "s3.cn-north-1.amazonaws.com.cn"),
            (
                "b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com",
                "b--usw2-az1--x-s3",
                "s3express-usw2-az1.us-west-2.amazonaws.com",
            ),
            (
                "b.bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com",
                "b",
                "bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com",
            ),
        ] {
            assert_eq!(s3_host(host), S3Host::Bucket { bucket, endpoint }, "{host}");
        }
    }

    #[test]
    fn an_access_point_in_the_host_is_found() {
        for host in [
            "point-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
            "point-123456789012.s3-accesspoint-fips.dualstack.eu-west-1.amazonaws.com",
            "point-123456789012.accesspoint.vpce-1a-2b.s3.eu-west-1.vpce.amazonaws.com",
        ] {
            let expected = S3Host::AccessPoint { name_and_account: "point-123456789012", region: "eu-west-1" };
            assert_eq!(s3_host(host), expected, "{host}");
        }
    }

    #[test]
    fn outside_of_aws_a_name_may_begin_with_a_bucket() {
        for host in ["mine.s3.localhost", "mine.nyc3.example.com", "minio.example", "s3-data.minio.example"] {
            assert_eq!(s3_host(host), S3Host::Foreign, "{host}");
        }
    }

    #[test]
    fn a_bucket_has_its_host_beside_that_of_another() {
        let zonal = "s3express-usw2-az1.us-west-2.amazonaws.com";
        for (bucket, endpoint, host) in [
            ("b", "s3.eu-west-1.amazonaws.com", "b.s3.eu-west-1.amazonaws.com"),
            ("my.bucket", "s3.localhost", "my.bucket.s3.localhost"),
            ("b", zonal, "b.s3.us-west-2.amazonaws.com"),
            ("b--usw2-az1--x-s3", zonal, "b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com"),
            ("b--usw2-az3--x-s3", zonal, "b--usw2-az3--x-s3.s3express-usw2-az3.us-west-2.amazonaws.com"),
        ] {
            assert_eq!(bucket_host(bucket, endpoint).as_deref(), Some(host));
        }
        assert_eq!(bucket_host("b--usw2-az1--x-s3", "s3.us-west-2.amazonaws.com"), None);
    }

    #[test]
    fn an_endpoint_names_no_bucket() {
        for host in [
            "s3.eu-west-1.amazonaws.com",
            "s3.dualstack.eu-west-1.amazonaws.com",
            "s3.amazonaws.com",
            "s3-eu-west-1.amazonaws.com",
            "bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com",
            "127.0.0.1",
            "[::1]",
            "localhost",
            "s3.eu-central-1.example.com",
            "",
        ] {
            assert_eq!(s3_host(host), S3Host::Endpoint, "{host}");
        }
        for host in [
            "p-1.op-1.s3-outposts.eu-west-1.amazonaws.com",
            "alias.mrap.accesspoint.s3-global.amazonaws.com",
            "l-1.s3-object-lambda.eu-west-1.amazonaws.com",
            "b--use1-az4--x-s3.vpce-1a.s3express-use1-az4.us-east-1.vpce.amazonaws.com",
        ] {
            assert_eq!(s3_host(host), S3Host::Other, "{host}");
        }
    }
}
