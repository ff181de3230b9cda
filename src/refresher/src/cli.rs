//! The command line and the configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Deserializer};
use tracing::level_filters::LevelFilter;

use crate::check_policy::CheckPolicy;
use crate::log::LogFormat;
use crate::proxy::{ProxyAddress, TlsFiles};
use crate::reconcile::Allowed;
use crate::source_files;

/// Keeps Envoy's signing filter supplied with AWS credentials.
///
/// Asks each proxy which identities its policy wants, gets their credentials from AWS's provider chain and from STS,
/// pushes them, and renews them well before they expire. Only the proxy's policy says what to sign and which roles to
/// assume.
#[derive(Debug, Parser)]
#[command(name = "credential-refresher", version, max_term_width = 100)]
#[command(override_usage = USAGE, after_long_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    options: Options,

    /// A JSON file with the options above: proxies, proxyCa, clientCert, clientKey, interval, allowRoles, allowDefault,
    /// allowSessionNames, allowExternalIds, allowTags, listen, logFormat and logLevel. The command line takes
    /// precedence.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Push everything once, then exit: with 0, or with 1 and the names of the identities that failed.
    #[arg(long)]
    once: bool,

    /// Time limit of `--once` for proxies and sources that are not ready yet.
    #[arg(long, value_name = "DURATION", default_value = "30s", requires = "once", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// A command to run instead of supplying proxies.
#[derive(Debug, Subcommand)]
enum Command {
    CheckPolicy(CheckPolicy),
}

/// The options that both the command line and the file accept.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Options {
    /// A proxy's credential intake: `unix:PATH`, or `https://HOST:PORT`. May be repeated.
    #[arg(long = "proxy", value_name = "ADDRESS", required_unless_present = "config")]
    proxies: Vec<ProxyAddress>,

    /// The CA of the `https://` proxies' certificates, in PEM. These three files are read again for every connection.
    #[arg(long, value_name = "FILE")]
    proxy_ca: Option<PathBuf>,

    /// The client certificate for the `https://` proxies, in PEM.
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// Its private key, in PEM.
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,

    /// Interval for asking each proxy what it wants and holds, 100ms to 1h [default: 5s].
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    #[serde(deserialize_with = "interval_in_file")]
    interval: Option<Duration>,

    /// Assume only roles whose ARN matches this pattern: `*` stands for any characters, `?` for one. Every role of a
    /// chain must match one. May be repeated. Without it, every role that a proxy's policy names is assumed.
    #[arg(long = "allow-role", value_name = "PATTERN")]
    #[serde(deserialize_with = "patterns_in_file")]
    allow_roles: Vec<String>,

    /// Supply the base identity, `default`, even if another --allow-… is set. It can assume any role that its
    /// permissions allow.
    #[arg(long)]
    allow_default: bool,

    /// Assume roles only under a session name that matches this pattern. May be repeated.
    #[arg(long = "allow-session-name", value_name = "PATTERN")]
    #[serde(deserialize_with = "patterns_in_file")]
    allow_session_names: Vec<String>,

    /// Use only external ids that match this pattern. May be repeated.
    #[arg(long = "allow-external-id", value_name = "PATTERN")]
    #[serde(deserialize_with = "patterns_in_file")]
    allow_external_ids: Vec<String>,

    /// Set only source identities that match this pattern. May be repeated.
    #[arg(long = "allow-source-identity", value_name = "PATTERN")]
    #[serde(deserialize_with = "patterns_in_file")]
    allow_source_identities: Vec<String>,

    /// Set only session tags that match this pattern as KEY=VALUE. May be repeated.
    #[arg(long = "allow-tag", value_name = "PATTERN")]
    #[serde(deserialize_with = "patterns_in_file")]
    allow_tags: Vec<String>,

    /// Serve `/healthz`, `/readyz` and `/metrics` (Prometheus) on this address.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "once")]
    listen: Option<SocketAddr>,

    /// The format of the log lines on standard error [default: text].
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,

    /// The least severe events that are logged [default: info].
    #[arg(long, value_name = "LEVEL", value_enum)]
    log_level: Option<LogLevel>,
}

const USAGE: &str = "\
credential-refresher --proxy <ADDRESS> [OPTIONS]
       credential-refresher --config <FILE> [OPTIONS]
       credential-refresher check-policy [--json | --convert] [--caller <NAME>] <FILE>";

