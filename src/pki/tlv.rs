//! Strict DER, read in place.
//!
//! Only what X.509 and CMS use: one-byte tags, definite lengths in their shortest form, at most
//! [`MAX_LENGTH`] bytes. Nothing is copied. The certificate and signature decoders of the hot
//! paths stand on this (a general ASN.1 library costs them 25 to 2,000 times as much).

use const_oid::ObjectIdentifier;

/// No element may claim more than this; every caller caps its input well below.
pub const MAX_LENGTH: usize = 16 * 1024 * 1024;

/// Universal tags, ITU-T X.680 section 8.4, with the constructed bit where DER sets it.
pub mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const NULL: u8 = 0x05;
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    pub const UTF8_STRING: u8 = 0x0c;
    pub const PRINTABLE_STRING: u8 = 0x13;
    pub const TELETEX_STRING: u8 = 0x14;
    pub const IA5_STRING: u8 = 0x16;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;

    /// Context-specific, primitive.
    pub const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// Context-specific, constructed.
    pub const fn context_constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

/// How bytes fail to be the DER that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DerFault {
    /// An element claims more bytes than there are.
    #[error("truncated")]
    Truncated,
    /// Indefinite, too long, or not in its shortest form.
    #[error("bad length")]
    Length,
    /// Another element than the one that must stand here.
    #[error("unexpected tag")]
    Tag,
    /// Something follows where nothing may.
    #[error("trailing bytes")]
    Trailing,
    /// The contents do not fit the type.
    #[error("bad value")]
    Value,
    /// Nested deeper than any honest structure.
    #[error("nested too deeply")]
    Depth,
}

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// The identifier octet.
    pub tag: u8,
    /// The contents octets.
    pub value: &'a [u8],
    /// The whole element as received.
    pub raw: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// Reads the elements inside.
    pub fn inside(self) -> Reader<'a> {
        Reader::new(self.value)
    }
}

/// Reads elements one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element, if there is one.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element, whatever it is.
    pub fn any(&mut self) -> Result<Tlv<'a>, DerFault> {
        let (header, length) = header(self.rest)?;
        let end = header + length;
        let raw = self.rest.get(..end).ok_or(DerFault::Truncated)?;
        let (tag, value) = (raw[0], &raw[header..]);
        self.rest = &self.rest[end..];
        Ok(Tlv { tag, value, raw })
    }

    /// The next element, which must have this tag.
    pub fn expect(&mut self, tag: u8) -> Result<Tlv<'a>, DerFault> {
        match self.peek() {
            Some(found) if found == tag => self.any(),
            Some(_) => Err(DerFault::Tag),
            None => Err(DerFault::Truncated),
        }
    }

    /// The next element if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Tlv<'a>>, DerFault> {
        if self.peek() == Some(tag) {
            self.any().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The contents of an OBJECT IDENTIFIER, checked for form.
    pub fn oid(&mut self) -> Result<&'a [u8], DerFault> {
        let value = self.expect(tag::OBJECT_IDENTIFIER)?.value;
        let well_formed = value.last().is_some_and(|last| last & 0x80 == 0)
            && value.len() <= ObjectIdentifier::MAX_SIZE
            && !starts_an_arc_with_padding(value);
        if well_formed {
            Ok(value)
        } else {
            Err(DerFault::Value)
        }
    }

    /// The contents of an INTEGER in shortest form.
    pub fn integer(&mut self) -> Result<&'a [u8], DerFault> {
        let value = self.expect(tag::INTEGER)?.value;
        match value {
            [] => Err(DerFault::Value),
            [0, next, ..] if next & 0x80 == 0 => Err(DerFault::Value),
            [0xff, next, ..] if next & 0x80 != 0 => Err(DerFault::Value),
            _ => Ok(value),
        }
    }

    /// An INTEGER from 0 to 255 (versions, path lengths).
    pub fn small_integer(&mut self) -> Result<u8, DerFault> {
        match self.integer()? {
            [value] if value & 0x80 == 0 => Ok(*value),
            [0, value] => Ok(*value),
            _ => Err(DerFault::Value),
        }
    }

    /// A BOOLEAN.
    pub fn boolean(&mut self) -> Result<bool, DerFault> {
        match self.expect(tag::BOOLEAN)?.value {
            [0x00] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(DerFault::Value),
        }
    }

    /// A BIT STRING of whole bytes (keys and signatures).
    pub fn octets_in_bit_string(&mut self) -> Result<&'a [u8], DerFault> {
        match self.expect(tag::BIT_STRING)?.value {
            [0, octets @ ..] => Ok(octets),
            _ => Err(DerFault::Value),
        }
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), DerFault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DerFault::Trailing)
        }
    }
}

