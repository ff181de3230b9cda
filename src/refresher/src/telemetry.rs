//! The log. Only this program's own events are written, at every level: those of the SDK and the HTTP stack show requests
//! and answers, and no test here could vouch for their silence about the secrets in them.

use std::io;
use std::time::SystemTime;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::LogFormat;

/// Starts logging to standard error.
pub fn start_log(format: LogFormat, level: LevelFilter) {
    let own_events = Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
    let log = tracing_subscriber::registry().with(own_events);
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with(lines.with_ansi(false)).init(),
        LogFormat::Json => log.with(lines.json().flatten_event(true)).init(),
    }
}

/// An instant as it is logged, such as `2026-01-02T03:04:05Z`.
pub fn instant(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
