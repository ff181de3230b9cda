//! How far each upstream's clock is from the proxy's, learned from the answers that refuse a signature for its time.
//!
//! AWS takes a signature that is a few minutes off (S3: 15, others: 5) and answers others with
//! `RequestTimeTooSkewed`, `InvalidSignatureException` or the like. What all of these answers have, and a proxy that
//! does not read bodies can see, is a status of 400, 401 or 403 and a `date` that differs from its own clock.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// A smaller difference is not the reason for a refusal.
const TOLERANCE: i64 = 4 * 60;

/// A larger difference is not believed: whoever answers so could have requests signed for times far away.
const BOUND: i64 = 24 * 60 * 60;

/// How many hosts are kept; in a mesh, requests name them.
const MAX_HOSTS: usize = 1024;

/// The differences, by authority. Empty but where a clock is off.
#[derive(Debug, Default)]
pub struct ClockSkew(HashMap<Vec<u8>, i64>);

impl ClockSkew {
    /// The time by the clock of a host.
    pub fn correct(&self, authority: &[u8], now: SystemTime) -> SystemTime {
        // Most of the time no clock is off, and nothing is looked up.
        let seconds = if self.0.is_empty() { 0 } else { self.0.get(authority).copied().unwrap_or(0) };
        shift(now, seconds)
    }

    /// Takes note of an answer. The difference in seconds, where it has changed.
    pub fn learn(&mut self, authority: &[u8], status: u16, date: &[u8], now: SystemTime) -> Option<i64> {
        if !matches!(status, 400 | 401 | 403) {
            return None;
        }
        let difference = OffsetDateTime::parse(std::str::from_utf8(date).ok()?, &Rfc2822).ok()?.unix_timestamp()
            - OffsetDateTime::from(now).unix_timestamp();
        let known = self.0.get(authority).copied().unwrap_or(0);
        if difference.abs() > BOUND || (difference - known).abs() < TOLERANCE {
            return None;
        }
        if difference.abs() < TOLERANCE {
            self.0.remove(authority);
            return Some(0);
        }
        if known == 0 && self.0.len() >= MAX_HOSTS {
            return None;
        }
        self.0.insert(authority.to_vec(), difference);
        Some(difference)
    }
}

fn shift(at: SystemTime, seconds: i64) -> SystemTime {
    let difference = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 { at.checked_sub(difference) } else { at.checked_add(difference) };
    shifted.unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"s3.eu-west-1.amazonaws.com";

    /// Sun, 30 Aug 2015 12:36:00 GMT
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160)
    }

    #[test]
    fn a_refusal_with_another_time_corrects_the_clock_of_its_host() {
        let mut skew = ClockSkew::default();
        assert_eq!(skew.correct(HOST, now()), now());
        assert_eq!(skew.learn(HOST, 403, b"Sun, 30 Aug 2015 13:36:00 GMT", now()), Some(3600));
        assert_eq!(skew.correct(HOST, now()), now() + Duration::from_secs(3600));
        assert_eq!(skew.correct(b"other", now()), now());
        assert_eq!(skew.learn(HOST, 400, b"Sun, 30 Aug 2015 11:36:00 GMT", now()), Some(-3600));
        assert_eq!(skew.correct(HOST, now()), now() - Duration::from_secs(3600));
    }

    #[test]
    fn a_clock_that_is_right_again_is_followed() {
        let mut skew = ClockSkew::default();
        skew.learn(HOST, 403, b"Sun, 30 Aug 2015 13:36:00 GMT", now());
        assert_eq!(skew.learn(HOST, 403, b"Sun, 30 Aug 2015 12:36:01 GMT", now()), Some(0));
        assert_eq!(skew.correct(HOST, now()), now());
    }

    #[test]
    fn nothing_is_learned_from_other_answers() {
        let mut skew = ClockSkew::default();
        for (status, date) in [
            (200, &b"Sun, 30 Aug 2015 13:36:00 GMT"[..]),
            (500, b"Sun, 30 Aug 2015 13:36:00 GMT"),
            (403, b"Sun, 30 Aug 2015 12:39:00 GMT"),
            (403, b"Tue, 01 Sep 2015 12:36:00 GMT"),
            (403, b"tomorrow"),
            (403, b""),
            (403, b"\xff"),
        ] {
            assert_eq!(skew.learn(HOST, status, date, now()), None, "{status} {date:?}");
        }
        assert_eq!(skew.correct(HOST, now()), now());
    }

    #[test]
    fn the_hosts_of_a_mesh_do_not_fill_the_memory() {
        let mut skew = ClockSkew::default();
        for host in 0..2 * MAX_HOSTS {
            skew.learn(host.to_string().as_bytes(), 403, b"Sun, 30 Aug 2015 13:36:00 GMT", now());
        }
        assert_eq!(skew.0.len(), MAX_HOSTS);
    }
}
