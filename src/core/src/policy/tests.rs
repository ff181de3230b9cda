mod backstage;
mod callers;
mod matching;
mod one_route;
mod refusals;
#[cfg(feature = "schema")]
mod schema;

use std::time::Duration;

use super::*;
use crate::signing::Algorithm;

const ROLE: &str = "arn:aws:iam::123456789012:role/orders-reader";

fn policy(json: &str) -> Policy {
    Policy::from_json(json.as_bytes()).unwrap_or_else(|error| panic!("{error} in {json}"))
}

/// Returns a policy with one route `/a` to an AWS host and these further members.
fn route_with(members: &str) -> Policy {
    let target = "https://abc123.execute-api.eu-west-1.amazonaws.com/prod";
    policy(&format!(r#"{{"routes": {{"/a": {{"target": "{target}", {members}}}}}}}"#))
}

/// Returns the name of the route that matches the path on any host.
/// Returns the index of a route's identity, which is the same for all its callers.
fn index_of_identity(route: &Route) -> usize {
    match route.identity {
        RouteIdentity::Fixed(index) => index,
        RouteIdentity::Caller(_) => panic!("{} has an identity for each caller", route.name),
    }
}

fn identity<'p>(policy: &'p Policy, route: &Route) -> &'p crate::credentials::Identity {
    &policy.identities()[index_of_identity(route)]
}

fn taken_by<'p>(policy: &'p Policy, path: &str) -> Option<&'p str> {
    taken_on(policy, "any.example", path)
}

fn taken_on<'p>(policy: &'p Policy, authority: &str, path: &str) -> Option<&'p str> {
    find(policy, authority, path).map(|route| route.name.as_str())
}

fn find<'p>(policy: &'p Policy, authority: &str, path: &str) -> Option<&'p Route> {
    policy.find(authority.as_bytes(), &SafePath::check(path.as_bytes()).unwrap()).unwrap()
}

#[test]
fn the_short_form_is_a_target_under_a_prefix() {
    let policy = policy(r#"{"routes": {"/short": "https://abc123.execute-api.eu-west-1.amazonaws.com/prod"}}"#);
    let [route] = policy.routes() else { panic!("one route") };
    assert_eq!((&*route.name, &*route.prefix), ("/short", "/short"));
    let target = route.target.as_ref().unwrap();
    assert_eq!(
        (target.scheme, &*target.authority, &*target.path),
        (Scheme::Https, "abc123.execute-api.eu-west-1.amazonaws.com", "/prod")
    );
    let scope = route.scope.as_ref().unwrap();
    assert_eq!((&*scope.service, &*scope.region), ("execute-api", "eu-west-1"));
    assert_eq!(policy.identities(), [Identity::default_chain()]);
    assert_eq!(policy.unmatched, Unmatched::Deny);
    assert_eq!(policy.routes()[0].credentials_wait, Duration::ZERO);
    assert_eq!(policy.held_limits, HeldLimits { requests: 1000, bytes: 32 << 20 });
    assert_eq!(
        (route.payload, route.location, &route.algorithm),
        (PayloadMode::Auto, SignatureLocation::Header, &Algorithm::SigV4)
    );
    assert!(route.allow_unauthenticated && route.hosts.is_empty() && !route.redirect);
    assert!(route.request_headers.is_empty() && route.response_headers.is_empty() && route.signed_headers.is_empty());
}

#[test]
fn the_expanded_form_says_all() {
    let policy = policy(
        r#"{
          "routes": {
            "/expanded": {
              "target": "https://api.example.com/v2",
              "roleArn": "arn:aws:iam::123456789012:role/orders-reader",
              "roleSessionName": "orders",
              "externalId": "partner/7",
              "service": "execute-api",
              "region": "eu-west-1",
              "hosts": ["orders.internal", "*.orders.internal"],
              "payload": "signed",
              "signing": {"algorithm": "sigv4", "location": "header", "scope": "infer", "redirect": false},
              "requestHeaders": {"allow": ["accept", "content-type", "x-*"], "remove": ["cookie"], "set": {"X-Team": "a"}},
              "responseHeaders": {"allow": ["content-type", "content-length"], "remove": []},
              "signedHeaders": ["x-team"],
              "allowUnauthenticatedRequests": false
            }
          },
          "unmatched": "pass",
          "allowUnauthenticatedRequests": true,
          "credentialsWaitMs": 2000,
          "maxHeldRequests": 100000,
          "maxHeldBytes": 1
        }"#,
    );
    let [route] = policy.routes() else { panic!("one route") };
    let role = identity(&policy, route).role().unwrap();
    assert_eq!((&*role.arn, &*role.session_name, role.external_id.as_deref()), (ROLE, "orders", Some("partner/7")));
    assert_eq!((route.service.as_deref(), route.region.as_deref()), (Some("execute-api"), Some("eu-west-1")));
    let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["orders.internal", "*.orders.internal"]);
    assert_eq!(route.payload, PayloadMode::Signed);
    assert_eq!(route.signed_headers, ["x-team"]);
    assert_eq!(route.request_headers.set()[0].name, "x-team");
    assert!(!route.allow_unauthenticated);
    assert_eq!(policy.unmatched, Unmatched::Pass);
    assert_eq!(policy.routes()[0].credentials_wait, Duration::from_secs(2));
    assert_eq!(policy.held_limits, HeldLimits { requests: 100_000, bytes: 1 });
}

