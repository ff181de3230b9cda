//! Conversion of points in time from and to text, without a panic.
//!
//! A `SystemTime` has a smaller range on wasm32, where it begins with 1970, than on other platforms, and a date of the
//! `time` crate ends with the year 9999. The crate's own `From` conversions panic outside of the common range; in the
//! filter, a panic ends the virtual machine. The conversions here accept 1970 to 9999 on every platform, and return `None`
//! otherwise.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns the instant that a text such as `2026-01-02T03:04:05Z` (RFC 3339) names.
///
/// # Errors
/// [`InstantError`] if the text is malformed or out of range.
pub fn parse_rfc3339(text: &str) -> Result<SystemTime, InstantError> {
    let date = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InstantError::Malformed)?;
    from_date(date).ok_or(InstantError::OutOfRange)
}

/// Formats an instant as `2026-01-02T03:04:05Z`, truncated to the second; `None` before 1970 and after 9999.
pub fn format_rfc3339(at: SystemTime) -> Option<String> {
    to_date(at)?.format(&Rfc3339).ok()
}

/// Returns whether an instant is in the years that can be formatted, 1970 to 9999.
pub fn can_be_written(at: SystemTime) -> bool {
    to_date(at).is_some()
}

/// The reason why a text is not an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstantError {
    /// It is not in the format.
    Malformed,
    /// It is before 1970 or after 9999.
    OutOfRange,
}

fn from_date(date: OffsetDateTime) -> Option<SystemTime> {
    let seconds = u64::try_from(date.unix_timestamp()).ok()?;
    let at = UNIX_EPOCH.checked_add(Duration::new(seconds, date.nanosecond()))?;
    // A date of the year 9999 in a zone west of Greenwich may be in a later year.
    can_be_written(at).then_some(at)
}

/// Returns the date of an instant, truncated to the second.
fn to_date(at: SystemTime) -> Option<OffsetDateTime> {
    let seconds = at.duration_since(UNIX_EPOCH).ok()?.as_secs();
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_support::at;

    const LAST: u64 = 253_402_300_799;

    #[test]
    fn what_wasm_can_hold_is_parsed() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", at(0)),
            ("1969-12-31T23:30:00-01:00", at(1800)),
            ("2026-01-02T03:04:05.75Z", at(1_767_323_045) + Duration::from_millis(750)),
            ("9999-12-31T23:59:59Z", at(LAST)),
            ("9999-12-31T23:59:59+23:59", at(LAST - 86_340)),
        ] {
            assert_eq!(parse_rfc3339(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_wasm_can_not_hold_is_out_of_range_on_every_machine() {
        for text in [
            "1969-12-31T23:59:59Z",
            "1969-12-31T23:59:59.999999999Z",
            "1970-01-01T00:30:00+01:00",
            "1960-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(parse_rfc3339(text), Err(InstantError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_malformed() {
        for text in ["", "tomorrow", "10000-01-01T00:00:00Z", "+10000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z"] {
            assert_eq!(parse_rfc3339(text), Err(InstantError::Malformed), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_written_is_none() {
        assert_eq!(format_rfc3339(at(LAST)).as_deref(), Some("9999-12-31T23:59:59Z"));
        for at in [at(LAST + 1), at(i64::MAX as u64), UNIX_EPOCH - Duration::from_secs(1)] {
            assert_eq!(format_rfc3339(at), None, "{at:?}");
        }
    }

    proptest! {
        #[test]
        fn an_instant_survives_being_written(seconds in 0..=LAST, nanoseconds in 0..1_000_000_000_u32) {
            let text = format_rfc3339(UNIX_EPOCH + Duration::new(seconds, nanoseconds)).unwrap();
            prop_assert_eq!(parse_rfc3339(&text), Ok(at(seconds)));
        }

        #[test]
        fn no_date_panics(year in 0..=9999_u16, month in 0..=13_u8, day in 0..=32_u8, clock in "[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,12})?",
                zone in "(Z|[+-][0-2][0-9]:[0-6][0-9])") {
            let text = format!("{year:04}-{month:02}-{day:02}T{clock}{zone}");
            if let Ok(at) = parse_rfc3339(&text) {
                prop_assert!(at >= UNIX_EPOCH && format_rfc3339(at).is_some(), "{}", text);
            }
        }
    }
}
