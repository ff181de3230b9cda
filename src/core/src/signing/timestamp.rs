//! The time of a signature, `20150830T123600Z`.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// An instant in the form of `x-amz-date`, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Timestamp {
    text: [u8; 16],
}

impl Timestamp {
    fn from_unix(seconds: u64) -> Option<Self> {
        let at = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
        let mut text = *b"00000000T000000Z";
        let mut write = |range: std::ops::Range<usize>, mut value: u32| {
            for digit in text[range].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        // 1970 is the earliest year here, and 9999 the latest that `time` supports without its large-dates feature.
        write(0..4, at.year().unsigned_abs());
        write(4..6, u8::from(at.month()).into());
        write(6..8, at.day().into());
        write(9..11, at.hour().into());
        write(11..13, at.minute().into());
        write(13..15, at.second().into());
        Some(Self { text })
    }

    /// Returns the text, `20150830T123600Z`.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Returns the day of a credential scope, `20150830`.
    pub(super) fn day(&self) -> [u8; 8] {
        let mut day = [0; 8];
        day.copy_from_slice(&self.text[..8]);
        day
    }
}

/// A cache that formats a timestamp once a second.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<(u64, Timestamp)>,
}

impl Clock {
    /// Returns the timestamp of `at`; `None` before 1970 and after 9999.
    pub(super) fn timestamp(&mut self, at: SystemTime) -> Option<Timestamp> {
        let seconds = at.duration_since(UNIX_EPOCH).ok()?.as_secs();
        match self.last {
            Some((last, timestamp)) if last == seconds => Some(timestamp),
            _ => {
                let timestamp = Timestamp::from_unix(seconds)?;
                self.last = Some((seconds, timestamp));
                Some(timestamp)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(at: SystemTime) -> Option<String> {
        Clock::default().timestamp(at).map(|t| String::from_utf8(t.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn an_instant_is_written_to_the_second() {
        assert_eq!(text(UNIX_EPOCH).as_deref(), Some("19700101T000000Z"));
        let at = UNIX_EPOCH + Duration::from_millis(1_440_938_160_999);
        assert_eq!(text(at).as_deref(), Some("20150830T123600Z"));
        assert_eq!(Clock::default().timestamp(at).unwrap().day(), *b"20150830");
    }

    #[test]
    fn a_clock_never_repeats_an_older_second() {
        let mut clock = Clock::default();
        for (seconds, expected) in [(0, "19700101T000000Z"), (0, "19700101T000000Z"), (86_399, "19700101T235959Z")] {
            let timestamp = clock.timestamp(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
            assert_eq!(timestamp.as_bytes(), expected.as_bytes());
        }
    }

    #[test]
    fn years_that_the_form_cannot_hold_give_none() {
        assert_eq!(text(UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(text(UNIX_EPOCH + Duration::from_secs(253_402_300_799)).as_deref(), Some("99991231T235959Z"));
        assert_eq!(text(UNIX_EPOCH + Duration::from_secs(253_402_300_800)), None);
    }
}
