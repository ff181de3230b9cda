//! The command line.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use tracing::level_filters::LevelFilter;
use wildmatch::WildMatch;

use crate::proxy_client::ProxyAddress;

/// Keeps Envoy's signing filter supplied with AWS credentials.
///
/// Asks each proxy which identities its policy wants, gets their credentials from AWS's provider chain and from STS,
/// pushes them, and renews them well before they expire. What to sign and which roles to assume is written in the
/// proxy's policy alone.
#[derive(Debug, Parser)]
#[command(name = "credential-refresher", version, max_term_width = 100, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// A proxy's credential intake: `unix:PATH`, or `http://HOST:PORT` on this machine. May be given several times.
    #[arg(long = "proxy", value_name = "ADDRESS", required = true)]
    pub proxies: Vec<ProxyAddress>,

    /// A file with the bearer token for the `http://` proxies. It is read anew for every request.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How often each proxy is asked what it wants and holds, 100ms to 1h.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = interval)]
    pub interval: Duration,

    /// Assume only roles whose ARN matches this pattern: `*` stands for any characters, `?` for one. May be given
    /// several times.
    /// Without it, every role that a proxy's policy names is assumed.
    #[arg(long = "allow-role", value_name = "PATTERN", value_parser = pattern)]
    pub allowed_roles: Vec<WildMatch>,

    /// Push everything once, then exit: with 0, or with 1 and the names of what failed.
    #[arg(long)]
    pub once: bool,

    /// How long `--once` waits for proxies and sources that are not ready yet.
    #[arg(long, value_name = "DURATION", default_value = "30s", requires = "once", value_parser = humantime::parse_duration)]
    pub timeout: Duration,

    /// Serve `/healthz`, `/readyz` and `/metrics` (Prometheus) on this address.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "once")]
    pub listen: Option<SocketAddr>,

    /// The form of the log lines on standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// The least severe events that are logged: error, warn, info, debug, trace or off.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
}

const AFTER_HELP: &str = "\
AWS is set up as for any SDK: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_STS and the other AWS_* variables, the shared
config and credentials files, SSO, web identity, ECS, EKS Pod Identity and EC2 instance roles, HTTPS_PROXY and NO_PROXY.

Examples:
  credential-refresher --proxy unix:/run/sigv4/credentials.sock
  credential-refresher --proxy http://127.0.0.1:9902 --token-file /run/secrets/intake-token \\
                       --allow-role 'arn:aws:iam::123456789012:role/*' --log-format json";

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Cli {
    /// Reads the command line, and ends the process with a message where it can't be followed.
    pub fn read() -> Self {
        let cli = Self::parse();
        if cli.token_file.is_none()
            && let Some(address) = cli.proxies.iter().find(|address| matches!(address, ProxyAddress::Loopback { .. }))
        {
            let message =
                format!("{address} lets nobody in without a token: give --token-file, or use its unix socket");
            Self::command().error(ErrorKind::MissingRequiredArgument, message).exit();
        }
        cli
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be from 100ms to 1h".to_owned())
    }
}

fn pattern(text: &str) -> Result<WildMatch, Infallible> {
    Ok(WildMatch::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_written_as_people_write_them() {
        assert_eq!(interval("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(interval("1ms").is_err());
        assert!(interval("5").is_err());
    }

    #[test]
    fn a_role_pattern_covers_paths() {
        let cli = Cli::try_parse_from(["r", "--proxy", "unix:/s", "--allow-role", "arn:aws:iam::123456789012:role/*"]);
        let pattern = &cli.unwrap().allowed_roles[0];
        assert!(pattern.matches("arn:aws:iam::123456789012:role/team/orders"));
        assert!(!pattern.matches("arn:aws:iam::999999999999:role/orders"));
    }
}
