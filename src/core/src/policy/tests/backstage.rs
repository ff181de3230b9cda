//! Sections of a Backstage `app-config.yaml`, in the shapes of the plugin's documentation and tests.

use crate::credentials::Identity;
use crate::policy::Policy;

fn load(section: serde_json::Value) -> Policy {
    let policy = serde_json::json!(section).to_string();
    Policy::from_json(policy.as_bytes()).unwrap_or_else(|error| panic!("{error} in {policy}"))
}

#[test]
fn the_short_form_loads() {
    let policy = load(serde_json::json!({
        "proxysigv4": { "/some-local-path": "https://abc123.execute-api.eu-west-1.amazonaws.com" }
    }));
    let route = super::find(&policy, "localhost:7007", "/some-local-path/orders").unwrap();
    assert_eq!(route.scope.as_ref().unwrap().service, "execute-api");
    assert_eq!(policy.identities(), [Identity::default_chain()]);
}

#[test]
fn the_expanded_form_loads() {
    let policy = load(serde_json::json!({
        "proxysigv4": {
            "/some-local-path": {
                "target": "https://abc123.execute-api.eu-west-1.amazonaws.com",
                "roleArn": "arn:aws:iam::123456789012:role/name",
            }
        }
    }));
    let role = policy.identities()[0].role().unwrap();
    // The plugin's default session name.
    assert_eq!((&*role.arn, &*role.session_name), ("arn:aws:iam::123456789012:role/name", "tempAssumeRoleSession"));
}

#[test]
fn both_forms_mix_beside_the_plugins_own_setting() {
    let section = serde_json::json!({
        "allowUnauthenticatedRequests": false,
        "/test": { "target": "https://api.example.com/foo/", "service": "execute-api", "region": "us-east-1" },
        "/test2": "https://abc123.execute-api.eu-west-1.amazonaws.com",
    });
    for section in [section.clone(), serde_json::json!({ "proxysigv4": section })] {
        let policy = load(section);
        assert_eq!(policy.routes().len(), 2);
        assert!(policy.routes().iter().all(|route| !route.allow_unauthenticated));
        assert_eq!(policy.route_named(b"/test").unwrap().target.as_ref().unwrap().path, "/foo/");
    }
}

#[test]
fn a_route_left_as_the_documentation_has_it_is_told_what_to_fill_in() {
    let placeholder = serde_json::json!({ "/a": "https://<API ID>.execute-api.<region>.amazonaws.com" }).to_string();
    let error = Policy::from_json(placeholder.as_bytes()).unwrap_err().to_string();
    assert!(
        error.starts_with(r#"["/a"].target: "<API ID>.execute-api.<region>.amazonaws.com" is not a host name"#),
        "{error}"
    );
}
