//! The refresher, run as a process against real HTTP peers: proxies' intakes and an STS.
#![cfg(not(target_arch = "wasm32"))]

mod hostile_sources;
mod intake;
mod log;
mod many_roles;
mod peer;
mod process;
mod sources;
mod strangers;
mod sts;
mod supply;
mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use sigv4_core::credentials::{Credentials, Identity, Role};
use tempfile::TempDir;

use intake::Running;
use process::{Refresher, SECRET, get};
use sts::{Answer, ROTATING_SECRET, SESSION_SECRET, SESSION_TOKEN, Sts};
use support::{HOUR, READER, WRITER, role, socket};

#[tokio::test]
async fn once_pushes_everything_that_the_policy_wants_and_exits_with_0() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain(), role(READER)]);

    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&["--once"]).start();
    let (status, _) = refresher.end().await;

    assert!(status.success(), "{}", refresher.log());
    let default = proxy.held(&Identity::default_chain()).unwrap();
    assert_eq!((default.access_key_id(), default.secret_access_key()), ("AKIDLONGLIVED", SECRET));
    let reader = proxy.held(&role(READER)).unwrap();
    assert_eq!((reader.secret_access_key(), reader.session_token()), (SESSION_SECRET, Some(SESSION_TOKEN)));
    let call = &sts.calls()[0];
    assert_eq!((call["RoleSessionName"].as_str(), call["ExternalId"].as_str()), ("orders", "x-1"));
}

#[tokio::test]
async fn once_names_the_role_that_failed_and_still_pushes_the_others() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    sts.set(WRITER, Answer::Denied);
    let proxy = Running::on_socket(&socket(&directory), &[role(WRITER), role(READER)]);

    let once = ["--once", "--timeout", "2s"];
    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&once).start();
    let (status, _) = refresher.end().await;

    assert_eq!(status.code(), Some(1));
    assert!(proxy.held(&role(READER)).is_some());
    let log = refresher.log();
    let verdict = log.lines().find(|line| line.contains("not supplied")).unwrap();
    assert!(verdict.contains("orders-writer-"), "{verdict}");
    assert!(verdict.contains("AccessDenied: you may not assume this role"), "{verdict}");
}

#[tokio::test]
async fn once_waits_for_a_proxy_that_comes_up_late_and_names_one_that_does_not() {
    let directory = TempDir::new().unwrap();
    let path = socket(&directory);
    let mut refresher = Refresher::new().socket(&path).args(&["--once"]).start();
    refresher.until("the missing socket is told", || refresher.log().contains("is not there")).await;
    let proxy = Running::on_socket(&path, &[Identity::default_chain()]);
    assert!(refresher.end().await.0.success());
    assert!(proxy.held(&Identity::default_chain()).is_some());

    let nowhere = directory.path().join("nowhere.sock");
    let mut refresher = Refresher::new().socket(&path).socket(&nowhere).args(&["--once", "--timeout", "500ms"]).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    assert!(refresher.log().contains("nowhere.sock is not there: is the proxy up"), "{}", refresher.log());
}

#[tokio::test]
async fn once_is_not_content_with_a_proxy_whose_policy_is_not_loaded_yet() {
    let directory = TempDir::new().unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[]);
    let mut refresher = Refresher::new().socket(&socket(&directory)).args(&["--once", "--timeout", "500ms"]).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    assert!(refresher.log().contains("is its policy loaded?"), "{}", refresher.log());

    let mut refresher = Refresher::new().socket(&socket(&directory)).args(&["--once"]).start();
    refresher.until("the start", || refresher.log().contains("starting")).await;
    proxy.want(&[Identity::default_chain()]);
    assert!(refresher.end().await.0.success(), "{}", refresher.log());
}

