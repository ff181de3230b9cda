//! Every source of AWS's provider chain, each against a peer that speaks its protocol.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hyper::header::HeaderValue;
use hyper::{Method, Response, StatusCode};
use serde_json::json;
use sigv4_core::credentials::{Credentials, Identity};
use tempfile::TempDir;

use crate::intake::Running;
use crate::peer;
use crate::process::{Refresher, SECRET};
use crate::sts::{self, SESSION_SECRET, SESSION_TOKEN, Sts};
use crate::support::{HOUR, READER, WRITER, socket};

const PROFILE_SECRET: &str = "PROFILE/secret+of/the+base";
const WEB_TOKEN: &str = "eyJ.web.identity";

/// Returns the chain's credentials, pushed once into a proxy that wants the default identity. None of the secrets that
/// the peers exchange may appear in the log.
async fn pushed(refresher: Refresher) -> Credentials {
    let directory = TempDir::new().unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let once = ["--once", "--timeout", "20s", "--log-level", "trace"];
    let mut refresher = refresher.env("RUST_LOG", "trace").socket(&socket(&directory)).args(&once).start();
    assert!(refresher.end().await.0.success(), "{}", refresher.log());
    let log = refresher.log();
    assert!(log.contains("pushed credentials"), "{log}");
    for secret in [SECRET, SESSION_SECRET, SESSION_TOKEN, PROFILE_SECRET, WEB_TOKEN, "pod-token", "imds-token", "sso-"]
    {
        assert!(!log.contains(secret), "{secret} in the log:\n{log}");
    }
    proxy.held(&Identity::default_chain()).unwrap()
}

pub fn without_keys() -> Refresher {
    Refresher::new().without_keys()
}

fn in_an_hour() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + HOUR).to_string()
}

/// Returns the session of a metadata endpoint.
fn session_document() -> Response<String> {
    let document = json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "AccessKeyId": "ASIAMETADATA",
        "SecretAccessKey": SESSION_SECRET, "Token": SESSION_TOKEN, "Expiration": in_an_hour(),
    });
    peer::answer(StatusCode::OK, document.to_string())
}

fn not_found() -> Response<String> {
    peer::answer(StatusCode::NOT_FOUND, "")
}

fn assert_is_session(credentials: &Credentials, access_key_id: &str) {
    assert_eq!(credentials.access_key_id(), access_key_id);
    assert_eq!(credentials.secret_access_key(), SESSION_SECRET);
    assert_eq!(credentials.session_token(), Some(SESSION_TOKEN));
    let remaining = credentials.remaining(SystemTime::now()).unwrap();
    assert!(remaining > HOUR - Duration::from_secs(30), "{remaining:?}");
}

#[tokio::test]
async fn a_profile_that_assumes_a_role_from_another_that_assumes_one() {
    let sts = Sts::start().await;
    sts.set(WRITER, sts::Answer::Session(HOUR));
    sts.set(READER, sts::Answer::Session(HOUR));
    let refresher = without_keys().sts(sts.port).env("AWS_PROFILE", "app").home_file(
        ".aws/config",
        &format!(
            "[profile app]\nrole_arn = {READER}\nsource_profile = middle\n\
             [profile middle]\nrole_arn = {WRITER}\nsource_profile = base\n\
             [profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = {PROFILE_SECRET}\n"
        ),
    );
    assert_is_session(&pushed(refresher).await, "ASIASESSION2");
    let roles: Vec<_> = sts.calls().iter().map(|call| call["RoleArn"].clone()).collect();
    assert_eq!(roles, [WRITER, READER]);
}

#[tokio::test]
async fn the_token_of_a_web_identity() {
    let sts = Sts::start().await;
    sts.set(READER, sts::Answer::Session(HOUR));
    let refresher = without_keys().home_file("token", WEB_TOKEN).sts(sts.port).env("AWS_ROLE_ARN", READER);
    let token_file = refresher.home.path().join("token");
    let refresher = refresher.env("AWS_WEB_IDENTITY_TOKEN_FILE", token_file).env("AWS_ROLE_SESSION_NAME", "pod");
    assert_is_session(&pushed(refresher).await, "ASIASESSION1");
    let call = &sts.calls()[0];
    assert_eq!(call["Action"], "AssumeRoleWithWebIdentity");
    assert_eq!((call["WebIdentityToken"].as_str(), call["RoleSessionName"].as_str()), (WEB_TOKEN, "pod"));
}

