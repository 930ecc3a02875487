//! Distinguished names, kept as received.
//!
//! Two names are the same when their bytes are (RFC 5280 section 7.1 would allow more; nothing this
//! service trusts needs it). The text form is for people only and decides nothing.

use std::fmt;

use const_oid::ObjectIdentifier;

use super::tlv::{DerFault, tag, whole};
use super::{PkiError, oid, write};

/// More attributes than any honest name has.
const MAX_ATTRIBUTES: usize = 32;

/// A name: a sequence of attributes, in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    der: &'a [u8],
}

/// One attribute of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Contents octets of the type's object identifier.
    pub oid: &'a [u8],
    /// The tag of the value (which kind of string).
    pub tag: u8,
    /// The contents octets of the value.
    pub value: &'a [u8],
}

impl<'a> Name<'a> {
    /// Reads a name from its DER.
    pub fn parse(der: &'a [u8]) -> Result<Self, PkiError> {
        let name = Self { der };
        name.walk(|_| {}).map_err(PkiError::malformed("name"))?;
        Ok(name)
    }

    /// The bytes as received.
    pub fn as_der(&self) -> &'a [u8] {
        self.der
    }

    /// Every attribute, in the order received.
    pub fn attributes(&self) -> Vec<Attribute<'a>> {
        let mut attributes = Vec::new();
        // Parsed when the name was made: walking it again cannot fail.
        let _ = self.walk(|attribute| attributes.push(attribute));
        attributes
    }

    /// The text of the only attribute of this type; `None` when it is absent, there more than once,
    /// or no text.
    pub fn text_of(&self, oid: ObjectIdentifier) -> Option<&'a str> {
        let mut found = None;
        let mut count = 0;
        let _ = self.walk(|attribute| {
            if attribute.oid == oid.as_bytes() {
                count += 1;
                found = attribute.text();
            }
        });
        found.filter(|_| count == 1)
    }

    fn walk(&self, mut visit: impl FnMut(Attribute<'a>)) -> Result<(), DerFault> {
        let mut relative_names = whole(self.der, tag::SEQUENCE)?.inside();
        let mut count = 0;
        while !relative_names.is_empty() {
            let mut attributes = relative_names.expect(tag::SET)?.inside();
            while {
                let mut attribute = attributes.expect(tag::SEQUENCE)?.inside();
                let oid = attribute.oid()?;
                let value = attribute.any()?;
                attribute.finish()?;
                count += 1;
                if count > MAX_ATTRIBUTES {
                    return Err(DerFault::Depth);
                }
                visit(Attribute {
                    oid,
                    tag: value.tag,
                    value: value.value,
                });
                !attributes.is_empty()
            } {}
        }
        Ok(())
    }
}

impl<'a> Attribute<'a> {
    /// The value, when it is one of the string types whose bytes are UTF-8 or ASCII.
    pub fn text(&self) -> Option<&'a str> {
        match self.tag {
            tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING => {
                std::str::from_utf8(self.value).ok()
            }
            _ => None,
        }
    }
}

/// RFC 4514: last attribute first, separated by commas; what is no text is `#` and its bytes.
impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attribute) in self.attributes().iter().rev().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match (
                short_name(attribute.oid),
                ObjectIdentifier::from_bytes(attribute.oid),
            ) {
                (Some(short), _) => f.write_str(short)?,
                (None, Ok(oid)) => write!(f, "{oid}")?,
                (None, Err(_)) => f.write_str("?")?,
            }
            f.write_str("=")?;
            match attribute.text() {
                Some(text) => escape(text, f)?,
                None => write!(f, "#{}", hex::encode(attribute.value))?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name of our own making: one attribute to a relative name, UTF8String.
pub fn compose(attributes: &[(ObjectIdentifier, &str)]) -> Vec<u8> {
    let relative_names: Vec<Vec<u8>> = attributes
        .iter()
        .map(|(oid, text)| {
            write::set_of(vec![write::sequence(&[
                &write::oid(*oid),
                &write::utf8_string(text),
            ])])
        })
        .collect();
    write::element(tag::SEQUENCE, &relative_names.concat())
}

/// RFC 4514 section 3, table of short names, and the few more that Apple's certificates use.
fn short_name(attribute: &[u8]) -> Option<&'static str> {
    let table = [
        (oid::COMMON_NAME, "CN"),
        (oid::LOCALITY, "L"),
        (oid::STATE, "ST"),
        (oid::ORGANIZATION, "O"),
        (oid::ORGANIZATIONAL_UNIT, "OU"),
        (oid::COUNTRY, "C"),
        (oid::USER_ID, "UID"),
        (oid::SERIAL_NUMBER, "serialNumber"),
    ];
    table
        .iter()
        .find(|(oid, _)| oid.as_bytes() == attribute)
        .map(|(_, short)| *short)
}

/// RFC 4514 section 2.4; control characters by their code, so that a name cannot break a log line.
fn escape(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let last = text.chars().count().saturating_sub(1);
    for (index, character) in text.chars().enumerate() {
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => write!(f, "\\{character}")?,
            ' ' if index == 0 || index == last => f.write_str("\\ ")?,
            '#' if index == 0 => f.write_str("\\#")?,
            control if control.is_control() => {
                let mut buffer = [0; 4];
                for octet in control.encode_utf8(&mut buffer).bytes() {
                    write!(f, "\\{octet:02X}")?;
                }
            }
            plain => write!(f, "{plain}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_that_of_rfc_4514() {
        let der = compose(&[
            (oid::ORGANIZATION, "Sim Fleet, Ltd"),
            (oid::COMMON_NAME, "#1\n"),
        ]);
        let name = Name::parse(&der).expect("well formed");
        assert_eq!(name.to_string(), "CN=\\#1\\0A,O=Sim Fleet\\, Ltd");
        assert_eq!(name.text_of(oid::ORGANIZATION), Some("Sim Fleet, Ltd"));
        assert_eq!(name.text_of(oid::USER_ID), None);
    }

    #[test]
    fn an_attribute_given_twice_has_no_one_text() {
        let der = compose(&[(oid::USER_ID, "a"), (oid::USER_ID, "b")]);
        assert_eq!(
            Name::parse(&der)
                .expect("well formed")
                .text_of(oid::USER_ID),
            None
        );
    }

    #[test]
    fn broken_names_are_refused() {
        for der in [&[][..], &[0x30, 2, 0x31, 0], &[0x30, 1, 0], &[0x31, 0]] {
            assert!(Name::parse(der).is_err(), "{der:02x?}");
        }
        let many = vec![(oid::COMMON_NAME, "x"); MAX_ATTRIBUTES + 1];
        assert!(Name::parse(&compose(&many)).is_err());
    }
}
