use std::time::Duration;

use super::*;
use crate::credentials::{Identity, Role};
use crate::intake::listing::{NO_POLICY, PAGE, PROTOCOL};
use crate::test_support::{Memory, credentials};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
/// Answers like an intake that has had no call yet.
fn answer(store: &CredentialStore<&Memory>, method: &[u8], path: &[u8], body: &[u8], now: SystemTime) -> Reply {
    super::answer(store, &mut RequiredIds::default(), method, path, body, now)
}

fn wanting_default(memory: &Memory) -> CredentialStore<&Memory> {
    let store = CredentialStore(memory);
    store.lease("policy", &[Identity::default_chain()], NOW, true).unwrap();
    store
}

fn json(reply: &Reply) -> serde_json::Value {
    serde_json::from_slice(&reply.body).unwrap()
}

const DOCUMENT: &[u8] = br#"{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "hush",
    "SessionToken": "hush-hush", "Expiration": "1970-01-01T01:00:00Z"}"#;
/// At [`NOW`].
const EXPIRED: &[u8] = br#"{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "hush",
    "Expiration": "1970-01-01T00:00:00Z"}"#;
const PATH: &[u8] = b"/v1/identities/default/credentials";

#[test]
fn a_pushed_document_is_held_listed_without_its_secrets_and_revoked() {
    let memory = Memory::default();
    let store = wanting_default(&memory);
    let put = answer(&store, b"PUT", PATH, DOCUMENT, NOW);
    assert_eq!((put.status, put.changed, put.body.is_empty()), (204, true, true));
    let listing = answer(&store, b"GET", b"/v1/identities?", b"", NOW);
    assert_eq!(json(&listing)["identities"][0]["held"]["accessKeyId"], "AKIDEXAMPLE");
    assert!(!String::from_utf8(listing.body).unwrap().contains("hush"));
    assert_eq!(answer(&store, b"DELETE", PATH, b"", NOW).status, 204);
    assert!(store.get("default").is_none());
}

#[test]
fn a_revoked_access_key_is_listed_and_taken_again_only_from_who_insists() {
    let memory = Memory::default();
    let store = wanting_default(&memory);
    answer(&store, b"PUT", PATH, DOCUMENT, NOW);
    answer(&store, b"DELETE", PATH, b"", NOW);
    let listing = json(&answer(&store, b"GET", b"/v1/identities", b"", NOW));
    assert_eq!(
        listing["identities"][0],
        serde_json::json!({"id": "default", "held": null, "revoked": ["AKIDEXAMPLE"]})
    );
    assert_eq!((&listing["version"], &listing["generation"]), (&PROTOCOL.into(), &store.generation().into()));

    let unless_revoked = [PATH, b"?unless-revoked"].concat();
    let again = answer(&store, b"PUT", &unless_revoked, DOCUMENT, NOW);
    assert_eq!((again.status, json(&again)["error"]["code"].as_str()), (409, Some("RevokedCredentials")));
    assert!(!again.changed && store.get("default").is_none());

    let other = String::from_utf8(DOCUMENT.to_vec()).unwrap().replace("AKIDEXAMPLE", "AKIDOTHER");
    assert_eq!(answer(&store, b"PUT", &unless_revoked, other.as_bytes(), NOW).status, 204);
    assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDOTHER");

    assert_eq!(answer(&store, b"PUT", PATH, DOCUMENT, NOW).status, 204);
    assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDEXAMPLE");
}

#[test]
fn a_query_that_a_call_does_not_have_is_refused_and_changes_nothing() {
    let memory = Memory::default();
    let store = wanting_default(&memory);
    answer(&store, b"PUT", PATH, DOCUMENT, NOW);
    answer(&store, b"DELETE", PATH, b"", NOW);
    let before = (store.generation(), store.revoked("default"));
    let path = std::str::from_utf8(PATH).unwrap();
    for (method, path, query) in [
        (&b"PUT"[..], path, "unless_revoked"),
        (b"PUT", path, "Unless-Revoked"),
        (b"PUT", path, "unless-revoked=true"),
        (b"PUT", path, "unless-revoked&x"),
        (b"PUT", path, "x=1"),
        (b"PUT", path, "after=1"),
        (b"DELETE", path, "unless-revoked"),
        (b"GET", "/v1/status", "x"),
        (b"GET", "/v1/identities", "x=1"),
        (b"GET", "/v1/identities", "from=a&after=1"),
        (b"GET", "/v1/identities", "after="),
        (b"GET", "/v1/identities", "after=x"),
        (b"GET", "/v1/identities", "after=+1"),
        (b"GET", "/v1/identities", "after=18446744073709551616"),
        (b"GET", "/v1/identities", "unless-revoked"),
    ] {
        let reply = answer(&store, method, format!("{path}?{query}").as_bytes(), DOCUMENT, NOW);
        assert_eq!((reply.status, json(&reply)["error"]["code"].as_str()), (400, Some("InvalidQuery")), "{query}");
    }
    assert_eq!((store.generation(), store.revoked("default")), before);
}