#[tokio::test]
async fn sts_is_asked_for_all_that_the_policy_says_of_the_session() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    let hubs = ["arn:aws:iam::123456789012:role/hub", "arn:aws:iam::210987654321:role/landing"];
    for arn in [hubs[0], hubs[1], READER] {
        sts.set(arn, Answer::Session(HOUR));
    }
    let tags = [("cost center", "a/7"), ("team", "orders")];
    let policies = ["arn:aws:iam::123456789012:policy/a", "arn:aws:iam::aws:policy/ReadOnlyAccess"];
    let inline = r#"{"Statement":[{"Action":"s3:Get*","Effect":"Allow","Resource":"*","Sid":"ä+& %41"}]}"#;
    let identity = Identity::assumed(Role {
        external_id: Some("x-1".to_owned()),
        duration_seconds: Some(900),
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        chain: hubs.map(str::to_owned).into(),
        source_identity: Some("me@example.com".to_owned()),
        policy_arns: policies.map(str::to_owned).into(),
        session_policy: Some(inline.to_owned()),
        ..Role::new(READER, "orders")
    });
    let proxy = Running::on_socket(&socket(&directory), std::slice::from_ref(&identity));
    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&["--once"]).start();
    assert!(refresher.end().await.0.success(), "{}", refresher.log());

    assert_eq!(proxy.held(&identity).unwrap().access_key_id(), "ASIASESSION3");
    let calls = sts.calls();
    let asked = |parameter: &str| calls.iter().map(|call| call.get(parameter).map(String::as_str)).collect::<Vec<_>>();
    assert_eq!(asked("RoleArn"), [Some(hubs[0]), Some(hubs[1]), Some(READER)]);
    assert_eq!(asked("SignedBy"), [Some("AKIDLONGLIVED"), Some("ASIASESSION1"), Some("ASIASESSION2")]);
    assert_eq!(asked("RoleSessionName"), [Some("orders"); 3]);
    assert_eq!(asked("SourceIdentity"), [Some("me@example.com"); 3]);
    // The policy's other session settings apply to the role alone.
    assert_eq!(asked("ExternalId"), [None, None, Some("x-1")]);
    assert_eq!(asked("DurationSeconds"), [None, None, Some("900")]);
    assert_eq!(asked("Tags.member.1.Key"), [None, None, Some("cost center")]);
    assert_eq!(asked("Tags.member.2.Value"), [None, None, Some("orders")]);
    assert_eq!(asked("PolicyArns.member.1.arn"), [None, None, Some(policies[0])]);
    assert_eq!(asked("PolicyArns.member.2.arn"), [None, None, Some(policies[1])]);
    assert_eq!(asked("Policy"), [None, None, Some(inline)]);
}

#[tokio::test]
async fn a_link_of_a_chain_that_can_not_be_assumed_is_named() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let identity = Identity::assumed(Role { chain: vec![WRITER.to_owned()], ..Role::new(READER, "orders") });
    let _proxy = Running::on_socket(&socket(&directory), &[identity]);
    let once = ["--once", "--timeout", "300ms"];
    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&once).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    let told = format!("STS did not assume {WRITER}: AccessDenied: you may not assume this role");
    assert!(refresher.log().contains(&told), "{}", refresher.log());
}

/// A filter of a later version may want more of a session than this refresher can read.
#[tokio::test]
async fn an_identity_that_is_not_understood_is_given_nothing_less() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let later = format!(
        r#"{{"id": "orders-reader-00000000", "roleArn": "{READER}", "roleSessionName": "orders", "rolePolicy": "{{}}"}}"#
    );
    let later: Identity = serde_json::from_str(&later).unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[later.clone(), role(READER)]);
    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&["--once"]).start();
    assert_eq!(refresher.end().await.0.code(), Some(1));
    assert!(proxy.held(&role(READER)).is_some() && proxy.held(&later).is_none());
    assert!(refresher.log().contains("upgrade credential-refresher"), "{}", refresher.log());
}

#[tokio::test]
async fn ten_proxies_cost_one_call_of_sts_and_a_dead_one_harms_nobody() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let path = |number: usize| directory.path().join(format!("{number}.sock"));
    let proxies: Vec<_> = (0..10).map(|number| Running::on_socket(&path(number), &[role(READER)])).collect();
    let mut refresher = Refresher::new().sts(sts.port).socket(&directory.path().join("dead.sock"));
    for number in 0..10 {
        refresher = refresher.socket(&path(number));
    }
    let refresher = refresher.start();
    let all_held = || proxies.iter().all(|proxy| proxy.held(&role(READER)).is_some());
    let took = refresher.until("all ten hold credentials", all_held).await;
    println!("ten proxies and a dead one: all ten supplied within {took:?} by {} call of STS", sts.calls().len());
    assert_eq!(sts.calls().len(), 1);
}

