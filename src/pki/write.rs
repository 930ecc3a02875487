//! DER, written.
//!
//! Builders use this instead of a structure library where order and bytes must be kept exactly as
//! given: a `SetOf` type sorts the certificates of a certs-only message, whose first one SCEP
//! clients take for theirs, and re-encodes certificates whose signatures cover the original bytes.

use const_oid::ObjectIdentifier;

use super::tlv::tag;
use crate::time::Timestamp;

/// One element with these contents.
pub fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(contents.len() + 6);
    out.push(tag);
    let length = contents.len();
    if length < 0x80 {
        out.push(length.to_le_bytes()[0]);
    } else {
        let octets = length.to_be_bytes();
        let skip = octets.iter().take_while(|octet| **octet == 0).count();
        out.push(0x80 | (octets.len() - skip).to_le_bytes()[0]);
        out.extend_from_slice(&octets[skip..]);
    }
    out.extend_from_slice(contents);
    out
}

/// One constructed element around `parts`, in the order given.
pub fn constructed(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// A SEQUENCE of `parts`.
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    constructed(tag::SEQUENCE, parts)
}

/// A SET OF: DER orders its elements by their encodings (X.690 section 11.6).
pub fn set_of(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort();
    element(tag::SET, &parts.concat())
}

/// An OBJECT IDENTIFIER.
pub fn oid(oid: ObjectIdentifier) -> Vec<u8> {
    element(tag::OBJECT_IDENTIFIER, oid.as_bytes())
}

/// NULL.
pub fn null() -> Vec<u8> {
    element(tag::NULL, &[])
}

/// An OCTET STRING.
pub fn octet_string(octets: &[u8]) -> Vec<u8> {
    element(tag::OCTET_STRING, octets)
}

/// A BIT STRING of whole bytes.
pub fn bit_string(octets: &[u8]) -> Vec<u8> {
    constructed(tag::BIT_STRING, &[&[0], octets])
}

/// A non-negative INTEGER from its big-endian bytes, shortest form.
pub fn unsigned(magnitude: &[u8]) -> Vec<u8> {
    let skip = magnitude.iter().take_while(|octet| **octet == 0).count();
    match &magnitude[skip..] {
        [] => element(tag::INTEGER, &[0]),
        significant @ [first, ..] if first & 0x80 != 0 => {
            constructed(tag::INTEGER, &[&[0], significant])
        }
        significant => element(tag::INTEGER, significant),
    }
}

/// A UTF8String.
pub fn utf8_string(text: &str) -> Vec<u8> {
    element(tag::UTF8_STRING, text.as_bytes())
}

/// A PrintableString. The caller's text has only the characters of that type.
pub fn printable_string(text: &str) -> Vec<u8> {
    element(tag::PRINTABLE_STRING, text.as_bytes())
}

/// A time: UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5), whole
/// seconds.
pub fn time(at: Timestamp) -> Vec<u8> {
    let date = time::OffsetDateTime::from_unix_timestamp(at.seconds())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = date.to_hms();
    let rest = format!(
        "{:02}{day:02}{hour:02}{minute:02}{second:02}Z",
        u8::from(month)
    );
    if (1950..2050).contains(&year) {
        element(tag::UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        element(tag::GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::tlv::whole;

    #[test]
    fn what_is_written_reads_back_strictly() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let contents = vec![0xa5; length];
            let written = octet_string(&contents);
            let read = whole(&written, tag::OCTET_STRING).expect("strict DER");
            assert_eq!(read.value, contents, "{length}");
        }
    }

    #[test]
    fn integers_are_positive_and_short() {
        assert_eq!(unsigned(&[]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0, 7]), [2, 1, 7]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
    }

    #[test]
    fn times_change_their_type_in_2050() {
        let at = |text| time(Timestamp::parse(text).expect("valid"));
        assert_eq!(at("2026-10-01T09:30:07Z"), b"\x17\x0d261001093007Z");
        assert_eq!(at("2050-01-01T00:00:00Z"), b"\x18\x0f20500101000000Z");
    }

    #[test]
    fn a_set_is_ordered_by_its_encodings() {
        let set = set_of(vec![octet_string(&[2]), octet_string(&[1])]);
        assert_eq!(set, [0x31, 6, 4, 1, 1, 4, 1, 2]);
    }
}
