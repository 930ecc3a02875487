//! CBOR (RFC 8949) in the one form in which an attestation object may come.
//!
//! WebAuthn, whose attestation objects the device-attest draft takes over, demands the CTAP2
//! canonical form: definite lengths, every length in its shortest form, no tags. Apple's client
//! writes it so. A second spelling of the same object is therefore nobody's, and is refused.

/// Why bytes are not CBOR as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CborFault {
    #[error("it ends too early")]
    Truncated,
    #[error("something follows it")]
    Trailing,
    #[error("an item is of another type than it must be")]
    Type,
    #[error("a length is indefinite, reserved or not in its shortest form")]
    Length,
    #[error("a text is not UTF-8")]
    Text,
}

mod major {
    pub(super) const BYTES: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const ARRAY: u8 = 4;
    pub(super) const MAP: u8 = 5;
    pub(super) const TAG: u8 = 6;
}

/// Deeper nesting is not looked into.
const MAX_DEPTH: u8 = 16;

/// Whether bytes are CBOR of any form at all, or at least begin as the map that an attestation
/// object is. What is not is something else, rather than a bad attestation object.
pub fn is_cbor(bytes: &[u8]) -> bool {
    let begins_as_map = bytes.first().is_some_and(|first| first >> 5 == major::MAP);
    let is_item = || {
        let mut reader = Reader::new(bytes);
        reader.skip(MAX_DEPTH).is_ok() && reader.finish().is_ok()
    };
    begins_as_map || is_item()
}

