//! The protocol between refresher and intake, with several of either or different versions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use rustix::process::Signal;
use sigv4_core::credentials::{Credentials, Identity};
use tempfile::TempDir;

use crate::intake::Running;
use crate::peer;
use crate::process::{Process, Refresher, SECRET, get};
use crate::sts::{Answer, Sts};
use crate::support::{HOUR, READER, WRITER, role, socket};

const KEY: &str = "AKIDLONGLIVED";

fn default() -> Identity {
    Identity::default_chain()
}

/// Pushes as somebody does with curl: without a salt.
fn by_hand(key: &str, secret: &str) -> Credentials {
    Credentials::new(key, secret.to_owned(), None, None).unwrap()
}

fn wants_default(path: &Path) -> Running {
    Running::on_socket(path, &[default()])
}

fn with_key(path: &Path, key: &str, secret: &str) -> Process {
    Refresher::new().env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret).socket(path).start()
}

fn holds(proxy: &Running, key: &str, secret: &str) -> bool {
    proxy.held(&default()).is_some_and(|held| (held.access_key_id(), held.secret_access_key()) == (key, secret))
}

/// Starts a refresher for two proxies, and revokes its key in the first once both hold it. Returns it with the address of its
/// probes.
async fn revoked_in_the_first(paths: &[PathBuf; 2], proxies: [&Running; 2]) -> (Process, String) {
    let listen = ["--listen", "127.0.0.1:0"];
    let refresher = Refresher::new().socket(&paths[0]).socket(&paths[1]).args(&listen).start();
    let address = refresher.status_address().await;
    refresher.until("both pushes", || proxies.iter().all(|proxy| holds(proxy, KEY, SECRET))).await;
    proxies[0].revoke(&default());
    (refresher, address)
}

#[tokio::test]
async fn a_revocation_is_the_proxys_own_and_can_be_taken_back() {
    let directory = TempDir::new().unwrap();
    let paths = ["a.sock", "b.sock"].map(|name| directory.path().join(name));
    let (first, second) = (wants_default(&paths[0]), wants_default(&paths[1]));
    let (refresher, address) = revoked_in_the_first(&paths, [&first, &second]).await;
    refresher
        .until("that it is told", || refresher.log().contains("the source still returns the revoked access key"))
        .await;

    // The other proxy goes on, even if it must be supplied again.
    drop(second);
    let second = wants_default(&paths[1]);
    refresher.until("the other proxy's push", || holds(&second, KEY, SECRET)).await;
    assert!(first.held(&default()).is_none());
    assert!(get(&address, "/readyz").1.contains("the source still returns the revoked access key"));

    first.reinstate(&default(), by_hand(KEY, SECRET));
    refresher.until("that all is well", || get(&address, "/readyz").1 == "ok\n").await;
    first.put(&default(), by_hand(KEY, "wrong"));
    refresher.until("the correction", || holds(&first, KEY, SECRET)).await;
}

#[tokio::test]
async fn a_wrong_secret_under_the_right_key_is_corrected_each_time_it_is_pushed_by_hand() {
    let directory = TempDir::new().unwrap();
    let proxy = wants_default(&socket(&directory));
    let refresher = with_key(&socket(&directory), KEY, SECRET);
    refresher.until("the first push", || holds(&proxy, KEY, SECRET)).await;
    for wrong in ["wrong", "wrong", "wrong-again"] {
        proxy.put(&default(), by_hand(KEY, wrong));
        let took = refresher.until("the correction", || holds(&proxy, KEY, SECRET)).await;
        println!("a wrong secret was corrected within {took:?}");
    }
    assert!(refresher.log().contains("holds another secret, token or expiry under this access key"));
    assert!(!refresher.log().contains(SECRET));
}

