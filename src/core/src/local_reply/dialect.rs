//! The form in which a client reads an error: that of its service's protocol, as AWS itself would answer.
//!
//! A request that names its protocol is believed. Otherwise the form goes by the service, and only for clients of AWS's: those
//! that have signed, or send the headers of an SDK. All others get plain JSON.
//!
//! Sources: AWS's models of its services (`protocol`), and Smithy's pages on its AWS protocols.

use crate::header_map::HeaderMap;
use crate::signing::{Scope, is_s3};

/// The form of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// JSON, for clients that are not AWS's.
    Plain,
    /// The same with what AWS's JSON protocols read.
    Json,
    /// The XML of S3.
    S3,
    /// The XML of the query protocol, and of REST with XML.
    Xml,
    /// The XML of EC2.
    Ec2,
    /// The CBOR of Smithy's RPC v2.
    RpcV2Cbor,
    /// CBOR in the place of JSON, as Kinesis has it.
    Cbor,
}

impl Dialect {
    /// Returns the form for a request. `route_service` is the signing name of its route, if the client may learn of it; it
    /// counts where the client itself has signed for none.
    pub fn of(headers: &HeaderMap, route_service: Option<&str>) -> Self {
        let (mut is_aws_client, mut is_form, mut is_control) = (false, false, false);
        let (mut signed_for, mut names_json) = (None, false);
        for (name, value) in headers.iter() {
            match name {
                b"smithy-protocol" if value == b"rpc-v2-cbor" => return Self::RpcV2Cbor,
                b"content-type" => match media_type(value) {
                    Some(MediaType::Cbor) => return Self::Cbor,
                    Some(MediaType::Json) => names_json = true,
                    Some(MediaType::Form) => is_form = true,
                    None => {}
                },
                b"x-amz-target" => names_json = true,
                b"authorization" if value.starts_with(b"AWS") => {
                    is_aws_client = true;
                    signed_for = Scope::of_authorization(value).map(|scope| scope.service);
                }
                // S3 Control alone has it, and always.
                b"x-amz-account-id" => is_control = true,
                _ => is_aws_client |= name.starts_with(b"amz-sdk-"),
            }
        }
        match signed_for.or(route_service) {
            _ if names_json => Self::Json,
            Some(service) if is_aws_client => match service {
                _ if is_s3(service) => {
                    if is_control {
                        Self::Xml
                    } else {
                        Self::S3
                    }
                }
                "cloudfront" | "route53" => Self::Xml,
                "ec2" if is_form => Self::Ec2,
                _ if is_form && speaks_query(service) => Self::Xml,
                _ => Self::Json,
            },
            _ => Self::Plain,
        }
    }
}

/// Returns whether a service of this signing name has the query protocol. Some have others too, in which a request is not a form.
fn speaks_query(service: &str) -> bool {
    matches!(
        service,
        "autoscaling"
            | "cloudformation"
            | "cloudsearch"
            | "elasticache"
            | "elasticbeanstalk"
            | "elasticloadbalancing"
            | "iam"
            | "importexport"
            | "monitoring"
            | "rds"
            | "redshift"
            | "sdb"
            | "ses"
            | "sns"
            | "sqs"
            | "sts"
    )
}

/// A media type that a protocol of AWS's has.
enum MediaType {
    Json,
    Form,
    Cbor,
}

fn media_type(content_type: &[u8]) -> Option<MediaType> {
    let media_type = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
    if is("application/x-amz-json-1.0") || is("application/x-amz-json-1.1") {
        Some(MediaType::Json)
    } else if is("application/x-www-form-urlencoded") {
        Some(MediaType::Form)
    } else if is("application/x-amz-cbor-1.1") {
        Some(MediaType::Cbor)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDK: (&str, &str) = ("amz-sdk-invocation-id", "1");
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

    fn dialect(headers: &[(&str, &str)], route_service: Option<&str>) -> Dialect {
        Dialect::of(&HeaderMap::serialize(headers), route_service)
    }

    fn signed_for(service: &str) -> String {
        format!("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host")
    }

    #[test]
    fn a_protocol_that_is_named_is_believed_without_a_route() {
        for (header, expected) in [
            (("smithy-protocol", "rpc-v2-cbor"), Dialect::RpcV2Cbor),
            (("content-type", "application/x-amz-cbor-1.1"), Dialect::Cbor),
            (("content-type", "application/x-amz-json-1.0"), Dialect::Json),
            (("content-type", "Application/X-Amz-Json-1.1;charset=utf-8"), Dialect::Json),
            (("x-amz-target", "DynamoDB_20120810.ListTables"), Dialect::Json),
        ] {
            for route_service in [None, Some("s3"), Some("execute-api")] {
                assert_eq!(dialect(&[header], route_service), expected, "{header:?}");
            }
        }
    }

    #[test]
    fn a_client_of_awss_gets_the_form_of_its_service() {
        for (service, headers, expected) in [
            ("s3", &[][..], Dialect::S3),
            ("s3express", &[], Dialect::S3),
            ("s3", &[("x-amz-account-id", "123456789012")], Dialect::Xml),
            ("route53", &[], Dialect::Xml),
            ("sts", &[FORM], Dialect::Xml),
            ("sts", &[], Dialect::Json),
            ("ec2", &[FORM], Dialect::Ec2),
            ("lambda", &[FORM], Dialect::Json),
            ("execute-api", &[], Dialect::Json),
        ] {
            let signed = signed_for(service);
            let by_client: Vec<_> = [&[("authorization", signed.as_str())], headers].concat();
            assert_eq!(dialect(&by_client, None), expected, "{service}");
            assert_eq!(dialect(&[&[SDK], headers].concat(), Some(service)), expected, "{service}");
            assert_eq!(dialect(&by_client, Some("dynamodb")), expected, "{service}");
        }
    }

    #[test]
    fn other_clients_get_plain_json() {
        let to_s3 = signed_for("s3");
        for headers in [
            &[][..],
            &[FORM],
            &[("content-type", "application/json")],
            &[("authorization", "Bearer AWS4")],
            &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
            &[("smithy-protocol", "rpc-v3")],
        ] {
            for route_service in [None, Some("s3"), Some("sts"), Some("ec2")] {
                assert_eq!(dialect(headers, route_service), Dialect::Plain, "{headers:?}");
            }
        }
        // An SDK that does not sign names no service, and no route took its request.
        assert_eq!(dialect(&[SDK], None), Dialect::Plain);
        assert_eq!(dialect(&[("authorization", &to_s3[4..])], None), Dialect::Plain);
    }
}
