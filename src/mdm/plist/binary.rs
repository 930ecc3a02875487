//! The binary form (`bplist00`, CoreFoundation's CFBinaryPList).
//!
//! Objects refer to each other by number, so a small file can describe a huge or endless tree:
//! nesting, the number of values and the bytes copied out are all bounded while it is built.

use std::borrow::Cow;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Dictionary, MAX_BYTES, MAX_DEPTH, MAX_VALUES, Malformed, Value, in_range};

/// Seconds from 1970 to 2001, where binary property lists count from.
const EPOCH_2001: i64 = 978_307_200;

pub(super) fn read(bytes: &[u8]) -> Result<Value<'_>, Malformed> {
    let (body, trailer) = bytes.split_last_chunk::<32>().ok_or(Malformed::Broken)?;
    if !body.starts_with(b"bplist00") {
        return Err(Malformed::NotAPropertyList);
    }
    let [.., offset_size, ref_size] = trailer.first_chunk::<8>().ok_or(Malformed::Broken)?;
    let count = size(&trailer[8..16])?;
    let top = size(&trailer[16..24])?;
    let table_at = size(&trailer[24..32])?;
    let (offset_size, ref_size) = (usize::from(*offset_size), usize::from(*ref_size));
    let widths = 1..=8;
    if !widths.contains(&offset_size) || !widths.contains(&ref_size) || count > MAX_VALUES {
        return Err(Malformed::Broken);
    }
    let objects = body.get(..table_at).ok_or(Malformed::Broken)?;
    let table = &body[table_at..];
    if Some(table.len()) != count.checked_mul(offset_size) {
        return Err(Malformed::Broken);
    }
    let mut document = Document {
        objects,
        table,
        offset_size,
        ref_size,
        values: 0,
        copied: 0,
    };
    document.value(top, 0)
}

struct Document<'a> {
    objects: &'a [u8],
    table: &'a [u8],
    offset_size: usize,
    ref_size: usize,
    values: usize,
    copied: usize,
}