#[tokio::test]
async fn two_refreshers_do_not_take_turns_whatever_their_keys() {
    let sts = Sts::start().await;
    sts.set(READER, Answer::Session(HOUR));
    let profile = format!(
        "[profile app]\nrole_arn = {READER}\nsource_profile = base\n\
         [profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = s\n"
    );
    let static_key = |key: &'static str, secret: &'static str| {
        Refresher::new().env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", secret)
    };
    let temporary =
        || Refresher::new().without_keys().sts(sts.port).env("AWS_PROFILE", "app").home_file(".aws/config", &profile);
    for (what, pair, at_most) in [
        ("two static keys", [static_key("AKIDONE", "s"), static_key("AKIDTWO", "s")], 2),
        ("the same key", [static_key("AKIDONE", "s"), static_key("AKIDONE", "s")], 1),
        ("one key, one secret of which is wrong", [static_key("AKIDONE", "s"), static_key("AKIDONE", "t")], 4),
        ("with an expiry and without", [temporary(), static_key("AKIDTWO", "s")], 2),
        ("without an expiry and with", [static_key("AKIDTWO", "s"), temporary()], 2),
    ] {
        let directory = TempDir::new().unwrap();
        let proxy = wants_default(&socket(&directory));
        let [first, second] = pair;
        let first = first.socket(&socket(&directory)).start();
        first.until("the first push", || !proxy.pushes().is_empty()).await;
        let second = second.socket(&socket(&directory)).start();
        second.until("its credentials", || second.log().contains("got credentials")).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let pushes = proxy.pushes().len();
        println!("{what}: {pushes} pushes");
        assert!(pushes <= at_most, "{what}: {pushes}\n{}\n{}", first.log(), second.log());
    }
}

#[tokio::test]
async fn of_two_refreshers_one_serves_on_when_the_others_key_is_revoked() {
    let directory = TempDir::new().unwrap();
    let proxy = wants_default(&socket(&directory));
    let first = with_key(&socket(&directory), "AKIDONE", "s");
    first.until("the first push", || holds(&proxy, "AKIDONE", "s")).await;
    let second = with_key(&socket(&directory), "AKIDTWO", "s");
    second.until("the second push", || holds(&proxy, "AKIDTWO", "s")).await;
    proxy.revoke(&default());
    first.until("the other key", || holds(&proxy, "AKIDONE", "s")).await;
    let pushes = proxy.pushes().len();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(proxy.pushes().len(), pushes);
    assert!(holds(&proxy, "AKIDONE", "s"));
}

#[tokio::test]
async fn what_a_new_policy_wants_is_supplied_at_once_however_long_the_interval() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let proxy = wants_default(&socket(&directory));
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).interval("1h").start();
    refresher.until("the first push", || proxy.held(&default()).is_some()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.want(&[default(), role(READER)]);
    let took = refresher.until("the new identity's push", || proxy.held(&role(READER)).is_some()).await;
    println!("a new policy was supplied within {took:?}, at an interval of an hour");
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// Two proxies, of which one wants a role that can't be assumed as well.
#[tokio::test]
async fn one_bad_role_of_two_makes_nobody_unready_and_a_source_that_fails_later_neither() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(Duration::from_secs(4)));
    sts.set(WRITER, Answer::Denied);
    let proxy = Running::on_socket(&socket(&directory), &[role(READER), role(WRITER)]);
    let listen = ["--listen", "127.0.0.1:0"];
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&listen).start();
    let address = refresher.status_address().await;
    let ready = || get(&address, "/readyz");
    refresher.until("that it is ready", || ready().0.contains("200")).await;
    refresher.until("what is lacking", || ready().1.contains("AccessDenied")).await;
    let unsupplied = "credential_refresher_proxy_unsupplied_identities";
    assert!(get(&address, "/metrics").1.lines().any(|line| line.starts_with(unsupplied) && line.ends_with(" 1")));

    sts.set(READER, Answer::Denied);
    let expired = || proxy.held(&role(READER)).is_some_and(|held| !held.hold_at(std::time::SystemTime::now()));
    refresher.until("the expiry", expired).await;
    refresher.until("what is lacking", || ready().1.contains("orders-reader")).await;
    assert!(ready().0.contains("200"), "{:?}", ready());

    // A proxy that starts now can't sign at all, and must not receive requests.
    drop(proxy);
    let _proxy = Running::on_socket(&socket(&directory), &[role(READER), role(WRITER)]);
    refresher.until("that the new one is not ready", || ready().0.contains("503")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ready().0.contains("503") && ready().1.contains("AccessDenied"), "{:?}", ready());
}