#[test]
fn a_session_may_have_a_duration_tags_and_roles_before_it() {
    let policy = route_with(&format!(
        r#""roleArn": "{ROLE}", "roleDurationSeconds": 3600.0, "roleTags": {{"team": "a b", "Größe": "", "emoji-less": "x"}},
           "roleChain": ["arn:aws:iam::123456789012:role/hub", "arn:aws:iam::210987654321:role/spoke"]"#
    ));
    let role = policy.identities()[0].role().unwrap();
    assert_eq!(role.duration_seconds, Some(3600));
    assert_eq!(
        role.tags.iter().map(|(key, value)| (&**key, &**value)).collect::<Vec<_>>(),
        [("Größe", ""), ("emoji-less", "x"), ("team", "a b")]
    );
    let path = ["arn:aws:iam::123456789012:role/hub", "arn:aws:iam::210987654321:role/spoke", ROLE];
    assert_eq!(role.path().collect::<Vec<_>>(), path);
    assert!(policy.identities()[0].is_understood());
}

#[test]
fn a_session_may_have_a_source_identity_and_policies_that_limit_it() {
    let policy = route_with(&format!(
        r#""roleArn": "{ROLE}", "sourceIdentity": "orders@example.com", "sessionPolicy": {{"Version": "2012-10-17", "Statement": []}},
           "policyArns": ["arn:aws:iam::aws:policy/job-function/ViewOnlyAccess", "arn:aws:iam::123456789012:policy/a"]"#
    ));
    let role = policy.identities()[0].role().unwrap();
    assert_eq!(role.source_identity.as_deref(), Some("orders@example.com"));
    // Order is not significant.
    let arns = ["arn:aws:iam::123456789012:policy/a", "arn:aws:iam::aws:policy/job-function/ViewOnlyAccess"];
    assert_eq!(role.policy_arns, arns);
    assert_eq!(role.session_policy.as_deref(), Some(r#"{"Version":"2012-10-17","Statement":[]}"#));
    assert!(policy.identities()[0].is_understood());
}

#[test]
fn a_session_policy_is_sent_as_written_without_white_space() {
    let written = "{\"Version\": \"2012-10-17\",\n\t\"Statement\": [{\"Sid\": \"a \\\\\", \"x\" : [\"\\\" ä:\\u4e2d\", 10.0 , true]} ]}";
    let text = "{\"Version\":\"2012-10-17\",\"Statement\":[{\"Sid\":\"a \\\\\",\"x\":[\"\\\" ä:\\u4e2d\",10.0,true]}]}";
    for written in [written, text, &serde_json::to_string(written).unwrap()] {
        let policy = route_with(&format!(r#""roleArn": "{ROLE}", "sessionPolicy": {written}"#));
        assert_eq!(policy.identities()[0].role().unwrap().session_policy.as_deref(), Some(text), "{written}");
    }
    let value = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
    assert_eq!(value(text), value(written));
}

#[test]
fn the_list_form_names_its_prefixes() {
    let policy = policy(
        r#"{"routes": [
            {"prefix": "/a", "target": "https://sqs.eu-west-1.amazonaws.com"},
            {"prefix": "/a", "target": "https://sns.eu-west-1.amazonaws.com", "hosts": ["n.internal"]}
        ]}"#,
    );
    assert_eq!(taken_on(&policy, "any.example", "/a"), Some("/a"));
    assert_eq!(
        taken_on(&policy, "n.internal", "/a"),
        Some("n.internal/a"),
        "the name tells routes of one prefix apart"
    );
    assert_eq!(policy.route_named(b"n.internal/a").unwrap().index, 1);
    assert!(policy.route_named(b"/b").is_none());
}

#[test]
fn numbers_may_arrive_as_a_protobuf_struct_writes_them() {
    let policy = policy(
        r#"{"credentialsWaitMs": 2000.0, "routes": {"/a": {"target": "https://sqs.eu-west-1.amazonaws.com",
            "signing": {"location": "query", "expiresSeconds": 6e1}}}}"#,
    );
    assert_eq!(policy.routes()[0].credentials_wait, Duration::from_secs(2));
    assert_eq!(policy.routes()[0].location, SignatureLocation::Query { expires: Duration::from_secs(60) });
}