impl<'a> Document<'a> {
    fn value(&mut self, object: usize, depth: usize) -> Result<Value<'a>, Malformed> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Malformed::TooMany);
        }
        let (marker, rest) = self.object(object)?;
        Ok(match marker {
            0x08 => Value::Boolean(false),
            0x09 => Value::Boolean(true),
            0x10..=0x14 => Value::Integer(integer(take(rest, 1 << (marker & 0x0f))?.0)?),
            0x22 => Value::Real(f64::from(f32::from_be_bytes(array(rest)?))),
            0x23 => Value::Real(f64::from_be_bytes(array(rest)?)),
            0x33 => Value::Date(Cow::Owned(date(f64::from_be_bytes(array(rest)?))?)),
            0x40..=0x4f => {
                let bytes = self.run(marker, rest, 1)?;
                self.copy(bytes.len())?;
                Value::Data(bytes.to_vec())
            }
            0x50..=0x6f => Value::String(self.text(marker, rest)?),
            0xa0..=0xaf => {
                let references = self.run(marker, rest, self.ref_size)?;
                let depth = deeper(depth)?;
                let mut items = Vec::new();
                for reference in references.chunks_exact(self.ref_size) {
                    items.push(self.value(size(reference)?, depth)?);
                }
                Value::Array(items)
            }
            0xd0..=0xdf => {
                let references = self.run(marker, rest, self.ref_size * 2)?;
                let (keys, values) = references.split_at(references.len() / 2);
                let depth = deeper(depth)?;
                let mut pairs = Vec::new();
                let pair_refs = keys
                    .chunks_exact(self.ref_size)
                    .zip(values.chunks_exact(self.ref_size));
                for (key, value) in pair_refs {
                    let key = self.key(size(key)?)?;
                    pairs.push((key, self.value(size(value)?, depth)?));
                }
                Value::Dictionary(Dictionary::from_pairs(pairs)?)
            }
            _ => return Err(Malformed::BadValue),
        })
    }

    fn key(&mut self, object: usize) -> Result<Cow<'a, str>, Malformed> {
        match self.object(object)? {
            (marker @ 0x50..=0x6f, rest) => self.text(marker, rest),
            _ => Err(Malformed::BadValue),
        }
    }

    /// Marker byte and everything after it of one object.
    fn object(&self, object: usize) -> Result<(u8, &'a [u8]), Malformed> {
        let at = object
            .checked_mul(self.offset_size)
            .ok_or(Malformed::Broken)?;
        let end = at.checked_add(self.offset_size).ok_or(Malformed::Broken)?;
        let offset = size(self.table.get(at..end).ok_or(Malformed::Broken)?)?;
        // The eight header bytes are no object.
        if offset < 8 {
            return Err(Malformed::Broken);
        }
        let bytes = self.objects.get(offset..).ok_or(Malformed::Broken)?;
        let (marker, rest) = bytes.split_first().ok_or(Malformed::Broken)?;
        Ok((*marker, rest))
    }

    fn text(&mut self, marker: u8, rest: &'a [u8]) -> Result<Cow<'a, str>, Malformed> {
        if marker & 0xf0 == 0x50 {
            let bytes = self.run(marker, rest, 1)?;
            self.copy(bytes.len())?;
            if !bytes.is_ascii() {
                return Err(Malformed::BadValue);
            }
            return std::str::from_utf8(bytes)
                .map(Cow::Borrowed)
                .map_err(|_| Malformed::BadValue);
        }
        let bytes = self.run(marker, rest, 2)?;
        self.copy(bytes.len())?;
        let units = bytes
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        char::decode_utf16(units)
            .collect::<Result<String, _>>()
            .map(Cow::Owned)
            .map_err(|_| Malformed::BadValue)
    }

    /// The payload of a counted object: `count * width` bytes, the count in the marker or, when
    /// that is 15, in an integer object that follows it.
    fn run(&self, marker: u8, rest: &'a [u8], width: usize) -> Result<&'a [u8], Malformed> {
        let (count, rest) = match marker & 0x0f {
            0x0f => {
                let (marker, rest) = rest.split_first().ok_or(Malformed::Broken)?;
                if !(0x10..=0x13).contains(marker) {
                    return Err(Malformed::Broken);
                }
                let (bytes, rest) = take(rest, 1 << (marker & 0x0f))?;
                (size(bytes)?, rest)
            }
            count => (usize::from(count), rest),
        };
        Ok(take(rest, count.checked_mul(width).ok_or(Malformed::Broken)?)?.0)
    }

    fn copy(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.copied = self.copied.saturating_add(bytes);
        if self.copied > MAX_BYTES {
            Err(Malformed::TooMany)
        } else {
            Ok(())
        }
    }
}

fn deeper(depth: usize) -> Result<usize, Malformed> {
    if depth >= MAX_DEPTH {
        Err(Malformed::TooDeep)
    } else {
        Ok(depth + 1)
    }
}

fn take(bytes: &[u8], count: usize) -> Result<(&[u8], &[u8]), Malformed> {
    bytes.split_at_checked(count).ok_or(Malformed::Broken)
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.first_chunk::<N>().copied().ok_or(Malformed::Broken)
}

fn size(bytes: &[u8]) -> Result<usize, Malformed> {
    let value = bytes.iter().try_fold(0_u64, |sum, byte| {
        (sum >> 56 == 0).then_some(sum << 8 | u64::from(*byte))
    });
    value
        .and_then(|value| usize::try_from(value).ok())
        .ok_or(Malformed::Broken)
}

/// One, two and four bytes are unsigned, eight are signed, sixteen hold what eight cannot.
fn integer(bytes: &[u8]) -> Result<i128, Malformed> {
    if let (8, Some(eight)) = (bytes.len(), bytes.first_chunk::<8>()) {
        return Ok(i128::from(i64::from_be_bytes(*eight)));
    }
    let value = bytes
        .iter()
        .fold(0, |sum: i128, byte| sum << 8 | i128::from(*byte));
    in_range(value)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked first"
)]
fn date(seconds: f64) -> Result<String, Malformed> {
    if !(-1e11..=1e11).contains(&seconds) {
        return Err(Malformed::BadValue);
    }
    OffsetDateTime::from_unix_timestamp(EPOCH_2001 + seconds.trunc() as i64)
        .ok()
        .and_then(|date| date.format(&Rfc3339).ok())
        .ok_or(Malformed::BadValue)
}
