//! One path, one route: no spelling of a path is sent by a route other than the one that an upstream may see in it.

use super::*;

const OPEN_AND_STRICT: &str = r#"{"routes": {
    "/": "https://s3.eu-west-1.amazonaws.com/bucket",
    "/private": {"target": "https://s3.eu-west-1.amazonaws.com/bucket/private", "allowUnauthenticatedRequests": false},
    "/api": "https://s3.eu-west-1.amazonaws.com/bucket/api",
    "/api/admin": {"target": "https://s3.eu-west-1.amazonaws.com/bucket/admin", "allowUnauthenticatedRequests": false}
}}"#;

fn find_in(policy: &str, path: &str) -> Result<Option<String>, PathError> {
    let found = super::policy(policy);
    let found = found.find(b"any.example", &SafePath::check(path.as_bytes())?)?;
    Ok(found.map(|route| route.name.clone()))
}

#[test]
fn a_spelling_that_an_upstream_may_read_as_the_strict_route_is_refused() {
    for path in [
        "/private%2Fkey",
        "/private%2fkey",
        "/%2Fprivate/key",
        "/private%5Ckey",
        "/private%5ckey",
        "/private\\key",
        "/\\private/key",
        "//private/key",
        "///private",
        "/private;x=1/key",
        "/private;/key",
        "/private%3Bx=1/key",
        "/private%3bx/key",
        "/private%3Fx/key",
        "/private%23x/key",
        "/private#x/key",
        "/private%00x/key",
        "/private;x%2Fy/key",
        "/;x/private/key",
        "/;x%2F/private/key",
        "/%2F%2Fprivate;x%5Ckey",
        "/pri%76ate%2Fkey",
        "/api//admin/x",
        "/api%2Fadmin/x",
        "/api%2fadmin",
        "/api;a/admin/x",
        "/api/admin;a/x",
        "/api/;a/admin/x",
        "/api%5Cadmin;b/x",
        "//api/admin/x",
        "//api/x",
    ] {
        assert_eq!(find_in(OPEN_AND_STRICT, path), Err(PathError::Ambiguous), "{path}");
    }
}

#[test]
fn a_path_whose_readings_lead_to_one_route_passes() {
    for (path, route) in [
        ("/public/a%2Fb", "/"),
        ("/public//a", "/"),
        ("/public;v=1/a", "/"),
        ("/privat%2Fe/key", "/"),
        ("/a//b;c%5Cd%3F", "/"),
        ("/api/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Aprofile%2Fx", "/api"),
        ("/api/x//admin", "/api"),
        ("/api/x%2Fadmin", "/api"),
        ("/private/a%2F%2Fb;c", "/private"),
        ("/private//api/admin", "/private"),
        ("/api/admin/%2F", "/api/admin"),
        // Encoded twice: decoded once, it is a `%`.
        ("/private%252Fkey", "/"),
    ] {
        assert_eq!(find_in(OPEN_AND_STRICT, path), Ok(Some(route.to_owned())), "{path}");
    }
}

#[test]
fn a_path_that_one_reading_takes_to_no_route_is_refused() {
    let policy = r#"{"routes": {"/s3": "https://s3.eu-west-1.amazonaws.com/bucket"}, "unmatched": "pass"}"#;
    for path in ["//s3/key", "/s3%2Fkey", "/s3;v=1/key", "/%5Cs3", "/s3%00"] {
        assert_eq!(find_in(policy, path), Err(PathError::Ambiguous), "{path}");
    }
    assert_eq!(find_in(policy, "/other%2Fs3//key;x"), Ok(None));
}

#[test]
fn a_prefix_is_read_like_the_path_that_begins_with_it() {
    for prefix in ["/a%2Fb", "/a;v=1", "/a//b", "//", "/a%5Cb", "/%3Fa/b"] {
        let policy = format!(r#"{{"routes": {{"{prefix}": "https://s3.eu-west-1.amazonaws.com/bucket/"}}}}"#);
        for rest in ["", "/", "/key", "/a%2Fb", "//x", "/k;v", "/%3F"] {
            let path = format!("{prefix}{rest}");
            if path.starts_with("//") && rest.is_empty() || !prefix.ends_with('/') || rest.starts_with('/') {
                assert_eq!(find_in(&policy, &path), Ok(Some(prefix.to_owned())), "{path}");
            }
        }
    }
}

#[test]
fn a_path_that_is_refused_is_looked_for_in_every_reading() {
    let policy = policy(
        r#"{"routes": [{"prefix": "/private", "hosts": ["h.example"], "target": "https://sqs.eu-west-1.amazonaws.com"}]}"#,
    );
    for path in [
        "/private/../x",
        "/x/../private/key",
        "/x/%2e%2e/private",
        "/x%2F..%2Fprivate",
        "/x/y/..;a/../private;b/key",
        "/./private",
        "/../private/",
        "/private%zz/../private",
        "/%/..//private\\",
    ] {
        assert!(policy.find_any(b"h.example", path.as_bytes()).is_some(), "{path}");
        assert!(policy.find_any(b"other.example", path.as_bytes()).is_none(), "{path}");
    }
    for path in ["/x/../y", "/x/../y/private", "/%zz", "*", "", "/privates/.."] {
        assert!(policy.find_any(b"h.example", path.as_bytes()).is_none(), "{path}");
    }
}
