//! The sources of credentials: AWS's provider chain, and STS on top of it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_runtime::retries::classifiers::THROTTLING_ERRORS;
use aws_sdk_sts::config::{IdentityCache, SharedHttpClient};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleInput;
use aws_sdk_sts::operation::assume_role::builders::AssumeRoleInputBuilder;
use aws_sdk_sts::types::{PolicyDescriptorType, Tag};
use secrecy::SecretString;
use sigv4_core::credentials::{Credentials, Identity, Role};
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::credential_process::{TOKEN_FILE, bounded_profiles};
use crate::http_client;
use crate::source_files::{self, SourceFileError};
use crate::sts_calls::{LONGEST_PAUSE, NoAnswer, StsCalls};
use crate::sync::lock;

/// The time limit of one resolution of the chain.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The time for which a result of the chain is shared, so that many roles cost one resolution.
const CHAIN_CACHE_TTL: Duration = Duration::from_secs(1);

/// The time for which a failure is shared by roles that can be assumed without a new result.
const FAILED_CHAIN_CACHE_TTL: Duration = Duration::from_secs(10);

/// Once the chain fails, its last credentials are not used if they expire within this time.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// The pause of calls to STS after it throttled one without `retry-after`.
const THROTTLED_PAUSE: Duration = Duration::from_secs(1);

/// The largest number of characters of a problem in an error.
const LONGEST_PROBLEM: usize = 2000;

/// The region of STS if none is set: that of its global endpoint.
const FALLBACK_REGION: &str = "us-east-1";

/// The time until the next lookup of a region after none was found.
const FALLBACK_KEPT_FOR: Duration = Duration::from_secs(60);

/// The reason that there are no credentials, for an operator. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The provider chain returned none.
    #[error("the AWS provider chain returned no credentials: {0}")]
    Chain(String),
    /// STS did not let the role be assumed, or could not be reached.
    #[error("STS did not assume {role}: {problem}")]
    Sts {
        /// The role's ARN.
        role: String,
        /// STS's message, or the reason that it could not be called.
        problem: String,
        /// True if it could not be called, or has failed.
        is_down: bool,
        /// The time until the next call, if it sent one or throttled the call.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    #[error("no answer from {source_name} within {} s", after.as_secs_f64())]
    Timeout {
        /// The source.
        source_name: &'static str,
        /// The time that was allowed.
        after: Duration,
    },
    /// The source returned unusable credentials.
    #[error("{source_name} returned unusable credentials: {problem}")]
    Unusable {
        /// The source.
        source_name: &'static str,
        /// The defect.
        problem: String,
    },
    /// It still returns a revoked access key.
    #[error("the source still returns the revoked access key {access_key_id}; rotate it")]
    Revoked {
        /// The access key's id.
        access_key_id: String,
    },
}

impl SourceError {
    /// All results of [`SourceError::reason`].
    pub const REASONS: [&str; 5] = ["chain", "sts", "timeout", "unusable", "revoked"];

    /// Returns its kind in one word, for a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Chain(_) => "chain",
            Self::Sts { .. } => "sts",
            Self::Timeout { .. } => "timeout",
            Self::Unusable { .. } => "unusable",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// Returns whether every other identity would also fail.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Chain(_) | Self::Timeout { source_name: CHAIN, .. } => true,
            Self::Sts { is_down, .. } => *is_down,
            _ => false,
        }
    }

    /// Returns whether STS did not answer for this role.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout { source_name: STS, .. })
    }

    /// Returns the shortest time until the next call.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Sts { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

const CHAIN: &str = "the AWS provider chain";
const STS: &str = "STS";