#[tokio::test]
async fn a_restarted_proxy_is_supplied_again_at_once_however_long_the_interval() {
    let directory = TempDir::new().unwrap();
    let default = Identity::default_chain();
    let proxy = Running::on_socket(&socket(&directory), std::slice::from_ref(&default));
    let refresher = Refresher::new().socket(&socket(&directory)).interval("1h").start();
    refresher.until("the first push", || proxy.held(&default).is_some()).await;
    drop(proxy);
    refresher.until("the outage is told", || refresher.log().contains("can't ask the proxy")).await;

    let proxy = Running::on_socket(&socket(&directory), std::slice::from_ref(&default));
    let took = refresher.until("the second push", || proxy.held(&default).is_some()).await;
    println!("a restarted proxy was supplied within {took:?}, at an interval of an hour");
    assert!(took < Duration::from_secs(2), "{took:?}");
    refresher.until("the line", || refresher.log().contains("the proxy answers again")).await;
}

#[tokio::test]
async fn an_identity_that_a_new_policy_wants_is_supplied() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the first push", || proxy.held(&Identity::default_chain()).is_some()).await;
    proxy.want(&[Identity::default_chain(), role(READER)]);
    refresher.until("the new identity's push", || proxy.held(&role(READER)).is_some()).await;
    assert_eq!(proxy.pushes().iter().filter(|id| *id == "default").count(), 1);
}

#[tokio::test]
async fn a_proxy_that_wants_nothing_for_a_moment_costs_no_new_call_of_sts() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the first push", || proxy.held(&role(READER)).is_some()).await;
    proxy.want(&[]);
    refresher.until("the intake forgets", || proxy.held(&role(READER)).is_none()).await;
    proxy.want(&[role(READER)]);
    refresher.until("the second push", || proxy.held(&role(READER)).is_some()).await;
    assert_eq!(sts.calls().len(), 1);
}

/// Watches what the proxy holds until `until`, and returns the shortest remaining life seen.
async fn shortest_life(proxy: &Running, identity: &Identity, until: Instant) -> Duration {
    let mut shortest = HOUR;
    while Instant::now() < until {
        let held = proxy.held(identity).unwrap();
        shortest = shortest.min(held.remaining(SystemTime::now()).unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shortest
}

#[tokio::test]
async fn new_credentials_arrive_before_the_old_ones_expire() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(Duration::from_secs(5)));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the first push", || proxy.held(&role(READER)).is_some()).await;
    let shortest = shortest_life(&proxy, &role(READER), Instant::now() + Duration::from_secs(8)).await;
    println!("sessions of 5 s: {} of them in 8 s, the shortest remaining life was {shortest:?}", sts.calls().len());
    assert!(shortest > Duration::from_millis(500), "{shortest:?} was left:\n{}", refresher.log());
    assert!((3..10).contains(&sts.calls().len()), "{} calls", sts.calls().len());
}

#[tokio::test]
async fn a_refresher_that_is_killed_and_restarted_leaves_no_gap() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(Duration::from_secs(6)));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let start = || Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    let mut refresher = start();
    refresher.until("the first push", || proxy.held(&role(READER)).is_some()).await;
    let (mut shortest, mut slowest) = (HOUR, Duration::ZERO);
    for _ in 0..4 {
        refresher.signal(Signal::KILL);
        refresher.end().await;
        let (killed, pushes) = (Instant::now(), proxy.pushes().len());
        // As long as systemd's RestartSec.
        shortest = shortest.min(shortest_life(&proxy, &role(READER), killed + Duration::from_secs(1)).await);
        refresher = start();
        slowest = slowest.max(refresher.until("a push", || proxy.pushes().len() > pushes).await);
    }
    println!("4 times killed: new credentials within {slowest:?} of the start, {shortest:?} were left of the old ones");
    assert!(shortest > Duration::from_secs(2) && slowest < Duration::from_secs(2));
}