/// Checks, byte for byte, the calls that each version of the refresher has sent.
#[test]
fn the_calls_of_every_version_of_the_refresher_are_understood() {
    let memory = Memory::default();
    let store = wanting_default(&memory);
    for (method, path, status) in [
        ("PUT", "/v1/identities/default/credentials", 204),
        ("PUT", "/v1/identities/default/credentials?unless-revoked", 204),
        ("GET", "/v1/identities", 200),
        ("GET", "/v1/identities?from=", 200),
        ("GET", "/v1/identities?from=orders-reader-5a57a1ac", 200),
        ("GET", "/v1/identities?after=0", 200),
        ("GET", "/v1/identities?after=1764276000000", 200),
        ("GET", "/v1/status", 200),
    ] {
        let reply = answer(&store, method.as_bytes(), path.as_bytes(), DOCUMENT, NOW);
        assert_eq!(reply.status, status, "{method} {path}");
    }
}

#[test]
fn the_pages_of_a_listing_are_bounded_and_make_the_whole() {
    let memory = Memory::default();
    let store = CredentialStore(&memory);
    // The longest that AWS allows, in letters of three bytes.
    let long = |length: usize, number: usize| format!("{}{number:0>3}", "\u{20ac}".repeat(length - 3));
    let tags: Vec<_> = (0..50).map(|tag| (long(128, tag), long(256, tag))).collect();
    let role =
        |number| Role { tags: tags.clone(), ..Role::new(format!("arn:aws:iam::123456789012:role/r{number}"), "s") };
    let roles: Vec<_> = (0..160).map(|number| Identity::assumed(role(number))).collect();
    store.lease("policy", &roles, NOW, true).unwrap();
    let whole = answer(&store, b"GET", b"/v1/identities", b"", NOW).body;
    assert!(whole.len() > PAGE);
    let whole: IdentityListing = serde_json::from_slice(&whole).unwrap();
    assert_eq!((whole.identities.len(), &whole.next), (160, &None));

    let (mut from, mut pages) = (String::new(), Vec::new());
    loop {
        let page = answer(&store, b"GET", format!("/v1/identities?from={from}").as_bytes(), b"", NOW).body;
        assert!(page.len() < PAGE + (64 << 10), "{}", page.len());
        let page: IdentityListing = serde_json::from_slice(&page).unwrap();
        assert_eq!((page.version, page.generation), (whole.version, whole.generation));
        pages.push(page.identities);
        let Some(next) = page.next else { break };
        assert!(next > from);
        from = next;
    }
    assert_eq!(pages.len(), 2);
    assert_eq!(pages.concat(), whole.identities);
    let beyond = json(&answer(&store, b"GET", b"/v1/identities?from=~", b"", NOW));
    assert_eq!((beyond["identities"].as_array().unwrap().len(), beyond.get("next")), (0, None));
}

#[test]
fn status_is_ready_only_while_every_identity_holds() {
    let memory = Memory::default();
    let store = wanting_default(&memory);
    let before = answer(&store, b"GET", b"/v1/status", b"", NOW);
    assert_eq!((before.status, json(&before)["missing"][0].as_str()), (503, Some("default")));
    answer(&store, b"PUT", PATH, DOCUMENT, NOW);
    assert_eq!(answer(&store, b"GET", b"/v1/status", b"", NOW).status, 200);
    let later = NOW + Duration::from_secs(3601);
    store.lease("policy", &[Identity::default_chain()], later, true).unwrap();
    let after = answer(&store, b"GET", b"/v1/status", b"", later);
    assert_eq!((after.status, json(&after)["expired"][0].as_str()), (503, Some("default")));
}

#[test]
fn an_intake_that_shares_its_vm_id_with_no_policy_is_not_ready_and_says_so() {
    let memory = Memory::default();
    let reply = answer(&CredentialStore(&memory), b"GET", b"/v1/status", b"", NOW);
    assert_eq!(reply.status, 503);
    assert_eq!(json(&reply), serde_json::json!({"ready": false, "missing": [], "expired": [], "problem": NO_POLICY}));
}

#[test]
fn what_is_held_for_nobody_can_be_taken_away() {
    let memory = Memory::default();
    let store = CredentialStore(&memory);
    store.put("default", &credentials("AKIDLEFT", "hush")).unwrap();
    assert_eq!(answer(&store, b"PUT", PATH, DOCUMENT, NOW).status, 404);
    let reply = answer(&store, b"DELETE", PATH, b"", NOW);
    assert_eq!((reply.status, reply.changed), (204, true));
    assert!(store.get("default").is_none());
    assert_eq!(answer(&store, b"DELETE", PATH, b"", NOW).status, 404);
}

