use super::*;

const NAME: &str = "x-amz-copy-source";

fn check_on(policy: &str, authority: &str, path: &str, source: &str) -> Result<(), CopySourceError> {
    let policy = Policy::from_json(policy.as_bytes()).unwrap_or_else(|error| panic!("{error} in {policy}"));
    let path = SafePath::check(path.as_bytes()).unwrap();
    let route = policy.find(authority.as_bytes(), &path).unwrap().expect("a route");
    policy.check_copy_source(route, (authority.as_bytes(), &path), (NAME, source.as_bytes()))
}

/// Checks a source on the route `/a` to a target.
fn check(target: &str, source: &str) -> Result<(), CopySourceError> {
    check_on(
        &format!(r#"{{"routes": {{"/a": {{"target": "{target}", "service": "s3", "region": "eu-west-1"}}}}}}"#),
        "any.example",
        "/a/x",
        source,
    )
}

const ARN: &str = "arn:aws:s3:eu-west-1:123456789012:accesspoint/point/object";

#[test]
fn an_object_under_the_targets_bucket_and_path_passes_in_every_form() {
    for target in [
        "https://s3.eu-west-1.amazonaws.com/mine/dir",
        "https://mine.s3.eu-west-1.amazonaws.com/dir",
        "http://127.0.0.1/mine/dir",
        "https://s3.eu-west-1.amazonaws.com/mine/di%72",
        "https://s3.eu-west-1.amazonaws.com/mine",
        "https://s3.eu-west-1.amazonaws.com",
    ] {
        for source in [
            "/mine/dir/key",
            "mine/dir/key",
            "mine/dir/a/b//c",
            "mine%2Fdir%2Fkey",
            "%2Fmine%2Fdir%2Fkey",
            "mine/dir/k%20e+y%3F?versionId=3%2FL4kqtJl40Nr8X8gdRQBpUMLUo",
            "mine/dir/%252e%252e/x",
            "mine/dir/a%3Bb",
        ] {
            assert_eq!(check(target, source), Ok(()), "{target} {source}");
        }
    }
}

#[test]
fn an_object_of_another_bucket_or_path_is_refused() {
    for target in ["https://s3.eu-west-1.amazonaws.com/mine/dir", "https://mine.s3.eu-west-1.amazonaws.com/dir"] {
        for source in [
            "/other/dir/key",
            "other%2Fdir%2Fkey",
            "/mine/other/key",
            "/mine/dirs/key",
            "/mine/di",
            "/Mine/dir/key",
            "mine-s3alias/dir/key",
            &format!("{ARN}/dir/key"),
            "arn%3Aaws%3As3%3Aeu-west-1%3A123456789012%3Aaccesspoint%2Fpoint%2Fobject%2Fdir%2Fkey",
            "//mine/dir/key?versionId=1",
        ] {
            assert!(
                matches!(check(target, source), Err(CopySourceError::Outside(NAME) | CopySourceError::Malformed(NAME))),
                "{target} {source}"
            );
        }
        for source in ["/mine/dir/../other/key", "mine/dir/%2e%2e/other", "mine%2Fdir%2F..%2Fother", "mine/dir/..;x/k"]
        {
            let expected = Err(CopySourceError::Path(NAME, PathError::DotSegment));
            assert_eq!(check(target, source), expected, "{target} {source}");
        }
    }
}

#[test]
fn what_s3_does_not_take_is_refused() {
    for source in
        ["", "/", "mine", "mine/", "/mine", "mine/dir/%zz", "mine/dir/k?x=1", "mine/dir/k?", "arn:aws:s3:::mine/dir/k"]
    {
        let checked = check("https://s3.eu-west-1.amazonaws.com/mine/dir", source);
        assert_eq!(checked, Err(CopySourceError::Malformed(NAME)), "{source}");
    }
}

#[test]
fn an_access_point_is_reached_by_its_arn_alone() {
    let target = "https://point-123456789012.s3-accesspoint.eu-west-1.amazonaws.com/dir";
    assert_eq!(check(target, &format!("{ARN}/dir/key")), Ok(()));
    assert_eq!(check(target, &format!("/{}%2Fdir%2Fkey", ARN.replace(':', "%3A"))), Ok(()));
    for source in [
        format!("{ARN}/other/key"),
        "mine/dir/key".to_owned(),
        format!("{}/dir/key", ARN.replace("eu-west-1", "us-east-1")),
        format!("{}/dir/key", ARN.replace("123456789012", "210987654321")),
        format!("{}/dir/key", ARN.replace("/point", "/other")),
    ] {
        assert_eq!(check(target, &source), Err(CopySourceError::Outside(NAME)), "{source}");
    }
}

#[test]
fn a_source_that_a_stricter_route_takes_is_refused() {
    let policy = r#"{"routes": {
        "/": "https://s3.eu-west-1.amazonaws.com/mine",
        "/private": {"target": "https://s3.eu-west-1.amazonaws.com/mine/private", "allowUnauthenticatedRequests": false}
    }}"#;
    assert_eq!(check_on(policy, "any.example", "/x", "mine/public/key"), Ok(()));
    for source in
        ["mine/private/key", "mine/private", "mine%2Fprivate%2Fkey", "mine//private/key", "mine/private%3Bx/key"]
    {
        let checked = check_on(policy, "any.example", "/x", source);
        assert_eq!(checked, Err(CopySourceError::Outside(NAME)), "{source}");
    }
    assert_eq!(check_on(policy, "any.example", "/private/x", "mine/private/key"), Ok(()));
}