/// AWS, as it is configured for this process. The shared config files and the files that the environment names are read
/// for every resolution, so that changes take effect without a restart.
#[derive(Debug)]
pub struct AwsSource {
    http_client: SharedHttpClient,
    /// Looked up once, as instance metadata takes seconds to fail outside EC2; again after a while if there was none.
    region: Mutex<Option<KnownRegion>>,
    chain_result: Mutex<Option<ChainResult>>,
    /// Results that began before this are not shared.
    chain_valid_since: std::sync::Mutex<Option<Instant>>,
    last_base: std::sync::Mutex<Option<BaseCredentials>>,
    sts_calls: StsCalls,
    /// Held while the chain's files are checked.
    file_check: Arc<Mutex<()>>,
    /// For the one identity that probes for the end of an outage.
    probe: Arc<Semaphore>,
    /// True if the last call found an outage.
    is_out: AtomicBool,
    recoveries: Notify,
}

#[derive(Debug)]
struct KnownRegion {
    region: Region,
    read: Instant,
    until: Option<Instant>,
}

#[derive(Debug)]
struct ChainResult {
    began: Instant,
    at: Instant,
    found: Result<BaseCredentials, SourceError>,
}

/// The credentials that roles are assumed with.
#[derive(Debug, Clone)]
struct BaseCredentials {
    config: SdkConfig,
    credentials: aws_credential_types::Credentials,
}

impl AwsSource {
    /// Creates the source. Nothing is read or called yet.
    pub fn new() -> Self {
        Self {
            http_client: http_client::bounded(),
            region: Mutex::new(None),
            chain_result: Mutex::new(None),
            chain_valid_since: std::sync::Mutex::default(),
            last_base: std::sync::Mutex::default(),
            sts_calls: StsCalls::new(),
            file_check: Arc::default(),
            probe: Arc::new(Semaphore::new(1)),
            is_out: AtomicBool::new(false),
            recoveries: Notify::new(),
        }
    }

    /// Fetches an identity's credentials. `was_silent` means that STS did not answer its last call.
    ///
    /// # Errors
    /// Any [`SourceError`]; expired credentials are an error too.
    pub async fn credentials_of(&self, identity: &Identity, was_silent: bool) -> Result<Credentials, SourceError> {
        let outcome = self.obtain(identity, was_silent).await;
        match &outcome {
            Ok(_) if self.is_out.swap(false, Ordering::Relaxed) => self.recoveries.notify_waiters(),
            Err(error) if error.is_outage() => self.is_out.store(true, Ordering::Relaxed),
            _ => {}
        }
        outcome
    }

    /// Waits until another identity finds that an outage has ended.
    pub async fn recovered(&self) {
        self.recoveries.notified().await;
    }

    /// Lets one identity probe for the end of an outage until it drops the permit: many would not find it earlier.
    pub fn try_probe(&self) -> Option<OwnedSemaphorePermit> {
        self.probe.clone().try_acquire_owned().ok()
    }

    async fn obtain(&self, identity: &Identity, was_silent: bool) -> Result<Credentials, SourceError> {
        let (source_name, credentials) = match identity.role() {
            None => (CHAIN, from_chain(&self.base(CHAIN_CACHE_TTL).await?.credentials)?),
            Some(role) => {
                let base = async || self.base_for_role().await;
                let assumed = self.sts_calls.in_turn(was_silent, base, async |base| assume(role, base).await);
                let assumed =
                    assumed.await.map_err(|NoAnswer(after)| SourceError::Timeout { source_name: STS, after })?;
                (STS, assumed.inspect_err(|error| self.sts_calls.pause(error.retry_after()))?)
            }
        };
        if credentials.hold_at(SystemTime::now()) {
            Ok(credentials)
        } else {
            Err(SourceError::Unusable { source_name, problem: "they have expired already".to_owned() })
        }
    }

    /// Returns the credentials that roles are assumed with. While the chain fails, its last ones are used until they
    /// expire.
    async fn base_for_role(&self) -> Result<BaseCredentials, SourceError> {
        let soon = SystemTime::now() + SHORTEST_LIFE;
        let last = lock(&self.last_base).clone().filter(|last| last.credentials.expiry().is_some_and(|at| at > soon));
        match last {
            None => self.base(CHAIN_CACHE_TTL).await,
            Some(last) => self.base(FAILED_CHAIN_CACHE_TTL).await.or(Ok(last)),
        }
    }

