//! Sources that never stop, hang, or leave processes behind: the memory stays small, and the log names the cause.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use sigv4_core::credentials::Identity;
use tempfile::TempDir;

use crate::intake::Running;
use crate::process::{Process, Refresher};
use crate::sources::without_keys;
use crate::sts::{Answer, Sts};
use crate::support::{HOUR, READER, role, socket};

/// The memory of an idle debug build, and a little more.
const LITTLE_MEMORY: usize = 40;

/// Starts an HTTP server whose answers never end; returns the number of bytes that it sent.
fn endless(head: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (endpoint, sent) = (format!("http://{}", listener.local_addr().unwrap()), Arc::<AtomicUsize>::default());
    let counted = sent.clone();
    let answer = move |mut stream: TcpStream, sent: Arc<AtomicUsize>| {
        let _ = stream.read(&mut [0; 8192]);
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(&[b' '; 65536]).is_ok() {
            sent.fetch_add(65536, Ordering::Relaxed);
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sent = counted.clone();
            std::thread::spawn(move || answer(stream.unwrap(), sent));
        }
    });
    (endpoint, sent)
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\n\r\n";
const REFUSAL: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: text/xml\r\n\r\n";

/// Waits until the refresher has failed a few times with this message.
async fn failed(refresher: &Process, words: &str) {
    refresher.until(words, || refresher.log().matches(words).count() >= 2).await;
    let resident = refresher.most_resident_mib();
    println!("{words}: {resident} MiB at most");
    assert!(resident < LITTLE_MEMORY, "{resident} MiB\n{}", refresher.log());
    let longest = refresher.log().lines().map(str::len).max();
    assert!(longest < Some(4096), "a line of {longest:?} bytes");
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut_off() {
    let directory = TempDir::new().unwrap();
    let (default, reader) = ([Identity::default_chain()], [role(READER)]);
    let too_large = "the answer is larger than 64 KiB";
    for head in [ANSWER, REFUSAL] {
        let (endpoint, sent) = endless(head);
        let sources = [
            (&reader, Refresher::new().env("AWS_ENDPOINT_URL_STS", &endpoint), too_large),
            (&default, without_keys().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &endpoint), "can't get credentials"),
            (&default, on_ec2(&endpoint), "can't get credentials"),
            (&default, signed_on(&endpoint), "can't get credentials"),
            (&default, web_identity(&endpoint), "can't get credentials"),
        ];
        for (wanted, refresher, words) in sources {
            let _proxy = Running::on_socket(&socket(&directory), wanted);
            let refresher = refresher.socket(&socket(&directory)).start();
            failed(&refresher, words).await;
            assert!(sent.swap(0, Ordering::Relaxed) > 0, "it was not asked:\n{}", refresher.log());
        }
    }
}

fn on_ec2(endpoint: &str) -> Refresher {
    without_keys().without_env("AWS_EC2_METADATA_DISABLED").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
}

fn signed_on(endpoint: &str) -> Refresher {
    let token =
        r#"{"accessToken": "t", "expiresAt": "2099-01-01T00:00:00Z", "region": "eu-west-1", "startUrl": "https://a"}"#;
    let config = "[default]\nsso_start_url = https://a\nsso_region = eu-west-1\nsso_account_id = 123456789012\nsso_role_name = dev\n";
    // The SHA-1 of the start URL.
    let cache = ".aws/sso/cache/a6ede4c26976783d2ef39cb030f7481da30ad3b3.json";
    without_keys().env("AWS_ENDPOINT_URL_SSO", endpoint).home_file(".aws/config", config).home_file(cache, token)
}

fn web_identity(endpoint: &str) -> Refresher {
    let refresher = without_keys().home_file("token", "t").env("AWS_ENDPOINT_URL_STS", endpoint);
    let token = refresher.home.path().join("token");
    refresher.env("AWS_ROLE_ARN", READER).env("AWS_WEB_IDENTITY_TOKEN_FILE", token)
}

/// Returns a refresher whose chain ends in this script.
fn script(text: &str) -> Refresher {
    let refresher = without_keys().env("PATH", "/usr/bin:/bin").home_file("a source", &format!("#!/bin/sh\n{text}\n"));
    let script = refresher.home.path().join("a source");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).unwrap();
    let config = format!("[default]\ncredential_process = \"{}\" # it's one\n", script.display());
    refresher.home_file(".aws/config", &config)
}

