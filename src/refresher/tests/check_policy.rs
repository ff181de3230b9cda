//! `credential-refresher check-policy`, run as a user runs it: on files, and on the policies in the documents.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use sigv4_core::policy::Policy;

/// Exit code, standard output, standard error.
fn check(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_credential-refresher"))
        .arg("check-policy")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const POLICY: &str = r#"
routes:
  /s3: https://s3.eu-west-1.amazonaws.com
  /s3/orders:
    target: https://s3.eu-west-1.amazonaws.com/orders
    roleArn: arn:aws:iam::123456789012:role/orders-reader
    externalId: x-1
    allowUnauthenticatedRequests: false
  /api:
    target: http://api.internal:8080
    service: execute-api
    region: eu-west-1
unmatched: pass
"#;

#[test]
fn a_valid_policy_is_summed_up_by_precedence() {
    let (code, output, errors) = check(&["-"], POLICY);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(
        output,
        "\
ROUTE        HOSTS   TARGET                                      SIGNED FOR              PAYLOAD          IDENTITY                 CALLERS
/s3/orders   every   https://s3.eu-west-1.amazonaws.com/orders   s3 eu-west-1            auto: unsigned   orders-reader-5428dfa5   authenticated
/api         every   http://api.internal:8080                    execute-api eu-west-1   auto: signed     default                  anyone
/s3          every   https://s3.eu-west-1.amazonaws.com          s3 eu-west-1            auto: unsigned   default                  anyone

IDENTITY                 ROLE                                           SESSION
default                  the refresher's own credentials
orders-reader-5428dfa5   arn:aws:iam::123456789012:role/orders-reader   tempAssumeRoleSession, external id x-1

Requests that no route matches pass untouched.
Note: the filter reads JSON; --convert prints this policy as JSON
Note: /s3/orders, /s3: a bucket that a client puts into the host name is dropped, or refused if it has the form BUCKET.s3.…; list \
this proxy's names in hosts, and take buckets from \"*.\" before them with {bucket} in a target
"
    );
}

#[test]
fn a_route_without_tls_is_shown_as_such() {
    let policy = r#"{"routes": {
        "/a": {"hosts": ["*.internal"], "service": "s3", "region": "eu-west-1"},
        "/b": {"hosts": ["*.internal"], "service": "s3", "region": "eu-west-1", "upstreamTls": false}}}"#;
    let (_, output, _) = check(&["-"], policy);
    let shown = |route: &str| output.lines().find(|line| line.starts_with(route)).unwrap_or_default().to_owned();
    assert!(shown("/a").contains("as requested   ") && shown("/a").contains("auto: unsigned"), "{output}");
    assert!(shown("/b").contains("as requested, without TLS") && shown("/b").contains("auto: signed"), "{output}");

    let (_, output, _) = check(&["--json", "-"], policy);
    let summary: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (&summary["routes"][0]["upstreamTls"], &summary["routes"][1]["upstreamTls"]),
        (&true.into(), &false.into())
    );
}

#[test]
fn what_limits_a_session_is_shown() {
    let policy = r#"{"routes": {"/s3": {"target": "https://s3.eu-west-1.amazonaws.com",
        "roleArn": "arn:aws:iam::123456789012:role/r", "sourceIdentity": "me@example.com",
        "policyArns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"], "sessionPolicy": {"Statement": [] }}}}"#;
    let (code, output, errors) = check(&["-"], policy);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let session = "tempAssumeRoleSession, source identity me@example.com, limited by arn:aws:iam::aws:policy/ReadOnlyAccess, \
                   limited by {\"Statement\":[]}\n";
    assert!(output.contains(session), "{output}");

    let (_, output, _) = check(&["--json", "-"], policy);
    let summary: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(summary["identities"][0]["sessionPolicy"], r#"{"Statement":[]}"#);
}