const AFTER_HELP: &str = "\
AWS is set up as for any SDK: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_STS and the other AWS_* variables, the shared
config and credentials files, SSO, web identity, ECS, EKS Pod Identity and EC2 instance roles, HTTPS_PROXY and NO_PROXY.

Examples:
  credential-refresher --proxy unix:/run/sigv4/credentials.sock
  credential-refresher --proxy https://127.0.0.1:9902 --proxy-ca ca.pem --client-cert tls.crt --client-key tls.key \\
                       --allow-role 'arn:aws:iam::123456789012:role/*' --log-format json
  credential-refresher check-policy policy.json";

/// The least severe events that are logged.
#[derive(Debug, Clone, Copy, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogLevel {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// The task that the program was started for.
#[derive(Debug)]
pub enum Invocation {
    /// Checks a policy.
    CheckPolicy(CheckPolicy),
    /// Supplies proxies.
    Supply(Box<Settings>),
}

/// The proxies to supply, and how.
#[derive(Debug)]
pub struct Settings {
    /// At least one.
    pub proxies: Vec<ProxyAddress>,
    /// For the proxies that are reached over TLS.
    pub tls: Option<TlsFiles>,
    /// The time between two checks of a proxy.
    pub interval: Duration,
    /// The identities that proxies may ask for.
    pub allowed: Allowed,
    /// The address for probes and Prometheus.
    pub listen: Option<SocketAddr>,
    /// The time limit of a single push.
    pub once: Option<Duration>,
    /// The log's format.
    pub log_format: LogFormat,
    /// The least severe level that is logged.
    pub log_level: LevelFilter,
}

impl Invocation {
    /// Reads the command line and the file that it names, and ends the process with a message if they are invalid.
    pub fn read() -> Self {
        let mut line = CommandLine::parse();
        if let Some(Command::CheckPolicy(check)) = line.command.take() {
            return Self::CheckPolicy(check);
        }
        Self::Supply(Box::new(Settings::resolve(line).unwrap_or_else(|message| {
            let mut command = CommandLine::command();
            command.error(ErrorKind::ValueValidation, message).exit()
        })))
    }
}

impl Settings {
    fn resolve(line: CommandLine) -> Result<Self, String> {
        let file = line.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let Options { proxies, proxy_ca, client_cert, client_key, interval, listen, log_format, log_level, .. } =
            line.options;
        let allowed = Allowed::new(
            &given(line.options.allow_roles).unwrap_or(file.allow_roles),
            line.options.allow_default || file.allow_default,
            &given(line.options.allow_session_names).unwrap_or(file.allow_session_names),
            &given(line.options.allow_external_ids).unwrap_or(file.allow_external_ids),
            &given(line.options.allow_source_identities).unwrap_or(file.allow_source_identities),
            &given(line.options.allow_tags).unwrap_or(file.allow_tags),
        );
        let tls = match (proxy_ca.or(file.proxy_ca), client_cert.or(file.client_cert), client_key.or(file.client_key)) {
            (Some(authority), Some(certificate), Some(key)) => Some(TlsFiles { authority, certificate, key }),
            (None, None, None) => None,
            _ => return Err("--proxy-ca, --client-cert and --client-key belong together; set all three".to_owned()),
        };
        let settings = Self {
            proxies: given(proxies).unwrap_or(file.proxies),
            tls,
            interval: interval.or(file.interval).unwrap_or(Duration::from_secs(5)),
            allowed,
            listen: listen.or(file.listen),
            once: line.once.then_some(line.timeout),
            log_format: log_format.or(file.log_format).unwrap_or_default(),
            log_level: log_level.or(file.log_level).unwrap_or_default().into(),
        };
        if settings.proxies.is_empty() {
            return Err("no proxy is set; use --proxy, or proxies in the configuration file".to_owned());
        }
        let by_certificate = |address: &&ProxyAddress| matches!(address, ProxyAddress::Tls { .. });
        match settings.proxies.iter().find(by_certificate) {
            Some(address) if settings.tls.is_none() => Err(format!(
                "{address} needs certificates on both sides; set --proxy-ca, --client-cert and --client-key, or use its \
                 Unix socket"
            )),
            _ => Ok(settings),
        }
    }
}

