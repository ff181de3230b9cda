//! The log. Only this program's own events are written, at every level: those of the SDK and the HTTP stack show
//! requests and responses, and no test here could guarantee that they contain no secrets.

use std::io;
use std::time::SystemTime;

use clap::ValueEnum;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The largest number of lines that wait for a reader; a line has less than 3 KiB.
const MOST_WAITING_LINES: usize = 1024;

/// The format of a log line.
#[derive(Debug, Clone, Copy, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A running log. Dropping it first writes the lines that still wait, if somebody reads them.
#[derive(Debug)]
pub struct Log {
    dropped_lines: ErrorCounter,
    _writer: WorkerGuard,
}

/// Starts logging to standard error. A thread of its own writes the lines, so that a log that nobody reads does not
/// stop the supply.
pub fn start(format: LogFormat, level: LevelFilter) -> Log {
    let own_events = Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
    let log = tracing_subscriber::registry().with(own_events);
    let writer = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MOST_WAITING_LINES);
    let (writer, guard) = writer.finish(io::stderr());
    let dropped_lines = writer.error_counter();
    let lines = fmt::layer().with_writer(writer).with_target(false);
    match format {
        LogFormat::Text => log.with(lines.with_ansi(false)).init(),
        LogFormat::Json => log.with(lines.json().flatten_event(true)).init(),
    }
    Log { dropped_lines, _writer: guard }
}

impl Log {
    /// Returns the metric of the lines that were dropped.
    pub fn dropped_lines(&self) -> DroppedLines {
        DroppedLines(self.dropped_lines.clone())
    }
}

/// The number of lines that were dropped because nobody read them.
#[derive(Debug)]
pub struct DroppedLines(ErrorCounter);

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counter = ConstCounter::new(u64::try_from(self.0.dropped_lines()).unwrap_or(u64::MAX));
        let help = "Log lines that were dropped because nobody read them";
        let metric = encoder.encode_descriptor("log_lines_dropped", help, None, counter.metric_type())?;
        counter.encode(metric)
    }
}

/// Returns an instant as it is logged, such as `2026-01-02T03:04:05Z`.
pub fn instant(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