#[test]
fn programs_get_json() {
    let (code, output, _) = check(&["--json", "-"], POLICY);
    let summary: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(summary["routes"][0]["route"], "/s3/orders");
    assert_eq!(summary["routes"][0]["identity"], summary["identities"][1]["id"]);
    assert_eq!(summary["unmatched"], "pass");

    let (code, output, errors) = check(&["--json", "-"], "{}");
    let refusal: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((code, errors.as_str()), (Some(1), ""));
    assert!(refusal["error"].as_str().unwrap().starts_with("routes: has no route"), "{output}");
}

const MESH: &str = r#"{"routes": [
    {"prefix": "/", "hosts": ["sqs.eu-west-1.amazonaws.com"], "roleArn": "arn:aws:iam::123456789012:role/orders",
     "callers": ["spiffe://cluster.local/ns/orders/sa/*", {"issuer": "https://issuer.example", "claims": {"team": "orders"}}]},
    {"prefix": "/", "hosts": ["sqs.eu-west-1.amazonaws.com"], "roleArn": "arn:aws:iam::123456789012:role/admin",
     "callers": ["spiffe://cluster.local/ns/shop/sa/*", "spiffe://cluster.local/ns/orders/sa/admin", "admin.internal"]},
    {"prefix": "/open", "hosts": ["sqs.eu-west-1.amazonaws.com"]},
    {"prefix": "/open", "hosts": ["sqs.eu-west-1.amazonaws.com"], "callers": ["admin.internal"]}]}"#;

#[test]
fn callers_are_listed_by_route() {
    let (code, output, errors) = check(&["-"], MESH);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let tables: Vec<&str> = output.split("\n\n").collect();
    let lines: Vec<Vec<&str>> = tables[2]
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let host = "sqs.eu-west-1.amazonaws.com";
    let (orders, admin) = (
        format!("{host}/ for spiffe://cluster.local/ns/orders/sa/*"),
        format!("{host}/ for spiffe://cluster.local/ns/shop/sa/*"),
    );
    let (everyone, of_admin) = (format!("{host}/open for everyone"), format!("{host}/open for admin.internal"));
    assert_eq!(lines[0], ["ROUTE", "CALLER", "IDENTITY"]);
    let routes: Vec<(&str, &str)> = lines[1..].iter().map(|line| (line[0], line[1])).collect();
    assert_eq!(
        routes,
        [
            (&*everyone, "everyone else"),
            (&of_admin, "admin.internal"),
            (&orders, "https://issuer.example team=orders"),
            (&orders, "spiffe://cluster.local/ns/orders/sa/*"),
            (&admin, "spiffe://cluster.local/ns/orders/sa/admin"),
            (&admin, "admin.internal"),
            (&admin, "spiffe://cluster.local/ns/shop/sa/*"),
        ]
    );
    assert!(lines[3][2].starts_with("orders-") && lines[5][2].starts_with("admin-"), "{output}");

    let summary: serde_json::Value = serde_json::from_str(&check(&["--json", "-"], MESH).1).unwrap();
    let token = serde_json::json!({"issuer": "https://issuer.example", "claims": {"team": "orders"}});
    assert_eq!(summary["routes"][2]["callers"], serde_json::json!([token, "spiffe://cluster.local/ns/orders/sa/*"]));
    assert_eq!(summary["routes"][0].get("callers"), None);
    assert!(!check(&["-"], POLICY).1.contains("CALLER  "), "a policy without callers has no such table");
}

