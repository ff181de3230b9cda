//! Where credentials come from: AWS's provider chain, and STS on top of it.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_sts::config::{IdentityCache, SharedHttpClient};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleInput;
use aws_sdk_sts::operation::assume_role::builders::AssumeRoleInputBuilder;
use aws_sdk_sts::types::Tag;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider as Tls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder as HttpClient, Connector};
use secrecy::SecretString;
use sigv4_core::credentials::{Credentials, Identity, Role};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::info;

/// How long one look at the chain, or one call of STS with the SDK's own retries, may take.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(20);

/// A look at the chain serves everybody who asked meanwhile or just after: many roles cost one look.
const LOOK_SHARED_FOR: Duration = Duration::from_secs(1);

/// Where STS is called when nothing says where: its global endpoint, which signs for this region.
const FALLBACK_REGION: &str = "us-east-1";

/// So long is a region not looked for again that could not be found.
const FALLBACK_KEPT_FOR: Duration = Duration::from_secs(60);

/// Why there are no credentials, in words for an operator. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The provider chain gave none.
    #[error("the AWS provider chain gave no credentials: {0}")]
    Chain(String),
    /// STS would not have the role assumed, or could not be reached.
    #[error("STS did not assume {role}: {problem}")]
    Sts {
        /// The role's ARN.
        role: String,
        /// What STS said, or why it could not be asked.
        problem: String,
    },
    /// No answer in time.
    #[error("no answer from {source_name} within {} s", SOURCE_TIMEOUT.as_secs())]
    Timeout {
        /// What did not answer.
        source_name: &'static str,
    },
    /// What was given is of no use.
    #[error("{source_name} gave credentials that can't be used: {problem}")]
    Unusable {
        /// What gave them.
        source_name: &'static str,
        /// What is wrong with them.
        problem: String,
    },
    /// It still gives what was revoked.
    #[error("the source still gives the access key {access_key_id}, which was revoked: rotate it there")]
    Revoked {
        /// The access key's id.
        access_key_id: String,
    },
}

impl SourceError {
    /// All that [`SourceError::reason`] may say.
    pub const REASONS: [&str; 5] = ["chain", "sts", "timeout", "unusable", "revoked"];

    /// Its kind in one word, for a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Chain(_) => "chain",
            Self::Sts { .. } => "sts",
            Self::Timeout { .. } => "timeout",
            Self::Unusable { .. } => "unusable",
            Self::Revoked { .. } => "revoked",
        }
    }
}

const CHAIN: &str = "the AWS provider chain";
const STS: &str = "STS";

/// AWS, as it is set up for this process. The shared config files and the environment's files are read anew at every
/// look, so that changes take effect without a restart.
#[derive(Debug)]
pub struct AwsSource {
    http_client: SharedHttpClient,
    /// Looked for once, as off EC2 the instance metadata takes seconds to say nothing; again after a while if there was none.
    region: Mutex<Option<(Region, Option<Instant>)>>,
    last_look: Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    at: Instant,
    found: Result<Base, SourceError>,
}

/// What roles are assumed with.
#[derive(Debug, Clone)]
struct Base {
    config: SdkConfig,
    credentials: aws_credential_types::Credentials,
}

impl AwsSource {
    /// Nothing is read or called yet.
    pub fn new() -> Self {
        let http_client = HttpClient::new().build_with_connector_fn(|settings, components| {
            let mut connector =
                Connector::builder().tls_provider(Tls::Rustls(CryptoMode::Ring)).proxy_config(ProxyConfig::from_env());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            connector.build()
        });
        Self { http_client, region: Mutex::new(None), last_look: Mutex::new(None) }
    }

    /// Gets an identity's credentials anew.
    ///
    /// # Errors
    /// Any [`SourceError`]; credentials that have expired already are an error too.
    pub async fn credentials_of(&self, identity: &Identity) -> Result<Credentials, SourceError> {
        let base = self.base().await?;
        let (source_name, credentials) = match identity.role() {
            None => (CHAIN, from_chain(&base.credentials)?),
            Some(role) => {
                let assumed = timeout(SOURCE_TIMEOUT, assume(role, base)).await;
                (STS, assumed.map_err(|_| SourceError::Timeout { source_name: STS })??)
            }
        };
        if credentials.hold_at(SystemTime::now()) {
            Ok(credentials)
        } else {
            Err(SourceError::Unusable { source_name, problem: "they have expired already".to_owned() })
        }
    }