    /// Forgets the chain's result and the region, so that callers from now on get what is read after this call.
    pub fn forget_chain_result(&self) {
        *lock(&self.chain_valid_since) = Some(Instant::now());
    }

    async fn base(&self, failure_shared_for: Duration) -> Result<BaseCredentials, SourceError> {
        let mut cached = self.chain_result.lock().await;
        if let Some(cached) = &*cached
            && cached.at.elapsed() < if cached.found.is_ok() { CHAIN_CACHE_TTL } else { failure_shared_for }
            && lock(&self.chain_valid_since).is_none_or(|since| cached.began >= since)
        {
            return cached.found.clone();
        }
        let began = Instant::now();
        // Boxed, so that a resolution takes memory only while it runs.
        let found = match timeout(CHAIN_TIMEOUT, Box::pin(self.resolve_chain())).await {
            Ok(found) => found,
            Err(_) => Err(SourceError::Timeout { source_name: CHAIN, after: CHAIN_TIMEOUT }),
        };
        match &found {
            Ok(base) => *lock(&self.last_base) = Some(base.clone()),
            // Not reported elsewhere, as the roles go on.
            Err(error) if lock(&self.last_base).is_some() => warn!(%error, "the source of all credentials fails"),
            Err(_) => {}
        }
        *cached = Some(ChainResult { began, at: Instant::now(), found: found.clone() });
        found
    }

    /// Returns the region of STS. A fallback is kept for a limited time, as the region may become readable later.
    async fn region(&self, configured: impl Future<Output = Option<Region>>) -> Region {
        let mut known = self.region.lock().await;
        if let Some(KnownRegion { region, read, until }) = &*known
            && until.is_none_or(|until| Instant::now() < until)
            && lock(&self.chain_valid_since).is_none_or(|since| *read >= since)
        {
            return region.clone();
        }
        let read = Instant::now();
        let (found, until) = match configured.await {
            Some(region) => (region, None),
            None => (Region::from_static(FALLBACK_REGION), Some(Instant::now() + FALLBACK_KEPT_FOR)),
        };
        if known.as_ref().is_none_or(|before| before.region != found) {
            match until {
                None => info!(region = %found, "STS is called in this region"),
                Some(_) => info!(
                    region = %found,
                    "no region is set (AWS_REGION, or region in the shared config): STS is called here"
                ),
            }
        }
        *known = Some(KnownRegion { region: found.clone(), read, until });
        found
    }

    /// Checks the files of the chain. On a dead disk this never returns: it then occupies one thread, and no later check
    /// takes another.
    async fn check_files<C>(&self, check: C) -> Result<(), SourceError>
    where
        C: FnOnce() -> Result<(), SourceFileError> + Send + 'static,
    {
        let turn = self.file_check.clone().lock_owned().await;
        let check = move || {
            let _turn = turn;
            check()
        };
        let checked = spawn_blocking(check).await.map_err(|error| SourceError::Chain(error.to_string()))?;
        checked.map_err(|error| SourceError::Chain(one_line(&error.to_string())))
    }

    async fn resolve_chain(&self) -> Result<BaseCredentials, SourceError> {
        self.check_files(source_files::check_environment).await?;
        let (profiles, token_files) = bounded_profiles().await;
        self.check_files(move || token_files.iter().try_for_each(|path| source_files::check(path, TOKEN_FILE))).await?;
        let region = self.region(configured_region(self.http_client.clone())).await;
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http_client.clone())
            .profile_files(profiles)
            .region(region)
            .load()
            .await;
        let Some(provider) = config.credentials_provider() else {
            return Err(SourceError::Chain("it is disabled".to_owned()));
        };
        let credentials =
            provider.provide_credentials().await.map_err(|error| SourceError::Chain(error_chain(&error)))?;
        let checked = from_chain(&credentials)?;
        // Roles are assumed with the same credentials that are pushed, without the white space that a file may have
        // around them.
        let credentials = aws_credential_types::Credentials::new(
            checked.access_key_id(),
            checked.secret_access_key(),
            checked.session_token().map(str::to_owned),
            credentials.expiry(),
            CHAIN,
        );
        Ok(BaseCredentials { config, credentials })
    }
}

