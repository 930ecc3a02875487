//! What Apple's leaf says of a Mac: private extensions under 1.2.840.113635.100.8, each with the
//! encoding Apple really uses.
//!
//! The contents of the extension's OCTET STRING are raw text for names and versions, DER INTEGER
//! for SIP and kernel extensions, raw bytes for the freshness code. Absent, blank or unreadable is
//! unknown: never good and never bad.
//!
//! # Source
//! Apple `mdm/commands/information.device.yaml` (DevicePropertiesAttestation); a leaf of July 2025.

use serde::{Deserialize, Serialize};

use crate::ids::{ProvisioningUdid, SerialNumber};
use crate::pki::Certificate;

/// Contents octets of 1.2.840.113635.100.8.`a`.`b`.
const fn oid(a: u8, b: u8) -> [u8; 10] {
    [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x63, 0x64, 0x08, a, b]
}

const SERIAL_NUMBER: [u8; 10] = oid(9, 1);
const PROVISIONING_UDID: [u8; 10] = oid(9, 2);
const OS_VERSION: [u8; 10] = oid(10, 1);
const SEPOS_VERSION: [u8; 10] = oid(10, 2);
const LLB_VERSION: [u8; 10] = oid(10, 3);
const FRESHNESS: [u8; 10] = oid(11, 1);
const SIP: [u8; 10] = oid(13, 1);
const SECURE_BOOT: [u8; 10] = oid(13, 2);
const KERNEL_EXTENSIONS: [u8; 10] = oid(13, 3);

/// Longest text property that is read.
const MAX_TEXT: usize = 64;

/// The properties of one attestation. `None` is "Apple did not say", never good and never bad.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub serial: Option<SerialNumber>,
    /// OID 9.2: on a Mac this is the ProvisioningUDID, not the MDM UDID.
    pub provisioning_udid: Option<ProvisioningUdid>,
    pub os_version: Option<String>,
    /// What the Secure Enclave started.
    pub sepos_version: Option<String>,
    /// The low-level bootloader; may lag or lead the OS.
    pub llb_version: Option<String>,
    /// OID 13.1, INTEGER: 0 is enabled, 1 is disabled.
    pub sip_enabled: Option<bool>,
    pub secure_boot: Option<SecureBoot>,
    /// OID 13.3, INTEGER: 0 is "none allowed", anything else is "some allowed".
    pub third_party_kexts: Option<bool>,
}

/// Secure Boot in Apple's words for MDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecureBoot {
    /// "Full Security"
    Full,
    /// "Reduced Security"
    Reduced,
    /// "Permissive Security"
    Permissive,
}

/// How one property stands in a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property<T> {
    Stated(T),
    /// There, and empty: Apple could not determine it.
    Blank,
    /// Not there: Apple could not determine it, or the system is too old.
    Absent,
    /// There, in a form Apple does not use.
    Unreadable,
}

impl<T> Property<T> {
    fn and_then<U>(self, read: impl FnOnce(T) -> Option<U>) -> Property<U> {
        match self {
            Self::Stated(value) => read(value).map_or(Property::Unreadable, Property::Stated),
            Self::Blank => Property::Blank,
            Self::Absent => Property::Absent,
            Self::Unreadable => Property::Unreadable,
        }
    }

    fn stated(self) -> Option<T> {
        match self {
            Self::Stated(value) => Some(value),
            Self::Blank | Self::Absent | Self::Unreadable => None,
        }
    }
}

impl Statement {
    /// Reads the properties. Meaningful only for a leaf whose chain was verified.
    pub(super) fn read(leaf: &Certificate<'_>) -> Self {
        let mut properties = Properties::default();
        for extension in leaf.extensions() {
            properties.take(extension.oid, extension.value);
        }
        let text = |value| text(value).stated();
        Self {
            serial: self::text(properties.serial)
                .and_then(|text| SerialNumber::parse(&text).ok())
                .stated(),
            provisioning_udid: self::text(properties.provisioning_udid)
                .and_then(|text| ProvisioningUdid::parse(&text).ok())
                .stated(),
            os_version: text(properties.os_version),
            sepos_version: text(properties.sepos_version),
            llb_version: text(properties.llb_version),
            sip_enabled: integer(properties.sip)
                .and_then(|value| match value {
                    [0] => Some(true),
                    [1] => Some(false),
                    _ => None,
                })
                .stated(),
            secure_boot: self::text(properties.secure_boot)
                .and_then(|text| match text.as_str() {
                    "Full Security" => Some(SecureBoot::Full),
                    "Reduced Security" => Some(SecureBoot::Reduced),
                    "Permissive Security" => Some(SecureBoot::Permissive),
                    _ => None,
                })
                .stated(),
            third_party_kexts: integer(properties.kernel_extensions)
                .and_then(|value| Some(value != [0]))
                .stated(),
        }
    }

    /// Whether it states every property a policy judges that `other` states.
    pub fn states(&self, other: &Self) -> bool {
        self.sip_enabled.is_some() >= other.sip_enabled.is_some()
            && self.secure_boot.is_some() >= other.secure_boot.is_some()
            && self.third_party_kexts.is_some() >= other.third_party_kexts.is_some()
    }

    /// Whether a property says that this Mac is not in the state a policy could want.
    pub fn contradicts_full_security(&self) -> bool {
        self.sip_enabled == Some(false)
            || matches!(
                self.secure_boot,
                Some(SecureBoot::Reduced | SecureBoot::Permissive)
            )
            || self.third_party_kexts == Some(true)
    }
}

