//! The extensions of a certificate (RFC 5280 section 4.2): those chain validation judges are read
//! strictly, the others are handed out as bytes.

use super::tlv::{DerFault, Reader, tag, whole};

/// One extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Contents octets of its object identifier.
    pub oid: &'a [u8],
    /// Whether whoever does not understand it must refuse the certificate.
    pub critical: bool,
    /// The contents of its OCTET STRING: DER by the standard, raw bytes in some of Apple's.
    pub value: &'a [u8],
}

/// RFC 5280 section 4.2.1.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicConstraints {
    /// May issue certificates.
    pub ca: bool,
    /// How many intermediates may follow below it.
    pub path_length: Option<u8>,
}

/// RFC 5280 section 4.2.1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage(u16);

/// The extensions of one certificate.
#[derive(Debug, Clone)]
pub struct Extensions<'a>(Reader<'a>);

impl<'a> Extensions<'a> {
    /// The extensions in the contents of a list whose every element was read before.
    pub(super) fn new(list: &'a [u8]) -> Self {
        Self(Reader::new(list))
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        // Read once already when the certificate was parsed: the end is the only way to fail.
        read_extension(&mut self.0).ok()
    }
}

impl KeyUsage {
    /// May sign what is not a certificate.
    pub fn digital_signature(self) -> bool {
        self.bit(0)
    }

    /// May have keys encrypted to it.
    pub fn key_encipherment(self) -> bool {
        self.bit(2)
    }

    /// May sign certificates.
    pub fn key_cert_sign(self) -> bool {
        self.bit(5)
    }

    fn bit(self, number: u32) -> bool {
        self.0 & (0x8000 >> number) != 0
    }
}

pub(super) fn read_extension<'a>(reader: &mut Reader<'a>) -> Result<Extension<'a>, DerFault> {
    let mut parts = reader.expect(tag::SEQUENCE)?.inside();
    let oid = parts.oid()?;
    let critical = parts.peek() == Some(tag::BOOLEAN) && {
        // DER leaves the default (false) out.
        if !parts.boolean()? {
            return Err(DerFault::Value);
        }
        true
    };
    let value = parts.expect(tag::OCTET_STRING)?.value;
    parts.finish()?;
    Ok(Extension {
        oid,
        critical,
        value,
    })
}

pub(super) fn read_basic_constraints(value: &[u8]) -> Result<BasicConstraints, DerFault> {
    let mut parts = whole(value, tag::SEQUENCE)?.inside();
    let ca = parts.peek() == Some(tag::BOOLEAN) && {
        if !parts.boolean()? {
            return Err(DerFault::Value);
        }
        true
    };
    let path_length = if parts.is_empty() {
        None
    } else {
        Some(parts.small_integer()?)
    };
    parts.finish()?;
    // RFC 5280: a path length without CA means nothing; who writes it means something else.
    if path_length.is_some() && !ca {
        return Err(DerFault::Value);
    }
    Ok(BasicConstraints { ca, path_length })
}

pub(super) fn read_key_usage(value: &[u8]) -> Result<KeyUsage, DerFault> {
    let (unused, bits) = match whole(value, tag::BIT_STRING)?.value {
        [unused, only] => (*unused, u16::from_be_bytes([*only, 0])),
        [unused, first, second] => (*unused, u16::from_be_bytes([*first, *second])),
        _ => return Err(DerFault::Value),
    };
    if unused > 7 || bits == 0 {
        Err(DerFault::Value)
    } else {
        Ok(KeyUsage(bits))
    }
}