#[tokio::test]
async fn old_credentials_serve_while_sts_is_at_fault_and_new_ones_come_when_it_recovers() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    let faults = [
        ("denied", Answer::Denied),
        ("garbage", Answer::Garbage),
        ("unavailable", Answer::Unavailable),
        ("slow", Answer::Slow(Duration::from_secs(2), HOUR)),
    ];
    let identity = |name: &str| role(&format!("arn:aws:iam::123456789012:role/{name}"));
    let set = |name: &str, answer| sts.set(&identity(name).role().unwrap().arn, answer);
    let proxy = Running::on_socket(&socket(&directory), &faults.map(|(name, _)| identity(name)));
    faults.iter().for_each(|(name, _)| set(name, Answer::Session(Duration::from_secs(10))));
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    let all_hold = || faults.iter().all(|(name, _)| proxy.held(&identity(name)).is_some());
    refresher.until("the first pushes", all_hold).await;
    let first = faults.map(|(name, _)| proxy.held(&identity(name)).unwrap());

    faults.iter().for_each(|(name, answer)| set(name, *answer));
    let failed = |name: &str| refresher.log().lines().any(|line| line.contains("can't get") && line.contains(name));
    refresher.until("two failures", || failed("role/denied") && failed("role/garbage")).await;
    let unavailable = &identity("unavailable").role().unwrap().arn.clone();
    // The SDK tries again by itself before it gives up.
    refresher.until("calls that get 503", || sts.calls_for(unavailable) >= 3).await;
    assert!(refresher.log().contains("serving_until"), "{}", refresher.log());
    for ((name, _), first) in faults.iter().zip(&first).take(3) {
        assert_eq!(proxy.held(&identity(name)).unwrap().access_key_id(), first.access_key_id(), "{name}");
        set(name, Answer::Session(HOUR));
    }
    for ((name, _), first) in faults.iter().zip(&first) {
        let renewed = || proxy.held(&identity(name)).unwrap().access_key_id() != first.access_key_id();
        refresher.until("new credentials", renewed).await;
        let left = first.remaining(SystemTime::now()).unwrap();
        println!("{name}: of the old credentials' 10 s, {left:?} were left when new ones came");
        assert!(!left.is_zero(), "{name}: they came too late:\n{}", refresher.log());
    }
}

#[tokio::test]
async fn identities_that_were_got_together_are_not_renewed_together() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    let roles: Vec<_> = (0..40).map(|n| role(&format!("arn:aws:iam::123456789012:role/r{n}"))).collect();
    roles.iter().for_each(|role| sts.set(&role.role().unwrap().arn, Answer::Session(Duration::from_secs(10))));
    let _proxy = Running::on_socket(&socket(&directory), &roles);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the first renewals", || sts.calls().len() >= 80).await;
    let times = sts.call_times();
    let quarter = Duration::from_millis(250);
    let (first, renewals) = (most_within(quarter, &times[..40]), most_within(quarter, &times[40..]));
    println!("40 roles: up to {first} first calls within {quarter:?}, and {renewals} renewals");
    assert!(renewals < 20, "{renewals}");
}

#[tokio::test]
async fn identities_that_failed_together_are_not_tried_again_together() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    let roles: Vec<_> = (0..40).map(|n| role(&format!("arn:aws:iam::123456789012:role/r{n}"))).collect();
    let _proxy = Running::on_socket(&socket(&directory), &roles);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the first retries", || sts.calls().len() >= 80).await;
    let times = sts.call_times();
    let (moment, first) = (Duration::from_millis(50), times[0]);
    let (calls, retries) = (most_within(moment, &times[..40]), most_within(moment, &times[40..80]));
    let apart = times[79] - times[40];
    println!(
        "40 roles: up to {calls} first calls within {moment:?}, and {retries} retries, {apart:?} from first to last"
    );
    assert!(retries < 16 && times[40] - first > Duration::from_millis(450), "{retries}");
}

/// Returns the largest number of these calls in any span of this length.
fn most_within(span: Duration, calls: &[Instant]) -> usize {
    let within = |first: &Instant| calls.iter().filter(|at| (*first..*first + span).contains(*at)).count();
    calls.iter().map(within).max().unwrap()
}

#[tokio::test]
async fn a_revoked_access_key_is_replaced_and_pushed_no_more() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the first push", || proxy.held(&role(READER)).is_some()).await;
    proxy.revoke(&role(READER));
    let took = refresher.until("another key", || proxy.held(&role(READER)).is_some()).await;
    println!("a new access key {took:?} after the old one was revoked, at an interval of 100ms");
    assert_eq!(proxy.held(&role(READER)).unwrap().access_key_id(), "ASIASESSION2");
    assert_eq!(proxy.pushes().len(), 2);
}