fn given<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn read_file(path: &Path) -> Result<Options, String> {
    source_files::check(path, "--config").map_err(|error| error.to_string())?;
    let text = std::fs::read(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    let options =
        serde_path_to_error::deserialize(&mut json).map_err(|error| format!("{}: {error}", path.display()))?;
    json.end().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(options)
}

/// Reads patterns that bound what is supplied. An empty list would bound nothing, and is a slip.
fn patterns_in_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let patterns = Vec::<String>::deserialize(deserializer)?;
    if patterns.is_empty() {
        return Err(serde::de::Error::custom("has no pattern, so that everything would match; leave it out for that"));
    }
    Ok(patterns)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be from 100ms to 1h".to_owned())
    }
}

fn interval_in_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    interval(&text).map(Some).map_err(serde::de::Error::custom)
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, String> {
        let args = std::iter::once("credential-refresher").chain(args.iter().copied());
        Settings::resolve(CommandLine::try_parse_from(args).map_err(|error| error.to_string())?)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn an_empty_list_of_patterns_does_not_allow_everything() {
        for key in ["allowRoles", "allowSessionNames", "allowExternalIds", "allowTags"] {
            let file = file(&format!(r#"{{"proxies": ["unix:/file.sock"], "{key}": []}}"#));
            let error = settings(&["--config", file.path().to_str().unwrap()]).unwrap_err();
            assert!(error.contains(key) && error.contains("has no pattern"), "{error}");
        }
    }

    #[test]
    fn durations_are_written_as_people_write_them() {
        assert_eq!(interval("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(interval("1ms").is_err());
        assert!(interval("5").is_err());
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = file(
            r#"{"proxies": ["unix:/file.sock"], "interval": "1m", "allowRoles": ["arn:*"], "allowDefault": true,
                "allowTags": ["team=*"], "logLevel": "debug",
                "logFormat": "json", "listen": "127.0.0.1:9903"}"#,
        );
        let config = file.path().to_str().unwrap();
        let settings = settings(&["--config", config, "--proxy", "unix:/line.sock", "--log-level", "warn"]).unwrap();
        assert_eq!(settings.proxies, ["unix:/line.sock".parse().unwrap()]);
        assert_eq!(settings.interval, Duration::from_secs(60));
        assert_eq!(settings.allowed, Allowed::new(&["arn:*".to_owned()], true, &[], &[], &[], &["team=*".to_owned()]));
        assert_eq!(settings.log_level, LevelFilter::WARN);
        assert!(matches!(settings.log_format, LogFormat::Json));
        assert_eq!(settings.listen, Some(([127, 0, 0, 1], 9903).into()));
    }

    #[test]
    fn a_file_that_can_not_be_followed_is_refused_at_the_place() {
        for (text, told) in [
            (r#"{"proxies": ["unix:/s", "tcp:x"]}"#, "proxies[1]: must be unix:PATH or https://HOST:PORT"),
            (r#"{"proxies": ["unix:/s"], "interval": "1ms"}"#, "interval: must be from 100ms to 1h"),
            (r#"{"proxies": ["unix:/s"], "allowRole": []}"#, "unknown field `allowRole`"),
            ("{} {}", "trailing characters"),
            ("{}", "no proxy is set"),
        ] {
            let file = file(text);
            let error = settings(&["--config", file.path().to_str().unwrap()]).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_port_needs_certificates() {
        let port = ["--proxy", "https://127.0.0.1:1"];
        assert!(settings(&port).unwrap_err().contains("set --proxy-ca, --client-cert and --client-key"));
        let files = ["--proxy-ca", "/a", "--client-cert", "/c", "--client-key", "/k"];
        assert!(settings(&[&port[..], &files[..4]].concat()).unwrap_err().contains("belong together"));
        let given = settings(&[&port[..], &files[..]].concat()).unwrap().tls.unwrap();
        assert_eq!((given.authority, given.certificate, given.key), ("/a".into(), "/c".into(), "/k".into()));
        assert!(settings(&["--proxy", "http://127.0.0.1:1"]).unwrap_err().contains("use https://"));
        assert!(settings(&["--proxy", "unix:/s"]).is_ok());
    }
}