#[tokio::test]
async fn the_container_endpoint_of_ecs_and_eks_pod_identity() {
    let port = peer::start(|request| {
        let authorized = request.headers().get("authorization").is_some_and(|token| token == "pod-token");
        Some(if authorized && request.uri().path() == "/v1/credentials" { session_document() } else { not_found() })
    });
    let uri = format!("http://127.0.0.1:{}/v1/credentials", port.await);
    let refresher = without_keys().home_file("token", "pod-token").env("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri);
    let token_file = refresher.home.path().join("token");
    let refresher = refresher.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file);
    assert_is_session(&pushed(refresher).await, "ASIAMETADATA");
}

#[tokio::test]
async fn the_token_of_a_pod_that_is_replaced_is_read_anew() {
    let valid = Arc::new(Mutex::new("first-token"));
    let port = peer::start({
        let valid = valid.clone();
        move |request| {
            let token = *valid.lock().unwrap();
            if request.headers().get("authorization").is_none_or(|shown| shown != token) {
                return Some(peer::answer(StatusCode::FORBIDDEN, ""));
            }
            let expiration = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(3)).to_string();
            let key = format!("ASIA{}", &token[..5]);
            let document = json!({"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": expiration});
            Some(peer::answer(StatusCode::OK, document.to_string()))
        }
    });
    let directory = TempDir::new().unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let uri = format!("http://127.0.0.1:{}/v1/credentials", port.await);
    let refresher = without_keys().home_file("token", "first-token").env("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri);
    let token_file = refresher.home.path().join("token");
    let refresher = refresher.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token_file).socket(&socket(&directory));
    let refresher = refresher.start();
    let held = || proxy.held(&Identity::default_chain()).map(|held| held.access_key_id().to_owned());
    refresher.until("the first push", || held().as_deref() == Some("ASIAfirst")).await;

    *valid.lock().unwrap() = "later-token";
    std::fs::write(&token_file, "later-token").unwrap();
    refresher.until("credentials for the new token", || held().as_deref() == Some("ASIAlater")).await;
    assert!(!refresher.log().contains("can't get credentials"), "{}", refresher.log());
}

#[tokio::test]
async fn the_keys_of_the_environment_with_their_session_token() {
    let refresher = Refresher::new().env("AWS_SESSION_TOKEN", SESSION_TOKEN);
    let credentials = pushed(refresher).await;
    assert_eq!((credentials.access_key_id(), credentials.session_token()), ("AKIDLONGLIVED", Some(SESSION_TOKEN)));
}

/// Key files as an editor, `echo` and a template with an empty value write them.
#[tokio::test]
async fn keys_with_white_space_around_them_and_an_empty_token() {
    let sts = Sts::start().await;
    sts.set(READER, sts::Answer::Session(HOUR));
    let secret = format!("{SECRET}\n");
    let spaced = Refresher::new().env("AWS_SECRET_ACCESS_KEY", &secret).env("AWS_ACCESS_KEY_ID", " AKIDLONGLIVED");
    let credentials = pushed(spaced.env("AWS_SESSION_TOKEN", "")).await;
    assert_eq!((credentials.secret_access_key(), credentials.session_token()), (SECRET, None));

    let file = format!(
        "[default]\naws_access_key_id = AKIDFILE  \naws_secret_access_key =  {PROFILE_SECRET}\t\naws_session_token =\n"
    );
    let credentials = pushed(without_keys().home_file(".aws/credentials", &file)).await;
    assert_eq!((credentials.secret_access_key(), credentials.session_token()), (PROFILE_SECRET, None));

    // STS is called with the same.
    let directory = TempDir::new().unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[crate::role(READER)]);
    let refresher = without_keys().home_file(".aws/credentials", &file).sts(sts.port).socket(&socket(&directory));
    let mut refresher = refresher.args(&["--once"]).start();
    assert!(refresher.end().await.0.success(), "{}", refresher.log());
    assert!(proxy.held(&crate::role(READER)).is_some());
    assert_eq!(sts.calls()[0]["SignedBy"], "AKIDFILE");
}