/// The one element that `bytes` consist of.
pub fn whole(bytes: &[u8], tag: u8) -> Result<Tlv<'_>, DerFault> {
    let mut reader = Reader::new(bytes);
    let element = reader.expect(tag)?;
    reader.finish()?;
    Ok(element)
}

/// What follows the header of a sequence, however much of it there is: for telling what broken or
/// cut bytes were meant to be.
pub(super) fn inside_sequence(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [tag::SEQUENCE, 0..=0x7f, rest @ ..] => Some(rest),
        [tag::SEQUENCE, long @ 0x81..=0x84, rest @ ..] => rest.get(usize::from(long & 0x7f)..),
        _ => None,
    }
}

fn header(bytes: &[u8]) -> Result<(usize, usize), DerFault> {
    let (tag, first) = match bytes {
        [tag, first, ..] => (*tag, *first),
        _ => return Err(DerFault::Truncated),
    };
    if tag & 0x1f == 0x1f {
        return Err(DerFault::Tag);
    }
    let (header, length) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let count = usize::from(first & 0x7f);
            let octets = bytes.get(2..2 + count).ok_or(DerFault::Truncated)?;
            let length = octets
                .iter()
                .fold(0usize, |sum, octet| sum << 8 | usize::from(*octet));
            if octets.first() == Some(&0) || length < 0x80 {
                return Err(DerFault::Length);
            }
            (2 + count, length)
        }
        _ => return Err(DerFault::Length),
    };
    if length > MAX_LENGTH {
        Err(DerFault::Length)
    } else {
        Ok((header, length))
    }
}

/// X.690 section 8.19.2: an arc must not begin with 0x80.
fn starts_an_arc_with_padding(value: &[u8]) -> bool {
    value.first() == Some(&0x80)
        || value
            .windows(2)
            .any(|pair| pair[0] & 0x80 == 0 && pair[1] == 0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_taken_only_in_their_shortest_form() {
        let long = {
            let mut bytes = vec![0x04, 0x81, 0x80];
            bytes.extend([7; 0x80]);
            bytes
        };
        assert!(whole(&long, tag::OCTET_STRING).is_ok());
        let table: [(&[u8], DerFault); 9] = [
            (&[], DerFault::Truncated),
            (&[0x04], DerFault::Truncated),
            (&[0x04, 0x02, 0x01], DerFault::Truncated),
            (&[0x04, 0x81, 0x01, 0x00], DerFault::Length),
            (&[0x04, 0x82, 0x00, 0x80], DerFault::Length),
            (&[0x04, 0x80, 0x00, 0x00], DerFault::Length),
            (&[0x04, 0x85, 1, 1, 1, 1, 1], DerFault::Length),
            (&[0x04, 0x00, 0x00], DerFault::Trailing),
            (&[0x05, 0x00], DerFault::Tag),
        ];
        for (bytes, fault) in table {
            assert_eq!(whole(bytes, tag::OCTET_STRING), Err(fault), "{bytes:02x?}");
        }
        assert_eq!(
            Reader::new(&[0x1f, 0x81, 0x00, 0x00]).any(),
            Err(DerFault::Tag)
        );
    }

    #[test]
    fn values_are_taken_only_in_their_one_form() {
        assert_eq!(Reader::new(&[2, 1, 0]).small_integer(), Ok(0));
        assert_eq!(Reader::new(&[2, 2, 0, 0xff]).small_integer(), Ok(255));
        assert_eq!(
            Reader::new(&[2, 1, 0xff]).small_integer(),
            Err(DerFault::Value)
        );
        assert_eq!(Reader::new(&[2, 2, 0, 1]).integer(), Err(DerFault::Value));
        assert_eq!(
            Reader::new(&[2, 2, 0xff, 0x80]).integer(),
            Err(DerFault::Value)
        );
        assert_eq!(Reader::new(&[2, 0]).integer(), Err(DerFault::Value));
        assert_eq!(Reader::new(&[1, 1, 1]).boolean(), Err(DerFault::Value));
        assert_eq!(
            Reader::new(&[3, 2, 1, 0]).octets_in_bit_string(),
            Err(DerFault::Value)
        );
        assert_eq!(Reader::new(&[6, 2, 0x80, 1]).oid(), Err(DerFault::Value));
        assert_eq!(
            Reader::new(&[6, 3, 0x2a, 0x80, 1]).oid(),
            Err(DerFault::Value)
        );
        assert_eq!(Reader::new(&[6, 2, 0x2a, 0x80]).oid(), Err(DerFault::Value));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(element) = reader.any() {
                prop_assert!(element.raw.len() >= 2);
            }
        }
    }
}