/// The raw freshness code; `None` when absent or blank.
pub(super) fn freshness_code(leaf: &Certificate<'_>) -> Option<Vec<u8>> {
    let value = leaf
        .extensions()
        .find(|extension| extension.oid == FRESHNESS)?
        .value;
    (!value.is_empty()).then(|| value.to_vec())
}

/// `code` without an OCTET STRING wrapper, where it has one and has not `length` bytes already.
pub(super) fn unwrap_octet_string(code: &[u8], length: usize) -> &[u8] {
    match code {
        [0x04, n, inner @ ..]
            if code.len() != length && *n < 0x80 && usize::from(*n) == inner.len() =>
        {
            inner
        }
        _ => code,
    }
}

#[derive(Default)]
struct Properties<'a> {
    serial: Option<&'a [u8]>,
    provisioning_udid: Option<&'a [u8]>,
    os_version: Option<&'a [u8]>,
    sepos_version: Option<&'a [u8]>,
    llb_version: Option<&'a [u8]>,
    sip: Option<&'a [u8]>,
    secure_boot: Option<&'a [u8]>,
    kernel_extensions: Option<&'a [u8]>,
}

impl<'a> Properties<'a> {
    fn take(&mut self, oid: &[u8], value: &'a [u8]) {
        let slot = match oid {
            _ if oid == SERIAL_NUMBER => &mut self.serial,
            _ if oid == PROVISIONING_UDID => &mut self.provisioning_udid,
            _ if oid == OS_VERSION => &mut self.os_version,
            _ if oid == SEPOS_VERSION => &mut self.sepos_version,
            _ if oid == LLB_VERSION => &mut self.llb_version,
            _ if oid == SIP => &mut self.sip,
            _ if oid == SECURE_BOOT => &mut self.secure_boot,
            _ if oid == KERNEL_EXTENSIONS => &mut self.kernel_extensions,
            _ => return,
        };
        *slot = Some(value);
    }
}

/// Raw ASCII. A DER string around it is tolerated only where tag and length span the value exactly;
/// no raw text begins with such a tag.
fn text(value: Option<&[u8]>) -> Property<String> {
    let value = match value {
        None => return Property::Absent,
        // UTF8String, PrintableString, IA5String.
        Some([0x0c | 0x13 | 0x16, n, inner @ ..])
            if usize::from(*n) == inner.len() && *n < 0x80 =>
        {
            inner
        }
        Some(value) => value,
    };
    if value.iter().all(u8::is_ascii_whitespace) {
        return Property::Blank;
    }
    let printable = value.len() <= MAX_TEXT && value.iter().all(|b| (0x20..0x7f).contains(b));
    match std::str::from_utf8(value) {
        Ok(text) if printable => Property::Stated(text.to_owned()),
        _ => Property::Unreadable,
    }
}

/// The contents octets of a strict DER INTEGER that fills the value.
fn integer(value: Option<&[u8]>) -> Property<&[u8]> {
    match value {
        None => Property::Absent,
        Some([]) => Property::Blank,
        Some([0x02, n, contents @ ..])
            if usize::from(*n) == contents.len() && (1..=8).contains(n) =>
        {
            match contents {
                // X.690 8.3.2: the shortest form only.
                [0x00, next, ..] if next & 0x80 == 0 => Property::Unreadable,
                [0xff, next, ..] if next & 0x80 != 0 => Property::Unreadable,
                _ => Property::Stated(contents),
            }
        }
        Some(_) => Property::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_strict_or_unknown() {
        let sip = |bytes| integer(Some(bytes)).stated();
        assert_eq!(sip(&[2, 1, 0]), Some(&[0][..]));
        assert_eq!(sip(&[2, 1, 1]), Some(&[1][..]));
        for bad in [
            &[1, 1, 0xff][..],
            &[2, 1],
            &[2, 0],
            &[2, 1, 0, 0],
            &[2, 2, 0, 0],
            &[2, 2, 0, 1],
            &[0],
        ] {
            assert_eq!(integer(Some(bad)), Property::Unreadable, "{bad:?}");
        }
        assert_eq!(integer(Some(&[])), Property::Blank);
        assert_eq!(integer(None), Property::Absent);
    }

    #[test]
    fn text_is_raw_or_exactly_wrapped() {
        assert_eq!(text(Some(b"26.6.2")).stated().as_deref(), Some("26.6.2"));
        assert_eq!(
            text(Some(b"\x0c\x0426.6")).stated().as_deref(),
            Some("26.6")
        );
        assert_eq!(text(Some(b"\x0c\x0526.6")), Property::Unreadable);
        assert_eq!(text(Some(b"")), Property::Blank);
        assert_eq!(text(Some(b"  ")), Property::Blank);
        assert_eq!(text(Some(b"\xff\xfe")), Property::Unreadable);
        assert_eq!(text(None), Property::Absent);
    }

    #[test]
    fn a_code_that_looks_wrapped_is_raw_when_it_has_the_length_of_a_nonce() {
        let mut code = [7; 32];
        code[..2].copy_from_slice(&[0x04, 30]);
        assert_eq!(unwrap_octet_string(&code, 32), code);
        let mut wrapped = vec![0x04, 32];
        wrapped.extend([9; 32]);
        assert_eq!(unwrap_octet_string(&wrapped, 32), [9; 32]);
        wrapped.push(0);
        assert_eq!(unwrap_octet_string(&wrapped, 32), wrapped);
    }
}
