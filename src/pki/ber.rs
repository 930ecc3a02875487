//! BER to DER, for CMS only.
//!
//! Real Macs send their `Mdm-Signature` with indefinite lengths (captures in nanomdm's tests, and
//! `fixtures/mdm/mdm-signature-idle-sha1-noattr-ber.b64`), and SCEP clients may. Rewriting such a
//! message is safe because nothing that is signed changes by it: attached content is signed by its
//! contents octets, signed attributes by their DER encoding (RFC 5652 section 5.4), and the
//! certificates inside are copied byte for byte.

use std::borrow::Cow;

use super::tlv::{DerFault, Reader, tag};

/// A certificate inside a signature lies at depth 8 or so; its names and extensions add four.
const MAX_DEPTH: usize = 24;

/// Constructed OCTET STRING: BER lets a string come in pieces.
const STRING_IN_PIECES: u8 = tag::OCTET_STRING | CONSTRUCTED;
const CONSTRUCTED: u8 = 0x20;

/// ContentInfo, `[0]`, SignedData, and then its members.
const MEMBER_DEPTH: usize = 3;

/// End-of-contents octets after the message: some encoders write a few too many.
const MAX_TRAILING_ZEROS: usize = 16;

/// `bytes` as DER: borrowed when they are DER already, rewritten when they are BER.
///
/// The caller has capped their size. Refused: anything but one element (followed by end-of-contents
/// octets at most), nesting deeper than a signature needs, strings in pieces other than OCTET STRING.
pub fn to_der(bytes: &[u8]) -> Result<Cow<'_, [u8]>, DerFault> {
    if !bytes.is_empty() && is_der(Reader::new(bytes), 0, 1).is_ok() {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut input = Ber { rest: bytes };
    let mut out = Vec::with_capacity(bytes.len());
    rewrite(&mut input, &mut out, 0, false)?;
    if input.rest.len() <= MAX_TRAILING_ZEROS && input.rest.iter().all(|octet| *octet == 0) {
        Ok(Cow::Owned(out))
    } else {
        Err(DerFault::Trailing)
    }
}

/// Whether the elements have the lengths DER demands and no string comes in pieces.
fn is_der(mut reader: Reader<'_>, depth: usize, at_most: usize) -> Result<(), DerFault> {
    if depth > MAX_DEPTH {
        return Err(DerFault::Depth);
    }
    for _ in 0..at_most {
        if reader.is_empty() {
            break;
        }
        let element = reader.any()?;
        if element.tag == STRING_IN_PIECES {
            return Err(DerFault::Tag);
        }
        if element.tag & CONSTRUCTED != 0 {
            is_der(element.inside(), depth + 1, usize::MAX)?;
        }
    }
    reader.finish()
}

struct Ber<'a> {
    rest: &'a [u8],
}

/// One element: its contents when its length is definite, otherwise what follows its header.
struct Head<'a> {
    tag: u8,
    contents: Option<&'a [u8]>,
    raw: &'a [u8],
}

impl<'a> Ber<'a> {
    fn head(&mut self) -> Result<Head<'a>, DerFault> {
        let (tag, first) = match self.rest {
            [tag, first, ..] => (*tag, *first),
            _ => return Err(DerFault::Truncated),
        };
        if tag & 0x1f == 0x1f {
            return Err(DerFault::Tag);
        }
        let (header, length) = match first {
            0..=0x7f => (2, Some(usize::from(first))),
            0x80 if tag & CONSTRUCTED != 0 => (2, None),
            0x81..=0x88 => {
                let count = usize::from(first & 0x7f);
                let octets = self.rest.get(2..2 + count).ok_or(DerFault::Truncated)?;
                let length = octets.iter().try_fold(0usize, |sum, octet| {
                    sum.checked_mul(256)?.checked_add(usize::from(*octet))
                });
                (2 + count, Some(length.ok_or(DerFault::Length)?))
            }
            _ => return Err(DerFault::Length),
        };
        let after = self.rest.get(header..).ok_or(DerFault::Truncated)?;
        let Some(length) = length else {
            let raw = self.rest;
            self.rest = after;
            return Ok(Head {
                tag,
                contents: None,
                raw,
            });
        };
        let contents = after.get(..length).ok_or(DerFault::Truncated)?;
        let raw = &self.rest[..header + length];
        self.rest = &after[length..];
        Ok(Head {
            tag,
            contents: Some(contents),
            raw,
        })
    }

    /// Takes end-of-contents octets if they come next.
    fn end_of_contents(&mut self) -> bool {
        match self.rest {
            [0, 0, rest @ ..] => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }
}