#[test]
fn the_route_of_a_caller_is_that_of_the_filter() {
    for (arguments, taken) in [
        (&["--caller", "spiffe://cluster.local/ns/orders/sa/x"][..], Some("orders")),
        (&["--caller", "spiffe://cluster.local/ns/orders/sa/admin"], Some("admin")),
        (&["--caller", "spiffe://cluster.local/ns/orders/sa/x", "--caller", "admin.internal"], Some("admin")),
        (
            &[
                "--caller-claims",
                r#"{"iss": "https://issuer.example", "team": ["first", "orders"], "n": 5, "x": true}"#,
            ],
            Some("orders"),
        ),
        (&["--caller-claims", r#"{"iss": "https://issuer.example", "team": {"orders": "x"}}"#], None),
        (&["--caller-claims", r#"{"iss": "https://issuer.example", "team": "billing"}"#], None),
        (&["--caller", "spiffe://elsewhere/ns/orders/sa/x"], None),
    ] {
        let (code, output, errors) = check(&[arguments, &["--json", "-"]].concat(), MESH);
        let summary: serde_json::Value = serde_json::from_str(&output).unwrap();
        let of_root = &summary["caller"]["routes"][1];
        assert_eq!(of_root["prefix"], "/", "{errors}{output}");
        match taken {
            Some(role) => {
                assert!(of_root["identity"]["id"].as_str().unwrap().starts_with(role), "{arguments:?} {of_root}");
                assert_eq!(of_root.get("reply"), None);
            }
            None => assert_eq!((of_root.get("route"), &of_root["reply"]), (None, &"CallerNotAllowed".into())),
        }
        // The other prefix has a route for everyone.
        assert_eq!(code, Some(0));
        let (_, output, _) = check(&[arguments, &["-"]].concat(), MESH);
        assert_eq!(output.contains("403 CallerNotAllowed"), taken.is_none(), "{output}");
    }
}

#[test]
fn a_callers_role_has_its_values() {
    let policy = r#"{"routes": {"/a": {"target": "https://sqs.eu-west-1.amazonaws.com",
        "callers": ["spiffe://cluster.local/ns/*/sa/*"], "roleArn": "arn:aws:iam::123456789012:role/mesh-{namespace}",
        "roleSessionName": "{serviceAccount}", "roleTags": {"team": "{namespace}"}}}}"#;
    let (code, output, _) = check(&["--caller", "spiffe://cluster.local/ns/orders/sa/app", "-"], policy);
    assert_eq!(code, Some(0));
    let (_, taken) = output.split_once("Requests of ").unwrap();
    assert!(taken.contains("arn:aws:iam::123456789012:role/mesh-orders, app, team=orders"), "{taken}");

    let long = format!("spiffe://cluster.local/ns/{}/sa/app", "n".repeat(70));
    let (code, output, _) = check(&["--caller", &long, "--json", "-"], policy);
    let summary: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((code, &summary["caller"]["routes"][0]["reply"]), (Some(3), &"CallerNotAllowed".into()));
    assert!(summary["caller"]["routes"][0]["message"].as_str().unwrap().contains("too long"), "{output}");
}

#[test]
fn a_caller_whom_no_route_admits_is_an_exit_code() {
    let policy = r#"{"routes": {"/a": {"target": "https://sqs.eu-west-1.amazonaws.com", "callers": ["x.internal"]}}}"#;
    assert_eq!(check(&["--caller", "x.internal", "-"], policy).0, Some(0));
    let (code, output, _) = check(&["--caller", "y.internal", "-"], policy);
    assert_eq!(code, Some(3));
    assert!(output.contains("Requests of y.internal:"), "{output}");
    assert!(output.contains("403 CallerNotAllowed   the route's callers do not include this one"), "{output}");
}

#[test]
fn a_caller_that_envoy_could_not_have_is_refused() {
    for (arguments, message) in [
        (
            &["--caller", "a.internal", "--caller", "b.internal"][..],
            "is a second DNS name; of a certificate only the first counts",
        ),
        (&["--caller", ""], "is empty; give a URI or a DNS name"),
        (&["--caller-claims", r#"{"team": "orders"}"#], r#"has no "iss"; add the token's issuer"#),
        (
            &["--caller-claims", r#"{"iss": "https://a", "team": null}"#],
            "has a null, which Envoy can't show to the filter",
        ),
        (&["--caller-claims", "[]"], "is not an object"),
        (&["--caller-claims", "team=orders"], "is not JSON"),
    ] {
        let (code, output, errors) = check(&[arguments, &["-"]].concat(), MESH);
        assert_eq!((code, output.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(errors.starts_with("--caller") && errors.contains(message), "{errors}");
    }
}

#[test]
fn a_section_is_converted_into_what_the_filter_reads() {
    let section = "app: {title: x}\nproxysigv4:\n  /b: &t https://sqs.eu-west-1.amazonaws.com\n  /a: {target: *t}\n";
    let (code, output, errors) = check(&["--convert", "-"], section);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let converted = Policy::from_json(output.as_bytes()).unwrap();
    assert_eq!(converted.routes().iter().map(|route| &*route.prefix).collect::<Vec<_>>(), ["/b", "/a"]);
    assert!(!output.contains("title"), "{output}");
    assert_eq!(check(&["--convert", "-"], &output), (Some(0), output.clone(), String::new()), "JSON stays as it is");
    assert_eq!(check(&["--convert", "-"], "{}").0, Some(1));
}

#[test]
fn a_broken_policy_is_refused_in_the_filters_own_words() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy");
    for (yaml, json) in [
        ("routes: {/a: ftp://h}", r#"{"routes": {"/a": "ftp://h"}}"#),
        ("routes: {/a: https://api.example.com}", r#"{"routes": {"/a": "https://api.example.com"}}"#),
        ("routes: {/a: x, /a: y}", r#"{"routes": {"/a": "x", "/a": "y"}}"#),
        ("routes: {}\nunmatched: perhaps", r#"{"routes": {}, "unmatched": "perhaps"}"#),
        ("routes: [{prefix: /a, roleArn: }]", r#"{"routes": [{"prefix": "/a", "roleArn": null}]}"#),
        ("proxysigv4: {}\nroutes: {}", r#"{"proxysigv4": {}, "routes": {}}"#),
        ("- a", r#"["a"]"#),
    ] {
        let told_by_the_filter = Policy::from_json(json.as_bytes()).unwrap_err();
        for text in [yaml, json] {
            fs::write(&file, text).unwrap();
            let (code, output, errors) = check(&[file.to_str().unwrap()], "");
            assert_eq!((code, output.as_str()), (Some(1), ""), "{text}");
            assert_eq!(errors, format!("{}: {told_by_the_filter}\n", file.display()));
        }
    }
}

#[test]
fn a_syntax_error_is_told_with_its_line_and_column() {
    for (text, told) in [
        (
            "{\"routes\":\n {,}}",
            "standard input: the policy is not valid JSON: key must be a string (line 2, column 3)\n",
        ),
        ("routes:\n  /a: 'x\n", "standard input: the policy is not valid YAML: "),
    ] {
        let (code, _, errors) = check(&["-"], text);
        assert!(code == Some(1) && errors.starts_with(told) && errors.lines().count() == 1, "{errors}");
        assert!(errors.contains("(line 2, column "), "{errors}");
    }
}

#[test]
fn what_is_no_policy_is_said_to_be_none() {
    assert_eq!(
        check(&["-"], r#"{"intake": {}}"#).1,
        "valid, but not a policy: the configuration of a credential intake\n"
    );
    let (code, _, errors) = check(&["/nonexistent"], "");
    assert!(code == Some(1) && errors.starts_with("/nonexistent: can't be read: "), "{errors}");
    assert_eq!(check(&[], "").0, Some(2), "a file must be named");
}

/// Returns the code blocks of a language in a Markdown document.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document)).unwrap();
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn policies_in_the_documents_are_valid() {
    for (document, language, at_least) in [
        ("README.md", "json", 1),
        ("docs/istio.md", "json", 2),
        ("docs/envoy-gateway.md", "json", 1),
        ("docs/migrating-from-backstage.md", "yaml", 6),
    ] {
        // One block on the page on Backstage is for Envoy.
        let policies: Vec<_> =
            blocks(document, language).into_iter().filter(|block| !block.starts_with("providers:")).collect();
        assert!(policies.len() >= at_least, "{} in {document}", policies.len());
        for policy in policies {
            let (code, _, errors) = check(&["-"], &policy);
            assert_eq!((code, errors.as_str()), (Some(0), ""), "{document}: {policy}");
        }
    }
}

#[test]
fn a_pasted_section_is_summed_up_with_what_may_surprise() {
    let section = "
backend: {baseUrl: http://localhost:7007}
proxysigv4:
  /test: {target: https://api.example.com/foo/, service: execute-api, region: us-east-1}
";
    let (code, output, _) = check(&["-"], section);
    assert_eq!(code, Some(0));
    assert!(output.contains("Note: the section proxysigv4 was checked"), "{output}");
    assert!(output.contains("Note: /test: /test/x is sent as /foo//x"), "{output}");
}

#[test]
fn a_route_that_takes_buckets_from_its_hosts_is_shown_with_their_place() {
    let policy = r#"{"routes": [
        {"prefix": "/", "hosts": ["*.s3.localhost"], "target": "https://{bucket}.s3.eu-west-1.amazonaws.com"},
        {"prefix": "/", "hosts": ["s3.localhost"], "target": "https://s3.eu-west-1.amazonaws.com"}]}"#;
    let (code, output, _) = check(&["-"], policy);
    assert_eq!(code, Some(0));
    assert!(output.contains("https://{bucket}.s3.eu-west-1.amazonaws.com   s3 eu-west-1"), "{output}");
    assert!(!output.contains("Note: "), "{output}");
}

#[test]
fn an_unsigned_payload_is_noted_unless_its_service_is_known_to_take_it() {
    let noted = |route: &str| {
        let policy = format!(r#"{{"routes": {{"/a": {{{route}}}}}}}"#);
        let (code, output, errors) = check(&["-"], &policy);
        assert_eq!(code, Some(0), "{errors}");
        output.lines().find(|line| line.starts_with("Note: /a: \"payload\"")).map(str::to_owned)
    };
    let unsigned = |host: &str| format!(r#""target": "https://{host}", "payload": "unsigned""#);
    for host in [
        "b.s3.eu-west-1.amazonaws.com",
        "b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com",
        "a.7d67968.vpc-lattice-svcs.eu-west-1.on.aws",
        "ebs.eu-west-1.amazonaws.com",
        "storage-omics.eu-west-1.amazonaws.com",
    ] {
        assert_eq!(noted(&unsigned(host)), None, "{host}");
    }
    let note = noted(&unsigned("dynamodb.eu-west-1.amazonaws.com")).expect("a note");
    assert!(note.ends_with("dynamodb is not known to accept UNSIGNED-PAYLOAD. Use \"auto\""), "{note}");
    let note = noted(r#""hosts": ["*.amazonaws.com"], "payload": "unsigned""#).expect("a note");
    assert!(note.contains("another service is not known to accept"), "{note}");
    assert_eq!(noted(r#""hosts": ["*.amazonaws.com"], "service": "s3", "payload": "unsigned""#), None);
    assert_eq!(noted(r#""hosts": ["*.amazonaws.com"]"#), None);
}

#[test]
fn a_signed_payload_for_vpc_lattice_is_noted() {
    let policy =
        r#"{"routes": {"/a": {"target": "https://a.7d67968.vpc-lattice-svcs.eu-west-1.on.aws", "payload": "signed"}}}"#;
    let (code, output, _) = check(&["-"], policy);
    assert_eq!(code, Some(0));
    let note = "Note: /a: VPC Lattice accepts only \"payload\": \"unsigned\"; use that, or \"auto\"";
    assert!(output.contains(note), "{output}");
}