#[tokio::test]
async fn a_source_that_only_has_the_revoked_key_is_waited_for_and_told_once() {
    let directory = TempDir::new().unwrap();
    let default = Identity::default_chain();
    let proxy = Running::on_socket(&socket(&directory), std::slice::from_ref(&default));
    let key = |id: &str| format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = s\n");
    let refresher = Refresher::new().without_keys();
    let refresher = refresher.home_file(".aws/credentials", &key("AKIDOLD")).socket(&socket(&directory)).start();
    refresher.until("the first push", || proxy.held(&default).is_some()).await;
    proxy.revoke(&default);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(proxy.held(&default).is_none());
    assert_eq!(proxy.pushes().len(), 1, "the revoked key was pushed:\n{}", refresher.log());
    let told = "the source still returns the revoked access key AKIDOLD; rotate it";
    assert_eq!(refresher.log().matches(told).count(), 1, "{}", refresher.log());

    // A new refresher learns of it from the proxy.
    drop(refresher);
    let refresher = Refresher::new().without_keys();
    let refresher = refresher.home_file(".aws/credentials", &key("AKIDOLD")).socket(&socket(&directory)).start();
    refresher.until("that the key is revoked", || refresher.log().contains(told)).await;
    assert_eq!(proxy.pushes().len(), 1);
    std::fs::write(refresher.home.path().join(".aws/credentials"), key("AKIDNEW")).unwrap();
    refresher.until("the rotated key", || proxy.held(&default).is_some()).await;
    assert_eq!(proxy.held(&default).unwrap().access_key_id(), "AKIDNEW");
}

#[tokio::test]
async fn a_proxy_that_answers_slowly_is_supplied_all_the_same_and_delays_no_other() {
    let directory = TempDir::new().unwrap();
    let slow = Running::on_socket(&directory.path().join("slow.sock"), &[Identity::default_chain()]);
    slow.delay(Duration::from_secs(1));
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let refresher = Refresher::new().socket(&directory.path().join("slow.sock")).socket(&socket(&directory)).start();
    let took = refresher.until("the other's push", || proxy.held(&Identity::default_chain()).is_some()).await;
    let slow_took = refresher.until("the slow one's", || slow.held(&Identity::default_chain()).is_some()).await;
    println!("supplied within {took:?}, and {slow_took:?} later the proxy that takes 1 s for each answer");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_role_whose_sts_never_answers_delays_no_other() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(WRITER, Answer::Silence);
    sts.set(READER, Answer::Session(HOUR));
    let proxy = Running::on_socket(&socket(&directory), &[role(WRITER), role(READER), Identity::default_chain()]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    let others = || proxy.held(&role(READER)).is_some() && proxy.held(&Identity::default_chain()).is_some();
    let took = refresher.until("the others' pushes", others).await;
    println!("beside a role whose STS never answers, the others were supplied within {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_proxy_that_never_answers_delays_no_other() {
    let directory = TempDir::new().unwrap();
    let silent_path = directory.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&silent_path).unwrap();
    std::fs::set_permissions(&silent_path, PermissionsExt::from_mode(0o600)).unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let refresher = Refresher::new().socket(&silent_path).socket(&socket(&directory)).start();
    let took = refresher.until("the other's push", || proxy.held(&Identity::default_chain()).is_some()).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    refresher.until("the silence is told", || refresher.log().contains("no answer within 5 s")).await;
}

#[tokio::test]
async fn a_pause_that_sts_asks_for_has_a_bound() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    for asked_for in ["86400", "18446744073709551615"] {
        sts.set(READER, Answer::Throttled(asked_for));
        let _proxy = Running::on_socket(&socket(&directory), &[role(READER), Identity::default_chain()]);
        let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
        refresher.until("the failure", || refresher.log().contains("Rate exceeded")).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(refresher.log().contains("retry_in=1m"), "{asked_for}: {}", refresher.log());
        refresher.until("that others are supplied", || refresher.log().contains("pushed credentials")).await;
        std::fs::remove_file(socket(&directory)).unwrap();
    }
}