/// The source does not fail: it returns a key that this proxy alone has revoked.
#[tokio::test]
async fn a_proxy_whose_only_key_was_revoked_is_not_ready() {
    let directory = TempDir::new().unwrap();
    let proxy = wants_default(&socket(&directory));
    let listen = ["--listen", "127.0.0.1:0"];
    let refresher = Refresher::new().socket(&socket(&directory)).args(&listen).interval("1h").start();
    let address = refresher.status_address().await;
    refresher.until("that it is ready", || get(&address, "/readyz").0.contains("200")).await;
    proxy.revoke(&default());
    refresher
        .until("why it is not", || {
            get(&address, "/readyz").1.contains("the source still returns the revoked access key")
        })
        .await;
    for _ in 0..15 {
        let (status, lacking) = get(&address, "/readyz");
        assert!(status.contains("503"), "{status}: {lacking}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    proxy.reinstate(&default(), by_hand(KEY, SECRET));
    refresher.until("that it is ready again", || get(&address, "/readyz").0.contains("200")).await;
}

#[tokio::test]
async fn a_proxy_that_no_longer_wants_what_is_pushed_holds_nothing_by_that() {
    let directory = TempDir::new().unwrap();
    peer::start_on_socket(&socket(&directory), |request| {
        let listing = r#"{"version": 1, "generation": 7, "identities": [{"id": "default", "held": null}]}"#;
        Some(match (request.method().as_str(), request.uri().query()) {
            ("GET", Some(query)) if query.starts_with("after=") => peer::answer(StatusCode::NOT_MODIFIED, ""),
            ("GET", _) => peer::answer(StatusCode::OK, listing),
            _ => peer::answer(StatusCode::NOT_FOUND, ""),
        })
    });
    let refresher = Refresher::new().args(&["--listen", "127.0.0.1:0", "--log-level", "debug"]);
    let refresher = refresher.socket(&socket(&directory)).start();
    let address = refresher.status_address().await;
    let refused = || refresher.log().matches("no policy wants this identity any longer").count() >= 3;
    refresher.until("pushes that get 404", refused).await;
    assert!(get(&address, "/readyz").0.contains("503"), "{:?}", get(&address, "/readyz"));
    let pushes = "credential_refresher_pushes_total";
    assert!(!get(&address, "/metrics").1.lines().any(|line| line.starts_with(pushes)));
}

#[tokio::test]
async fn a_failure_and_an_expiry_are_told_immediately_however_long_the_interval() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(Duration::from_secs(4)));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER), role(WRITER)]);
    let listen = ["--listen", "127.0.0.1:0"];
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&listen).interval("1h").start();
    let address = refresher.status_address().await;
    let lacks = |what: &str| {
        let (_, lacking) = get(&address, "/readyz");
        lacking.lines().any(|line| line.contains(what) && line.contains("AccessDenied"))
    };
    refresher.until("a failure", || refresher.log().contains("can't get credentials")).await;
    let took = refresher.until("that it is told", || lacks("orders-writer")).await;
    assert!(took < Duration::from_secs(1), "{took:?}");

    refresher.until("the first push", || proxy.held(&role(READER)).is_some()).await;
    sts.set(READER, Answer::Denied);
    let expired = || proxy.held(&role(READER)).is_some_and(|held| !held.hold_at(std::time::SystemTime::now()));
    refresher.until("the expiry", expired).await;
    let took = refresher.until("that it is told", || lacks("orders-reader")).await;
    println!("an expiry was told within {took:?}, at an interval of an hour");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// An identity without credentials is retried every few seconds, however long its source has failed.
