//! Routes that differ by their callers, and which one takes a request.

use super::{find, policy};
use crate::header_map::HeaderMap;
use crate::policy::{Caller, NotAdmitted, Policy};

const TARGET: &str = r#""target": "https://sqs.eu-west-1.amazonaws.com""#;

/// Returns a policy of routes with the prefix `/a`, each with these further members.
fn siblings(routes: &[&str]) -> String {
    let routes: Vec<_> = routes.iter().map(|members| format!(r#"{{"prefix": "/a", {TARGET}, {members}}}"#)).collect();
    format!(r#"{{"routes": [{}]}}"#, routes.join(", "))
}

fn error(json: &str) -> String {
    Policy::from_json(json.as_bytes()).unwrap_err().to_string()
}

fn spiffe(id: &str) -> Caller {
    Caller { uri: Some(format!("spiffe://td/{id}").into_bytes()), ..Caller::default() }
}

fn team(team: &str) -> HeaderMap {
    let payload = HeaderMap::serialize(&[("iss", "https://a"), ("team", team)]).0;
    HeaderMap::serialize(&[("jwt", payload)])
}

#[test]
fn the_most_exact_route_that_admits_the_caller_takes_the_request() {
    let policy = policy(&siblings(&[
        r#""callers": ["spiffe://td/ns/*/sa/*"], "roleArn": "arn:aws:iam::123456789012:role/any""#,
        r#""callers": ["spiffe://td/ns/orders/sa/*", "spiffe://td/ns/shop/sa/*"]"#,
        r#""callers": ["spiffe://td/ns/orders/sa/admin"]"#,
        r#""callers": [{"issuer": "https://a", "claims": {"team": "orders"}}]"#,
    ]));
    let leader = find(&policy, "h", "/a/b").unwrap();
    for (caller, taken_by) in [
        (spiffe("ns/x/sa/y"), Ok(0)),
        (spiffe("ns/orders/sa/y"), Ok(1)),
        (spiffe("ns/shop/sa/y"), Ok(1)),
        (spiffe("ns/orders/sa/admin"), Ok(2)),
        (Caller { tokens: Some(team("orders")), ..spiffe("ns/orders/sa/y") }, Ok(3)),
        (Caller { tokens: Some(team("orders")), ..spiffe("ns/orders/sa/admin") }, Ok(2)),
        (spiffe("x"), Err(NotAdmitted::NoRoute)),
        (Caller { tokens: Some(team("billing")), ..Caller::default() }, Err(NotAdmitted::NoRoute)),
        (Caller::default(), Err(NotAdmitted::NoRoute)),
    ] {
        assert_eq!(policy.admit(leader, &caller).map(|(route, _)| route.index), taken_by, "{caller:?}");
    }
}

#[test]
fn a_route_without_callers_takes_whom_no_sibling_admits() {
    let policy = policy(&siblings(&[r#""service": "sqs""#, r#""callers": ["spiffe://td/ns/orders/sa/*"]"#]));
    let leader = find(&policy, "h", "/a").unwrap();
    assert!(policy.routes()[0].allow_unauthenticated && !policy.routes()[1].allow_unauthenticated);
    let taken_by = |caller: Caller| policy.admit(leader, &caller).unwrap().0.index;
    assert_eq!(taken_by(spiffe("ns/orders/sa/x")), 1);
    assert_eq!((taken_by(spiffe("ns/other/sa/x")), taken_by(Caller::default())), (0, 0));
}

#[test]
fn a_caller_whom_two_routes_admit_equally_is_admitted_by_none() {
    let team_of = |team: &str| format!(r#""callers": [{{"issuer": "https://a", "claims": {{"team": "{team}"}}}}]"#);
    let policy = policy(&siblings(&[&team_of("orders"), &team_of("billing")]));
    let leader = find(&policy, "h", "/a").unwrap();
    let both = HeaderMap::serialize(&[("orders", ""), ("billing", "")]).0;
    let payload = HeaderMap::serialize(&[("iss", &b"https://a"[..]), ("team", &both)]).0;
    let caller = Caller { tokens: Some(HeaderMap::serialize(&[("jwt", payload)])), ..Caller::default() };
    assert_eq!(policy.admit(leader, &caller).map(|_| ()), Err(NotAdmitted::Tie));
    let orders = Caller { tokens: Some(team("orders")), ..Caller::default() };
    assert_eq!(policy.admit(leader, &orders).map(|(route, _)| route.index), Ok(0));
}

#[test]
fn names_tell_siblings_apart() {
    let policy = policy(&siblings(&[
        r#""callers": ["spiffe://td/ns/orders/sa/*"]"#,
        r#""callers": [{"issuer": "https://a", "claims": {"team": "orders"}}]"#,
        r#""hosts": ["h"], "callers": ["x.internal"]"#,
        r#""service": "sqs""#,
    ]));
    let names: Vec<_> = policy.routes().iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["/a for spiffe://td/ns/orders/sa/*", "/a for https://a team=orders", "h/a", "/a for everyone"]);
}

#[test]
fn routes_that_could_not_be_told_apart_are_refused() {
    let orders = r#""callers": ["spiffe://td/ns/orders/sa/*"]"#;
    for (routes, message) in [
        (
            siblings(&[orders, r#""callers": ["spiffe://td/ns/*/sa/x"]"#]),
            r#"routes[1].prefix: "spiffe://td/ns/*/sa/x" admits callers that routes[0].prefix admits equally, with "spiffe://td/ns/orders/sa/*"; make one of them more exact"#,
        ),
        (
            siblings(&[orders, r#""service": "sqs""#, r#""region": "eu-west-1""#]),
            "routes[2].prefix: admits everyone, as routes[1].prefix does; keep one, or add callers",
        ),
        (
            siblings(&[r#""hosts": ["h", "i"]"#, r#""hosts": ["h"], "callers": ["x.internal"]"#]),
            r#"routes[1].prefix: the prefix "/a" with the host "h" is already taken by routes[0].prefix; keep one, or give each different hosts or callers"#,
        ),
        (
            siblings(&[r#""callers": []"#]),
            "routes[0].callers: is empty and admits nobody; list a caller, or remove callers to admit everyone",
        ),
        (
            siblings(&[r#""callers": ["x.internal"], "allowUnauthenticatedRequests": true"#]),
            "routes[0].allowUnauthenticatedRequests: callers admits only authenticated ones; remove one of the two",
        ),
        (
            siblings(&[r#""callers": [{"issuer": ""}]"#]),
            "routes[0].callers[0].issuer: is empty; set the token's iss, such as https://issuer.example",
        ),
        (
            siblings(&[r#""callers": [{"issuer": "https://a", "claim": {}}]"#]),
            r#"routes[0].callers[0].claim: unknown key; did you mean "claims"?"#,
        ),
        (siblings(&[r#""callers": [{"claims": {}}]"#]), "routes[0].callers[0]: missing field `issuer`"),
    ] {
        assert_eq!(error(&routes), message);
    }
}

#[test]
fn a_role_with_placeholders_is_one_for_each_caller() {
    let policy = policy(&siblings(&[
        r#""callers": ["spiffe://td/ns/*/sa/*"], "roleArn": "arn:aws:iam::123456789012:role/mesh-{namespace}",
           "roleSessionName": "{serviceAccount}@{trustDomain}", "roleTags": {"team": "{namespace}"}"#,
        r#""callers": ["x.internal"]"#,
    ]));
    let [of_caller, fixed] = policy.routes() else { panic!() };
    assert!(policy.has_caller_identities() && matches!(of_caller.identity, crate::policy::RouteIdentity::Caller(_)));
    assert_eq!(policy.identities().len(), 1);
    let waits = [of_caller, fixed].map(|route| route.credentials_wait.as_millis());
    assert_eq!((waits, policy.max_caller_identities), ([5000, 0], 1000));
}

#[test]
fn a_session_policy_names_the_caller_by_variables_of_iam() {
    policy(&siblings(&[r#""callers": ["spiffe://td/ns/*/sa/*"],
        "roleArn": "arn:aws:iam::123456789012:role/mesh", "roleTags": {"team": "{namespace}"}, "sessionPolicy": {"Statement": [
            {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::data/${aws:PrincipalTag/team}/*"}]}"#]));
}

#[test]
fn placeholders_that_can_have_no_value_are_refused() {
    let role = |callers: &str, members: &str| {
        siblings(&[&format!(r#"{callers} "roleArn": "arn:aws:iam::123456789012:role/mesh-{members}"#)])
    };
    let spiffe = r#""callers": ["spiffe://td/ns/*/sa/*"],"#;
    for (routes, message) in [
        (role("", r#"{namespace}""#), "routes[0]: a placeholder stands for the caller's value; add callers"),
        (
            role(spiffe, r#"{team}""#),
            "routes[0]: {team} is not a placeholder; use {namespace}, {serviceAccount}, {trustDomain} or {claim:NAME}",
        ),
        (
            role(r#""callers": ["spiffe://td/ns/*/sa/*", "spiffe://td/*"],"#, r#"{namespace}""#),
            r#"routes[0].callers[1]: "spiffe://td/*" has no {namespace}; {namespace} and {serviceAccount} need a SPIFFE id with /ns/…/sa/…, {trustDomain} one of any path, and {claim:NAME} an issuer"#,
        ),
        (
            role(spiffe, r#"{claim:team}""#),
            r#"routes[0].callers[0]: "spiffe://td/ns/*/sa/*" has no {claim:team}; {namespace} and {serviceAccount} need a SPIFFE id with /ns/…/sa/…, {trustDomain} one of any path, and {claim:NAME} an issuer"#,
        ),
        (
            role(spiffe, r#"{namespace}/", "roleTags": {"a": "b"}"#),
            r#"routes[0].roleArn: "arn:aws:iam::123456789012:role/mesh-{namespace}/" is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name"#,
        ),
        (
            role(spiffe, r#"x", "externalId": "{namespace}""#),
            "routes[0].externalId: must be 2 to 1224 letters, digits and _+=,.@:/-",
        ),
        (
            role(spiffe, r#"x", "roleChain": ["arn:aws:iam::123456789012:role/{namespace}/hop"]"#),
            "routes[0].roleChain[0]: {namespace} is not replaced here; use it in roleArn, roleSessionName, sourceIdentity or a value of roleTags",
        ),
        (
            role(spiffe, r#"x", "roleChain": ["arn:aws:iam::123456789012:role/{nameSpace}/hop"]"#),
            "routes[0].roleChain[0]: {nameSpace} is not replaced here; use it in roleArn, roleSessionName, sourceIdentity or a value of roleTags",
        ),
        (
            role(spiffe, r#"x", "policyArns": ["arn:aws:iam::123456789012:policy/{trustDomain}/p"]"#),
            "routes[0].policyArns[0]: {trustDomain} is not replaced here; use it in roleArn, roleSessionName, sourceIdentity or a value of roleTags",
        ),
        (
            role(
                spiffe,
                r#"x", "sessionPolicy": {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::{serviceAccount}/*"}]}"#,
            ),
            "routes[0].sessionPolicy: {serviceAccount} is not replaced here; use it in roleArn, roleSessionName, sourceIdentity or a value of roleTags",
        ),
    ] {
        assert_eq!(error(&routes), message);
    }
}