#[tokio::test]
async fn a_role_that_no_pattern_covers_is_never_assumed() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    let foreign = "arn:aws:iam::999999999999:role/orders-reader";
    sts.set(READER, Answer::Session(HOUR));
    sts.set(foreign, Answer::Session(HOUR));
    let proxy = Running::on_socket(&socket(&directory), &[role(foreign), role(READER)]);
    let allow = ["--allow-role", "arn:aws:iam::123456789012:role/*", "--once"];
    let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&allow).start();
    let (status, took) = refresher.end().await;

    assert_eq!(status.code(), Some(1));
    assert!(took < Duration::from_secs(10), "a refusal is waited for: {took:?}");
    assert!(proxy.held(&role(READER)).is_some());
    assert!(sts.calls().iter().all(|call| call["RoleArn"] != foreign));
    assert!(refresher.log().contains("no --allow-role covers"), "{}", refresher.log());
}

#[tokio::test]
async fn a_socket_that_others_can_open_or_replace_is_given_nothing() {
    let directory = TempDir::new().unwrap();
    let path = socket(&directory);
    let proxy = Running::on_socket(&path, &[Identity::default_chain()]);
    let run = async || {
        let mut refresher = Refresher::new().socket(&path).args(&["--once", "--timeout", "300ms"]).start();
        (refresher.end().await.0.code(), refresher.log())
    };

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let (code, log) = run().await;
    assert!(code == Some(1) && log.contains("is open to every user (mode 0666): set mode 0600"), "{log}");

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let (code, log) = run().await;
    assert!(code == Some(1) && log.contains("can be written to by every user (mode 0777)"), "{log}");

    assert!(proxy.held(&Identity::default_chain()).is_none());
}

#[tokio::test]
async fn two_refreshers_for_one_proxy_do_not_take_turns() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let first = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    first.until("the first push", || proxy.held(&role(READER)).is_some()).await;
    let second = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    second.until("the second push", || proxy.pushes().len() >= 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("two refreshers for one proxy: {} pushes in a second of ten looks each", proxy.pushes().len());
    assert_eq!(proxy.pushes().len(), 2);
}

#[tokio::test]
async fn what_somebody_else_pushed_is_replaced_when_it_does_not_last() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Session(HOUR));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the first push", || proxy.held(&role(READER)).is_some()).await;
    let soon = SystemTime::now() + Duration::from_secs(60);
    proxy.put(&role(READER), Credentials::new("ASIAOTHER", "s", None, Some(soon)).unwrap());
    let replaced = || proxy.held(&role(READER)).unwrap().access_key_id() != "ASIAOTHER";
    refresher.until("the replacement", replaced).await;
}