#[tokio::test]
async fn what_is_missing_is_there_a_few_seconds_after_its_source_recovers() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Unavailable);
    sts.set(WRITER, Answer::Denied);
    let proxy = Running::on_socket(&socket(&directory), &[role(READER), role(WRITER)]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    let failures = |role: &str| {
        let log = refresher.log();
        log.lines().filter(|line| line.contains("can't get credentials") && line.contains(role)).count()
    };
    refresher.until("many failures", || failures(WRITER) >= 7 && failures(READER) >= 4).await;
    for line in refresher.log().lines().filter(|line| line.contains("can't get credentials")) {
        let wait = line.split("retry_in=").nth(1).unwrap().split(" serving").next().unwrap();
        let wait = humantime::parse_duration(wait.trim()).unwrap();
        assert!(wait <= Duration::from_secs(4), "{line}");
    }
    sts.set(READER, Answer::Session(HOUR));
    sts.set(WRITER, Answer::Session(HOUR));
    let both = || proxy.held(&role(READER)).is_some() && proxy.held(&role(WRITER)).is_some();
    let took = refresher.until("both", both).await;
    println!("after STS had failed for a while, both were there {took:?} after it was well again");
    // The SDK itself tries again for up to two seconds.
    assert!(took < Duration::from_secs(6), "{took:?}");
}

/// A listing of more than a page, whose second one is named by the first.
fn listing_of_pages(path: &Path, last: &'static str) {
    peer::start_on_socket(path, move |request| {
        let page = |identity: String, next: &str| {
            let listing = format!(r#"{{"version": 1, "generation": 7, "identities": [{identity}]{next}}}"#);
            peer::answer(StatusCode::OK, listing)
        };
        let wanted = |role: Identity| {
            let mut identity = serde_json::to_value(role).unwrap();
            identity["held"] = serde_json::Value::Null;
            identity.to_string()
        };
        Some(match (request.method().as_str(), request.uri().query()) {
            ("GET", Some("from=")) => page(wanted(default()), r#", "next": "orders-reader""#),
            ("GET", Some("from=orders-reader")) => page(wanted(role(READER)), last),
            ("GET", _) => peer::answer(StatusCode::BAD_REQUEST, ""),
            _ => peer::answer(StatusCode::NO_CONTENT, ""),
        })
    });
}

#[tokio::test]
async fn a_listing_is_read_page_by_page() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    listing_of_pages(&socket(&directory), "");
    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&["--once"]).start();
    assert!(refresher.end().await.0.success(), "{}", refresher.log());
    for id in [default().id(), role(READER).id()] {
        let pushed = |line: &str| line.contains("pushed credentials") && line.contains(id);
        assert!(refresher.log().lines().any(pushed), "{id}: {}", refresher.log());
    }
    drop(refresher);

    std::fs::remove_file(socket(&directory)).unwrap();
    listing_of_pages(&socket(&directory), r#", "next": "orders-reader""#);
    let once = ["--once", "--timeout", "300ms"];
    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&once).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    assert!(refresher.log().contains("the pages of its listing don't end"), "{}", refresher.log());
}

#[tokio::test]
async fn an_answer_of_an_intake_is_read_up_to_a_bound() {
    let directory = TempDir::new().unwrap();
    let endless = " ".repeat(65 << 20);
    peer::start_on_socket(&socket(&directory), move |_| Some(peer::answer(StatusCode::OK, endless.clone())));
    let once = ["--once", "--timeout", "300ms"];
    let mut refresher = Refresher::new().socket(&socket(&directory)).args(&once).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    assert!(refresher.log().contains("length limit exceeded"), "{}", refresher.log());
}

#[tokio::test]
async fn an_intake_that_no_policy_shares_is_not_ready_and_worth_a_warning() {
    let directory = TempDir::new().unwrap();
    let _proxy = Running::on_socket(&socket(&directory), &[]);
    let refresher = Refresher::new().socket(&socket(&directory)).args(&["--listen", "127.0.0.1:0"]).start();
    let address = refresher.status_address().await;
    refresher.until("the warning", || refresher.log().contains("the proxy requires no credentials")).await;
    let (status, lacking) = get(&address, "/readyz");
    assert!(status.contains("503") && lacking.contains("no policy is loaded under the intake's vm_id"), "{lacking}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(refresher.log().matches("the proxy requires no credentials").count(), 1);
}

#[tokio::test]
async fn the_base_identity_is_not_given_to_who_may_have_roles_alone() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let allow = ["--allow-role", "arn:aws:iam::123456789012:role/*", "--once"];
    let run = async |further: &[&str]| {
        let proxy = Running::on_socket(&socket(&directory), &[default(), role(READER)]);
        let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&allow).args(further);
        let mut refresher = refresher.start();
        let code = refresher.end().await.0.code();
        (code, proxy.held(&default()).is_some(), proxy.held(&role(READER)).is_some(), refresher.log())
    };
    let (code, default_held, role_held, log) = run(&[]).await;
    assert_eq!((code, default_held, role_held), (Some(1), false, true));
    assert!(log.contains("the base identity needs --allow-default"), "{log}");
    let (code, default_held, role_held, _) = run(&["--allow-default"]).await;
    assert_eq!((code, default_held, role_held), (Some(0), true, true));
    let (code, _, role_held, log) = run(&["--allow-default", "--allow-session-name", "app-*"]).await;
    assert_eq!((code, role_held), (Some(1), false));
    assert!(log.contains("no --allow-session-name covers its session name"), "{log}");
}

