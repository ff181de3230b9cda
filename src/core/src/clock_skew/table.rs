//! The difference for each host: a worker's own copy, and the one that all workers share.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::credentials::{SetError, SharedData};

/// The smallest difference that can be the reason for a refusal.
const TOLERANCE: i64 = 4 * 60;

/// The largest difference that is accepted, so that an upstream can't obtain signatures for the far future.
const BOUND: i64 = 24 * 60 * 60;

/// The most hosts kept, those learned last; in a mesh, requests choose the hosts.
const MAX_HOSTS: usize = 1024;

/// With more hosts than this, a worker writes the table at most once a second, because clients can make it learn with each
/// request.
const FEW_HOSTS: usize = 32;

/// The most hosts that a worker may learn before it shares them, which it does within a second.
const MAX_UNSHARED: usize = 64;

/// The longest valid authority: a DNS name has at most 253 bytes, and a port five.
const MAX_AUTHORITY: usize = 260;

/// The key in shared data. The value has a line for each host, `HOST SECONDS`, the last learned at the end.
const KEY: &str = "sigv4.clock_skew";

/// The differences in seconds, by authority. Empty unless a clock is off.
#[derive(Debug, Default)]
pub struct ClockSkew {
    by_host: HashMap<String, i64>,
    /// Differences that this worker has learned and not shared yet. 0 removes a host.
    unshared: Vec<(String, i64)>,
    /// The time at which this worker shared last, in seconds since 1970.
    last_shared: Option<u64>,
    /// The compare-and-swap number of the shared table that `by_host` was read from.
    version: Option<u32>,
}

impl ClockSkew {
    /// Returns the time by the clock of a host.
    pub fn correct(&self, authority: &[u8], now: SystemTime) -> SystemTime {
        // Usually no clock is off, and nothing is looked up.
        if self.by_host.is_empty() {
            return now;
        }
        let seconds = host(authority).and_then(|host| self.by_host.get(&host)).copied();
        shift(now, seconds.unwrap_or(0))
    }

    /// Records the date of a refusal, in seconds since 1970. Returns the host's difference if it has changed; 0 when the
    /// clocks agree again.
    pub fn learn(&mut self, authority: &[u8], date: i64, now: SystemTime) -> Option<i64> {
        let difference = date.saturating_sub_unsigned(unix_seconds(now));
        if difference.unsigned_abs() > BOUND.unsigned_abs() {
            return None;
        }
        let host = host(authority)?;
        let known = self.by_host.get(&host).copied().unwrap_or(0);
        let learned = if difference.abs() < TOLERANCE { 0 } else { difference };
        let is_news = if learned == 0 { known != 0 } else { (learned - known).abs() >= TOLERANCE };
        if !is_news {
            return None;
        }
        self.unshared.retain(|(unshared, _)| *unshared != host);
        if self.unshared.len() >= MAX_UNSHARED {
            return None;
        }
        if learned == 0 {
            self.by_host.remove(&host);
        } else {
            self.by_host.insert(host.clone(), learned);
        }
        self.unshared.push((host, learned));
        Some(learned)
    }

    /// Writes the learned differences to the shared table; a large one at most once a second, deferring the rest to a later
    /// call.
    ///
    /// # Errors
    /// If the proxy refuses the value; nothing is lost.
    pub fn share(&mut self, data: &impl SharedData, now: SystemTime) -> Result<(), SetError> {
        let second = unix_seconds(now);
        let is_early = self.last_shared == Some(second) && self.by_host.len() > FEW_HOSTS;
        if self.unshared.is_empty() || is_early {
            return Ok(());
        }
        self.last_shared = Some(second);
        data.update_bytes(KEY, &mut |table| {
            let is_replaced = |host: &str| self.unshared.iter().any(|(learned, _)| learned == host);
            let kept = rows(table).filter(|(host, _)| !is_replaced(host));
            let learned = self.unshared.iter().map(|(host, seconds)| (host.as_str(), *seconds));
            let rows: Vec<_> = kept.chain(learned.filter(|(_, seconds)| *seconds != 0)).collect();
            let latest = rows.get(rows.len().saturating_sub(MAX_HOSTS)..).unwrap_or_default();
            let mut table = String::new();
            for (host, seconds) in latest {
                table.extend([*host, " ", &seconds.to_string(), "\n"]);
            }
            Some(table.into_bytes())
        })?;
        self.unshared.clear();
        Ok(())
    }