#[test]
fn a_plus_is_read_as_a_blank_too() {
    let policy = r#"{"routes": {
        "/": "https://s3.eu-west-1.amazonaws.com/mine",
        "/a%20b": {"target": "https://s3.eu-west-1.amazonaws.com/mine/a%20b", "allowUnauthenticatedRequests": false}
    }}"#;
    assert_eq!(check_on(policy, "h", "/x", "mine/a+b/key"), Err(CopySourceError::Outside(NAME)));
    assert_eq!(check_on(policy, "h", "/x", "mine/a%2Bb/key"), Ok(()));
}

#[test]
fn without_a_target_the_source_is_named_on_its_own_host() {
    let all = r#"{"routes": {"/": {"hosts": ["*.amazonaws.com"]}}}"#;
    for host in ["mine.s3.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com:443"] {
        assert_eq!(check_on(all, host, "/x", "other/key"), Ok(()), "{host}");
    }
    let of_point = &format!("{ARN}/key");
    assert_eq!(check_on(all, "mine.s3.eu-west-1.amazonaws.com", "/x", of_point), Ok(()));
    let one = r#"{"routes": {"/": {"hosts": ["mine.s3.eu-west-1.amazonaws.com"]}}}"#;
    let host = "MINE.s3.eu-west-1.amazonaws.com.:443";
    assert_eq!(check_on(one, host, "/x", "mine/key"), Ok(()));
    for source in ["other/key", "other.mine/key", "mine.s3/key", "evil.example%23/key", of_point] {
        assert_eq!(check_on(one, host, "/x", source), Err(CopySourceError::Outside(NAME)), "{source}");
    }
    let path = r#"{"routes": {"/mine/dir": {"hosts": ["s3.eu-west-1.amazonaws.com"]}}}"#;
    let host = "s3.eu-west-1.amazonaws.com";
    assert_eq!(check_on(path, host, "/mine/dir/x", "mine/dir/key"), Ok(()));
    assert_eq!(check_on(path, host, "/mine/dir/x", "mine/key"), Err(CopySourceError::Outside(NAME)));
}

#[test]
fn a_target_that_ends_in_a_slash_reaches_what_is_below_it() {
    let policy = r#"{"routes": {"/a/": "https://s3.eu-west-1.amazonaws.com/mine/dir/"}}"#;
    for source in ["mine/dir/key", "mine/dir//key"] {
        assert_eq!(check_on(policy, "h", "/a/x", source), Ok(()), "{source}");
    }
    assert_eq!(check_on(policy, "h", "/a/x", "mine/dirs/key"), Err(CopySourceError::Outside(NAME)));
}