/// The answers of an intake of another version, word for word.
async fn intake_of_another_version(listing: &'static str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = socket(&directory);
    let answer = move |request: hyper::Request<hyper::body::Bytes>| {
        Some(match request.method().as_str() {
            "GET" => peer::answer(StatusCode::OK, listing),
            _ => peer::answer(StatusCode::NO_CONTENT, ""),
        })
    };
    peer::start_on_socket(&path, answer);
    (directory, path)
}

#[tokio::test]
async fn an_intake_from_before_there_were_versions_is_supplied() {
    let (_directory, path) = intake_of_another_version(r#"{"identities": [{"id": "default", "held": null}]}"#).await;
    let mut refresher = Refresher::new().socket(&path).args(&["--once"]).start();
    assert!(refresher.end().await.0.success(), "{}", refresher.log());

    // It has no fingerprints, and needs none.
    let held = r#"{"identities": [{"id": "default", "held": {"accessKeyId": "AKIDLONGLIVED"}}]}"#;
    let (_directory, path) = intake_of_another_version(held).await;
    let refresher = Refresher::new().socket(&path).args(&["--log-level", "debug"]).start();
    refresher.until("its credentials", || refresher.log().contains("got credentials")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!refresher.log().contains("pushed credentials"), "{}", refresher.log());
}

#[tokio::test]
async fn a_listing_of_a_later_version_is_not_guessed_at() {
    let later = r#"{"version": 2, "generation": "x", "sets": [{"identities": []}]}"#;
    let (_directory, path) = intake_of_another_version(later).await;
    let mut refresher = Refresher::new().socket(&path).args(&["--once", "--timeout", "300ms"]).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    let told = "its listing has version 2, and this program reads versions up to 1; upgrade credential-refresher";
    assert!(refresher.log().contains(told), "{}", refresher.log());
}

#[tokio::test]
async fn an_intake_older_than_its_signer_is_named_as_such() {
    let stripped = r#"{"identities": [{"id": "orders-reader-00000000", "held": null,
        "roleArn": "arn:aws:iam::123456789012:role/orders-reader", "roleSessionName": "orders"}]}"#;
    let (_directory, path) = intake_of_another_version(stripped).await;
    let mut refresher = Refresher::new().socket(&path).args(&["--once", "--timeout", "300ms"]).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    assert!(refresher.log().contains("the intake's filter is older than the signer's"), "{}", refresher.log());
}

#[tokio::test]
async fn sighup_has_everything_looked_at_again() {
    let directory = TempDir::new().unwrap();
    let proxy = wants_default(&socket(&directory));
    let file = |key: &str| format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n");
    let refresher = Refresher::new().without_keys().home_file(".aws/credentials", &file("AKIDOLD"));
    let refresher = refresher.socket(&socket(&directory)).interval("1h").start();
    refresher.until("the first push", || holds(&proxy, "AKIDOLD", "s")).await;
    std::fs::write(refresher.home.path().join(".aws/credentials"), file("AKIDNEW")).unwrap();
    refresher.signal(Signal::HUP);
    let took = refresher.until("the changed key", || holds(&proxy, "AKIDNEW", "s")).await;
    println!("a changed file was pushed {took:?} after SIGHUP");
    assert!(took < Duration::from_secs(2) && refresher.log().contains("SIGHUP"));
}

