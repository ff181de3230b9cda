//! What is inferred from a host name, against every endpoint that botocore knows.
//!
//! The data is botocore's own, written by `integration/endpoints/generate.py`. Where the inference differs on
//! purpose, [`DIFFERENCES`] says why; a difference that no longer differs fails the test as well.

use std::collections::HashMap;

use sigv4_core::aws_endpoint::{Endpoint, infer, is_s3_control};
use sigv4_core::signing::is_s3;

const BOTOCORE: &str = include_str!("data/botocore-endpoints.tsv");

/// The host or its form as the data has it (`*` stands for anything), botocore's signing name, and why something
/// else is inferred.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("api.sustainability.*", "sustainability", "signed for us-east-1 in every region"),
    ("bucket.s3-accelerate*", "s3", "the host does not tell the bucket's region"),
    ("health.us-east-1.amazonaws.com", "health", "listed as the name in the certificate of us-east-2"),
    ("maps.geo*", "geo", TWO_LOCATION_SERVICES),
    ("maps.geo*", "geo-maps", TWO_LOCATION_SERVICES),
    ("places.geo*", "geo", TWO_LOCATION_SERVICES),
    ("places.geo*", "geo-places", TWO_LOCATION_SERVICES),
    ("ramus-gov-*", "ram", "a misprint in endpoints.json: it lacks the dot before the region"),
    ("routes.geo*", "geo", TWO_LOCATION_SERVICES),
    ("routes.geo*", "geo-routes", TWO_LOCATION_SERVICES),
    ("*.signin.*", "signin", "the console's own domains, where the AWS CLI logs in"),
];

const TWO_LOCATION_SERVICES: &str = "the older and the newer Location services share the host; only the path tells";

struct Known<'a> {
    /// As the file writes it: a form of many hosts, or one host.
    written: &'a str,
    host: String,
    signing_name: &'a str,
    region: &'a str,
}

impl Known<'_> {
    fn is_inferred(&self) -> bool {
        infer(&self.host) == Some(Endpoint { signing_name: self.signing_name, region: self.region })
    }

    fn difference(&self) -> Option<usize> {
        DIFFERENCES
            .iter()
            .position(|(pattern, signing_name, _)| *signing_name == self.signing_name && matches(pattern, self.written))
    }
}

/// Returns whether `text` is `pattern`, whose `*` stand for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|text| (0..=text.len()).any(|at| text.get(at..).is_some_and(|end| matches(rest, end)))),
    }
}

fn known() -> Vec<Known<'static>> {
    let mut known = Vec::new();
    let mut partitions = HashMap::new();
    let mut section = "";
    for line in BOTOCORE.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        match (section, fields[..].as_ref()) {
            (_, [heading]) => section = heading,
            ("[partitions]", [partition, regions]) => {
                partitions.insert(*partition, regions.split(' ').collect::<Vec<_>>());
            }
            ("[forms]", [form, signing_name, groups]) => {
                for (partition, suffix) in
                    groups.split(' ').map(|group| group.split_once(':').expect("partition:suffix"))
                {
                    known.extend(partitions[partition].iter().map(|region| Known {
                        written: form,
                        host: format!("{}.{suffix}", form.replace("{region}", region)),
                        signing_name,
                        region,
                    }));
                }
            }
            ("[hosts]", [host, signing_name, region]) => {
                known.push(Known { written: host, host: (*host).to_owned(), signing_name, region });
            }
            ("[s3 control]", [_, _]) => {}
            _ => panic!("not a line of the section {section}: {line}"),
        }
    }
    known
}

#[test]
fn every_endpoint_of_botocore_is_inferred() {
    let known = known();
    assert!(known.len() > 75_000, "{} endpoints were read", known.len());
    let wrong: Vec<String> = known
        .iter()
        .filter(|known| !known.is_inferred() && known.difference().is_none())
        .map(|Known { host, signing_name, region, .. }| {
            format!("{host}: {signing_name} {region}, but inferred {:?}", infer(host))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), known.len(), wrong.join("\n"));
}

#[test]
fn the_control_api_of_s3_is_what_botocore_has_for_it() {
    let (_, section) = BOTOCORE.split_once("[s3 control]\n").expect("a section of S3's control API");
    let control: Vec<(&str, &str)> = section.lines().filter_map(|line| line.split_once('\t')).collect();
    let (mut is_control, mut is_not) = (0, 0);
    for Known { host, signing_name, region, .. } in known().iter().filter(|known| is_s3(known.signing_name)) {
        let name = host.split_once(&format!(".{region}.")).map_or(host.as_str(), |(name, _)| name);
        let expected = control.contains(&(name, signing_name));
        assert_eq!(is_s3_control(host.as_bytes()), expected, "{host}");
        *if expected { &mut is_control } else { &mut is_not } += 1;
    }
    assert!(is_control > 300 && is_not > 300, "{is_control} and {is_not} hosts were compared");
}

#[test]
fn every_difference_still_differs() {
    let known = known();
    for (index, (host, signing_name, reason)) in DIFFERENCES.iter().enumerate() {
        let mut covered = known.iter().filter(|known| known.difference() == Some(index)).peekable();
        assert!(covered.peek().is_some(), "botocore no longer has {host} ({signing_name}): {reason}");
        let equal: Vec<&str> = covered.filter(|known| known.is_inferred()).map(|known| &*known.host).collect();
        assert!(equal.is_empty(), "{host} ({signing_name}) is listed, but botocore agrees on {equal:?}");
    }
}

/// Endpoints of older releases of botocore, written by `integration/endpoints/older.py`.
const OLDER: &str = include_str!("data/older-botocore-endpoints.tsv");

/// As [`DIFFERENCES`], for those.
const OLDER_DIFFERENCES: &[(&str, &str, &str)] = &[
    ("autoscaling.*", "application-autoscaling", "EC2 Auto Scaling has the host; this service has moved to its own"),
    ("autoscaling.*", "autoscaling-plans", "EC2 Auto Scaling has the host; this service has moved to its own"),
    ("iot.*", "execute-api", "1.29 signs for iot"),
    ("service.chime.aws.amazon.com", "chime", "outside of AWS's suffixes for endpoints"),
    ("verification.verification.signer*", "signer", "the prefix, twice"),
];

#[test]
fn every_endpoint_of_older_botocores_is_inferred() {
    let is_listed = |host, name| OLDER_DIFFERENCES.iter().any(|(form, of, _)| matches(form, host) && *of == name);
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for line in OLDER.lines().filter(|line| !line.starts_with('#')) {
        let [host, signing_name, region, release] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not a line of this file: {line}")
        };
        compared += 1;
        let is_inferred = infer(host) == Some(Endpoint { signing_name, region });
        if is_inferred == is_listed(host, signing_name) {
            wrong.push(format!("{host} ({release}): {signing_name} {region}, but inferred {:?}", infer(host)));
        }
    }
    assert!(compared > 100, "{compared} endpoints were read");
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
}