#[test]
fn a_prefix_matches_at_a_segment_boundary() {
    let policy = policy(r#"{"routes": {"/a": "https://sqs.eu-west-1.amazonaws.com"}}"#);
    for path in ["/a", "/a/", "/a/b", "/a//b"] {
        assert_eq!(taken_by(&policy, path), Some("/a"), "{path}");
    }
    for path in ["/ab", "/", "/A", "//b/a", "/b%2Fa", "/b;/a", "/%FF"] {
        assert_eq!(taken_by(&policy, path), None, "{path}");
    }
}

#[test]
fn the_longest_prefix_wins() {
    let policy = policy(
        r#"{"routes": {"/": "https://sqs.eu-west-1.amazonaws.com", "/a": "https://sqs.eu-west-1.amazonaws.com",
            "/a/b/c": "https://sqs.eu-west-1.amazonaws.com", "/a/": "https://sqs.eu-west-1.amazonaws.com/p/"}}"#,
    );
    for (path, name) in [
        ("/", "/"),
        ("/b", "/"),
        ("//b", "/"),
        ("/ab", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a/b", "/a/"),
        ("/a/b/c", "/a/b/c"),
        ("/a/b/c/d", "/a/b/c"),
        ("/a/b/cd", "/a/"),
    ] {
        assert_eq!(taken_by(&policy, path), Some(name), "{path}");
    }
}

#[test]
fn segments_are_compared_decoded() {
    let policy = policy(
        r#"{"routes": {"/a": "https://sqs.eu-west-1.amazonaws.com", "/a/admin": {"target": "https://sqs.eu-west-1.amazonaws.com",
            "allowUnauthenticatedRequests": false}, "/%c3%bc": "https://sqs.eu-west-1.amazonaws.com"}}"#,
    );
    for path in ["/a/%61dmin", "/%61/%61%64%6D%69%6e/x"] {
        assert_eq!(taken_by(&policy, path), Some("/a/admin"), "{path}");
    }
    assert_eq!(taken_by(&policy, "/a/%2561dmin"), Some("/a"), "decoded once, as the upstream does");
    assert_eq!(taken_by(&policy, "/%C3%BC/x"), Some("/%c3%bc"));
    assert_eq!(taken_by(&policy, "/ü/x"), Some("/%c3%bc"));
}

#[test]
fn a_targets_lone_slash_counts_only_where_the_prefix_takes_one_off() {
    let policy = policy(
        r#"{"routes": {"/a": "https://sqs.eu-west-1.amazonaws.com/", "/": "https://sqs.eu-west-1.amazonaws.com/",
            "/a/": "https://sqs.eu-west-1.amazonaws.com/"}}"#,
    );
    let paths: Vec<_> = policy.routes().iter().map(|route| route.target.as_ref().unwrap().path.as_str()).collect();
    assert_eq!(paths, ["", "", "/"]);
}

#[test]
fn a_prefix_is_found_as_the_request_spells_it() {
    let policy = policy(
        r#"{"routes": {"/a/b": "https://sqs.eu-west-1.amazonaws.com", "/": "https://sqs.eu-west-1.amazonaws.com",
            "/a/": "https://sqs.eu-west-1.amazonaws.com/p/"}}"#,
    );
    let [route, root, slash] = policy.routes() else { panic!("three routes") };
    let prefix_in =
        |route: &Route, path: &'static str| route.prefix_in(path.as_bytes()).map(|p| String::from_utf8_lossy(p));
    assert_eq!(prefix_in(route, "/a/b").unwrap(), "/a/b");
    assert_eq!(prefix_in(route, "/%61/b/c").unwrap(), "/%61/b");
    assert_eq!(prefix_in(route, "/a/bc"), None);
    assert_eq!(prefix_in(route, "/a"), None);
    assert_eq!(prefix_in(root, "/a").unwrap(), "/");
    assert_eq!(prefix_in(root, "*"), None);
    assert_eq!(prefix_in(slash, "/a/b").unwrap(), "/a/");
    assert_eq!(prefix_in(slash, "/%61/b").unwrap(), "/%61/");
    assert_eq!(prefix_in(slash, "/a"), None);
}

