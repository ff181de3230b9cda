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

/// Checks a source on the route `/a` to a target outside of AWS, whose first label is a bucket, or is not, or may be.
fn check_outside_of_aws(target: &str, bucket_in_host: Option<bool>, source: &str) -> Result<(), CopySourceError> {
    let told = bucket_in_host.map(|told| format!(r#", "bucketInHost": {told}"#)).unwrap_or_default();
    let policy = format!(r#"{{"routes": {{"/a": {{"target": "{target}", "service": "s3", "region": "x"{told}}}}}}}"#);
    check_on(&policy, "h", "/a/mine/x", source)
}

#[test]
fn outside_of_aws_the_policy_says_where_the_bucket_is() {
    let (path, host) = (Some(false), Some(true));
    for (target, bucket_in_host, source) in [
        ("https://minio.example:9000/mine/dir", path, "/mine/dir/key"),
        ("https://minio.example", path, "/mine/key"),
        ("https://minio.example", path, "/other/key"),
        ("https://mine.nyc3.example.com", host, "/mine/key"),
        ("https://mine.nyc3.example.com", None, "/mine/key"),
        ("https://mine.s3.localhost:9000/dir", host, "/mine/dir/key"),
    ] {
        assert_eq!(check_outside_of_aws(target, bucket_in_host, source), Ok(()), "{target} {source}");
    }
    let (outside, unclear) = (CopySourceError::Outside(NAME), CopySourceError::BucketUnclear(NAME));
    for (target, bucket_in_host, source, error) in [
        ("https://minio.example:9000/mine/dir", path, "/minio/mine/dir/key", outside),
        ("https://minio.example:9000/mine/dir", path, "/mine/other/key", outside),
        ("https://minio.example:9000/mine/dir", None, "/mine/dir/key", unclear),
        ("https://minio.example:9000/mine/dir", None, "/minio/mine/dir/key", unclear),
        ("https://minio.example", None, "/mine/key", unclear),
        ("https://mine.nyc3.example.com", None, "/other/secret", unclear),
        ("https://mine.nyc3.example.com", host, "/other/secret", outside),
        ("https://mine.nyc3.example.com", host, "/mine.nyc3/secret", outside),
        ("https://mine.nyc3.example.com", host, "/min/secret", outside),
        ("https://mine.s3.localhost:9000/dir", host, "/dir/secret", outside),
        ("https://mine.s3.localhost:9000/dir", None, "/dir/secret", unclear),
    ] {
        assert_eq!(check_outside_of_aws(target, bucket_in_host, source), Err(error), "{target} {source}");
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