    async fn base(&self) -> Result<Base, SourceError> {
        let mut last_look = self.last_look.lock().await;
        if let Some(look) = &*last_look
            && look.at.elapsed() < LOOK_SHARED_FOR
        {
            return look.found.clone();
        }
        let found = match timeout(SOURCE_TIMEOUT, self.look()).await {
            Ok(found) => found,
            Err(_) => Err(SourceError::Timeout { source_name: CHAIN }),
        };
        *last_look = Some(Look { at: Instant::now(), found: found.clone() });
        found
    }

    /// The region of STS. A fallback is not kept: what could not be read once may be there later.
    async fn region(&self) -> Region {
        let mut known = self.region.lock().await;
        if let Some((region, until)) = &*known
            && until.is_none_or(|until| Instant::now() < until)
        {
            return region.clone();
        }
        let (found, until) = match configured_region(self.http_client.clone()).await {
            Some(region) => (region, None),
            None => (Region::from_static(FALLBACK_REGION), Some(Instant::now() + FALLBACK_KEPT_FOR)),
        };
        if known.as_ref().is_none_or(|(before, _)| *before != found) {
            match until {
                None => info!(region = %found, "STS is called in this region"),
                Some(_) => info!(
                    region = %found,
                    "no region is set (AWS_REGION, or region in the shared config): STS is called here"
                ),
            }
        }
        *known = Some((found.clone(), until));
        found
    }

    async fn look(&self) -> Result<Base, SourceError> {
        let region = self.region().await;
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http_client.clone())
            .region(region)
            .load()
            .await;
        let Some(provider) = config.credentials_provider() else {
            return Err(SourceError::Chain("it is switched off".to_owned()));
        };
        let credentials = provider.provide_credentials().await.map_err(|error| SourceError::Chain(in_words(&error)))?;
        let checked = from_chain(&credentials)?;
        // What roles are assumed with is to be what is pushed, without the white space that a file may have around it.
        let credentials = aws_credential_types::Credentials::new(
            checked.access_key_id(),
            checked.secret_access_key(),
            checked.session_token().map(str::to_owned),
            credentials.expiry(),
            CHAIN,
        );
        Ok(Base { config, credentials })
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

/// Assumes the roles of a chain one by one, and then the role itself.
async fn assume(role: &Role, base: Base) -> Result<Credentials, SourceError> {
    let Base { config, mut credentials } = base;
    for arn in &role.chain {
        let hop = AssumeRoleInput::builder().role_arn(arn).role_session_name(&role.session_name);
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
    let last = AssumeRoleInput::builder()
        .role_arn(&role.arn)
        .role_session_name(&role.session_name)
        .set_external_id(role.external_id.clone())
        .set_duration_seconds(role.duration_seconds.and_then(|seconds| i32::try_from(seconds).ok()))
        .set_tags((!tags.is_empty()).then_some(tags));
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

async fn call_sts(
    role: &str,
    call: AssumeRoleInputBuilder,
    config: &SdkConfig,
    credentials: aws_credential_types::Credentials,
) -> Result<aws_sdk_sts::types::Credentials, SourceError> {
    let config = aws_sdk_sts::config::Builder::from(config)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .identity_cache(IdentityCache::no_cache())
        .build();
    let client = aws_sdk_sts::Client::from_conf(config);
    let answer = call.send_with(&client).await;
    let answer = answer.map_err(|error| SourceError::Sts { role: role.to_owned(), problem: sts_problem(&error) })?;
    answer.credentials.ok_or_else(|| unusable(&"the answer has none"))
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

fn sts_problem<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => one_line(&format!("{code}: {message}")),
        (Some(code), None) => one_line(code),
        _ => in_words(error),
    }
}

/// An error and its causes. Only their own words: the SDK's debug forms show whole responses, and those hold secrets.
fn in_words(error: &dyn Error) -> String {
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

/// What others wrote, such as STS or a credential process, must not break a log's lines or a terminal.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_becomes_one_harmless_line() {
        assert_eq!(
            one_line("Attempted:\n  Environment: no\r\n\u{1b}[31m red\t"),
            "Attempted: Environment: no [31m red"
        );
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_nothing_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        assert_eq!(in_words(&Outer(std::io::Error::other("inner"))), "outer: inner");
    }
}
