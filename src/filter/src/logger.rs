//! The filter's log, which goes into the proxy's. The proxy's own level, which can change at run time, decides what is
//! kept.

use std::cell::RefCell;

use crate::host::{self, LogLevel, Proxy};
use log::{Level, LevelFilter, Log, Metadata, Record};
use sigv4_core::host::Host;
use sigv4_core::log_limit::{LogLimit, UNLIMITED};

thread_local! {
    // A virtual machine is one thread.
    static LIMIT: RefCell<LogLimit> = RefCell::default();
}

struct Logger;

/// Sends this virtual machine's log and panic messages to the proxy.
pub(crate) fn start() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
    std::panic::set_hook(Box::new(|panic| host::log(LogLevel::Critical, &panic.to_string())));
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        let left_out = if record.level() > Level::Warn || record.target() == UNLIMITED {
            Some(0)
        } else {
            let kind = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
            LIMIT.with_borrow_mut(|limit| limit.check(kind, Proxy.now()))
        };
        match left_out {
            None => {}
            Some(0) => host::log(level, &record.args().to_string()),
            Some(more) => host::log(level, &format!("{} ({more} more like it were left out)", record.args())),
        }
    }

    fn flush(&self) {}
}
