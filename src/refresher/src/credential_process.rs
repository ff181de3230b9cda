//! Bounds a `credential_process`. The SDK would read all of its output and wait forever, so this program inserts itself
//! before the command in the SDK's profiles. It runs the command with limits, in a process group of its own.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::profile::{self, ProfileSet};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_types::os_shim_internal::{Env, Fs};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::zeroize::Zeroizing;
use sigv4_core::credentials::{CredentialDocumentError, Credentials};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::sync::lock;

/// The first argument of a process that only runs a command. Not for users.
const RUN: &str = "run-credential-process";
const PROPERTY: &str = "credential_process";

/// A profile's property that names a file with a token.
pub const TOKEN_FILE: &str = "web_identity_token_file";

/// Many times the size of a document with credentials.
const LARGEST_OUTPUT: usize = 64 << 10;

/// The most of the command's standard error that is shown when it fails.
const LARGEST_COMPLAINT: usize = 1 << 10;

/// Less than a resolution of the chain may take, so that this is the error that is reported.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15);

/// The time to read on after a command has ended, as a process that it left running may hold its output open.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// Returns the profiles of the shared files, in which each `credential_process` runs with limits, and the token files that
/// the selected profile and those that it builds on name.
pub async fn bounded_profiles() -> (EnvConfigFiles, Vec<PathBuf>) {
    let (default_files, program) = (EnvConfigFiles::default(), own_program());
    let profiles = profile::load(&Fs::real(), &Env::real(), &default_files, None).await;
    // The SDK reads the files again, and reports what is wrong with them.
    let (Ok(profiles), Ok(program)) = (profiles, program) else {
        return (default_files, Vec::new());
    };
    let bounded = EnvConfigFiles::builder()
        .include_default_config_file(true)
        .include_default_credentials_file(true)
        .with_contents(EnvConfigFileKind::Config, overlay(&profiles, &program))
        .build();
    (bounded, token_files(&profiles))
}

fn token_files(profiles: &ProfileSet) -> Vec<PathBuf> {
    let (mut files, mut seen) = (Vec::new(), Vec::new());
    let mut next = Some(profiles.selected_profile());
    while let Some(name) = next.filter(|name| !seen.contains(name)) {
        seen.push(name);
        let profile = profiles.get_profile(name);
        files.extend(profile.and_then(|profile| profile.get(TOKEN_FILE)).map(PathBuf::from));
        next = profile.and_then(|profile| profile.get("source_profile"));
    }
    files
}

/// Returns a path of this program. Once an upgrade has replaced its file, that is the kernel's link to the old one.
fn own_program() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(if program.exists() { program } else { format!("/proc/{}/exe", process::id()).into() })
}

/// Returns profiles that replace each `credential_process`.
fn overlay(profiles: &ProfileSet, program: &Path) -> String {
    let mut text = String::new();
    for name in profiles.profiles() {
        let Some(command) = profiles.get_profile(name).and_then(|profile| profile.get(PROPERTY)) else {
            continue;
        };
        let section = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        let (program, command) = (quoted(&program.to_string_lossy()), quoted(command));
        text.push_str(&format!("[{section}]\n{PROPERTY} = {program} {RUN} {command}\n"));
    }
    text
}

/// Quotes a word for the shell; further lines begin with a space, as the file requires.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''").replace('\n', "\n "))
}

/// Runs a command with limits if this process was started for that.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != RUN {
        return None;
    }
    let command = arguments.next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(run(&command)));
    Some(match outcome {
        Ok(outcome) => outcome.pass_on(),
        Err(error) => {
            eprintln!("can't run the command: {error}");
            ExitCode::FAILURE
        }
    })
}

#[derive(Debug)]
struct Outcome {
    /// `None` if it had not ended in time.
    status: Option<ExitStatus>,
    output: Vec<u8>,
    complaint: Vec<u8>,
}

