//! Reads the time of the sender's clock from the headers of a response, if they prove it.

use time::{Date, Month};

/// The headers in which AWS's services send a request's id. Sources: botocore, `parsers.py`; AWS SDK for JavaScript v3,
/// `deserializeMetadata`; API Gateway Developer Guide, for the two of API Gateway.
const REQUEST_IDS: [&[u8]; 5] =
    [b"x-amzn-requestid", b"x-amzn-request-id", b"x-amz-request-id", b"apigw-requestid", b"x-amz-apigw-id"];

/// Returns whether AWS rejects signatures with this status.
pub fn is_refusal(status: &[u8]) -> bool {
    matches!(status, b"400" | b"401" | b"403")
}

/// Returns the `date` of a refusal in seconds since 1970, if it is the time at which AWS rejected this very request.
///
/// Only an AWS service verifies a signature, and it sends a request id. A response from a cache has the date of an earlier
/// one, and an `age` or a header of the cache that reports a hit. `via` proves nothing, because every intermediary adds it.
pub fn date_of_refusal<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Option<i64> {
    let (mut date, mut has_request_id) = (None, false);
    for (name, value) in headers {
        match name {
            b"age" => return None,
            // Two dates are ambiguous.
            b"date" if date.is_some() => return None,
            b"date" => date = Some(value),
            _ if is_cache_header(name) && reports_hit(value) => return None,
            _ => has_request_id |= REQUEST_IDS.contains(&name) && !value.trim_ascii().is_empty(),
        }
    }
    parse_date(date.filter(|_| has_request_id)?)
}

/// Returns the seconds since 1970 of an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT`: the one form of RFC 9110, 5.6.7, that
/// may be sent. A parser for mail's dates would add 13 KB to the filter.
fn parse_date(text: &[u8]) -> Option<i64> {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let text: &[u8; 29] = text.try_into().ok()?;
    let [_, _, _, b',', b' ', d1, d0, b' ', m2, m1, m0, b' ', y3, y2, y1, y0, b' ', clock @ .., b' ', b'G', b'M', b'T'] =
        text
    else {
        return None;
    };
    let [hour1, hour0, b':', minute1, minute0, b':', second1, second0] = clock else { return None };
    let month = MONTHS.chunks(3).zip(1_u8..).find(|(name, _)| *name == [*m2, *m1, *m0])?.1;
    let year = u16::from(number(*y3, *y2)?) * 100 + u16::from(number(*y1, *y0)?);
    let date = Date::from_calendar_date(year.into(), Month::try_from(month).ok()?, number(*d1, *d0)?).ok()?;
    // A leap second counts as the previous second.
    let second = number(*second1, *second0)?;
    let at = date.with_hms(number(*hour1, *hour0)?, number(*minute1, *minute0)?, second.min(59)).ok()?;
    Some(at.assume_utc().unix_timestamp()).filter(|_| second <= 60)
}

/// Returns the value of two digits.
fn number(tens: u8, ones: u8) -> Option<u8> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

/// Returns whether a header may report a cache hit: `x-cache`, `cache-status` (RFC 9211), `cf-cache-status` and similar.
fn is_cache_header(name: &[u8]) -> bool {
    name != b"cache-control" && name.windows(b"cache".len()).any(|part| part == b"cache")
}

/// Returns whether a header reports a cache hit: `Hit from cloudfront`, `RefreshHit from cloudfront`, `HitStale from child`,
/// `TCP_MEM_HIT`, `MISS, HIT`, `ExampleCache; hit`. The host name after `from` may be any word.
fn reports_hit(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|report| {
        let words = report.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.take_while(|word| !word.eq_ignore_ascii_case(b"from")).any(is_hit)
    })
}

