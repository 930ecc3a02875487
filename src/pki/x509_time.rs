//! Times as X.509 writes them.

use super::tlv::{DerFault, Tlv, tag};
use crate::time::Timestamp;

/// Reads a UTCTime or GeneralizedTime. RFC 5280 section 4.1.2.5: seconds always, no fraction, always UTC. Times before 1970 become 1970,
/// which no present time can tell apart.
pub fn time_of(element: Tlv<'_>) -> Result<Timestamp, DerFault> {
    let (year, rest) = match (element.tag, element.value) {
        (tag::UTC_TIME, [a, b, rest @ ..]) => {
            let year = two_digits(*a, *b)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (tag::GENERALIZED_TIME, [a, b, c, d, rest @ ..]) => {
            (two_digits(*a, *b)? * 100 + two_digits(*c, *d)?, rest)
        }
        _ => return Err(DerFault::Tag),
    };
    let &[m1, m2, d1, d2, h1, h2, n1, n2, s1, s2, b'Z'] = rest else {
        return Err(DerFault::Value);
    };
    let small = |a, b| two_digits(a, b).and_then(|n| u8::try_from(n).map_err(|_| DerFault::Value));
    let month = time::Month::try_from(small(m1, m2)?).map_err(|_| DerFault::Value)?;
    let date = time::Date::from_calendar_date(year, month, small(d1, d2)?);
    let clock = time::Time::from_hms(small(h1, h2)?, small(n1, n2)?, small(s1, s2)?);
    let (Ok(date), Ok(clock)) = (date, clock) else {
        return Err(DerFault::Value);
    };
    Ok(Timestamp::from_seconds(
        date.with_time(clock).assume_utc().unix_timestamp(),
    ))
}

fn two_digits(tens: u8, ones: u8) -> Result<i32, DerFault> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        Ok(i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
    } else {
        Err(DerFault::Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_rfc_5280() {
        let read = |tag, value: &[u8]| {
            time_of(Tlv {
                tag,
                value,
                raw: &[],
            })
            .map(|time| time.to_string())
        };
        assert_eq!(
            read(tag::UTC_TIME, b"261001093007Z"),
            Ok("2026-10-01T09:30:07Z".into())
        );
        assert_eq!(
            read(tag::UTC_TIME, b"991231235959Z"),
            Ok("1999-12-31T23:59:59Z".into())
        );
        assert_eq!(
            read(tag::UTC_TIME, b"500101000000Z"),
            Ok("1970-01-01T00:00:00Z".into())
        );
        let last = read(tag::GENERALIZED_TIME, b"99991231235959Z");
        assert_eq!(last, Ok("9999-12-31T23:59:59Z".into()));
        for bad in [
            "2610010930Z",
            "261001093007",
            "261301093007Z",
            "261001093007+0100",
            "26100109300xZ",
        ] {
            assert_eq!(
                read(tag::UTC_TIME, bad.as_bytes()),
                Err(DerFault::Value),
                "{bad}"
            );
        }
        assert!(read(tag::GENERALIZED_TIME, b"20261001093007.5Z").is_err());
    }
}