/// Returns a refresher on an instance whose metadata service returns this document.
async fn on_ec2(document: impl Fn() -> Response<String> + Send + Sync + 'static) -> Refresher {
    let port = peer::start(move |request| {
        if request.method() == Method::PUT && request.uri().path() == "/latest/api/token" {
            let mut token = peer::answer(StatusCode::OK, "imds-token");
            let life = HeaderValue::from_static("21600");
            token.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", life);
            return Some(token);
        }
        if request.headers().get("x-aws-ec2-metadata-token").is_none_or(|token| token != "imds-token") {
            return Some(peer::answer(StatusCode::UNAUTHORIZED, ""));
        }
        Some(match request.uri().path().strip_prefix("/latest/meta-data/iam/security-credentials/") {
            Some("") => peer::answer(StatusCode::OK, "instance-role"),
            Some("instance-role") => document(),
            _ => not_found(),
        })
    });
    let endpoint = format!("http://127.0.0.1:{}", port.await);
    without_keys().without_env("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
}

#[tokio::test]
async fn the_instance_metadata_of_ec2() {
    assert_is_session(&pushed(on_ec2(session_document).await).await, "ASIAMETADATA");
}

/// Returns a refresher in a container whose endpoint returns this document.
async fn in_a_container(document: String) -> Refresher {
    let port = peer::start(move |_| Some(peer::answer(StatusCode::OK, document.clone())));
    without_keys().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://127.0.0.1:{}/", port.await))
}

/// Returns the credentials pushed from an odd document, or its error.
async fn outcome(refresher: Refresher) -> Result<Credentials, String> {
    let directory = TempDir::new().unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let mut refresher = refresher.socket(&socket(&directory)).args(&["--once", "--timeout", "3s"]).start();
    let success = refresher.end().await.0.success();
    let (held, log) = (proxy.held(&Identity::default_chain()), refresher.log());
    assert_eq!(held.is_some(), success, "{log}");
    assert!(!log.contains(SESSION_SECRET) && !log.contains(SESSION_TOKEN), "{log}");
    held.ok_or(log)
}

/// Odd documents that the SDK reads, each at both endpoints that return them.
#[tokio::test]
async fn odd_documents_of_containers_and_instances_mean_what_they_say_or_are_refused() {
    let valid = || {
        json!({"Code": "Success", "AccessKeyId": "ASIAODD", "SecretAccessKey": SESSION_SECRET, "Token": SESSION_TOKEN,
               "Expiration": in_an_hour()})
    };
    let with = |member: &str, value: serde_json::Value| {
        let mut document = valid();
        document[member] = value;
        document.to_string()
    };
    let seconds = in_an_hour().replace('Z', "");
    let epoch = (SystemTime::now() + HOUR).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let refused = |why: &'static str| Err(why);
    let taken = Ok(Some(SESSION_TOKEN));
    for (document, expected) in [
        (with("SecretAccessKey", json!(format!(" {SESSION_SECRET}\n"))), taken),
        (with("AccessKeyId", json!("\tASIAODD\n")), taken),
        (with("Token", json!(format!("{SESSION_TOKEN}\n"))), taken),
        (with("SecretAccessKey", json!("two words")), refused("SecretAccessKey: must not be empty or contain blanks")),
        (with("Token", json!("")), Ok(None)),
        (with("Expiration", json!(format!("{seconds}+00:00"))), taken),
        (with("Expiration", json!(format!("{seconds}+0000"))), taken),
        (with("Expiration", json!(format!(" {seconds}Z "))), taken),
        (with("Expiration", json!(format!("{seconds}Z\n"))), refused("Expiration")),
        (with("Expiration", json!(epoch)), refused("Expiration")),
        (with("Expiration", json!(epoch.to_string())), refused("Expiration")),
        (with("Expiration", json!(null)), refused("Expiration")),
        (with("Expiration", json!("2020-01-02T03:04:05Z")), refused("expired already")),
        (with("Expiration", json!("2020-01-02T03:04:05+00:00")), refused("expired already")),
    ] {
        let given = document.clone();
        let instance = on_ec2(move || peer::answer(StatusCode::OK, given.clone())).await;
        for (source, refresher) in [("container", in_a_container(document.clone()).await), ("instance", instance)] {
            let outcome = outcome(refresher).await;
            let shown = document.replace(SESSION_SECRET, "…");
            match (&outcome, expected) {
                (Ok(held), Ok(token)) => {
                    assert_eq!(held.session_token(), token, "{source}: {shown}");
                    assert_eq!((held.access_key_id(), held.secret_access_key()), ("ASIAODD", SESSION_SECRET));
                    let left = held.remaining(SystemTime::now()).unwrap();
                    assert!(left > HOUR - Duration::from_secs(60) && left <= HOUR, "{source}: {shown}: {left:?}");
                }
                (Err(log), Err(why)) => assert!(log.contains(why), "{source}: {shown}\n{log}"),
                _ => panic!("{source}: {shown}\n{outcome:?}"),
            }
        }
    }
}

/// The file is named after the SHA-1 of the session's name.
const SSO_CACHE: &str = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";

/// Returns a refresher that is logged in at a portal that returns credentials for the token `sso-token`, and that token for `sso-refresh-token`.
async fn logged_in(token: serde_json::Value) -> Refresher {
    let expiration = (SystemTime::now() + HOUR).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let credentials = json!({
        "accessKeyId": "ASIASSO", "secretAccessKey": SESSION_SECRET, "sessionToken": SESSION_TOKEN,
        "expiration": u64::try_from(expiration).unwrap(),
    });
    logged_in_at_a_portal_with(credentials, token).await
}

async fn logged_in_at_a_portal_with(credentials: serde_json::Value, token: serde_json::Value) -> Refresher {
    let port = peer::start(move |request| {
        if request.uri().path() == "/token" {
            let asked: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(
                (&asked["grantType"], &asked["refreshToken"]),
                (&json!("refresh_token"), &json!("sso-refresh-token"))
            );
            let token = json!({"accessToken": "sso-token", "expiresIn": 3600, "tokenType": "Bearer",
                               "refreshToken": "sso-refresh-token"});
            return Some(peer::answer(StatusCode::OK, token.to_string()));
        }
        let authorized = request.headers().get("x-amz-sso_bearer_token").is_some_and(|token| token == "sso-token");
        if !authorized || request.uri().path() != "/federation/credentials" {
            return Some(not_found());
        }
        Some(peer::answer(StatusCode::OK, json!({"roleCredentials": credentials}).to_string()))
    });
    let endpoint = format!("http://127.0.0.1:{}", port.await);
    without_keys()
        .env("AWS_ENDPOINT_URL_SSO", &endpoint)
        .env("AWS_ENDPOINT_URL_SSO_OIDC", &endpoint)
        .home_file(SSO_CACHE, &token.to_string())
        .home_file(
            ".aws/config",
            "[default]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = dev\n\
             [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n",
        )
}

#[tokio::test]
async fn the_cached_token_of_a_single_sign_on() {
    let token = json!({"accessToken": "sso-token", "expiresAt": in_an_hour(), "region": "eu-west-1",
                       "startUrl": "https://corp.awsapps.com/start"});
    assert_is_session(&pushed(logged_in(token).await).await, "ASIASSO");
}

/// Its expiry is in milliseconds since 1970, as AWS documents it.
#[tokio::test]
async fn odd_documents_of_a_single_sign_on_mean_what_they_say_or_are_refused() {
    let token = json!({"accessToken": "sso-token", "expiresAt": in_an_hour(), "region": "eu-west-1",
                       "startUrl": "https://corp.awsapps.com/start"});
    let seconds = (SystemTime::now() + HOUR).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for (member, value, expected) in [
        ("secretAccessKey", json!(format!(" {SESSION_SECRET}\n")), Ok(Some(SESSION_TOKEN))),
        ("accessKeyId", json!("ASIASSO\n"), Ok(Some(SESSION_TOKEN))),
        ("sessionToken", json!(""), Ok(None)),
        ("sessionToken", json!(null), Ok(None)),
        ("secretAccessKey", json!("two words"), Err("SecretAccessKey: must not be empty or contain blanks")),
        ("expiration", json!(seconds), Err("expired already")),
        ("expiration", json!(1_577_934_245_000_u64), Err("expired already")),
        ("expiration", json!(null), Err("expired already")),
        ("expiration", json!(in_an_hour()), Err("can't get credentials")),
        ("expiration", json!(in_an_hour().replace('Z', "+00:00")), Err("can't get credentials")),
    ] {
        let mut credentials = json!({"accessKeyId": "ASIASSO", "secretAccessKey": SESSION_SECRET,
                                     "sessionToken": SESSION_TOKEN, "expiration": seconds * 1000});
        credentials[member] = value.clone();
        let outcome = outcome(logged_in_at_a_portal_with(credentials, token.clone()).await).await;
        match (&outcome, expected) {
            (Ok(held), Ok(token)) => {
                assert_eq!((held.session_token(), held.access_key_id()), (token, "ASIASSO"), "{member}: {value}");
                assert_eq!(held.secret_access_key(), SESSION_SECRET, "{member}: {value}");
            }
            (Err(log), Err(why)) => assert!(log.contains(why), "{member}: {value}\n{log}"),
            _ => panic!("{member}: {value}\n{outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_token_of_a_single_sign_on_that_has_to_be_refreshed() {
    let token = json!({"accessToken": "sso-old-token", "expiresAt": "2026-01-01T00:00:00Z", "region": "eu-west-1",
                       "startUrl": "https://corp.awsapps.com/start", "refreshToken": "sso-refresh-token",
                       "clientId": "client", "clientSecret": "sso-client-secret", "registrationExpiresAt": in_an_hour()});
    assert_is_session(&pushed(logged_in(token).await).await, "ASIASSO");
}

#[tokio::test]
async fn no_source_at_all_is_told_in_words() {
    let directory = TempDir::new().unwrap();
    let _proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let once = ["--once", "--timeout", "500ms"];
    let mut refresher = without_keys().socket(&socket(&directory)).args(&once).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    let told = "no credentials found in chain. Attempted: Environment: ";
    assert!(refresher.log().contains(told), "{}", refresher.log());
    assert!(refresher.log().lines().all(|line| line.starts_with("20")), "an event of several lines");
}

#[tokio::test]
async fn what_a_broken_credential_process_prints_is_not_logged() {
    let directory = TempDir::new().unwrap();
    let _proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    for output in
        [r#"{"Version": 1, "SecretAccessKey": "hush""#, "hush", r#"{"Version": 1, "AccessKeyId": {"hush": 1}}"#]
    {
        let refresher = without_keys().env("PATH", "/usr/bin:/bin").home_file("output", output);
        let process = format!("[default]\ncredential_process = cat {}/output\n", refresher.home.path().display());
        let once = ["--once", "--timeout", "500ms", "--log-level", "trace"];
        let refresher = refresher.home_file(".aws/config", &process).socket(&socket(&directory)).args(&once);
        let mut refresher = refresher.start();
        assert_eq!(refresher.end().await.0.code(), Some(1));
        assert!(refresher.log().contains("can't get credentials"), "{}", refresher.log());
        assert!(!refresher.log().contains("hush"), "{}", refresher.log());
    }
}

#[tokio::test]
async fn a_process_that_rotates_and_a_changed_config_file() {
    let directory = TempDir::new().unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let script = directory.path().join("source");
    let counter = directory.path().join("count");
    let document =
        r#"{\"Version\": 1, \"AccessKeyId\": \"AKID$n\", \"SecretAccessKey\": \"s\", \"Expiration\": \"$at\"}"#;
    let text = format!(
        "#!/bin/sh\necho x >> {0}\nn=$(wc -l < {0})\nat=$(date -u -d '+2 seconds' +%Y-%m-%dT%H:%M:%SZ)\necho \"{document}\"\n",
        counter.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).unwrap();
    let process = format!("[default]\ncredential_process = {}\n", script.display());
    let refresher = without_keys().env("PATH", "/usr/bin:/bin").home_file(".aws/config", &process);
    let config = refresher.home.path().join(".aws/config");
    let refresher = refresher.socket(&socket(&directory)).start();

    let held = || proxy.held(&Identity::default_chain()).map(|held| held.access_key_id().to_owned());
    refresher.until("the first push", || held().is_some()).await;
    refresher.until("the third rotation", || held() >= Some("AKID3".to_owned())).await;

    // No restart is needed either if the source itself is replaced.
    std::fs::write(&config, "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = s\n").unwrap();
    refresher.until("the key of the changed file", || held().as_deref() == Some("AKIDFILE")).await;
}