/// Reads items one after another; what it expects bounds how deep it goes.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The number of pairs of a map.
    pub(super) fn map(&mut self) -> Result<usize, CborFault> {
        self.head(major::MAP)
    }

    /// The number of elements of an array.
    pub(super) fn array(&mut self) -> Result<usize, CborFault> {
        self.head(major::ARRAY)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], CborFault> {
        let length = self.head(major::BYTES)?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, CborFault> {
        let length = self.head(major::TEXT)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| CborFault::Text)
    }

    pub(super) fn finish(self) -> Result<(), CborFault> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(CborFault::Trailing)
        }
    }

    /// The argument of an item of this major type (RFC 8949 section 3): a length or a number of
    /// items. None can be larger than what is left.
    fn head(&mut self, major: u8) -> Result<usize, CborFault> {
        let first = self.take(1)?[0];
        if first >> 5 != major {
            return Err(CborFault::Type);
        }
        let (argument, least) = match first & 0x1f {
            small @ 0..24 => (u64::from(small), 0),
            24 => (self.number(1)?, 24),
            25 => (self.number(2)?, 1 << 8),
            26 => (self.number(4)?, 1 << 16),
            27 => (self.number(8)?, 1 << 32),
            _ => return Err(CborFault::Length),
        };
        if argument < least {
            return Err(CborFault::Length);
        }
        match usize::try_from(argument) {
            Ok(length) if length <= self.0.len() => Ok(length),
            _ => Err(CborFault::Truncated),
        }
    }

    /// Passes over one item of whatever form (RFC 8949 section 3).
    fn skip(&mut self, depth: u8) -> Result<(), CborFault> {
        let depth = depth.checked_sub(1).ok_or(CborFault::Length)?;
        let first = self.take(1)?[0];
        let (major, argument) = match (first >> 5, first & 0x1f) {
            (major, small @ 0..24) => (major, Some(u64::from(small))),
            (major, wide @ 24..28) => (major, Some(self.number(1 << (wide - 24))?)),
            (major @ major::BYTES..=major::MAP, 31) => (major, None),
            _ => return Err(CborFault::Length),
        };
        let length = argument.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        match (major, length) {
            (major::BYTES | major::TEXT, Some(length)) => self.take(length).map(drop),
            (major::TAG, Some(_)) => self.skip(depth),
            (major::ARRAY | major::MAP, Some(length)) => {
                let items = length.saturating_mul(if major == major::MAP { 2 } else { 1 });
                (0..items).try_for_each(|_| self.skip(depth))
            }
            (_, None) => {
                while self.0.first() != Some(&0xff) {
                    self.skip(depth)?;
                }
                self.take(1).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn number(&mut self, width: usize) -> Result<u64, CborFault> {
        let octets = self.take(width)?;
        Ok(octets
            .iter()
            .fold(0, |sum, octet| sum << 8 | u64::from(*octet)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CborFault> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(CborFault::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_canonical_form_allows_is_read() {
        let mut reader = Reader::new(b"\xa1\x63fmt\x82\x41\x00\x40");
        assert_eq!(reader.map(), Ok(1));
        assert_eq!(reader.text(), Ok("fmt"));
        assert_eq!(reader.array(), Ok(2));
        assert_eq!(reader.bytes(), Ok(&b"\0"[..]));
        assert_eq!(reader.bytes(), Ok(&b""[..]));
        assert_eq!(reader.finish(), Ok(()));
        for length in [23, 24, 255, 256, 65_535, 65_536] {
            let mut item = match length {
                0..24 => vec![0x40 | length as u8],
                24..256 => vec![0x58, length as u8],
                256..65_536 => [&[0x59][..], &(length as u16).to_be_bytes()].concat(),
                _ => [&[0x5a][..], &(length as u32).to_be_bytes()].concat(),
            };
            item.resize(item.len() + length, 7);
            assert_eq!(Reader::new(&item).bytes(), Ok(&vec![7; length][..]));
        }
    }

    #[test]
    fn cbor_is_told_from_what_is_none() {
        for cbor in [
            &b"\xa0"[..],
            b"\xa2\x63fm",
            b"\x00",
            b"\x18\xff",
            b"\x38\x18",
            b"\x80",
            b"\x82\x01\x61a",
            b"\x9f\x01\xff",
            b"\x5f\x41\x00\xff",
            b"\xd9\xd9\xf7\xa0",
            b"\xf6",
            b"\xfb\0\0\0\0\0\0\0\0",
        ] {
            assert!(is_cbor(cbor), "{cbor:x?}");
        }
        let deep = [vec![0x81; 1_000_000], vec![0]].concat();
        for other in [
            &b""[..],
            b"{\"fmt\": \"apple\"}",
            b"-----BEGIN CERTIFICATE-----",
            b"<plist/>",
            b"bplist00",
            b"\x30\x03\x02\x01\x00",
            b"omNmbXRlYXBwbGVnYXR0U3RtdA",
            b"\x00\x00",
            b"\x82\x01",
            b"\x9f\x01",
            b"\xff",
            b"\x1f",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
            &deep,
        ] {
            assert!(!is_cbor(other), "{other:x?}");
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        use CborFault as Fault;
        let bytes = |item: &[u8]| Reader::new(item).bytes().map(<[u8]>::to_vec);
        assert_eq!(bytes(b""), Err(Fault::Truncated));
        assert_eq!(bytes(b"\x42\x01"), Err(Fault::Truncated));
        assert_eq!(bytes(b"\x58"), Err(Fault::Truncated));
        assert_eq!(
            bytes(b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),
            Err(Fault::Truncated)
        );
        assert_eq!(bytes(b"\x61a"), Err(Fault::Type));
        // Not the shortest form.
        assert_eq!(bytes(b"\x58\x01\x00"), Err(Fault::Length));
        assert_eq!(bytes(b"\x59\x00\x01\x00"), Err(Fault::Length));
        assert_eq!(bytes(b"\x5a\x00\x00\x00\x01\x00"), Err(Fault::Length));
        assert_eq!(bytes(b"\x5b\0\0\0\0\0\0\0\x01\x00"), Err(Fault::Length));
        // Reserved, and indefinite.
        assert_eq!(bytes(b"\x5c\x00"), Err(Fault::Length));
        assert_eq!(bytes(b"\x5f\x41\x00\xff"), Err(Fault::Length));
        // A tag.
        assert_eq!(bytes(b"\xc2\x41\x00"), Err(Fault::Type));
        assert_eq!(Reader::new(b"\x61\xff").text(), Err(Fault::Text));
        assert_eq!(Reader::new(b"\x00").finish(), Err(Fault::Trailing));
        // More elements than there are bytes.
        assert_eq!(
            Reader::new(b"\x9a\xff\xff\xff\xff").array(),
            Err(Fault::Truncated)
        );
        assert_eq!(
            Reader::new(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff").map(),
            Err(Fault::Truncated)
        );
    }
}