fn is_hit(word: &[u8]) -> bool {
    let word = word.to_ascii_lowercase();
    word.starts_with(b"hit") || word.ends_with(b"hit") || matches!(word.as_slice(), b"stale" | b"revalidated")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: (&str, &str) = ("date", "Sun, 30 Aug 2015 12:36:00 GMT");
    const REQUEST_ID: (&str, &str) = ("x-amzn-requestid", "2f29a4b8-3b5f-4c80-9d23-0d4e1a7b1a11");

    fn date_of(headers: &[(&str, &str)]) -> Option<i64> {
        date_of_refusal(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn the_date_counts_with_a_request_id_of_aws() {
        for name in ["x-amzn-requestid", "x-amzn-request-id", "x-amz-request-id", "apigw-requestid", "x-amz-apigw-id"] {
            assert_eq!(date_of(&[DATE, (name, "id")]), Some(1_440_938_160), "{name}");
            assert_eq!(date_of(&[(name, "id"), DATE]), Some(1_440_938_160), "{name}");
            assert_eq!(date_of(&[DATE, (name, " ")]), None, "{name}");
        }
        for name in ["x-request-id", "x-amz-cf-id", "x-amz-id-2", "x-amzn-trace-id", "server"] {
            assert_eq!(date_of(&[DATE, (name, "id")]), None, "{name}");
        }
        assert_eq!(date_of(&[DATE]), None);
        assert_eq!(date_of(&[REQUEST_ID]), None);
    }

    #[test]
    fn a_response_from_a_cache_proves_nothing() {
        for (name, value) in [
            ("age", "600"),
            ("age", "0"),
            ("age", ""),
            ("x-cache", "Hit from cloudfront"),
            ("x-cache", "RefreshHit from cloudfront"),
            ("x-cache", "OriginShieldHit from cloudfront"),
            ("x-cache", "HIT"),
            ("x-cache", "hit"),
            ("x-cache", "MISS, HIT"),
            ("x-cache", "Miss from child, Hit from parent"),
            ("x-cache", "HitStale from child"),
            ("x-cache", "TCP_MEM_HIT from a23-1-2-3.deploy.example (AkamaiGHost/11)"),
            ("x-cache", "HIT-STALE"),
            ("x-cache-status", "HIT"),
            ("x-cache-status", "STALE"),
            ("x-proxy-cache", "HIT"),
            ("cf-cache-status", "REVALIDATED"),
            ("cache-status", "\"Edge\"; hit; ttl=376"),
            ("cache-status", "ExampleCache; fwd=miss, Edge; hit"),
        ] {
            assert_eq!(date_of(&[DATE, REQUEST_ID, (name, value)]), None, "{name}: {value}");
            assert_eq!(date_of(&[(name, value), REQUEST_ID, DATE]), None, "{name}: {value}");
        }
    }

    #[test]
    fn a_response_that_a_cache_passed_on_counts() {
        for (name, value) in [
            ("x-cache", "Error from cloudfront"),
            ("x-cache", "Miss from cloudfront"),
            ("x-cache", "MISS from hit.example"),
            ("x-cache", "MISS, MISS"),
            ("x-cache", "white"),
            ("x-cache-hits", "0, 0"),
            ("cache-status", "ExampleCache; fwd=miss"),
            ("cache-control", "max-age=5, stale-if-error=60, hit"),
            ("via", "1.1 0f3b.cloudfront.net (CloudFront)"),
        ] {
            assert_eq!(date_of(&[DATE, REQUEST_ID, (name, value)]), Some(1_440_938_160), "{name}: {value}");
        }
    }

    #[test]
    fn a_date_that_tells_no_time_is_none() {
        for date in [
            "",
            "tomorrow",
            "Tue, 24 Nov 2026 25:00:00 GMT",
            "Tue, 24 Nov 2026 12:00:61 GMT",
            "Tue, 31 Feb 2026 12:00:00 GMT",
            "Tue, 00 Nov 2026 12:00:00 GMT",
            "Tue, 24 nov 2026 12:00:00 GMT",
            "Tue, +4 Nov 2026 12:00:00 GMT",
            "Tue, 24 Nov 2026 12:00:00 CET",
            "Tue, 24 Nov 2026 12:00:00 GMT ",
            "Tuesday, 24-Nov-26 12:00:00 GMT",
            "Tue Nov 24 12:00:00 2026",
            "2015-08-30T12:36:00Z",
        ] {
            assert_eq!(date_of(&[("date", date), REQUEST_ID]), None, "{date}");
        }
        assert_eq!(date_of_refusal([(&b"date"[..], &b"\xff"[..]), (b"x-amz-request-id", b"id")]), None);
        assert_eq!(date_of(&[DATE, REQUEST_ID, DATE]), None);
    }

    #[test]
    fn every_date_is_read_as_a_writer_of_http_dates_means_it() {
        for seconds in (-62_167_219_200..253_402_300_800).step_by(86_400 * 97 + 3_661) {
            let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
            let text = format!(
                "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
                &weekday[..3],
                at.day(),
                &month[..3],
                at.year(),
                at.hour(),
                at.minute(),
                at.second()
            );
            assert_eq!(parse_date(text.as_bytes()), Some(seconds), "{text}");
        }
        assert_eq!(parse_date(b"Fri, 30 Jun 1972 23:59:60 GMT"), parse_date(b"Fri, 30 Jun 1972 23:59:59 GMT"));
    }

    #[test]
    fn a_date_before_1970_is_a_number_like_others() {
        assert_eq!(date_of(&[("date", "Sun, 01 Jan 1950 00:00:00 GMT"), REQUEST_ID]), Some(-631_152_000));
    }

    #[test]
    fn other_statuses_refuse_no_signature() {
        assert!([&b"400"[..], b"401", b"403"].iter().all(|status| is_refusal(status)));
        assert!(![&b"200"[..], b"404", b"407", b"500", b"0403", b""].iter().any(|status| is_refusal(status)));
    }
}