/// Returns the region that is set, if any.
async fn configured_region(http_client: SharedHttpClient) -> Option<Region> {
    let config = ProviderConfig::without_region().with_http_client(http_client);
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::builder().configure(&config).build())
        .or_else(ImdsRegionProvider::builder().configure(&config).build());
    chain.region().await
}

/// Assumes the roles of a chain one by one, then the role itself. STS lets no later role change the source identity, and
/// takes no session policy over from an earlier one.
async fn assume(role: &Role, base: BaseCredentials) -> Result<Credentials, SourceError> {
    let BaseCredentials { config, mut credentials } = base;
    for arn in &role.chain {
        let hop = role_session(role, arn);
        let session = call_sts(arn, hop, &config, credentials).await?;
        credentials = aws_credential_types::Credentials::new(
            session.access_key_id,
            session.secret_access_key,
            Some(session.session_token),
            None,
            STS,
        );
    }
    let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
    let tags: Vec<Tag> = role.tags.iter().map(tag).collect::<Result<_, _>>().map_err(|error| unusable(&error))?;
    let policy = |arn: &String| PolicyDescriptorType::builder().arn(arn).build();
    let policy_arns: Vec<PolicyDescriptorType> = role.policy_arns.iter().map(policy).collect();
    let last = role_session(role, &role.arn)
        .set_external_id(role.external_id.clone())
        .set_duration_seconds(role.duration_seconds.and_then(|seconds| i32::try_from(seconds).ok()))
        .set_tags((!tags.is_empty()).then_some(tags))
        .set_policy_arns((!policy_arns.is_empty()).then_some(policy_arns))
        .set_policy(role.session_policy.clone());
    let session = call_sts(&role.arn, last, &config, credentials).await?;
    let expiration = SystemTime::try_from(session.expiration).map_err(|error| unusable(&error))?;
    Credentials::new(
        session.access_key_id,
        session.secret_access_key,
        Some(SecretString::from(session.session_token)),
        Some(expiration),
    )
    .map_err(|error| unusable(&error))
}

/// Returns the parameters that the session of every role in a chain has.
fn role_session(role: &Role, arn: &str) -> AssumeRoleInputBuilder {
    AssumeRoleInput::builder()
        .role_arn(arn)
        .role_session_name(&role.session_name)
        .set_source_identity(role.source_identity.clone())
}

async fn call_sts(
    role: &str,
    call: AssumeRoleInputBuilder,
    config: &SdkConfig,
    credentials: aws_credential_types::Credentials,
) -> Result<aws_sdk_sts::types::Credentials, SourceError> {
    let config = aws_sdk_sts::config::Builder::from(config)
        .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
        .identity_cache(IdentityCache::no_cache())
        .build();
    let client = aws_sdk_sts::Client::from_conf(config);
    let answer = call.send_with(&client).await;
    let answer = answer.map_err(|error| sts_error(role, &error, &credentials))?;
    answer.credentials.ok_or_else(|| unusable(&"the answer has no credentials"))
}

fn unusable(problem: &dyn ToString) -> SourceError {
    SourceError::Unusable { source_name: STS, problem: problem.to_string() }
}

fn from_chain(credentials: &aws_credential_types::Credentials) -> Result<Credentials, SourceError> {
    Credentials::new(
        credentials.access_key_id(),
        credentials.secret_access_key(),
        credentials.session_token().map(SecretString::from),
        credentials.expiry(),
    )
    .map_err(|error| SourceError::Unusable { source_name: CHAIN, problem: error.to_string() })
}