const CREDENTIALS: &str = r#"echo '{"Version": 1, "AccessKeyId": "AKIDSCRIPT", "SecretAccessKey": "s"}'"#;

async fn supplied(refresher: Refresher, within: Duration) -> Process {
    let directory = TempDir::new().unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let refresher = refresher.socket(&socket(&directory)).start();
    let took = refresher.until("the push", || proxy.held(&Identity::default_chain()).is_some()).await;
    assert!(took < within, "{took:?}");
    refresher
}

#[tokio::test]
async fn a_process_that_writes_without_an_end_is_cut_off() {
    let directory = TempDir::new().unwrap();
    let _proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let refresher = script("yes").socket(&socket(&directory)).start();
    failed(&refresher, "the command wrote more than 64 KiB").await;
    let refresher = script("timeout 1 yes >&2; exit 3").socket(&socket(&directory)).start();
    failed(&refresher, "exit status: 3").await;
}

#[tokio::test]
async fn a_process_that_hangs_is_ended_with_all_that_it_started() {
    let directory = TempDir::new().unwrap();
    let _proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let refresher = script("sleep 4217 & sleep 4217").socket(&socket(&directory)).start();
    refresher.until("the hanging process", || running("4217") >= 2).await;
    refresher
        .until("why there are none", || {
            refresher.log().contains("the command did not finish within 15 s and was killed")
        })
        .await;
    drop(refresher);
    assert_eq!(running("4217"), 0);
}

#[tokio::test]
async fn a_process_that_leaves_others_behind_is_not_waited_for() {
    let refresher = supplied(script(&format!("sleep 4218 &\n{CREDENTIALS}")), Duration::from_secs(5)).await;
    refresher.until("the end of what it left", || running("4218") == 0).await;
}

#[tokio::test]
async fn a_process_runs_after_the_program_was_replaced() {
    let directory = TempDir::new().unwrap();
    let proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let pushed = |key: &str| {
        proxy.held(&Identity::default_chain()).is_some_and(|credentials| credentials.access_key_id() == key)
    };
    let (replaced, new) = (directory.path().join("replaced"), directory.path().join("new"));
    let later = CREDENTIALS.replace("AKIDSCRIPT", "AKIDLATER");
    let source = script(&format!("test -e {} && {later} || {CREDENTIALS}", replaced.display()));
    let refresher = source.copied().socket(&socket(&directory)).interval("1h").start();
    refresher.until("the first push", || pushed("AKIDSCRIPT")).await;

    std::fs::write(&new, "not a program").unwrap();
    std::fs::write(&replaced, "").unwrap();
    let program = refresher.home.path().join("credential-refresher");
    assert!(std::process::Command::new("mv").arg(&new).arg(&program).status().unwrap().success());
    refresher.signal(Signal::HUP);
    refresher.until("the push after the replacement", || pushed("AKIDLATER")).await;
}

#[tokio::test]
async fn roles_are_assumed_with_what_a_source_gave_before_it_failed() {
    let (directory, sts) = (TempDir::new().unwrap(), Sts::start().await);
    sts.set(READER, Answer::Rotating(Duration::from_secs(2)));
    let proxy = Running::on_socket(&socket(&directory), &[role(READER)]);
    let fails = directory.path().join("fails");
    let expiration = humantime::format_rfc3339_seconds(SystemTime::now() + HOUR);
    let credentials = CREDENTIALS.replace("\"s\"", &format!("\"s\", \"Expiration\": \"{expiration}\""));
    let source = script(&format!("test -e {} && exit 7\n{credentials}", fails.display()));
    let refresher = source.sts(sts.port).socket(&socket(&directory)).start();
    refresher.until("the first session", || proxy.held(&role(READER)).is_some()).await;

    std::fs::write(&fails, "").unwrap();
    refresher.until("the failure", || refresher.log().contains("the source of all credentials fails")).await;
    let before = proxy.pushes().len();
    refresher.until("three more sessions", || proxy.pushes().len() >= before + 3).await;
    assert!(!refresher.log().contains("can't get credentials"), "{}", refresher.log());
}