#[test]
fn the_most_exact_host_wins_among_equal_prefixes() {
    let route = |hosts: &str| format!(r#"{{"prefix": "/", "target": "https://sqs.eu-west-1.amazonaws.com"{hosts}}}"#);
    let policy = policy(&format!(
        r#"{{"routes": [{}, {}, {}, {}, {}]}}"#,
        route(""),
        route(r#", "hosts": ["*.example.com"]"#),
        route(r#", "hosts": ["*.b.Example.com"]"#),
        route(r#", "hosts": ["a.b.example.com"]"#),
        route(r#", "hosts": ["a.b.example.com:8443"]"#),
    ));
    for (authority, name) in [
        ("example.com", "/"),
        ("x.example.com", "*.example.com/"),
        ("b.example.com:1", "*.example.com/"),
        ("x.y.b.example.com", "*.b.example.com/"),
        ("A.B.example.COM.", "a.b.example.com/"),
        ("a.b.example.com:80", "a.b.example.com/"),
        ("a.b.example.com:8443", "a.b.example.com:8443/"),
        ("evil.com#.example.com", "/"),
        ("", "/"),
    ] {
        assert_eq!(taken_on(&policy, authority, "/x"), Some(name), "{authority}");
    }
}

#[test]
fn a_host_that_does_not_match_leaves_the_request_to_a_shorter_prefix() {
    let policy = policy(
        r#"{"routes": {"/a": "https://sqs.eu-west-1.amazonaws.com",
            "/a/b": {"target": "https://sqs.eu-west-1.amazonaws.com", "hosts": ["only.internal"]}}}"#,
    );
    assert_eq!(taken_on(&policy, "only.internal", "/a/b"), Some("/a/b"));
    assert_eq!(taken_on(&policy, "other.internal", "/a/b"), Some("/a"));
}

#[test]
fn without_a_target_the_requests_own_authority_is_signed_for() {
    let policy = policy(r#"{"routes": [{"prefix": "/", "hosts": ["*.amazonaws.com"]}]}"#);
    let route = find(&policy, "s3.eu-west-1.amazonaws.com:443", "/bucket/key").unwrap();
    assert_eq!((&route.target, &route.scope), (&None, &None));
    assert!(find(&policy, "amazonaws.com.evil.com", "/").is_none());
    assert!(find(&policy, "amazonaws.com", "/").is_none());
}

#[test]
fn the_upstream_has_tls_unless_the_policy_says_otherwise() {
    for (route, tls) in [
        (r#""https://sqs.eu-west-1.amazonaws.com""#, true),
        (r#""http://sqs.eu-west-1.amazonaws.com""#, false),
        (r#"{"hosts": ["*.amazonaws.com"]}"#, true),
        (r#"{"hosts": ["*.amazonaws.com"], "upstreamTls": true}"#, true),
        (r#"{"hosts": ["*.amazonaws.com"], "upstreamTls": false}"#, false),
    ] {
        let policy = policy(&format!(r#"{{"routes": {{"/": {route}}}}}"#));
        assert_eq!(policy.routes()[0].upstream_tls, tls, "{route}");
    }
}

#[test]
fn service_and_region_of_the_policy_win_over_the_host_name() {
    let policy = route_with(r#""service": "other""#);
    let scope = policy.routes()[0].scope.as_ref().unwrap();
    assert_eq!((&*scope.service, &*scope.region), ("other", "eu-west-1"));
}

#[test]
fn the_clients_scope_stands_in_where_the_host_name_does_not_tell() {
    let policy = policy(
        r#"{"routes": {"/a": {"target": "http://127.0.0.1:4566", "signing": {"scope": "client"}},
            "/b": {"target": "https://sqs.eu-west-1.amazonaws.com", "signing": {"scope": "client"}}}}"#,
    );
    let [unknown, known] = policy.routes() else { panic!("two routes") };
    assert_eq!((unknown.scope_source, &unknown.scope), (ScopeSource::Client, &None));
    assert!(known.scope.is_some());
}

#[test]
fn sigv4a_signs_for_a_set_of_regions() {
    let region_set = |members: &str| match &route_with(members).routes()[0].algorithm {
        Algorithm::SigV4a { region_set } => region_set.clone(),
        Algorithm::SigV4 => panic!("SigV4A"),
    };
    assert_eq!(region_set(r#""signing": {"algorithm": "sigv4a"}"#), "*");
    assert_eq!(region_set(r#""signing": {"algorithm": "sigv4a", "regionSet": "us-east-1, eu-*"}"#), "us-east-1,eu-*");
    assert_eq!(
        region_set(r#""signing": {"algorithm": "sigv4a", "regionSet": ["us-east-1", "eu-*"]}"#),
        "us-east-1,eu-*"
    );
    let policy = policy(
        r#"{"routes": {"/a": {"target": "https://api.example.com", "service": "execute-api", "signing": {"algorithm": "sigv4a"}}}}"#,
    );
    assert_eq!(policy.routes()[0].scope.as_ref().unwrap().service, "execute-api");
}

#[test]
fn a_presigned_url_holds_five_minutes_unless_told_otherwise() {
    let policy = route_with(r#""signing": {"location": "query", "redirect": true}"#);
    assert_eq!(policy.routes()[0].location, SignatureLocation::Query { expires: Duration::from_secs(300) });
    assert!(policy.routes()[0].redirect);
}

#[test]
fn routes_that_sign_alike_share_an_identity() {
    let route =
        |session| format!(r#"{{"target": "https://sqs.eu-west-1.amazonaws.com", "roleArn": "{ROLE}"{session}}}"#);
    let policy = policy(&format!(
        r#"{{"routes": {{"/a": {}, "/b": {}, "/c": {}, "/d": "https://sqs.eu-west-1.amazonaws.com"}}}}"#,
        route(""),
        route(""),
        route(r#", "roleSessionName": "other""#),
    ));
    let identities: Vec<_> = policy.routes().iter().map(index_of_identity).collect();
    assert_eq!(identities, [0, 0, 1, 2]);
    assert_eq!(policy.identities().len(), 3);
}

#[test]
fn a_routes_own_value_wins_over_the_policys() {
    let policy = policy(
        r#"{"allowUnauthenticatedRequests": false, "routes": {"/a": "https://sqs.eu-west-1.amazonaws.com",
            "/b": {"target": "https://sqs.eu-west-1.amazonaws.com", "allowUnauthenticatedRequests": true}}}"#,
    );
    assert!(!policy.routes()[0].allow_unauthenticated);
    assert!(policy.routes()[1].allow_unauthenticated);
}

#[test]
fn header_rules_allow_then_remove_then_set() {
    let policy = route_with(
        r#""requestHeaders": {"allow": ["Accept", "x-*"], "remove": ["x-secret-*"], "set": {"X-Team": "a"}}"#,
    );
    let rules = &policy.routes()[0].request_headers;
    for name in ["accept", "x-a", ":path", "host", "authorization", "x-amz-date", "content-length", "connection"] {
        assert!(rules.keeps(name.as_bytes()), "{name}");
    }
    for name in ["accept-language", "cookie", "x-secret-", "x-secret-key", "x-team"] {
        assert!(!rules.keeps(name.as_bytes()), "{name}");
    }
    assert_eq!(rules.set(), [SetHeader { name: "x-team".to_owned(), value: "a".to_owned() }]);
}

#[test]
fn no_pattern_removes_what_signing_needs() {
    let policy = route_with(r#""requestHeaders": {"allow": [], "remove": ["x-*", "c*"]}"#);
    let rules = &policy.routes()[0].request_headers;
    assert!(rules.keeps(b"x-amz-date") && rules.keeps(b"content-length") && rules.keeps(b":authority"));
    assert!(rules.keeps(b"x-forwarded-proto"), "Envoy finds no route without it");
    assert!(!rules.keeps(b"x-amz-acl") && !rules.keeps(b"content-type"));
}

#[test]
fn a_value_that_the_policy_sets_is_not_shown() {
    let policy = route_with(r#""requestHeaders": {"set": {"x-api-key": "hush"}}"#);
    let shown = format!("{policy:?}");
    assert!(shown.contains("x-api-key") && !shown.contains("hush"), "{shown}");
}
