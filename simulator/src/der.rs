//! A small DER writer and reader for the structures OpenSSL's safe interface cannot make:
//! indefinite-length CMS, SCEP's signed attributes, a CSR with a challenge password.

/// Universal and context tags used here.
pub mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const NULL: u8 = 0x05;
    pub const OID: u8 = 0x06;
    pub const UTF8_STRING: u8 = 0x0c;
    pub const PRINTABLE_STRING: u8 = 0x13;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    pub const CONTEXT_0: u8 = 0xa0;
}

/// The encoded value of an object identifier, tag and length included.
///
/// The text is one of this crate's own constants; a text that is not an OID is an error.
pub fn oid(dotted: &str) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let object = openssl::asn1::Asn1Object::from_str(dotted)?;
    Ok(tlv(tag::OID, object.as_slice()))
}

/// Tag, definite length, contents.
pub fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = contents.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes: Vec<u8> = length
            .to_be_bytes()
            .into_iter()
            .skip_while(|byte| *byte == 0)
            .collect();
        out.push(0x80 | bytes.len() as u8);
        out.extend(bytes);
    }
    out.extend_from_slice(contents);
    out
}

/// Tag, the indefinite length octet, contents, end-of-contents (X.690 8.1.3.6).
pub fn tlv_indefinite(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag, 0x80];
    out.extend_from_slice(contents);
    out.extend_from_slice(&[0, 0]);
    out
}

/// A SEQUENCE of already encoded parts.
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &parts.concat())
}

/// A SET OF already encoded parts in DER order (X.690 11.6).
pub fn set_of(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort();
    tlv(tag::SET, &parts.concat())
}

/// A non-negative INTEGER below 128.
pub fn small_integer(value: u8) -> Vec<u8> {
    tlv(tag::INTEGER, &[value & 0x7f])
}

/// A UTCTime or, from 2050 on, a GeneralizedTime, as RFC 5652 11.3 demands for signingTime.
pub fn time(unix_seconds: i64) -> Vec<u8> {
    let at = time::OffsetDateTime::from_unix_timestamp(unix_seconds)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let rest = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    if (1950..2050).contains(&at.year()) {
        tlv(
            tag::UTC_TIME,
            format!("{:02}{rest}", at.year() % 100).as_bytes(),
        )
    } else {
        tlv(
            tag::GENERALIZED_TIME,
            format!("{:04}{rest}", at.year()).as_bytes(),
        )
    }
}

/// One element read from DER: its tag, its contents, and the whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    pub tag: u8,
    pub contents: &'a [u8],
    pub whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The elements inside, or `None` when the contents are not a run of DER elements.
    pub fn children(&self) -> Option<Vec<Element<'a>>> {
        elements(self.contents)
    }
}

/// Reads one definite-length element with a one-byte tag and what follows it.
pub fn read(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, header) = if first < 0x80 {
        (usize::from(first), 2)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let bytes = rest.get(..count)?;
        (
            bytes
                .iter()
                .fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte)),
            2 + count,
        )
    };
    let contents = input.get(header..header.checked_add(length)?)?;
    let whole = input.get(..header + length)?;
    Some((
        Element {
            tag,
            contents,
            whole,
        },
        input.get(header + length..)?,
    ))
}

/// Reads all elements of `input`, which must be nothing else.
pub fn elements(mut input: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while !input.is_empty() {
        let (element, rest) = read(input)?;
        found.push(element);
        input = rest;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_the_shortest_and_read_back() {
        for length in [0usize, 1, 127, 128, 255, 256, 70_000] {
            let encoded = tlv(tag::OCTET_STRING, &vec![7; length]);
            let (element, rest) = read(&encoded).unwrap();
            assert_eq!((element.contents.len(), rest.len()), (length, 0));
        }
        assert_eq!(tlv(4, &[0; 128])[..3], [4, 0x81, 128]);
    }

    #[test]
    fn a_cut_element_is_refused() {
        assert_eq!(read(&[0x30, 5, 1, 2]), None);
        assert_eq!(read(&[0x30, 0x80, 0, 0]), None);
        assert_eq!(elements(&[0x02, 1, 1, 9]), None);
    }

    #[test]
    fn times_switch_their_form_in_2050() {
        assert_eq!(time(0)[..], tlv(tag::UTC_TIME, b"700101000000Z")[..]);
        assert_eq!(
            time(2_524_608_000)[..],
            tlv(tag::GENERALIZED_TIME, b"20500101000000Z")[..]
        );
    }
}