#[test]
fn a_call_waits_for_the_end_of_a_generation_it_names() {
    assert_eq!(awaited_generation(b"GET", b"/v1/identities?after=17"), Some(17));
    for path in ["/v1/identities", "/v1/identities?after=", "/v1/identities?after=x", "/v1/status?after=1"] {
        assert_eq!(awaited_generation(b"GET", path.as_bytes()), None, "{path}");
    }
    assert_eq!(awaited_generation(b"PUT", b"/v1/identities?after=17"), None);
}

#[test]
fn what_another_version_wrote_is_said_to_be_unreadable() {
    let memory = Memory::default();
    (&memory).set("sigv4.wanted", b"{}", 0).unwrap();
    for (method, path) in [(&b"GET"[..], &b"/v1/identities"[..]), (b"GET", b"/v1/status"), (b"PUT", PATH)] {
        let reply = answer(&CredentialStore(&memory), method, path, DOCUMENT, NOW);
        assert_eq!((reply.status, json(&reply)["error"]["code"].as_str()), (500, Some("SharedData")));
    }
}

#[test]
fn an_identity_whose_revocations_can_not_be_read_is_not_signed_for_and_takes_no_push() {
    for list in [&br#"{"keys": ["AKIDEXAMPLE"]}"#[..], b"[\"AKIDEXAM", b"[1]", b"\xff"] {
        let memory = Memory::default();
        let store = wanting_default(&memory);
        let other = Identity::assumed(Role::new("arn:aws:iam::123456789012:role/other", "s"));
        store.lease("policy", &[Identity::default_chain(), other.clone()], NOW, true).unwrap();
        store.put(other.id(), &Credentials::new("AKIDOTHER", "hush".to_owned(), None, None).unwrap()).unwrap();
        answer(&store, b"PUT", PATH, DOCUMENT, NOW);
        (&memory).set("sigv4.revoked.default", list, 0).unwrap();

        assert!(store.get("default").is_none() && store.get(other.id()).is_some());
        let listing = json(&answer(&store, b"GET", b"/v1/identities", b"", NOW));
        let [held, problem] = ["held", "problem"].map(|member| &listing["identities"][0][member]);
        assert!(held.is_null() && problem.as_str().unwrap().starts_with("its revocations can't be read"));
        assert!(listing["identities"][1].get("problem").is_none());
        let status = answer(&store, b"GET", b"/v1/status", b"", NOW);
        let problem = &json(&status)["problem"];
        assert_eq!(status.status, 503);
        assert!(problem.as_str().unwrap().starts_with("default: its revocations can't be read"), "{problem}");

        for query in [&b""[..], b"?unless-revoked"] {
            let reply = answer(&store, b"PUT", &[PATH, query].concat(), DOCUMENT, NOW);
            assert_eq!((reply.status, json(&reply)["error"]["code"].as_str()), (500, Some("SharedData")));
        }
        let reply = answer(&store, b"DELETE", PATH, b"", NOW);
        let told = json(&reply)["error"]["message"].as_str().unwrap().to_owned();
        assert!(reply.status == 500 && reply.changed && told.contains("the credentials were wiped"), "{told}");
        assert!(!store.is_stored("default"));
        // The rest can be deleted once nobody wants the identity.
        store.lease("policy", &[other], NOW, true).unwrap();
        assert_eq!((&memory).get("sigv4.revoked.default").unwrap().0, b"");
    }
}

#[test]
fn what_the_intake_does_not_know_is_refused_and_changes_nothing() {
    let memory = Memory::default();
    let store = wanting_default(&memory);
    for (method, path, body, status, code) in [
        (&b"PUT"[..], &b"/v1/identities/other/credentials"[..], DOCUMENT, 404, "UnknownIdentity"),
        (b"PUT", b"/v1/identities/\xff/credentials", DOCUMENT, 404, "UnknownIdentity"),
        (b"PUT", PATH, b"{}", 400, "InvalidCredentials"),
        (b"PUT", PATH, b"\xff", 400, "InvalidCredentials"),
        (b"PUT", PATH, EXPIRED, 400, "InvalidCredentials"),
        (b"POST", PATH, DOCUMENT, 405, "MethodNotAllowed"),
        (b"DELETE", b"/v1/identities", b"", 405, "MethodNotAllowed"),
        (b"GET", b"/v1/status/", b"", 404, "NotFound"),
        (b"GET", b"", b"", 404, "NotFound"),
    ] {
        let reply = answer(&store, method, path, body, NOW);
        assert_eq!((reply.status, json(&reply)["error"]["code"].as_str()), (status, Some(code)));
        assert!(!reply.changed);
    }
    assert!(store.get("default").is_none());
}