#[test]
fn a_header_in_the_query_is_refused_in_every_spelling() {
    for query in
        ["x-amz-copy-source=/other/key", "a=b&X-Amz-Copy-Source=x", "x-amz-rename%2Dsource", "&x-amz-copy-sourc%65="]
    {
        assert!(matches!(check_query(query.as_bytes()), Err(CopySourceError::InQuery(_))), "{query}");
    }
    for query in ["", "copy", "x-amz-copy-source-range=bytes%3D0-9", "x=x-amz-copy-source", "x-amz-acl=private"] {
        assert_eq!(check_query(query.as_bytes()), Ok(()), "{query}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(source in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
        let policy = Policy::from_json(br#"{"routes": {"/a": "https://s3.eu-west-1.amazonaws.com/mine"}}"#).unwrap();
        let path = SafePath::check(b"/a").unwrap();
        let _ = policy.check_copy_source(&policy.routes()[0], (b"h", &path), (NAME, &source));
    }
}

/// Checks a source on the route `/a` to a target outside of AWS, with an `s3Domain` or without.
fn check_outside_of_aws(target: &str, domain: Option<&str>, source: &str) -> Result<(), CopySourceError> {
    let domain = domain.map(|domain| format!(r#", "s3Domain": "{domain}""#)).unwrap_or_default();
    let policy = format!(r#"{{"routes": {{"/a": {{"target": "{target}", "service": "s3", "region": "x"{domain}}}}}}}"#);
    check_on(&policy, "h", "/a/mine/x", source)
}

#[test]
fn outside_of_aws_the_policy_says_where_the_bucket_is() {
    for (target, domain, source) in [
        ("https://minio.example:9000/mine/dir", "minio.example", "/mine/dir/key"),
        ("https://minio.example", "minio.example", "/mine/key"),
        ("https://minio.example", "MinIO.Example", "/other/key"),
        ("https://mine.nyc3.example.com", "nyc3.example.com", "/mine/key"),
        ("https://mine.s3.localhost:9000/dir", "s3.localhost", "/mine/dir/key"),
        ("https://my.bucket.s3.localhost", "s3.localhost", "/my.bucket/key"),
    ] {
        assert_eq!(check_outside_of_aws(target, Some(domain), source), Ok(()), "{target} {source}");
        // Without the setting, the domain is unknown.
        let checked = check_outside_of_aws(target, None, source);
        assert_eq!(checked, Err(CopySourceError::BucketUnclear(NAME)), "{target} {source}");
    }
    for (target, domain, source) in [
        ("https://minio.example:9000/mine/dir", "minio.example", "/minio/mine/dir/key"),
        ("https://minio.example:9000/mine/dir", "minio.example", "/mine/other/key"),
        ("https://mine.nyc3.example.com", "nyc3.example.com", "/other/secret"),
        ("https://mine.nyc3.example.com", "nyc3.example.com", "/mine.nyc3/secret"),
        ("https://mine.nyc3.example.com", "nyc3.example.com", "/min/secret"),
        ("https://mine.s3.localhost:9000/dir", "s3.localhost", "/dir/secret"),
        ("https://my.bucket.s3.localhost", "s3.localhost", "/my/secret"),
        ("https://my.bucket.s3.localhost", "s3.localhost", "/bucket/secret"),
    ] {
        let checked = check_outside_of_aws(target, Some(domain), source);
        assert_eq!(checked, Err(CopySourceError::Outside(NAME)), "{target} {source}");
    }
}

#[test]
fn a_host_that_has_no_room_for_a_bucket_is_an_endpoint() {
    for target in
        ["http://127.0.0.1:9000/mine", "http://[::1]/mine", "http://minio:9000/mine", "https://s3.example/mine"]
    {
        assert_eq!(check_outside_of_aws(target, None, "/mine/key"), Ok(()), "{target}");
        let checked = check_outside_of_aws(target, None, "/other/key");
        assert_eq!(checked, Err(CopySourceError::Outside(NAME)), "{target}");
    }
}

#[test]
fn a_bucket_on_another_kind_of_endpoint_is_looked_up_there() {
    let policy = r#"{"routes": [
        {"prefix": "/", "hosts": ["*.s3express-usw2-az1.us-west-2.amazonaws.com", "*.s3.us-west-2.amazonaws.com"]},
        {"prefix": "/", "hosts": ["secret.s3.us-west-2.amazonaws.com"], "allowUnauthenticatedRequests": false}
    ]}"#;
    let host = "dir--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com";
    for source in ["/open/key", "/dir--usw2-az1--x-s3/key", "/more--usw2-az1--x-s3/key"] {
        assert_eq!(check_on(policy, host, "/to", source), Ok(()), "{source}");
    }
    for source in ["/secret/key", "/far--usw2-az3--x-s3/key"] {
        assert_eq!(check_on(policy, host, "/to", source), Err(CopySourceError::Outside(NAME)), "{source}");
    }
}

#[test]
fn a_bucket_that_another_route_names_in_any_region_is_that_routes() {
    let policy = r#"{"routes": [
        {"prefix": "/", "hosts": ["*.s3.eu-west-1.amazonaws.com"]},
        {"prefix": "/", "hosts": ["secret.s3.us-east-1.amazonaws.com"], "allowUnauthenticatedRequests": false},
        {"prefix": "/in", "hosts": ["half.s3.eu-west-1.amazonaws.com"], "allowUnauthenticatedRequests": false}
    ]}"#;
    let host = "mine.s3.eu-west-1.amazonaws.com";
    for source in ["/other/key", "/mine/key", "/half/out/key"] {
        assert_eq!(check_on(policy, host, "/to", source), Ok(()), "{source}");
    }
    for source in ["/secret/key", "/half/in/key"] {
        assert_eq!(check_on(policy, host, "/to", source), Err(CopySourceError::Outside(NAME)), "{source}");
    }
}

#[test]
fn an_access_point_may_be_called_object() {
    let target = "https://object-123456789012.s3-accesspoint.eu-west-1.amazonaws.com/dir";
    let arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/object/object";
    assert_eq!(check(target, &format!("{arn}/dir/key")), Ok(()));
    assert_eq!(check(target, &format!("{arn}/object/key")), Err(CopySourceError::Outside(NAME)));
}

#[test]
fn a_buckets_name_has_case_and_a_value_has_a_bound() {
    let one = r#"{"routes": {"/": {"hosts": ["mine.s3.amazonaws.com"]}}}"#;
    let checked = check_on(one, "mine.s3.amazonaws.com", "/x", "/Mine/secret");
    assert_eq!(checked, Err(CopySourceError::Outside(NAME)));
    let long = format!("/mine/dir/{}", "a".repeat(VALUE_MAX));
    assert_eq!(check("https://s3.eu-west-1.amazonaws.com/mine", &long), Err(CopySourceError::Malformed(NAME)));
}

#[test]
fn where_the_host_names_the_bucket_an_object_may_be_in_any_that_the_route_takes() {
    let policy = |target: &str, more: &str| {
        format!(
            r#"{{"routes": [{{"prefix": "/a", "hosts": ["*.s3.localhost"], "target": "{target}", "service": "s3",
                             "region": "eu-west-1"}}{more}]}}"#
        )
    };
    let outside = Err(CopySourceError::Outside(NAME));
    for target in ["https://{bucket}.s3.eu-west-1.amazonaws.com/dir", "http://minio.example/{bucket}/dir"] {
        let open = policy(target, "");
        let check = |policy: &str, source: &str| check_on(policy, "mine.s3.localhost:80", "/a/x", source);
        for source in ["mine/dir/key", "/other/dir/key", "mine%2Fdir%2Fkey"] {
            assert_eq!(check(&open, source), Ok(()), "{target} {source}");
        }
        for source in ["mine/key", "Mine/dir/key", "m_ine/dir/key", &format!("{ARN}/dir/key")] {
            assert_eq!(check(&open, source), outside, "{target} {source}");
        }
        let other = r#", {"prefix": "/a", "hosts": ["other.s3.localhost"], "target": "http://minio.example/other",
                          "service": "s3", "region": "eu-west-1"}"#;
        assert_eq!(check(&policy(target, other), "other/dir/key"), outside);
        assert_eq!(check(&policy(target, other), "third/dir/key"), Ok(()));
    }
}