#[tokio::test]
async fn probes_and_prometheus_are_told_how_it_goes() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    let nowhere = directory.path().join("nowhere.sock");
    sts.set(READER, Answer::Session(HOUR));
    sts.set(WRITER, Answer::Denied);
    let proxy = Running::on_socket(&socket(&directory), &[role(READER), role(WRITER)]);
    let listening = ["--listen", "127.0.0.1:0"];
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).args(&listening);
    let refresher = refresher.socket(&nowhere).start();
    let address = refresher.status_address().await;
    let failed = || proxy.held(&role(READER)).is_some() && refresher.log().contains("AccessDenied");
    refresher.until("a push and a failure", failed).await;

    assert_eq!(get(&address, "/healthz").0, "HTTP/1.1 200 OK");
    let ready = || get(&address, "/readyz");
    refresher.until("why it is not ready", || ready().1.contains("AccessDenied")).await;
    assert_eq!(ready().0, "HTTP/1.1 503 Service Unavailable");
    assert!(ready().1.contains("nowhere.sock is not there"), "{}", ready().1);

    let run_book = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md")).unwrap();
    for line in get(&address, "/metrics").1.lines() {
        if let Some(metric) = line.strip_prefix("# TYPE credential_refresher_") {
            let name = metric.split(' ').next().unwrap();
            assert!(run_book.contains(name), "docs/operations.md says nothing of {name}");
        }
    }

    let metric = |start: &str| {
        let metrics = get(&address, "/metrics").1;
        let line = metrics.lines().find(|line| line.starts_with(&format!("credential_refresher_{start}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let (reader, writer) = (role(READER), role(WRITER));
    let expiry = metric(&format!("credentials_expiry_timestamp_seconds{{identity=\"{}\"}}", reader.id())).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((expiry - now - 3600.0).abs() < 30.0, "{expiry}");
    assert_eq!(metric(&format!("renewals_total{{identity=\"{}\"}}", reader.id())), Some(1.0));
    let denied = format!("source_failures_total{{identity=\"{}\",reason=\"sts\"}}", writer.id());
    assert!(metric(&denied) >= Some(1.0));
    let by_proxy = |name: &str, path: &std::path::Path| metric(&format!("{name}{{proxy=\"unix:{}\"}}", path.display()));
    assert_eq!(by_proxy("pushes_total", &socket(&directory)), Some(1.0));
    assert_eq!(by_proxy("proxy_unsupplied_identities", &socket(&directory)), Some(1.0));
    assert_eq!(by_proxy("proxy_reachable", &nowhere), Some(0.0));

    let late = Running::on_socket(&nowhere, &[role(READER)]);
    proxy.want(&[role(READER)]);
    refresher.until("all is well", || ready().0 == "HTTP/1.1 200 OK").await;
    assert!(late.held(&role(READER)).is_some());
}

#[tokio::test]
async fn sigterm_ends_it_at_once_and_cleanly() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(WRITER, Answer::Silence);
    for signal in [Signal::TERM, Signal::INT] {
        let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain(), role(WRITER)]);
        let mut refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
        refresher.until("a push", || proxy.held(&Identity::default_chain()).is_some()).await;
        refresher.signal(signal);
        let (status, took) = refresher.end().await;
        assert!(status.success(), "{status}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_any_level_whatever_goes_wrong() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    let broken = "arn:aws:iam::123456789012:role/broken";
    sts.set(READER, Answer::Session(Duration::from_secs(2)));
    sts.set(WRITER, Answer::Denied);
    sts.set(broken, Answer::Garbage);
    let echo = "arn:aws:iam::123456789012:role/echo";
    sts.set(echo, Answer::Echo);
    let wanted = [Identity::default_chain(), role(READER), role(WRITER), role(broken), role(echo)];
    let proxy = Running::on_socket(&socket(&directory), &wanted);
    for format in ["text", "json"] {
        let trace = ["--log-level", "trace", "--log-format", format];
        let refresher = Refresher::new().env("RUST_LOG", "trace").env("AWS_SESSION_TOKEN", "BASETOKEN");
        let refresher = refresher.sts(sts.port).socket(&socket(&directory)).args(&trace).start();
        let all_told = || {
            let log = refresher.log();
            ["pushed credentials", "AccessDenied", "broken-", "SignatureDoesNotMatch"]
                .iter()
                .all(|told| log.contains(told))
                && log.matches("got credentials").count() >= 3
        };
        refresher.until("everything that can go wrong", all_told).await;
        let log = refresher.log();
        for secret in [SECRET, "BASETOKEN", SESSION_SECRET, SESSION_TOKEN, "AWS4-HMAC"] {
            assert!(!log.contains(secret), "{secret} in the log:\n{log}");
        }
        assert!(!log.contains("sdk_invocation_id"), "the SDK's own events are logged");
    }
    assert!(proxy.held(&role(broken)).is_none());
}

/// The SDK's buffers with STS's answer are outside this program's control; everything else is erased.
#[tokio::test]
async fn secrets_that_were_replaced_are_gone_from_memory() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Rotating(Duration::from_secs(2)));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let refresher = Refresher::new().sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("eight sessions", || proxy.pushes().len() >= 8).await;

    let mut found = BTreeSet::new();
    for piece in refresher.memory() {
        for at in memmem(&piece, ROTATING_SECRET.as_bytes()) {
            let number = piece.get(at + ROTATING_SECRET.len()..).and_then(|rest| rest.get(..4)).unwrap_or_default();
            if !piece[..at].ends_with(b"<SecretAccessKey>") {
                found.insert(String::from_utf8_lossy(number).into_owned());
            }
        }
    }
    let newest = proxy.held(&role(READER)).unwrap().secret_access_key().replace(ROTATING_SECRET, "");
    println!("of 8 secrets in memory: {found:?}; the newest is {newest}");
    assert!(found.contains(&newest), "what is held was not even found");
    let newest: u32 = newest.parse().unwrap();
    // One more may be in flight.
    let replaced = |number: &String| number.parse().is_ok_and(|number: u32| number + 1 < newest);
    assert!(!found.iter().any(replaced), "{found:?}");
}

fn memmem<'a>(memory: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    memory.windows(wanted.len()).enumerate().filter(move |(_, window)| *window == wanted).map(|(at, _)| at)
}