    /// Reads the shared table if it has changed since the last read. Returns whether it had.
    pub fn reload(&mut self, data: &impl SharedData) -> bool {
        let Some((table, version)) = data.get(KEY) else {
            // With a value to compare, concurrent first writers do not overwrite each other.
            if let Err(error) = data.set(KEY, b"\n", 0) {
                log::error!("{error}; workers may not share what they learn of clocks");
            }
            return false;
        };
        if self.version == Some(version) {
            return false;
        }
        self.version = Some(version);
        self.by_host = rows(&table).map(|(host, seconds)| (host.to_owned(), seconds)).collect();
        for (host, learned) in &self.unshared {
            match learned {
                0 => self.by_host.remove(host),
                learned => self.by_host.insert(host.clone(), *learned),
            };
        }
        true
    }

    /// Returns the seconds by which clocks are off, by host.
    pub fn by_host(&self) -> &HashMap<String, i64> {
        &self.by_host
    }
}

/// Returns the rows of the shared table. Malformed rows are skipped.
fn rows(table: &[u8]) -> impl Iterator<Item = (&str, i64)> {
    let lines = std::str::from_utf8(table).unwrap_or_default().lines();
    lines.filter_map(|line| line.rsplit_once(' ')).filter_map(|(host, seconds)| Some((host, seconds.parse().ok()?)))
}