/// Rewrites one element. `verbatim`: copy it untouched if its length is definite.
fn rewrite(
    input: &mut Ber<'_>,
    out: &mut Vec<u8>,
    depth: usize,
    verbatim: bool,
) -> Result<(), DerFault> {
    if depth > MAX_DEPTH {
        return Err(DerFault::Depth);
    }
    let head = input.head()?;
    if verbatim && head.contents.is_some() {
        out.extend_from_slice(head.raw);
        return Ok(());
    }
    if head.tag & CONSTRUCTED == 0 {
        // Primitive elements have a definite length: Ber::head refuses the other kind.
        let contents = head.contents.ok_or(DerFault::Length)?;
        if head.tag == 0 {
            return Err(DerFault::Tag);
        }
        out.extend(super::write::element(head.tag, contents));
        return Ok(());
    }

    let in_pieces = head.tag == STRING_IN_PIECES;
    let certificates = depth == MEMBER_DEPTH && head.tag == tag::context_constructed(0);
    let mut inner = Vec::new();
    let mut one = |from: &mut Ber<'_>| -> Result<(), DerFault> {
        if in_pieces {
            piece(from, &mut inner, depth + 1)
        } else {
            rewrite(from, &mut inner, depth + 1, certificates)
        }
    };
    match head.contents {
        Some(contents) => {
            let mut contents = Ber { rest: contents };
            while !contents.rest.is_empty() {
                one(&mut contents)?;
            }
        }
        None => {
            while !input.end_of_contents() {
                one(input)?;
            }
        }
    }
    let tag = if in_pieces {
        tag::OCTET_STRING
    } else {
        head.tag
    };
    out.extend(super::write::element(tag, &inner));
    Ok(())
}

/// Appends the contents of one piece of an OCTET STRING, which may itself come in pieces.
fn piece(input: &mut Ber<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), DerFault> {
    if depth > MAX_DEPTH {
        return Err(DerFault::Depth);
    }
    let head = input.head()?;
    match (head.tag, head.contents) {
        (tag::OCTET_STRING, Some(contents)) => out.extend_from_slice(contents),
        (STRING_IN_PIECES, Some(contents)) => {
            let mut contents = Ber { rest: contents };
            while !contents.rest.is_empty() {
                piece(&mut contents, out, depth + 1)?;
            }
        }
        (STRING_IN_PIECES, None) => {
            while !input.end_of_contents() {
                piece(input, out, depth + 1)?;
            }
        }
        _ => return Err(DerFault::Tag),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn der_is_left_alone() {
        let der = [0x30, 5, 2, 1, 1, 4, 0];
        assert!(matches!(to_der(&der), Ok(Cow::Borrowed(bytes)) if bytes == der));
    }

    #[test]
    fn indefinite_lengths_pieces_and_long_lengths_become_der() {
        let table: [(&[u8], &[u8]); 5] = [
            (&[0x30, 0x80, 2, 1, 1, 0, 0], &[0x30, 3, 2, 1, 1]),
            (
                &[0x30, 0x80, 0x24, 0x80, 4, 1, 7, 4, 1, 8, 0, 0, 0, 0],
                &[0x30, 4, 4, 2, 7, 8],
            ),
            (&[0x30, 0x82, 0, 3, 2, 1, 1], &[0x30, 3, 2, 1, 1]),
            (&[0x30, 3, 2, 1, 1, 0, 0], &[0x30, 3, 2, 1, 1]),
            (&[0x24, 6, 0x24, 4, 4, 2, 7, 8], &[4, 2, 7, 8]),
        ];
        for (ber, der) in table {
            assert_eq!(to_der(ber).expect("rewritten"), der, "{ber:02x?}");
        }
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        let nested: Vec<u8> = [0x30, 0x80].repeat(64);
        let table: [(&[u8], DerFault); 6] = [
            (&[], DerFault::Truncated),
            (&[0x30, 0x80, 2, 1, 1], DerFault::Truncated),
            (&[0x30, 0x80, 2, 1, 1, 0, 0, 5], DerFault::Trailing),
            (&[0x02, 0x80, 1, 0, 0], DerFault::Length),
            (&[0x24, 0x80, 2, 1, 1, 0, 0], DerFault::Tag),
            (&nested, DerFault::Depth),
        ];
        for (ber, fault) in table {
            assert_eq!(to_der(ber), Err(fault), "{ber:02x?}");
        }
    }

    #[test]
    fn certificates_keep_their_bytes() {
        // The INTEGER inside the [0] at depth 3 has a length that DER would write in one octet.
        let odd = [0x30, 4, 2, 0x81, 1, 9];
        let mut ber = vec![0x30, 0x80, 0xa0, 0x80, 0x30, 0x80, 0xa0, 0x80];
        ber.extend(odd);
        ber.extend([0; 8]);
        let der = to_der(&ber).expect("rewritten");
        assert!(der.windows(odd.len()).any(|window| window == odd));
    }

    proptest! {
        #[test]
        fn any_bytes_become_der_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = to_der(&bytes);
        }
    }
}
