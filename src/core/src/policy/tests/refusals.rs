//! Invalid policies, and the exact text of their errors.

use proptest::prelude::*;

use crate::policy::Policy;

/// Returns a policy whose route `/a` has a target on AWS and these further members.
fn route(members: &str) -> String {
    format!(r#"{{"routes": {{"/a": {{"target": "https://sqs.eu-west-1.amazonaws.com", {members}}}}}}}"#)
}

/// Returns a policy whose route `/a` has only this target.
fn target(url: &str) -> String {
    format!(r#"{{"routes": {{"/a": "{url}"}}}}"#)
}

/// Returns a policy whose only route, to AWS, has this prefix.
fn prefix(prefix: &str) -> String {
    format!(r#"{{"routes": {{"{prefix}": "https://sqs.eu-west-1.amazonaws.com"}}}}"#)
}

/// Returns a policy unchanged.
fn policy(json: &str) -> String {
    json.to_owned()
}

#[track_caller]
fn assert_refused(cases: &[(String, &str)]) {
    for (json, message) in cases {
        match Policy::from_json(json.as_bytes()) {
            Ok(_) => panic!("accepted: {json}"),
            Err(refusal) => assert_eq!(refusal.to_string(), *message, "for {json}"),
        }
    }
}

#[test]
fn a_refusal_is_one_line_whatever_it_repeats() {
    const ROLE: &str = "arn:aws:iam::123456789012:role/r";
    for members in [
        format!(r#""roleArn": "{ROLE}{{a\nb}}""#),
        format!(r#""roleArn": "{ROLE}", "roleChain": ["{ROLE}{{a\nb}}"]"#),
        format!(r#""roleArn": "{ROLE}{{claim:a\nb}}", "callers": ["spiffe://d/ns/a/sa/b"]"#),
        format!(r#""roleArn": "{ROLE}{{namespace}}", "callers": [{{"issuer": "a\nb"}}]"#),
        r#""a\nb": 1"#.to_owned(),
    ] {
        let refusal = Policy::from_json(route(&members).as_bytes()).unwrap_err().to_string();
        assert!(!refusal.contains(char::is_control), "{refusal:?}");
    }
}

#[test]
fn what_is_no_json_object() {
    assert_refused(&[
        (policy(""), "the policy is not valid JSON: EOF while parsing a value (line 1, column 0)"),
        (policy("{"), "the policy is not valid JSON: EOF while parsing an object (line 1, column 1)"),
        (
            policy("{} {}"),
            "the policy is not valid JSON: text follows the policy's last brace; remove it (line 1, column 4)",
        ),
        (
            policy(r#"{"routes": {"/a": "https://h",}}"#),
            "the policy is not valid JSON: trailing comma (line 1, column 31)",
        ),
        (policy("[]"), "policy: must be an object, not a list"),
        (policy("\"https://h\""), "policy: must be an object, not a string"),
        (policy("null"), "policy: must be an object, not null"),
        (policy("\u{feff}{}"), "the policy is not valid JSON: expected value (line 1, column 1)"),
        (policy("{}"), r#"routes: has no route; add one, such as {"/orders": "https://…"}"#),
        (policy(r#"{"routes": {}}"#), r#"routes: has no route; add one, such as {"/orders": "https://…"}"#),
        (policy(r#"{"routes": []}"#), r#"routes: has no route; add one, such as {"/orders": "https://…"}"#),
    ]);
}

#[test]
fn keys_and_values_of_the_policy() {
    assert_refused(&[
        (
            policy(r#"{"routes": "https://h"}"#),
            "routes: must be an object keyed by prefix, or a list of routes, not a string",
        ),
        (policy(r#"{"routes": null}"#), "routes: must be an object keyed by prefix, or a list of routes, not null"),
        (policy(r#"{"routs": {}}"#), r#"routs: unknown key; did you mean "routes"?"#),
        (policy(r#"{"unmatch": "deny"}"#), r#"unmatch: unknown key; did you mean "unmatched"?"#),
        (
            policy(r#"{"intakes": {}}"#),
            "intakes: unknown key; a route's key begins with /, the other keys are routes, unmatched, allowUnauthenticatedRequests, credentialsWaitMs, maxHeldRequests, maxHeldBytes, maxCallerIdentities, accessLog, routeMetadata, proxysigv4",
        ),
        (policy(r#"{"unmatched": "reject", "routes": {}}"#), r#"unmatched: "reject" is unknown; use "deny" or "pass""#),
        (policy(r#"{"unmatched": 5, "routes": {}}"#), "unmatched: must be a string, not a number"),
        (
            policy(r#"{"allowUnauthenticatedRequests": "no"}"#),
            "allowUnauthenticatedRequests: must be true or false, not a string",
        ),
        (policy(r#"{"accessLog": "yes"}"#), "accessLog: must be true or false, not a string"),
        (policy(r#"{"routeMetadata": null}"#), "routeMetadata: must be true or false, not null"),
        (policy(r#"{"credentialsWaitMs": "2s"}"#), "credentialsWaitMs: must be a whole number, not a string"),
        (policy(r#"{"credentialsWaitMs": -1}"#), "credentialsWaitMs: must not be negative"),
        (policy(r#"{"credentialsWaitMs": 0.5}"#), "credentialsWaitMs: must be a whole number"),
        (policy(r#"{"credentialsWaitMs": -1.0}"#), "credentialsWaitMs: must not be negative"),
        (
            policy(r#"{"credentialsWaitMs": 1e300, "routes": {"/a": "https://sqs.eu-west-1.amazonaws.com"}}"#),
            "credentialsWaitMs: 18446744073709551615 ms is too long: Envoy's stream idle timeout ends a request before; use at most 300000",
        ),
        (
            policy(r#"{"credentialsWaitMs": 300001, "routes": {"/a": "https://sqs.eu-west-1.amazonaws.com"}}"#),
            "credentialsWaitMs: 300001 ms is too long: Envoy's stream idle timeout ends a request before; use at most 300000",
        ),
    ]);
}

#[test]
fn bounds_and_repeated_keys_of_the_policy() {
    assert_refused(&[
        (
            policy(r#"{"maxHeldRequests": 0, "routes": {"/a": "https://sqs.eu-west-1.amazonaws.com"}}"#),
            "maxHeldRequests: is out of range; use 1 to 100000",
        ),
        (
            policy(r#"{"maxHeldBytes": 4294967297, "routes": {"/a": "https://sqs.eu-west-1.amazonaws.com"}}"#),
            "maxHeldBytes: is out of range; use 1 to 536870912",
        ),
        (
            policy(r#"{"routes": {"/a": "https://sqs.eu-west-1.amazonaws.com"}, "routes": {}}"#),
            r#"policy: "routes" is written twice; keep one"#,
        ),
        (
            policy(r#"{"/b": "https://h", "routes": {"/a": "https://h"}}"#),
            r#"routes: conflicts with the route "/b"; move that one into routes"#,
        ),
        (
            policy(r#"{"/b": "https://sqs.eu-west-1.amazonaws.com", "/b": "https://h"}"#),
            r#"policy: "/b" is written twice; keep one"#,
        ),
        (
            policy(r#"{"proxysigv4": {"/a": "https://sqs.eu-west-1.amazonaws.com"}, "unmatched": "pass"}"#),
            "proxysigv4: must be the only key; move the other keys into it",
        ),
        (
            policy(r#"{"proxysigv4": {"/a": {"target": "ftp://h"}}}"#),
            r#"proxysigv4["/a"].target: must begin with https:// or http://"#,
        ),
        (
            policy(r#"{"a": "https://h"}"#),
            "a: unknown key; a route's key begins with /, the other keys are routes, unmatched, allowUnauthenticatedRequests, credentialsWaitMs, maxHeldRequests, maxHeldBytes, maxCallerIdentities, accessLog, routeMetadata, proxysigv4",
        ),
    ]);
}

#[test]
fn the_forms_of_routes() {
    assert_refused(&[
        (
            policy(r#"{"routes": {"/a": 5}}"#),
            r#"routes["/a"]: must be a target such as "https://…", or an object, not a number"#,
        ),
        (
            policy(r#"{"routes": {"/a": null}}"#),
            r#"routes["/a"]: must be a target such as "https://…", or an object, not null"#,
        ),
        (
            policy(r#"{"routes": {"/a": []}}"#),
            r#"routes["/a"]: must be a target such as "https://…", or an object, not a list"#,
        ),
        (
            policy(r#"{"routes": {"/a": {}}}"#),
            r#"routes["/a"]: has no target; add "target": "https://…", or "hosts" to sign for the request's own authority"#,
        ),
        (
            policy(r#"{"routes": {"/a": "https://sqs.eu-west-1.amazonaws.com", "/a": "https://h"}}"#),
            r#"routes: "/a" is written twice; keep one"#,
        ),
        (
            policy(
                r#"{"routes": {"/a": "https://sqs.eu-west-1.amazonaws.com", "/%61": "https://sqs.eu-west-1.amazonaws.com"}}"#,
            ),
            r#"routes["/%61"]: the prefix "/%61" is already taken by routes["/a"]; keep one, or give each different hosts or callers"#,
        ),
        (
            policy(
                r#"{"routes": {"/": "https://sqs.eu-west-1.amazonaws.com", "/a%2Fb": "https://sqs.eu-west-1.amazonaws.com"}}"#,
            ),
            r#"routes["/a%2Fb"]: an upstream may read the prefix "/a%2Fb" as one whose paths routes["/"] matches, or vice versa; remove `//`, `;`, %2F, %5C, %3B, %3F, %23 and %00"#,
        ),
        (
            policy(r#"{"routes": [{"target": "https://h"}]}"#),
            r#"routes[0]: has no prefix; add one, such as "prefix": "/orders""#,
        ),
        (policy(r#"{"routes": ["https://h"]}"#), "routes[0]: must be an object, not a string"),
        (policy(r#"{"routes": [["/a", "https://h"]]}"#), "routes[0]: must be an object, not a list"),
        (policy(r#"{"routes": [{"prefix": 5}]}"#), "routes[0].prefix: must be a string, not a number"),
        (
            policy(
                r#"{"routes": [{"prefix": "/a", "target": "https://sqs.eu-west-1.amazonaws.com"}, {"prefix": "/a", "target": "https://sqs.eu-west-1.amazonaws.com"}]}"#,
            ),
            r#"routes[1].prefix: the prefix "/a" is already taken by routes[0].prefix; keep one, or give each different hosts or callers"#,
        ),
        (
            policy(
                r#"{"routes": [{"prefix": "/a", "hosts": ["x.amazonaws.com", "y.amazonaws.com"], "service": "s", "region": "r"}, {"prefix": "/a", "hosts": ["Y.amazonaws.com"], "service": "s", "region": "r"}]}"#,
            ),
            r#"routes[1].prefix: the prefix "/a" with the host "y.amazonaws.com" is already taken by routes[0].prefix; keep one, or give each different hosts or callers"#,
        ),
        (route(r#""prefix": "/a""#), r#"routes["/a"].prefix: the route's key is its prefix; remove this"#),
    ]);
}

#[test]
fn prefixes() {
    let long_prefix = format!("/{}", "a".repeat(1024));
    assert_refused(&[
        (prefix("a"), r#"routes.a: the prefix "a" must begin with /"#),
        (prefix(""), r#"routes[""]: the prefix "" must begin with /"#),
        (prefix("/a?b"), r#"routes["/a?b"]: '?' is not allowed in a path; use %3F"#),
        (prefix("/a#b"), r#"routes["/a#b"]: '#' is not allowed in a path; use %23"#),
        (prefix("/a b"), r#"routes["/a b"]: ' ' is not allowed in a path; use %20"#),
        (prefix("/ü"), r#"routes["/ü"]: 'ü' is not allowed in a path; use %C3%BC"#),
        (
            prefix("/a/../b"),
            r#"routes["/a/../b"]: dot segments (. and ..) are rejected in every spelling; resolve them"#,
        ),
        (
            prefix("/%2E%2e"),
            r#"routes["/%2E%2e"]: dot segments (. and ..) are rejected in every spelling; resolve them"#,
        ),
        (
            prefix("/a%2"),
            r#"routes["/a%2"]: a % must be followed by two hex digits; encode a literal percent sign as %25"#,
        ),
        (prefix(r"/a\\b"), r#"routes["/a\\b"]: a backslash is not allowed in a path; use / or %5C"#),
        (prefix(r"/a\nb"), r#"routes["/a\nb"]: '\n' is not allowed in a path; use %0A"#),
        (
            prefix(&long_prefix),
            r#"routes["/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…"]: the prefix has 1025 bytes; use at most 1024"#,
        ),
        (
            prefix("/a/"),
            r#"routes["/a/"]: the prefix "/a/" ends in a slash but the target's path does not; end both with a slash, or neither"#,
        ),
    ]);
}

#[test]
fn targets() {
    assert_refused(&[
        (target(""), r#"routes["/a"].target: must begin with https:// or http://"#),
        (target("sqs.eu-west-1.amazonaws.com"), r#"routes["/a"].target: must begin with https:// or http://"#),
        (target("ftp://h"), r#"routes["/a"].target: must begin with https:// or http://"#),
        (target("https://"), r#"routes["/a"].target: the host is missing"#),
        (
            target("https://h?x=1"),
            r#"routes["/a"].target: a query (?…) is not allowed in a target; remove it, requests have their own"#,
        ),
        (target("https://h/p#f"), r#"routes["/a"].target: a fragment (#…) is never sent to a server; remove it"#),
        (
            target("https://user:secret@h/"),
            r#"routes["/a"].target: user info (…@) is not allowed in a target; remove it"#,
        ),
        (target("https://h:0"), r#"routes["/a"].target: the port "0" is not a number from 1 to 65535"#),
        (target("https://h:99999"), r#"routes["/a"].target: the port "99999" is not a number from 1 to 65535"#),
        (target("https://h:"), r#"routes["/a"].target: the port "" is not a number from 1 to 65535"#),
        (
            target("https://a b"),
            r#"routes["/a"].target: "a b" is not a host name; use labels of 1 to 63 letters, digits, - and _ separated by dots, at most 253 in all"#,
        ),
        (
            target("https://bücher.example"),
            r#"routes["/a"].target: the host "bücher.example" has letters outside ASCII; use its punycode form (xn--…)"#,
        ),
        (target("https://h."), r#"routes["/a"].target: the host "h." ends in a dot; use "h""#),
        (
            target("https://[::1"),
            r#"routes["/a"].target: "[::1" is not a host name with an optional port; put an IPv6 address in brackets"#,
        ),
        (
            target("https://::1/"),
            r#"routes["/a"].target: "::1" is not a host name with an optional port; put an IPv6 address in brackets"#,
        ),
        (target("https://[fe80::1%25eth0]/"), r#"routes["/a"].target: "[fe80::1%25eth0]" is not an IPv6 address"#),
        (
            target("https://h/a/../b"),
            r#"routes["/a"].target: dot segments (. and ..) are rejected in every spelling; resolve them"#,
        ),
        (
            target("https://h/%2e%2e"),
            r#"routes["/a"].target: dot segments (. and ..) are rejected in every spelling; resolve them"#,
        ),
        (
            target("https://h/a%zz"),
            r#"routes["/a"].target: a % must be followed by two hex digits; encode a literal percent sign as %25"#,
        ),
        (target(r"https://h\\p"), r#"routes["/a"].target: a backslash is not allowed in a path; use / or %5C"#),
        (target("https://h/a b"), r#"routes["/a"].target: ' ' is not allowed in a path; use %20"#),
        (target(r"https://h/a\u0000"), r#"routes["/a"].target: '\0' is not allowed in a path; use %00"#),
        (target("https://h/<API ID>"), r#"routes["/a"].target: '<' is not allowed in a path; use %3C"#),
        (
            target("https://<API ID>.execute-api.eu-west-1.amazonaws.com"),
            r#"routes["/a"].target: "<API ID>.execute-api.eu-west-1.amazonaws.com" is not a host name; use labels of 1 to 63 letters, digits, - and _ separated by dots, at most 253 in all"#,
        ),
    ]);
}

#[test]
fn what_tells_no_service_or_region() {
    assert_refused(&[
        (
            target("https://api.example.com"),
            r#"routes["/a"]: "api.example.com" is not an AWS host name from which its service and region can be inferred; add "service" and "region", such as "execute-api" and "eu-west-1""#,
        ),
        (
            policy(r#"{"routes": {"/a": {"target": "https://api.example.com", "service": "execute-api"}}}"#),
            r#"routes["/a"]: "api.example.com" is not an AWS host name from which its region can be inferred; add "region", such as "eu-west-1""#,
        ),
        (
            policy(r#"{"routes": {"/a": {"target": "https://api.example.com", "region": "eu-west-1"}}}"#),
            r#"routes["/a"]: "api.example.com" is not an AWS host name from which its service can be inferred; add "service", such as "execute-api""#,
        ),
        (
            policy(r#"{"routes": {"/a": {"target": "https://api.example.com", "signing": {"algorithm": "sigv4a"}}}}"#),
            r#"routes["/a"]: "api.example.com" is not an AWS host name from which its service can be inferred; add "service", such as "execute-api""#,
        ),
        (
            policy(r#"{"routes": {"/a": {"hosts": ["api.example.com"]}}}"#),
            r#"routes["/a"].hosts[0]: "api.example.com" is not an AWS host name from which its service and region can be inferred; add "service" and "region", such as "execute-api" and "eu-west-1""#,
        ),
        (
            policy(r#"{"routes": {"/a": {"hosts": ["*.amazonaws.com", "*.example.com"]}}}"#),
            r#"routes["/a"].hosts[1]: "*.example.com" is not an AWS host name from which its service and region can be inferred; add "service" and "region", such as "execute-api" and "eu-west-1""#,
        ),
        (
            policy(r#"{"routes": {"/a": "https://mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com"}}"#),
            r#"routes["/a"]: "mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com" serves all regions and accepts only SigV4A; add "signing": {"algorithm": "sigv4a"}"#,
        ),
        (
            route(r#""service": "execute/api""#),
            r#"routes["/a"].service: "execute/api" is not valid in a credential scope; use letters, digits, - and _"#,
        ),
        (
            route(r#""region": """#),
            r#"routes["/a"].region: "" is not valid in a credential scope; use letters, digits, - and _"#,
        ),
    ]);
}

#[test]
fn hosts() {
    assert_refused(&[
        (route(r#""target": "https://h""#), r#"routes["/a"]: "target" is written twice; keep one"#),
        (
            route(r#""hosts": []"#),
            r#"routes["/a"].hosts: is empty and matches nothing; list a host, or remove hosts to match all"#,
        ),
        (route(r#""hosts": "a.example""#), r#"routes["/a"].hosts: must be a list, not a string"#),
        (
            route(r#""hosts": ["*"]"#),
            r#"routes["/a"].hosts[0]: "*" matches every host; remove hosts instead, and set a target"#,
        ),
        (
            route(r#""hosts": ["a.*.example"]"#),
            r#"routes["/a"].hosts[0]: "a.*.example" has a * that is not the first label; use a name, or *. and a domain"#,
        ),
        (
            route(r#""hosts": ["https://a.example"]"#),
            r#"routes["/a"].hosts[0]: "https://a.example" is a URL; use its host alone"#,
        ),
        (
            route(r#""hosts": ["a.example/p"]"#),
            r#"routes["/a"].hosts[0]: "a.example/p" is not a host name; use labels of 1 to 63 letters, digits, - and _ separated by dots, at most 253 in all"#,
        ),
        (
            route(r#""hosts": ["a.example:http"]"#),
            r#"routes["/a"].hosts[0]: the port "http" is not a number from 1 to 65535"#,
        ),
        (
            route(r#""hosts": ["*.[::1]"]"#),
            r#"routes["/a"].hosts[0]: "*.[::1]" has a * before an address; use the address alone"#,
        ),
        (route(r#""hosts": [5]"#), r#"routes["/a"].hosts[0]: must be a string, not a number"#),
        (route(r#""hosts": ["*."]"#), r#"routes["/a"].hosts[0]: the host is missing"#),
        (
            route(r#""hosts": ["a.example."]"#),
            r#"routes["/a"].hosts[0]: the host "a.example." ends in a dot; use "a.example""#,
        ),
    ]);
}

#[test]
fn roles() {
    let long_name = format!(r#""roleArn": "arn:aws:iam::123456789012:role/{}""#, "r".repeat(65));
    assert_refused(&[
        (
            route(r#""roleArn": "orders-reader""#),
            r#"routes["/a"].roleArn: "orders-reader" is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name"#,
        ),
        (route(r#""roleArn": 12345"#), r#"routes["/a"].roleArn: must be a string, not a number"#),
        (route(r#""roleArn": null"#), r#"routes["/a"].roleArn: must be a string, not null"#),
        (
            route(r#""roleArn": "arn:aws:iam::123:role/x""#),
            r#"routes["/a"].roleArn: "arn:aws:iam::123:role/x" is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name"#,
        ),
        (
            route(r#""roleArn": "arn:aws:iam::123456789012:user/x""#),
            r#"routes["/a"].roleArn: "arn:aws:iam::123456789012:user/x" is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name"#,
        ),
        (
            route(r#""roleArn": "arn:aws:sts::123456789012:assumed-role/x/y""#),
            r#"routes["/a"].roleArn: "arn:aws:sts::123456789012:assumed-role/x/y" is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name"#,
        ),
        (
            route(r#""roleArn": "arn:aws:iam::<account>:role/<name>""#),
            r#"routes["/a"].roleArn: "arn:aws:iam::<account>:role/<name>" is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name"#,
        ),
        (
            route(&long_name),
            r#"routes["/a"].roleArn: "arn:aws:iam::123456789012:role/rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr" is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name"#,
        ),
        (
            route(r#""roleSessionName": "x1""#),
            r#"routes["/a"].roleSessionName: belongs to a role; add "roleArn", or remove this"#,
        ),
        (
            route(r#""externalId": "x1""#),
            r#"routes["/a"].externalId: belongs to a role; add "roleArn", or remove this"#,
        ),
        (
            route(r#""roleArn": "arn:aws:iam::123456789012:role/x", "roleSessionName": "a b""#),
            r#"routes["/a"].roleSessionName: must be 2 to 64 letters, digits and _+=,.@-"#,
        ),
        (
            route(r#""roleArn": "arn:aws:iam::123456789012:role/x", "externalId": """#),
            r#"routes["/a"].externalId: must be 2 to 1224 letters, digits and _+=,.@:/-"#,
        ),
    ]);
}

/// Returns a policy whose route `/a` assumes a role with these further members.
fn role(members: &str) -> String {
    route(&format!(r#""roleArn": "arn:aws:iam::123456789012:role/x", {members}"#))
}

#[test]
fn sessions_of_a_role() {
    assert_refused(&[
        (
            route(r#""roleDurationSeconds": 900"#),
            r#"routes["/a"].roleDurationSeconds: belongs to a role; add "roleArn", or remove this"#,
        ),
        (
            route(r#""roleTags": {"team": "a"}"#),
            r#"routes["/a"].roleTags: belongs to a role; add "roleArn", or remove this"#,
        ),
        (
            route(r#""roleChain": ["arn:aws:iam::123456789012:role/x"]"#),
            r#"routes["/a"].roleChain: belongs to a role; add "roleArn", or remove this"#,
        ),
        (
            role(r#""roleDurationSeconds": 899"#),
            r#"routes["/a"].roleDurationSeconds: 899 is out of range; use 900 to 43200"#,
        ),
        (
            role(r#""roleDurationSeconds": 43201"#),
            r#"routes["/a"].roleDurationSeconds: 43201 is out of range; use 900 to 43200"#,
        ),
        (
            role(r#""roleDurationSeconds": 1e300"#),
            r#"routes["/a"].roleDurationSeconds: 18446744073709551615 is out of range; use 900 to 43200"#,
        ),
        (
            role(r#""roleDurationSeconds": "1h""#),
            r#"routes["/a"].roleDurationSeconds: must be a whole number, not a string"#,
        ),
        (
            role(r#""roleDurationSeconds": 3601, "roleChain": ["arn:aws:iam::123456789012:role/hub"]"#),
            r#"routes["/a"].roleDurationSeconds: 3601 is too long: AWS limits a session obtained through a roleChain to one hour; use at most 3600"#,
        ),
        (
            role(r#""roleDurationSeconds": 1, "roleChain": ["arn:aws:iam::123456789012:role/hub"]"#),
            r#"routes["/a"].roleDurationSeconds: 1 is out of range; use 900 to 3600"#,
        ),
        (
            role(r#""roleChain": "arn:aws:iam::123456789012:role/hub""#),
            r#"routes["/a"].roleChain: must be a list, not a string"#,
        ),
        (
            role(r#""roleChain": []"#),
            r#"routes["/a"].roleChain: is empty; list the roles to assume before roleArn, or remove this"#,
        ),
        (
            role(r#""roleChain": ["arn:aws:iam::123456789012:role/hub", "spoke"]"#),
            r#"routes["/a"].roleChain[1]: "spoke" is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name"#,
        ),
    ]);
}

#[test]
fn tags_of_a_role() {
    let many_tags: Vec<_> = (0..51).map(|n| format!(r#""k{n}": "v""#)).collect();
    let long_key = "k".repeat(129);
    assert_refused(&[
        (role(r#""roleTags": ["team"]"#), r#"routes["/a"].roleTags: must be an object, not a list"#),
        (role(r#""roleTags": {"team": 5}"#), r#"routes["/a"].roleTags.team: must be a string, not a number"#),
        (role(r#""roleTags": {"team": null}"#), r#"routes["/a"].roleTags.team: must be a string, not null"#),
        (role(r#""roleTags": {"a": "1", "a": "2"}"#), r#"routes["/a"].roleTags: "a" is written twice; keep one"#),
        (
            role(r#""roleTags": {"Team": "1", "team": "2"}"#),
            r#"routes["/a"].roleTags.team: is "Team" in another spelling; keep one"#,
        ),
        (
            role(&format!(r#""roleTags": {{{}}}"#, many_tags.join(", "))),
            r#"routes["/a"].roleTags: has 51 tags; use at most 50"#,
        ),
        (
            role(r#""roleTags": {"": "v"}"#),
            r#"routes["/a"].roleTags[""]: the key must be 1 to 128 letters, digits, blanks and _.:/=+-@"#,
        ),
        (
            role(&format!(r#""roleTags": {{"{long_key}": "v"}}"#)),
            r#"routes["/a"].roleTags["kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk…"]: the key must be 1 to 128 letters, digits, blanks and _.:/=+-@"#,
        ),
        (
            role(r#""roleTags": {"a,b": "v"}"#),
            r#"routes["/a"].roleTags["a,b"]: the key must be 1 to 128 letters, digits, blanks and _.:/=+-@"#,
        ),
        (
            role(r#""roleTags": {"AWS:team": "v"}"#),
            r#"routes["/a"].roleTags["AWS:team"]: keys that begin with aws: are reserved by AWS; use another"#,
        ),
        (
            role(r#""roleTags": {"team": "a\nb"}"#),
            r#"routes["/a"].roleTags.team: the value must be up to 256 letters, digits, blanks and _.:/=+-@"#,
        ),
        (
            role(&format!(r#""roleTags": {{"team": "{}"}}"#, "v".repeat(257))),
            r#"routes["/a"].roleTags.team: the value must be up to 256 letters, digits, blanks and _.:/=+-@"#,
        ),
    ]);
}

#[test]
fn source_identities() {
    let told = r#"routes["/a"].sourceIdentity: must be 2 to 64 letters, digits and _+=,.@-"#;
    assert_refused(&[
        (
            route(r#""sourceIdentity": "me""#),
            r#"routes["/a"].sourceIdentity: belongs to a role; add "roleArn", or remove this"#,
        ),
        (role(r#""sourceIdentity": "x""#), told),
        (role(r#""sourceIdentity": "a b""#), told),
        (role(r#""sourceIdentity": "aws:x""#), told),
        (role(&format!(r#""sourceIdentity": "{}""#, "x".repeat(65))), told),
        (role(r#""sourceIdentity": null"#), r#"routes["/a"].sourceIdentity: must be a string, not null"#),
    ]);
}

#[test]
fn policies_that_limit_a_session() {
    const ARN: &str = "arn:aws:iam::123456789012:policy/x";
    let arns = |list: &str| role(&format!(r#""policyArns": {list}"#));
    let eleven: Vec<_> = (0..11).map(|n| format!("\"{ARN}{n}\"")).collect();
    let long_name = format!("{ARN}{}", "x".repeat(128));
    for arn in [
        "x",
        "arn:aws:iam::aws:role/x",
        "arn:aws:iam::1:policy/x",
        "arn:aws:iam::210987654321:policy/x",
        "arn:aws:iam::aws:policy/",
        "arn:aws:iam::aws:policy/a b",
        &long_name,
    ] {
        let told = format!(
            r#"routes["/a"].policyArns[1]: {arn:?} is not the ARN of an IAM policy of AWS or of the role's account; use arn:aws:iam::aws:policy/name or arn:aws:iam::123456789012:policy/name"#
        );
        assert_refused(&[(arns(&format!("[{ARN:?}, {arn:?}]")), &told)]);
    }
    assert_refused(&[
        (route(r#""policyArns": []"#), r#"routes["/a"].policyArns: belongs to a role; add "roleArn", or remove this"#),
        (arns("[]"), r#"routes["/a"].policyArns: lists 0 policies; list 1 to 10, or remove this"#),
        (
            arns(&format!("[{}]", eleven.join(","))),
            r#"routes["/a"].policyArns: lists 11 policies; list 1 to 10, or remove this"#,
        ),
        (arns(&format!("{ARN:?}")), r#"routes["/a"].policyArns: must be a list, not a string"#),
    ]);
}

#[test]
fn inline_policies_of_a_session() {
    let inline = |policy: &str| role(&format!(r#""sessionPolicy": {policy}"#));
    let sized = |length: usize, more: &str| {
        let filler = "ä".repeat(length - r#"{"Statement":""}"#.len());
        role(&format!(r#""sessionPolicy": {{"Statement": "{filler}"}}{more}"#))
    };
    let arn = r#", "policyArns": ["arn:aws:iam::aws:policy/xx"]"#;
    for policy in [sized(2048, ""), sized(2022, arn)] {
        assert!(Policy::from_json(policy.as_bytes()).is_ok());
    }
    let too_long = r#"routes["/a"].sessionPolicy: has 2049 characters together with policyArns; use at most 2048, or a managed policy in policyArns"#;
    assert_refused(&[
        (sized(2049, ""), too_long),
        (sized(2023, arn), too_long),
        (
            route(r#""sessionPolicy": {"Statement": []}"#),
            r#"routes["/a"].sessionPolicy: belongs to a role; add "roleArn", or remove this"#,
        ),
        (
            inline(r#"{"Statement": "中"}"#),
            r#"routes["/a"].sessionPolicy: has a character after U+00FF, which STS rejects; write its JSON escape, such as \u4e2d"#,
        ),
        (
            inline(r#""{\"Statement\": [}""#),
            r#"routes["/a"].sessionPolicy: is not valid JSON: expected value at line 1 column 16"#,
        ),
        (
            inline(r#""{\"Statement\": []} x""#),
            r#"routes["/a"].sessionPolicy: is not valid JSON: trailing characters at line 1 column 19"#,
        ),
        (inline(r#"{"Statement": ]"#), "the policy is not valid JSON: expected value (line 1, column 147)"),
    ]);
    for policy in ["null", "5", "[{\"Statement\": []}]", "{}", "{\"Statements\": []}", r#""[]""#] {
        let told = r#"routes["/a"].sessionPolicy: is not an IAM policy; write one, such as {"Version": "2012-10-17", "Statement": […]}"#;
        assert_refused(&[(inline(policy), told)]);
    }
    let deep = inline(&format!(r#"{{"Statement": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)));
    assert!(Policy::from_json(deep.as_bytes()).unwrap_err().to_string().contains("has 200014 characters"));
}

#[test]
fn the_domain_of_s3() {
    let with = |target: &str, domain: &str| {
        policy(&format!(
            r#"{{"routes": {{"/a": {{"target": "{target}", "service": "s3", "region": "x", "s3Domain": "{domain}"}}}}}}"#
        ))
    };
    let minio = "https://b.minio.example";
    assert_refused(&[
        (
            with(minio, "other.example"),
            r#"routes["/a"].s3Domain: the host "b.minio.example" is not below "other.example"; set the domain of its buckets"#,
        ),
        (
            with(minio, "inio.example"),
            r#"routes["/a"].s3Domain: the host "b.minio.example" is not below "inio.example"; set the domain of its buckets"#,
        ),
        (
            with(minio, "*.minio.example"),
            r#"routes["/a"].s3Domain: "*.minio.example" must be the name of a domain outside of AWS, without a port"#,
        ),
        (
            with(minio, "minio.example:9000"),
            r#"routes["/a"].s3Domain: "minio.example:9000" must be the name of a domain outside of AWS, without a port"#,
        ),
        (
            with("https://b.s3.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com"),
            r#"routes["/a"].s3Domain: "s3.eu-west-1.amazonaws.com" must be the name of a domain outside of AWS, without a port"#,
        ),
        (
            policy(
                r#"{"routes": {"/": {"hosts": ["*.s3.example", "b.other.example"], "s3Domain": "s3.example", "service": "s3", "region": "x"}}}"#,
            ),
            r#"routes["/"].s3Domain: the host "b.other.example" is not below "s3.example"; set the domain of its buckets"#,
        ),
    ]);
}

#[test]
fn the_bucket_of_a_target() {
    let with = |target: &str, members: &str| {
        policy(&format!(r#"{{"routes": {{"/a": {{"target": "{target}", "service": "s3", "region": "x"{members}}}}}}}"#))
    };
    let hosts = r#", "hosts": ["*.s3.localhost"]"#;
    let label = "https://{bucket}.s3.eu-west-1.amazonaws.com";
    let hosts_refused = r#"routes["/a"].hosts: {bucket} stands for what * matched, so each host must have one; write "*.s3.localhost", and give hosts without * a route of their own"#;
    assert_refused(&[
        (with(label, ""), hosts_refused),
        (with(label, r#", "hosts": ["*.s3.localhost", "s3.localhost"]"#), hosts_refused),
        (
            with("http://{bucket}.minio.example", hosts),
            r#"routes["/a"].target: {bucket} in the host needs https; write it as the first segment of the path"#,
        ),
        (
            with("https://h/a/{bucket}", hosts),
            r#"routes["/a"].target: {bucket} can stand once, as the host's whole first label or the path's whole first segment; write it there, or leave it out"#,
        ),
        (
            with("https://{bucket}.eu-west-1.amazonaws.com", hosts),
            r#"routes["/a"].target: "eu-west-1.amazonaws.com" is not an endpoint of S3 that has {bucket} in this place; write https://{bucket}.s3.REGION.amazonaws.com"#,
        ),
        (
            with("https://mine.s3.eu-west-1.amazonaws.com/{bucket}", hosts),
            r#"routes["/a"].target: "mine.s3.eu-west-1.amazonaws.com" is not an endpoint of S3 that has {bucket} in this place; write https://{bucket}.s3.REGION.amazonaws.com"#,
        ),
        (
            with(
                "http://minio.example/{bucket}",
                &hosts.replace('}', "").replace("]", r#"], "s3Domain": "minio.example""#),
            ),
            r#"routes["/a"].s3Domain: the target says with {bucket} where buckets stand; leave this out"#,
        ),
        (
            with("http://h/{bucket}", hosts).replace("\"s3\"", "\"execute-api\""),
            r#"routes["/a"].target: {bucket} is for S3; set "service": "s3", or leave it out"#,
        ),
    ]);
}

#[test]
fn keys_of_a_route() {
    assert_refused(&[
        (route(r#""roleARN": "x""#), r#"routes["/a"].roleARN: unknown key; did you mean "roleArn"?"#),
        (route(r#""rolearn": "x""#), r#"routes["/a"].rolearn: unknown key; did you mean "roleArn"?"#),
        (
            route(r#""headers": {}"#),
            r#"routes["/a"].headers: unknown key; use one of prefix, target, roleArn, roleSessionName, externalId, roleDurationSeconds, roleTags, roleChain, sourceIdentity, policyArns, sessionPolicy, service, region, hosts, upstreamTls, s3Domain, payload, signing, requestHeaders, responseHeaders, signedHeaders, callers, allowUnauthenticatedRequests"#,
        ),
        (
            route(r#""session": "x""#),
            r#"routes["/a"].session: unknown key; use one of prefix, target, roleArn, roleSessionName, externalId, roleDurationSeconds, roleTags, roleChain, sourceIdentity, policyArns, sessionPolicy, service, region, hosts, upstreamTls, s3Domain, payload, signing, requestHeaders, responseHeaders, signedHeaders, callers, allowUnauthenticatedRequests"#,
        ),
        (
            route(r#""payload": "sign""#),
            r#"routes["/a"].payload: "sign" is unknown; use "auto" or "signed" or "unsigned" or "client" or "envoy""#,
        ),
        (route(r#""payload": true"#), r#"routes["/a"].payload: must be a string, not a boolean"#),
    ]);
}

#[test]
fn signing() {
    assert_refused(&[
        (route(r#""signing": "sigv4a""#), r#"routes["/a"].signing: must be an object, not a string"#),
        (
            route(r#""signing": {"algorithm": "sigv5"}"#),
            r#"routes["/a"].signing.algorithm: "sigv5" is unknown; use "sigv4" or "sigv4a""#,
        ),
        (
            route(r#""signing": {"regionSet": "*"}"#),
            r#"routes["/a"].signing.regionSet: belongs to "algorithm": "sigv4a"; set that, or remove this and set "region""#,
        ),
        (
            route(r#""signing": {"algorithm": "sigv4a", "regionSet": []}"#),
            r#"routes["/a"].signing.regionSet: is empty; list a region, or remove this for all"#,
        ),
        (
            route(r#""signing": {"algorithm": "sigv4a", "regionSet": "a,,b"}"#),
            r#"routes["/a"].signing.regionSet: "" is not a region; use names or patterns such as "us-east-1", "us-*" or "*""#,
        ),
        (
            route(r#""signing": {"algorithm": "sigv4a", "regionSet": 5}"#),
            r#"routes["/a"].signing.regionSet: must be a string or a list of strings, not a number"#,
        ),
        (
            route(r#""signing": {"location": "body"}"#),
            r#"routes["/a"].signing.location: "body" is unknown; use "header" or "query""#,
        ),
        (
            route(r#""signing": {"expiresSeconds": 60}"#),
            r#"routes["/a"].signing.expiresSeconds: belongs to "location": "query"; set that, or remove this"#,
        ),
        (
            route(r#""signing": {"location": "query", "expiresSeconds": 0}"#),
            r#"routes["/a"].signing.expiresSeconds: 0 is out of range; use 1 to 604800 (seven days)"#,
        ),
        (
            route(r#""signing": {"location": "query", "expiresSeconds": 604801}"#),
            r#"routes["/a"].signing.expiresSeconds: 604801 is out of range; use 1 to 604800 (seven days)"#,
        ),
        (
            route(r#""signing": {"location": "query", "expires": 60}"#),
            r#"routes["/a"].signing.expires: unknown key; use one of algorithm, regionSet, location, expiresSeconds, scope, redirect"#,
        ),
        (
            route(r#""signing": {"scope": "policy"}"#),
            r#"routes["/a"].signing.scope: "policy" is unknown; use "infer" or "client" or "client-first""#,
        ),
        (
            route(r#""signing": {"redirect": true}"#),
            r#"routes["/a"].signing.redirect: sends the client a presigned URL; add "location": "query""#,
        ),
        (
            route(r#""signing": {"redirect": "yes"}"#),
            r#"routes["/a"].signing.redirect: must be true or false, not a string"#,
        ),
    ]);
}

#[test]
fn what_does_not_go_with_a_signature_in_the_query() {
    assert_refused(&[
        (
            route(r#""signing": {"location": "query"}, "payload": "client""#),
            r#"routes["/a"].payload: "client" needs a header that a presigned URL does not have; use "auto", "signed" or "unsigned""#,
        ),
        (
            route(r#""signing": {"location": "query", "redirect": true}, "payload": "signed""#),
            r#"routes["/a"].payload: needs the body, which a redirected client sends elsewhere; use "auto" or "unsigned""#,
        ),
        (
            route(r#""signing": {"location": "query", "redirect": true}, "signedHeaders": ["x-team"]"#),
            r#"routes["/a"].signedHeaders: a redirected client does not send them; remove this"#,
        ),
        (
            policy(
                r#"{"routes": {"/a": {"hosts": ["*.amazonaws.com"], "signing": {"location": "query", "redirect": true}}}}"#,
            ),
            r#"routes["/a"].signing.redirect: needs a target; without one the client would be redirected to the same URL"#,
        ),
    ]);
}

#[test]
fn header_rules() {
    assert_refused(&[
        (route(r#""requestHeaders": ["accept"]"#), r#"routes["/a"].requestHeaders: must be an object, not a list"#),
        (
            route(r#""requestHeaders": {"allow": "accept"}"#),
            r#"routes["/a"].requestHeaders.allow: must be a list, not a string"#,
        ),
        (
            route(r#""requestHeaders": {"allow": ["x-*-y"]}"#),
            r#"routes["/a"].requestHeaders.allow[0]: "x-*-y" has a * inside; use it as the last character, as in "x-*""#,
        ),
        (
            route(r#""requestHeaders": {"allow": ["*"]}"#),
            r#"routes["/a"].requestHeaders.allow[0]: "*" matches every header; remove allow to let all pass, or to let none pass set "allow": []"#,
        ),
        (
            route(r#""requestHeaders": {"allow": ["a b"]}"#),
            r#"routes["/a"].requestHeaders.allow[0]: "a b" is not a header name; use letters, digits and -"#,
        ),
        (
            route(r#""requestHeaders": {"allow": [":path"]}"#),
            r#"routes["/a"].requestHeaders.allow[0]: ":path" is a pseudo header, to which no rule applies; remove it"#,
        ),
        (
            route(r#""requestHeaders": {"remove": ["Host"]}"#),
            r#"routes["/a"].requestHeaders.remove[0]: "host" comes from the target and can't be removed; remove it"#,
        ),
        (
            route(r#""requestHeaders": {"remove": ["authorization"]}"#),
            r#"routes["/a"].requestHeaders.remove[0]: "authorization" belongs to signing and can't be removed; remove it"#,
        ),
        (
            route(r#""requestHeaders": {"remove": ["content-length"]}"#),
            r#"routes["/a"].requestHeaders.remove[0]: "content-length" belongs to the proxy and can't be removed; remove it"#,
        ),
    ]);
}

#[test]
fn headers_that_are_set() {
    assert_refused(&[
        (
            route(r#""requestHeaders": {"set": {"host": "x"}}"#),
            r#"routes["/a"].requestHeaders.set.host: "host" comes from the target and can't be set; remove it"#,
        ),
        (
            route(r#""requestHeaders": {"set": {":path": "/"}}"#),
            r#"routes["/a"].requestHeaders.set[":path"]: ":path" is a pseudo header, to which no rule applies; remove it"#,
        ),
        (
            route(r#""requestHeaders": {"set": {"x-amz-date": "x"}}"#),
            r#"routes["/a"].requestHeaders.set["x-amz-date"]: "x-amz-date" belongs to signing and can't be set; remove it"#,
        ),
        (
            route(r#""requestHeaders": {"set": {"x-team": 5}}"#),
            r#"routes["/a"].requestHeaders.set["x-team"]: must be a string, not a number"#,
        ),
        (
            route(r#""requestHeaders": {"set": {"x-team": "a\nb"}}"#),
            r#"routes["/a"].requestHeaders.set["x-team"]: the value must be visible ASCII characters, blanks and tabs"#,
        ),
        (
            route(r#""requestHeaders": {"set": {"x-*": "a"}}"#),
            r#"routes["/a"].requestHeaders.set["x-*"]: "x-*" is a pattern, which is not supported here; list each name"#,
        ),
        (
            route(r#""requestHeaders": {"set": {"X-Team": "a", "x-team": "b"}}"#),
            r#"routes["/a"].requestHeaders.set["x-team"]: "x-team" is set twice in different spellings; keep one"#,
        ),
        (
            route(r#""requestHeaders": {"set": "x-team: hush"}"#),
            r#"routes["/a"].requestHeaders.set: must be an object, not a string"#,
        ),
        (
            route(r#""requestHeaders": {"set": {"": "a"}}"#),
            r#"routes["/a"].requestHeaders.set[""]: "" is not a header name; use letters, digits and -"#,
        ),
        (
            route(r#""responseHeaders": {"remove": ["transfer-encoding"]}"#),
            r#"routes["/a"].responseHeaders.remove[0]: "transfer-encoding" belongs to the proxy and can't be removed; remove it"#,
        ),
        (
            route(r#""responseHeaders": {"add": {}}"#),
            r#"routes["/a"].responseHeaders.add: unknown key; use one of allow, remove, set"#,
        ),
    ]);
}

#[test]
fn signed_headers() {
    assert_refused(&[
        (
            route(r#""signedHeaders": ["host"]"#),
            r#"routes["/a"].signedHeaders[0]: "host" is signed wherever it is needed; remove it"#,
        ),
        (
            route(r#""signedHeaders": ["x-amz-date"]"#),
            r#"routes["/a"].signedHeaders[0]: "x-amz-date" is signed wherever it is needed; remove it"#,
        ),
        (
            route(r#""signedHeaders": ["user-agent"]"#),
            r#"routes["/a"].signedHeaders[0]: "user-agent" may be changed after signing, and AWS would reject the request; remove it"#,
        ),
        (
            route(r#""signedHeaders": ["X-Sigv4-Upstream"]"#),
            r#"routes["/a"].signedHeaders[0]: "x-sigv4-upstream" may be changed after signing, and AWS would reject the request; remove it"#,
        ),
        (
            route(r#""signedHeaders": ["x-forwarded-for"]"#),
            r#"routes["/a"].signedHeaders[0]: "x-forwarded-for" may be changed after signing, and AWS would reject the request; remove it"#,
        ),
        (
            route(r#""signedHeaders": ["x-*"]"#),
            r#"routes["/a"].signedHeaders[0]: "x-*" is a pattern, which is not supported here; list each name"#,
        ),
        (route(r#""signedHeaders": "x-team""#), r#"routes["/a"].signedHeaders: must be a list, not a string"#),
    ]);
}

proptest! {
    /// Checks that a damaged policy is rejected in one line, or still loads, without a panic.
    #[test]
    fn damage(at in 0usize..700, length in 0usize..20, by in "[\\PC\n]{0,8}|[{}\\[\\]\",:/%*.0-9-]{0,8}") {
        let whole = route(
            r#""roleArn": "arn:aws:iam::123456789012:role/x", "roleTags": {"a": "b"}, "roleDurationSeconds": 900,
            "roleChain": ["arn:aws:iam::123456789012:role/y"], "sourceIdentity": "me", "policyArns":
            ["arn:aws:iam::aws:policy/x"], "sessionPolicy": {"Statement": [{"Sid": "\\u0041", "x": [1, -1, 2.0, true]}]}, "hosts": ["*.a.example:80"], "signing": {"location": "query",
            "expiresSeconds": 60, "algorithm": "sigv4a", "regionSet": ["us-*"]}, "requestHeaders": {"allow": ["x-*"],
            "set": {"x-team": "a"}}, "signedHeaders": ["x-team"], "allowUnauthenticatedRequests": false"#,
        );
        prop_assert!(Policy::from_json(whole.as_bytes()).is_ok());
        let characters: Vec<char> = whole.chars().collect();
        let (before, rest) = characters.split_at(at.min(characters.len()));
        let damaged: String = before.iter().copied().chain(by.chars()).chain(rest.iter().skip(length).copied()).collect();
        if let Err(refusal) = Policy::from_json(damaged.as_bytes()) {
            prop_assert!(!refusal.to_string().contains('\n'), "{refusal}");
        }
    }
}

#[test]
fn a_targets_scheme_says_whether_its_upstream_has_tls() {
    let told = r#"routes["/a"].upstreamTls: is for a route without a target; remove it: the target's scheme, https or http, decides"#;
    assert_refused(&[
        (route(r#""upstreamTls": true"#), told),
        (route(r#""upstreamTls": false"#), told),
        (
            policy(r#"{"routes": {"/a": {"hosts": ["*.amazonaws.com"], "upstreamTls": "no"}}}"#),
            r#"routes["/a"].upstreamTls: must be true or false, not a string"#,
        ),
        (
            policy(r#"{"routes": {"/a": {"hosts": ["*.amazonaws.com"], "upstreamTls": null}}}"#),
            r#"routes["/a"].upstreamTls: must be true or false, not null"#,
        ),
    ]);
}

/// An id has 32 bits of a digest, so that two roles may have one by chance: the credentials of one would sign for the other.
#[test]
fn two_roles_of_one_id_are_refused() {
    let role = |session: &str| {
        format!(
            r#"{{"target": "https://sqs.eu-west-1.amazonaws.com", "roleArn": "arn:aws:iam::123456789012:role/data",
                "roleSessionName": "{session}"}}"#
        )
    };
    assert_refused(&[(
        format!(r#"{{"routes": {{"/a": {}, "/b": {}}}}}"#, role("session-49502"), role("session-116359")),
        r#"routes["/b"]: its role has the id "data-be0856ac", as a role with other settings has by chance; change its roleSessionName"#,
    )]);
}