/// Returns an authority in the table's form, so that all spellings of a host share one row.
fn host(authority: &[u8]) -> Option<String> {
    // A blank or line feed would end the host's name in its row.
    let is_host = (1..=MAX_AUTHORITY).contains(&authority.len()) && authority.iter().all(u8::is_ascii_graphic);
    let host = std::str::from_utf8(authority).ok().filter(|_| is_host)?;
    Some(host.to_ascii_lowercase())
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn shift(at: SystemTime, seconds: i64) -> SystemTime {
    let difference = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 { at.checked_sub(difference) } else { at.checked_add(difference) };
    shifted.unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::{self, Memory};

    const HOST: &[u8] = b"s3.eu-west-1.amazonaws.com";
    /// Sun, 30 Aug 2015 12:36:00 GMT
    const NOW: i64 = 1_440_938_160;
    const HOUR: i64 = 3600;

    fn at(seconds: i64) -> SystemTime {
        test_support::at(seconds.unsigned_abs())
    }

    fn now() -> SystemTime {
        at(NOW)
    }

    #[test]
    fn a_refusal_with_another_time_corrects_the_clock_of_its_host() {
        let mut skew = ClockSkew::default();
        assert_eq!(skew.correct(HOST, now()), now());
        assert_eq!(skew.learn(HOST, NOW + HOUR, now()), Some(HOUR));
        assert_eq!(skew.correct(HOST, now()), at(NOW + HOUR));
        assert_eq!(skew.correct(b"S3.eu-west-1.AMAZONAWS.com", now()), at(NOW + HOUR));
        assert_eq!(skew.correct(b"other", now()), now());
        assert_eq!(skew.learn(HOST, NOW - HOUR, now()), Some(-HOUR));
        assert_eq!(skew.correct(HOST, now()), at(NOW - HOUR));
    }

    #[test]
    fn a_refusal_with_the_proxys_own_time_takes_a_difference_back() {
        for difference in [HOUR, 300, 240, -240, -HOUR] {
            for again in [0, 1, 239, -239] {
                let mut skew = ClockSkew::default();
                assert_eq!(skew.learn(HOST, NOW + difference, now()), Some(difference));
                assert_eq!(skew.learn(HOST, NOW + again, now()), Some(0), "{difference} {again}");
                assert_eq!(skew.correct(HOST, now()), now());
                assert_eq!(skew.by_host.len(), 0);
                assert_eq!(skew.learn(HOST, NOW + again, now()), None);
            }
        }
    }

    #[test]
    fn what_can_not_be_the_reason_or_is_not_believed_changes_nothing() {
        let mut skew = ClockSkew::default();
        for date in [NOW + 239, NOW - 239, NOW + BOUND + 1, NOW - BOUND - 1, -631_152_000, 253_402_300_799, i64::MIN] {
            assert_eq!(skew.learn(HOST, date, now()), None, "{date}");
        }
        assert_eq!(skew.correct(HOST, now()), now());
        skew.learn(HOST, NOW + HOUR, now());
        for date in [NOW + HOUR + 200, NOW + BOUND + 1, i64::MAX] {
            assert_eq!(skew.learn(HOST, date, now()), None, "{date}");
        }
        assert_eq!(skew.correct(HOST, now()), at(NOW + HOUR));
    }

    #[test]
    fn near_1970_no_time_underflows() {
        let mut skew = ClockSkew::default();
        assert_eq!(skew.learn(HOST, -HOUR, UNIX_EPOCH), Some(-HOUR));
        // Before 1970 if the platform supports such a time, else uncorrected.
        assert!(skew.correct(HOST, UNIX_EPOCH) <= UNIX_EPOCH);
    }

    #[test]
    fn what_one_worker_learns_another_uses() {
        let memory = Memory::default();
        let (mut first, mut second) = (ClockSkew::default(), ClockSkew::default());
        assert!(!first.reload(&&memory) && second.reload(&&memory));

        first.learn(HOST, NOW + HOUR, now());
        first.share(&&memory, now()).unwrap();
        assert!(second.reload(&&memory));
        assert_eq!(second.correct(HOST, now()), at(NOW + HOUR));
        assert!(!second.reload(&&memory), "nothing has changed");

        second.learn(b"other", NOW - HOUR, now());
        second.share(&&memory, now()).unwrap();
        assert_eq!(second.learn(HOST, NOW, at(NOW + 1)), Some(0));
        second.share(&&memory, at(NOW + 1)).unwrap();
        assert!(first.reload(&&memory));
        assert_eq!((first.correct(HOST, now()), first.correct(b"other", now())), (now(), at(NOW - HOUR)));
    }

    #[test]
    fn a_large_table_is_shared_once_a_second_and_nothing_is_lost_meanwhile() {
        let memory = Memory::default();
        let (mut first, mut second) = (ClockSkew::default(), ClockSkew::default());
        first.reload(&&memory);
        let hosts: Vec<String> = (0..=FEW_HOSTS).map(|number| number.to_string()).collect();
        for host in hosts.iter().map(String::as_bytes) {
            first.learn(host, NOW + HOUR, now());
            first.share(&&memory, now()).unwrap();
        }
        second.reload(&&memory);
        let last = hosts[FEW_HOSTS].as_bytes();
        assert_eq!((second.by_host.len(), second.correct(last, now())), (FEW_HOSTS, now()));

        assert!(first.reload(&&memory));
        assert_eq!(first.correct(last, now()), at(NOW + HOUR), "not shared yet, and not forgotten");
        first.share(&&memory, at(NOW + 1)).unwrap();
        second.reload(&&memory);
        assert_eq!(second.correct(last, now()), at(NOW + HOUR));
    }

    #[test]
    fn the_hosts_of_a_mesh_do_not_fill_the_memory() {
        let memory = Memory::default();
        let mut skew = ClockSkew::default();
        skew.reload(&&memory);
        let mut learned = 0;
        for second in 0..40 {
            for number in 0..100 {
                let host = format!("bucket-{second}-{number}.s3.amazonaws.com");
                learned += usize::from(skew.learn(host.as_bytes(), NOW + HOUR + second, at(NOW + second)).is_some());
            }
            skew.share(&&memory, at(NOW + second)).unwrap();
            skew.reload(&&memory);
            assert!(skew.by_host.len() <= MAX_HOSTS);
        }
        assert_eq!(learned, 40 * MAX_UNSHARED);
        assert_eq!(skew.by_host.len(), MAX_HOSTS);
        assert!(skew.by_host.keys().any(|host| host.starts_with("bucket-39-")), "the latest ones are kept");
        assert!(memory.0.lock().unwrap()[KEY].0.len() < MAX_HOSTS * (MAX_AUTHORITY + 16));

        let long = vec![b'a'; MAX_AUTHORITY + 1];
        assert_eq!(skew.learn(&long, NOW + HOUR, at(NOW + 60)), None);
        for authority in [&b""[..], b"\xff", b"a b", b"a\nb 60", b"a\0"] {
            assert_eq!(skew.learn(authority, NOW + HOUR, at(NOW + 60)), None);
        }
    }

    #[test]
    fn without_shared_data_a_worker_learns_for_itself_within_its_bound() {
        /// Shared data that refuses every value.
        struct Broken;
        impl SharedData for Broken {
            fn get(&self, _: &str) -> Option<(Vec<u8>, u32)> {
                None
            }
            fn set(&self, _: &str, _: &[u8], _: u32) -> Result<(), SetError> {
                Err(SetError::Refused)
            }
        }
        let mut skew = ClockSkew::default();
        for second in 0..200 {
            skew.learn(second.to_string().as_bytes(), NOW + second + HOUR, at(NOW + second));
            assert_eq!(skew.share(&Broken, at(NOW + second)), Err(SetError::Refused));
            assert!(!skew.reload(&Broken));
        }
        assert_eq!((skew.by_host.len(), skew.correct(b"0", now())), (MAX_UNSHARED, at(NOW + HOUR)));
    }

    #[test]
    fn a_shared_table_that_is_none_is_an_empty_one() {
        let memory = Memory::default();
        (&memory).set(KEY, b"{\na b\n\n \xff", 0).unwrap();
        let mut skew = ClockSkew::default();
        assert!(skew.reload(&&memory));
        assert_eq!(skew.by_host.len(), 0);
    }

    proptest! {
        /// Checks that two workers that learn, share and reload in any order agree on one table, whose differences are
        /// within a day.
        #[test]
        fn workers_agree_once_they_have_shared(
            steps in proptest::collection::vec((0..2_usize, 0..4_u8, -2 * BOUND..2 * BOUND, 0..3_i64, 0..3_u8), 0..40),
        ) {
            let memory = Memory::default();
            let mut workers = [ClockSkew::default(), ClockSkew::default()];
            let mut second = NOW;
            for (worker, host, difference, passed, then) in steps {
                second += passed;
                workers[worker].learn(&[b'a' + host], second + difference, at(second));
                if then > 0 {
                    workers[worker].share(&&memory, at(second)).unwrap();
                }
                if then > 1 {
                    workers[worker].reload(&&memory);
                }
            }
            for later in 1..=2 {
                for worker in &mut workers {
                    worker.share(&&memory, at(second + later)).unwrap();
                    worker.reload(&&memory);
                }
            }
            let tables = workers.map(|worker| {
                let mut table: Vec<_> = worker.by_host.into_iter().collect();
                table.sort();
                table
            });
            prop_assert!(tables[0].iter().all(|(_, seconds)| (TOLERANCE..=BOUND).contains(&seconds.abs())));
            prop_assert_eq!(&tables[0], &tables[1]);
        }
    }
}