impl Outcome {
    fn pass_on(self) -> ExitCode {
        let mut complaint = self.complaint;
        complaint.truncate(LARGEST_COMPLAINT);
        let _ = io::stderr().write_all(&complaint);
        match self.status {
            None => eprintln!("the command did not finish within {} s and was killed", COMMAND_TIMEOUT.as_secs()),
            _ if self.output.len() > LARGEST_OUTPUT => {
                eprintln!("the command wrote more than {} KiB; it must write one JSON document", LARGEST_OUTPUT >> 10);
            }
            Some(status) if !status.success() => {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return code.map_or(ExitCode::FAILURE, ExitCode::from);
            }
            Some(_) => match as_the_sdk_reads_it(&self.output) {
                Ok(document) => {
                    return io::stdout().write_all(&document).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
                }
                Err(error) => eprintln!("the command's output can't be used: {error}"),
            },
        }
        ExitCode::FAILURE
    }
}

/// Rewrites a document: the SDK takes a numeric `Expiration` for a missing one, and rejects the zone `+0000`.
fn as_the_sdk_reads_it(output: &[u8]) -> Result<Zeroizing<Vec<u8>>, CredentialDocumentError> {
    Credentials::from_document(output).map(|credentials| credentials.to_document())
}

async fn run(command: &OsStr) -> io::Result<Outcome> {
    let mut child = Command::new("sh")
        .args([OsString::from("-c"), command.to_owned()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let (output, complaint) = (Collected::default(), Collected::default());
    let reading_output = output.collect(child.stdout.take(), LARGEST_OUTPUT + 1, false);
    let reading_complaint = complaint.collect(child.stderr.take(), LARGEST_COMPLAINT, true);
    let status = timeout(COMMAND_TIMEOUT, child.wait()).await;
    if status.is_ok() {
        let _ = timeout(OUTPUT_GRACE, async { drop((reading_output.await, reading_complaint.await)) }).await;
    }
    if let Some(group) = group {
        // If no process of it is left, there is no such group.
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(Outcome { status: status.ok().transpose()?, output: output.take(), complaint: complaint.take() })
}

/// The bytes read so far.
#[derive(Default, Clone)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    /// Collects up to `most` bytes. Then it discards the rest if `drain` is set, or closes the pipe.
    fn collect<R>(&self, from: Option<R>, most: usize, drain: bool) -> JoinHandle<()>
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        let collected = self.clone();
        tokio::spawn(async move {
            let (Some(mut from), mut chunk) = (from, vec![0; 4096]) else {
                return;
            };
            while let Ok(read @ 1..) = from.read(&mut chunk).await {
                let mut so_far = lock(&collected.0);
                let free = most - so_far.len();
                so_far.extend_from_slice(&chunk[..read.min(free)]);
                if so_far.len() == most && !drain {
                    return;
                }
            }
        })
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn profiles(config: &str) -> ProfileSet {
        let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, config).build();
        profile::load(&Fs::real(), &Env::real(), &files, None).await.unwrap()
    }

    #[test]
    fn an_expiration_is_an_instant_or_is_refused_by_name() {
        let read = |expiration: &str| {
            let keys = r#""Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "hush""#;
            as_the_sdk_reads_it(
                format!("{{{keys}, \"SessionToken\": \"\", \"Expiration\": {expiration}}}\n").as_bytes(),
            )
        };
        for zone in ["Z", "+0000", "+00:00"] {
            let document = read(&format!("\"2100-01-02T03:04:05{zone}\"")).unwrap();
            let text = String::from_utf8_lossy(&document);
            assert!(
                text.contains(r#""Expiration":"2100-01-02T03:04:05Z""#) && !text.contains("SessionToken"),
                "{text}"
            );
        }
        for refused in ["4102542245", "\"4102542245\"", "\"tomorrow\"", "true", "[]"] {
            let error = read(refused).unwrap_err().to_string();
            assert!(error.starts_with("Expiration: "), "{refused}: {error}");
        }
        assert!(!String::from_utf8_lossy(&read("null").unwrap()).contains("Expiration"));
    }

    #[tokio::test]
    async fn only_the_command_of_a_profile_is_replaced() {
        let config = "[default]\nregion = x\n[profile a]\ncredential_process = it's \"a b\" # note\n";
        let text = overlay(&profiles(config).await, Path::new("/opt/it's"));
        assert_eq!(
            text,
            "[profile a]\ncredential_process = '/opt/it'\\''s' run-credential-process 'it'\\''s \"a b\"'\n"
        );
        let both = profiles(&text).await;
        let read = both.get_profile("a").unwrap().get(PROPERTY).unwrap();
        assert_eq!(read, "'/opt/it'\\''s' run-credential-process 'it'\\''s \"a b\"'");
    }
}
