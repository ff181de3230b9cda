//! The proxy's clock, and the time elapsed by it.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use crate::host::Host;

/// The longest time between two reads of the clock, because the plugin's tick reads it: a longer step means that the clock
/// was set.
const LONGEST_STEP: Duration = Duration::from_secs(2);

/// The proxy's clock as last read. The proxy has only a wall clock, which may be set.
pub(crate) struct Clock {
    now: Cell<SystemTime>,
    elapsed: Cell<Duration>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: Cell::new(SystemTime::UNIX_EPOCH), elapsed: Cell::default() }
    }
}

impl Clock {
    /// Reads the clock.
    pub(crate) fn read(&self, host: &impl Host) -> SystemTime {
        let (before, now) = (self.now.replace(host.now()), self.now.get());
        let step = now.duration_since(before).unwrap_or_default().min(LONGEST_STEP);
        self.elapsed.set(self.elapsed.get() + step);
        now
    }

    /// Returns the time of the last read: on the last tick, or for a request since. It is at most a second ago, the
    /// resolution of a signature's date.
    pub(crate) fn now(&self) -> SystemTime {
        self.now.get()
    }

    /// Returns the time elapsed up to the last read. A clock that is set adds two seconds at most.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }
}