#[tokio::test]
async fn sighup_has_the_region_read_again() {
    let directory = TempDir::new().unwrap();
    let proxy = wants_default(&socket(&directory));
    let file = |region: &str| {
        format!("[default]\nregion = {region}\naws_access_key_id = AKIDREGION\naws_secret_access_key = s\n")
    };
    let refresher = Refresher::new().without_keys().without_env("AWS_REGION");
    let refresher = refresher.home_file(".aws/config", &file("eu-west-1")).socket(&socket(&directory)).start();
    refresher.until("the push", || holds(&proxy, "AKIDREGION", "s")).await;
    std::fs::write(refresher.home.path().join(".aws/config"), file("eu-west-2")).unwrap();
    refresher.signal(Signal::HUP);
    refresher.until("the other region", || refresher.log().contains("region=eu-west-2")).await;
    assert!(refresher.log().contains("region=eu-west-1"), "{}", refresher.log());
}

#[tokio::test]
async fn a_proxy_that_wants_an_identity_no_longer_says_nothing_of_its_revocation() {
    let directory = TempDir::new().unwrap();
    let paths = ["a.sock", "b.sock"].map(|name| directory.path().join(name));
    let (first, second) = (wants_default(&paths[0]), wants_default(&paths[1]));
    let (refresher, address) = revoked_in_the_first(&paths, [&first, &second]).await;
    let failures = || {
        let metrics = get(&address, "/metrics").1;
        let counted = |line: &&str| line.contains("source_failures_total") && line.contains("revoked");
        metrics.lines().find(counted).map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap())
    };
    refresher.until("failures by the revocation", || failures() > 0).await;
    first.want(&[role(READER)]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = failures();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(failures(), before);
}

/// A file like one on a dead network disk: a pipe that nobody writes to, as the cached token of a single sign-on, which is
/// not checked before it is read.
#[tokio::test]
async fn sigterm_ends_it_within_a_second_whatever_it_waits_for() {
    let directory = TempDir::new().unwrap();
    let proxy = wants_default(&socket(&directory));
    let sso = "[default]\nsso_start_url = https://a\nsso_region = eu-west-1\nsso_account_id = 123456789012\nsso_role_name = dev\n";
    let waits = Refresher::new().without_keys().home_file(".aws/config", sso).home_file(".aws/sso/cache/other", "");
    // The SHA-1 of the start URL.
    let never = waits.home.path().join(".aws/sso/cache/a6ede4c26976783d2ef39cb030f7481da30ad3b3.json");
    assert!(std::process::Command::new("mkfifo").arg(&never).status().unwrap().success());
    let process = "[default]\ncredential_process = sleep 60\n";
    for refresher in
        [waits, Refresher::new().without_keys().env("PATH", "/usr/bin:/bin").home_file(".aws/config", process)]
    {
        let mut refresher = refresher.socket(&socket(&directory)).start();
        refresher.until("its start", || refresher.log().contains("starting")).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        refresher.signal(Signal::TERM);
        let (status, took) = refresher.end().await;
        assert!(status.success() && took < Duration::from_secs(1), "{status} after {took:?}");
    }
    assert!(proxy.pushes().is_empty());
}

