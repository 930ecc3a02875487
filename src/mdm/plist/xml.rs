//! The XML form, read in one pass over borrowed text.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::{Builder, MAX_BYTES, Malformed, Value, in_range};

/// Base64 as CoreFoundation writes it; padding may be missing at the end of a hand-made file.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the open element collects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Key,
    String,
    Data,
    Integer,
    Real,
    Date,
    True,
    False,
}

impl Leaf {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "key" => Self::Key,
            "string" => Self::String,
            "data" => Self::Data,
            "integer" => Self::Integer,
            "real" => Self::Real,
            "date" => Self::Date,
            "true" => Self::True,
            "false" => Self::False,
            _ => return None,
        })
    }
}

/// Whether the text begins as XML and names a `plist` element, in UTF-8 or (which is read no further)
/// UTF-16.
pub(super) fn claims_to_be_one(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(MAX_BYTES)];
    let has = |name: &[u8]| head.windows(name.len()).any(|window| window == name);
    match head {
        [0xff, 0xfe, b'<', 0, ..] => has(b"<\0p\0l\0i\0s\0t\0"),
        [0xfe, 0xff, 0, b'<', ..] => has(b"\0<\0p\0l\0i\0s\0t"),
        _ => {
            let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
            text.trim_ascii_start().starts_with(b"<") && has(b"<plist")
        }
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Value<'_>, Malformed> {
    if !claims_to_be_one(bytes) {
        return Err(Malformed::NotAPropertyList);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Encoding)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;

    let mut builder = Builder::default();
    let mut stage = Stage::Before;
    let mut leaf: Option<(Leaf, Cow<'_, str>)> = None;
    loop {
        let event = reader.read_event().map_err(|_| Malformed::Broken)?;
        match event {
            Event::Start(start) => {
                open(&start, false, &mut stage, &mut leaf, &mut builder)?;
            }
            Event::Empty(start) => {
                open(&start, true, &mut stage, &mut leaf, &mut builder)?;
            }
            Event::End(end) => match (leaf.take(), end.name().as_ref()) {
                (Some((kind, text)), _) => close_leaf(kind, text, &mut builder)?,
                (None, "dict") => builder.close_dictionary()?,
                (None, "array") => builder.close_array()?,
                (None, "plist") if stage == Stage::Inside => stage = Stage::After,
                _ => return Err(Malformed::Broken),
            },
            Event::Text(text) => collect(&mut leaf, text.into_inner())?,
            Event::CData(text) => {
                if leaf.is_none() {
                    return Err(Malformed::Broken);
                }
                collect(&mut leaf, text.into_inner())?;
            }
            Event::GeneralRef(reference) => {
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(character)) => character,
                    Ok(None) => predefined(&reference)?,
                    Err(_) => return Err(Malformed::BadValue),
                };
                if leaf.is_none() {
                    return Err(Malformed::Broken);
                }
                collect(&mut leaf, Cow::Owned(resolved.to_string()))?;
            }
            // An internal subset could declare entities; Apple's DOCTYPE has none.
            Event::DocType(doctype) if stage == Stage::Before && !doctype.contains('[') => {}
            Event::DocType(_) => return Err(Malformed::Broken),
            Event::Decl(_) if stage == Stage::Before => {}
            Event::Decl(_) => return Err(Malformed::Broken),
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if stage != Stage::After {
        return Err(Malformed::Broken);
    }
    builder.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Inside,
    After,
}

fn open<'a>(
    start: &BytesStart<'a>,
    empty: bool,
    stage: &mut Stage,
    leaf: &mut Option<(Leaf, Cow<'a, str>)>,
    builder: &mut Builder<'a>,
) -> Result<(), Malformed> {
    if leaf.is_some() {
        return Err(Malformed::Broken);
    }
    let name = start.name();
    match (name.as_ref(), *stage) {
        ("plist", Stage::Before) if !empty => {
            *stage = Stage::Inside;
            Ok(())
        }
        ("dict", Stage::Inside) => {
            builder.open_dictionary()?;
            if empty {
                builder.close_dictionary()
            } else {
                Ok(())
            }
        }
        ("array", Stage::Inside) => {
            builder.open_array()?;
            if empty { builder.close_array() } else { Ok(()) }
        }
        (other, Stage::Inside) => {
            let kind = Leaf::named(other).ok_or(Malformed::Broken)?;
            if empty {
                close_leaf(kind, Cow::Borrowed(""), builder)
            } else {
                *leaf = Some((kind, Cow::Borrowed("")));
                Ok(())
            }
        }
        _ => Err(Malformed::Broken),
    }
}

fn collect<'a>(
    leaf: &mut Option<(Leaf, Cow<'a, str>)>,
    text: Cow<'a, str>,
) -> Result<(), Malformed> {
    match leaf {
        Some((_, so_far)) if so_far.is_empty() => *so_far = text,
        Some((_, so_far)) => so_far.to_mut().push_str(&text),
        None if text.bytes().all(|b| b.is_ascii_whitespace()) => {}
        None => return Err(Malformed::Broken),
    }
    Ok(())
}

fn close_leaf<'a>(
    kind: Leaf,
    text: Cow<'a, str>,
    builder: &mut Builder<'a>,
) -> Result<(), Malformed> {
    let value = match kind {
        Leaf::Key => return builder.key(text),
        Leaf::String => Value::String(text),
        Leaf::Data => Value::Data(data(&text)?),
        Leaf::Integer => Value::Integer(integer(text.trim())?),
        Leaf::Real => Value::Real(text.trim().parse().map_err(|_| Malformed::BadValue)?),
        Leaf::Date => Value::Date(text),
        Leaf::True | Leaf::False if !text.trim().is_empty() => return Err(Malformed::BadValue),
        Leaf::True => Value::Boolean(true),
        Leaf::False => Value::Boolean(false),
    };
    builder.scalar(value)
}

fn data(text: &str) -> Result<Vec<u8>, Malformed> {
    let mut packed = Vec::with_capacity(text.len());
    packed.extend(text.bytes().filter(|b| !b.is_ascii_whitespace()));
    BASE64.decode(packed).map_err(|_| Malformed::BadValue)
}

fn integer(text: &str) -> Result<i128, Malformed> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse::<u64>(),
    }
    .map_err(|_| Malformed::BadValue)?;
    // from_str_radix and parse take a sign of their own; one is enough.
    if digits.starts_with(['-', '+']) {
        return Err(Malformed::BadValue);
    }
    in_range(if negative {
        -i128::from(magnitude)
    } else {
        i128::from(magnitude)
    })
}

fn predefined(name: &str) -> Result<char, Malformed> {
    match name {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(Malformed::BadValue),
    }
}