/// Returns the error of a call of STS. What STS says may repeat the request that it got, with the session token in it.
fn sts_error<E>(role: &str, error: &SdkError<E>, caller: &aws_credential_types::Credentials) -> SourceError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let problem = match (error.code(), error.message()) {
        (Some(code), Some(message)) => one_line(&without_secrets(format!("{code}: {message}"), caller)),
        (Some(code), None) => one_line(code),
        _ => without_secrets(error_chain(error), caller),
    };
    let problem = match cure(&problem) {
        Some(cure) => format!("{problem}: {cure}"),
        None => problem,
    };
    let answer = error.raw_response();
    let is_throttled = error.code().is_some_and(|code| THROTTLING_ERRORS.contains(&code))
        || answer.is_some_and(|answer| answer.status().as_u16() == 429);
    let has_failed = answer.is_some_and(|answer| answer.status().is_server_error());
    // A pause holds up every role: an answer to one of them alone, such as AccessDenied, can't ask for it.
    let asked_for = answer.filter(|_| is_throttled || has_failed);
    let asked_for = asked_for.and_then(|answer| answer.headers().get("retry-after")?.parse().ok());
    let retry_after = asked_for.map(Duration::from_secs).or(is_throttled.then_some(THROTTLED_PAUSE));
    let retry_after = retry_after.map(|pause| pause.min(LONGEST_PAUSE));
    let is_down = has_failed || matches!(error, SdkError::DispatchFailure(_));
    SourceError::Sts { role: role.to_owned(), problem, is_down, retry_after }
}

/// Fixes of problems, by words in the messages of the SDK and STS.
const CURES: [(&str, &str); 9] = [
    ("invalid peer certificate", "add its authority to the system's certificates, or name it with SSL_CERT_FILE"),
    ("dns error", "check the name server, the region and AWS_ENDPOINT_URL_STS"),
    ("dispatch failure", "check the network, the endpoint and HTTPS_PROXY"),
    ("Signature expired", "set this machine's clock"),
    ("Signature not yet current", "set this machine's clock"),
    ("RequestExpired", "set this machine's clock"),
    ("sts:SetSourceIdentity", "allow it in the trust policies of the role and its roleChain"),
    ("PackedPolicyTooLarge", "shorten sessionPolicy, policyArns or roleTags"),
    ("Throttling", "ask for longer sessions, or for fewer roles, or have STS's quota raised"),
];

/// Returns a text without the secrets of credentials.
fn without_secrets(text: String, credentials: &aws_credential_types::Credentials) -> String {
    let secrets = [Some(credentials.secret_access_key()), credentials.session_token()];
    secrets
        .into_iter()
        .flatten()
        .filter(|secret| !secret.is_empty())
        .fold(text, |text, secret| text.replace(secret, "…"))
}

fn cure(problem: &str) -> Option<&'static str> {
    CURES.iter().find(|(words, _)| problem.contains(words)).map(|(_, cure)| *cure)
}

/// Returns the messages of an error and its causes. The SDK's debug forms show whole responses, which hold secrets.
fn error_chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !words.ends_with(&said) {
            words.push_str(": ");
            words.push_str(&said);
        }
        cause = error.source();
    }
    one_line(&words)
}

/// Returns text of others, such as STS or a credential process, as one bounded line that can't break a log or a
/// terminal.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = words.collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(LONGEST_PROBLEM) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_region_that_could_not_be_read_is_looked_for_again_and_a_found_one_is_kept() {
        let source = AwsSource::new();
        let (set, other) = (Region::from_static("eu-west-1"), Region::from_static("eu-west-2"));
        assert_eq!(source.region(ready(None)).await.as_ref(), FALLBACK_REGION);
        assert_eq!(source.region(ready(Some(set.clone()))).await.as_ref(), FALLBACK_REGION);
        tokio::time::advance(FALLBACK_KEPT_FOR).await;
        assert_eq!(source.region(ready(Some(set.clone()))).await, set);
        tokio::time::advance(FALLBACK_KEPT_FOR * 10).await;
        assert_eq!(source.region(ready(Some(other))).await, set);
    }

    #[test]
    fn what_others_wrote_becomes_one_harmless_line() {
        assert_eq!(
            one_line("Attempted:\n  Environment: no\r\n\u{1b}[31m red\t"),
            "Attempted: Environment: no [31m red"
        );
        let long = one_line(&"é".repeat(10_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (LONGEST_PROBLEM + 1, true));
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_nothing_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(error_chain(&Outer(std::io::Error::other("inner"))), "outer: inner");
    }
}