/// Each of the proxies could block a thread, and there are more of them than threads.
#[tokio::test]
async fn sigterm_ends_it_within_a_second_whatever_files_it_waits_for() {
    let directory = TempDir::new().unwrap();
    let never = directory.path().join("never");
    assert!(std::process::Command::new("mkfifo").arg(&never).status().unwrap().success());
    let never = never.to_str().unwrap();
    let mut refresher = Refresher::new().env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    for port in 1..=4 {
        refresher = refresher.args(&["--proxy", &format!("https://127.0.0.1:{port}")]);
    }
    for option in ["--proxy-ca", "--client-cert", "--client-key"] {
        refresher = refresher.args(&[option, never]);
    }
    let mut refresher = refresher.start();
    refresher.until("its start", || refresher.log().contains("starting")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    refresher.signal(Signal::TERM);
    let (status, took) = refresher.end().await;
    assert!(status.success() && took < Duration::from_secs(1), "{status} after {took:?}");
}

#[tokio::test]
async fn a_secret_that_goes_back_and_forth_under_one_key_is_pushed_each_time() {
    let directory = TempDir::new().unwrap();
    let proxy = wants_default(&socket(&directory));
    let file = |secret: &str| format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n");
    let refresher = Refresher::new().without_keys().home_file(".aws/credentials", &file("one"));
    let refresher = refresher.socket(&socket(&directory)).interval("1h").start();
    refresher.until("the first push", || holds(&proxy, KEY, "one")).await;
    for secret in ["two", "one", "two", "one"] {
        std::fs::write(refresher.home.path().join(".aws/credentials"), file(secret)).unwrap();
        refresher.signal(Signal::HUP);
        refresher.until("the changed secret", || holds(&proxy, KEY, secret)).await;
    }
}

#[tokio::test]
async fn credentials_of_our_key_that_expire_soon_are_replaced_whoever_pushes_them() {
    let directory = TempDir::new().unwrap();
    let proxy = wants_default(&socket(&directory));
    let refresher = with_key(&socket(&directory), KEY, SECRET);
    refresher.until("the push", || holds(&proxy, KEY, SECRET)).await;
    // Another refresher corrects us, and goes on doing so.
    for _ in 0..3 {
        let soon = SystemTime::now() + Duration::from_secs(60);
        let other = Credentials::new(KEY, "other".to_owned(), None, Some(soon)).unwrap();
        proxy.put(&default(), other.with_fingerprint_salt(Some("other".to_owned())));
        refresher.until("the replacement", || holds(&proxy, KEY, SECRET)).await;
    }
}

#[tokio::test]
async fn the_pages_of_a_listing_are_bounded_together() {
    let directory = TempDir::new().unwrap();
    let page = |next: &str| {
        let padding = "x".repeat(33 << 20);
        format!(r#"{{"version": 1, "generation": 7, "identities": [], "next": "{next}", "padding": "{padding}"}}"#)
    };
    let pages = ["a", "b", "c"].map(page);
    let asked = Arc::new(AtomicUsize::new(0));
    peer::start_on_socket(&socket(&directory), move |_| {
        let number = asked.fetch_add(1, Ordering::Relaxed) % pages.len();
        Some(peer::answer(StatusCode::OK, pages[number].clone()))
    });
    let once = ["--once", "--timeout", "3s"];
    let mut refresher = Refresher::new().socket(&socket(&directory)).args(&once).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    assert!(refresher.log().contains("its listing is larger than 64 MiB"), "{}", refresher.log());
}

#[tokio::test]
async fn a_proxy_that_does_not_wait_for_a_change_is_polled_four_times_a_second() {
    let directory = TempDir::new().unwrap();
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    peer::start_on_socket(&socket(&directory), move |request| {
        let listing = r#"{"version": 1, "generation": 7, "identities": []}"#;
        Some(match request.uri().query() {
            Some(query) if query.starts_with("after=") => {
                counted.fetch_add(1, Ordering::Relaxed);
                peer::answer(StatusCode::NOT_MODIFIED, "")
            }
            _ => peer::answer(StatusCode::OK, listing),
        })
    });
    let refresher = Refresher::new().socket(&socket(&directory)).start();
    refresher.until("a poll", || polls.load(Ordering::Relaxed) > 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let polls = polls.load(Ordering::Relaxed);
    assert!((2..=20).contains(&polls), "{polls}");
}

#[tokio::test]
async fn tls_files_that_can_not_be_read_hold_nobody_up() {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("ca.pem");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let file = pipe.to_str().unwrap();
    let proxy = wants_default(&socket(&directory));
    let tls = ["--proxy", "https://127.0.0.1:1", "--proxy", "https://127.0.0.1:2", "--proxy", "https://127.0.0.1:3"];
    let files = ["--proxy-ca", file, "--client-cert", file, "--client-key", file, "--listen", "127.0.0.1:0"];
    let refresher = Refresher::new().socket(&socket(&directory)).args(&tls).args(&files).start();
    let address = refresher.status_address().await;
    refresher.until("the other proxy's push", || holds(&proxy, KEY, SECRET)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(get(&address, "/healthz").0, "HTTP/1.1 200 OK");
}