/// Waits until the refresher has refused this file of its chain.
async fn refuses(refresher: Refresher, setting: &str, refused: &str) {
    let directory = TempDir::new().unwrap();
    let _proxy = Running::on_socket(&socket(&directory), &[Identity::default_chain()]);
    let refresher = refresher.with_address_space(2048).socket(&socket(&directory)).start();
    failed(&refresher, &format!("({setting}) {refused}")).await;
}

const DEVICE: &str = "is a device; use a regular file";
const TOO_LARGE: &str = "is larger than 1024 KiB; use a smaller file";

/// The settings of the chain's files.
const FILES: [&str; 4] = [
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// Returns a refresher whose chain reads this file.
fn reading(setting: &str, path: &Path) -> Refresher {
    let metadata = "http://127.0.0.1:1/v1/credentials";
    let refresher = without_keys().env("AWS_CONTAINER_CREDENTIALS_FULL_URI", metadata).env(setting, path);
    if setting == "AWS_WEB_IDENTITY_TOKEN_FILE" { refresher.env("AWS_ROLE_ARN", READER) } else { refresher }
}

#[tokio::test]
async fn a_device_in_place_of_a_file_is_not_read() {
    for setting in FILES {
        refuses(reading(setting, Path::new("/dev/zero")), setting, DEVICE).await;
    }
}

#[tokio::test]
async fn a_device_in_place_of_a_default_file_is_not_read() {
    for (name, setting) in [("config", "AWS_CONFIG_FILE"), ("credentials", "AWS_SHARED_CREDENTIALS_FILE")] {
        let refresher = without_keys().home_file(".aws/other", "");
        symlink("/dev/zero", refresher.home.path().join(".aws").join(name)).unwrap();
        refuses(refresher, setting, DEVICE).await;
    }
}

#[tokio::test]
async fn a_token_file_of_a_profile_is_not_read_if_it_is_a_device() {
    let config = format!(
        "[default]\nrole_arn = {READER}\nsource_profile = web\n\
         [profile web]\nrole_arn = {READER}\nweb_identity_token_file = /dev/zero\n"
    );
    refuses(without_keys().home_file(".aws/config", &config), "web_identity_token_file", DEVICE).await;
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_read() {
    let directory = TempDir::new().unwrap();
    let large = directory.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
    for setting in FILES {
        refuses(reading(setting, &large), setting, TOO_LARGE).await;
    }
}

#[tokio::test]
async fn a_pipe_in_place_of_a_file_is_not_waited_for() {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for setting in FILES {
        refuses(reading(setting, &pipe), setting, "is a pipe; use a regular file").await;
    }
}

#[tokio::test]
async fn a_configuration_that_is_a_device_a_pipe_or_too_large_is_not_read() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::File::create(path("large")).unwrap().set_len(1 << 30).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let refused = [
        (PathBuf::from("/dev/zero"), DEVICE),
        (path("large"), TOO_LARGE),
        (path("pipe"), "is a pipe; use a regular file"),
    ];
    for (config, words) in refused {
        let config = config.to_str().unwrap();
        // Less than the large file takes.
        let mut refresher = Refresher::new().with_address_space(512).args(&["--config", config]).start();
        assert_eq!(refresher.end().await.0.code(), Some(2), "{}", refresher.log());
        assert!(refresher.log().contains(&format!("{config} (--config) {words}")), "{}", refresher.log());
    }
}

#[tokio::test]
async fn a_linked_file_is_read_and_the_null_device_disables_one() {
    let config = "[default]\naws_access_key_id = AKIDLINKED\naws_secret_access_key = s\n";
    let refresher = without_keys().home_file("..data/credentials", config).env("AWS_CONFIG_FILE", "/dev/null");
    let link = refresher.home.path().join("credentials");
    symlink("..data/credentials", &link).unwrap();
    supplied(refresher.env("AWS_SHARED_CREDENTIALS_FILE", &link), Duration::from_secs(10)).await;
}

/// Returns the number of processes with this argument.
fn running(argument: &str) -> usize {
    let has = |directory: &Path| {
        let command = std::fs::read(directory.join("cmdline")).unwrap_or_default();
        command.starts_with(b"sleep\0") && command.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().filter(|entry| has(&entry.as_ref().unwrap().path())).count()
}
