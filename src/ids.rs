//! Names of things. No bare string names anything in this service.
//!
//! Our own ids are a prefix and a ULID (`dev_01J8…`), stored as text. Names that come from outside
//! are parsed once, on the way in; what is in the type is well formed. `Display` is the wire form;
//! `Debug` of anything personal is cut to its first four characters, because `Debug` ends in logs.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::entropy::{Entropy, draw};
use crate::time::Timestamp;

/// A name that does not have the form its kind demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed {0}")]
pub struct Malformed(pub &'static str);

/// Text newtypes: private field, one parser, `Display` and serde in wire form.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $parse:expr, $debug:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// Reads the wire form.
            pub fn parse(text: &str) -> Result<Self, Malformed> {
                let parse: fn(&str) -> Option<String> = $parse;
                parse(text).map(Self).ok_or(Malformed($what))
            }

            /// The wire form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let show: fn(&str) -> String = $debug;
                f.write_str(&show(&self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Ids we make: a prefix and a ULID.
macro_rules! own_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        name!($(#[$doc])* $name, $prefix, |text| own_form($prefix, text), |text| text.to_owned());

        impl $name {
            /// A new id. Ids made later sort later.
            pub fn new(now: Timestamp, entropy: &dyn Entropy) -> Self {
                Self(own_text($prefix, now, entropy))
            }

            /// Sorts after every id that was made before this time, and before every other.
            pub fn earliest(at: Timestamp) -> Self {
                let millis = u64::try_from(at.millis()).unwrap_or(0);
                Self(format!("{}{}", $prefix, Ulid::from_parts(millis, 0)))
            }
        }
    };
}

fn own_text(prefix: &str, now: Timestamp, entropy: &dyn Entropy) -> String {
    let random = u128::from_be_bytes(draw(entropy));
    let millis = u64::try_from(now.millis()).unwrap_or(0);
    format!("{prefix}{}", Ulid::from_parts(millis, random))
}

fn own_form(prefix: &str, text: &str) -> Option<String> {
    let ulid = text.strip_prefix(prefix)?;
    // Ulid accepts lower case; the canonical form is upper, and one thing has one name.
    let parsed = Ulid::from_string(ulid).ok()?;
    (parsed.to_string() == ulid).then(|| text.to_owned())
}

fn cut(text: &str) -> String {
    let head: String = text.chars().take(4).collect();
    format!("{head}…")
}

own_id!(
    /// One Mac as this service knows it: one MDM UDID, for as long as it is known.
    DeviceId, "dev_"
);
own_id!(
    /// One attempt to get evidence from one Mac.
    VerificationId, "ver_"
);
own_id!(
    /// One wish of somebody at the command line for fresh evidence of a Mac.
    AskedId, "ask_"
);
own_id!(
    /// One enrollment ticket. Not the secret: that is shown once and only its hash is kept.
    TicketId, "tkt_"
);
own_id!(
    /// One bearer token of the internal API. Not the secret.
    ApiTokenId, "tok_"
);
own_id!(
    /// One registration of a provider session: another key of the same session is another binding.
    BindingId, "bnd_"
);
own_id!(
    /// One challenge to a provider session.
    ChallengeId, "chl_"
);
own_id!(
    /// One signed result.
    ResultId, "res_"
);
own_id!(
    /// One push certificate of ours.
    PushCertificateId, "psh_"
);

own_id!(
    /// One request for a push certificate.
    PushRequestId, "psr_"
);

own_id!(
    /// What one person wants done with a push certificate, until another confirms it.
    PushProposalId, "ppr_"
);

name!(
    /// A provider session, by the name the coordinator gave it: 1 to 128 letters, digits and `-._:`,
    /// the first a letter or digit, so that it is one segment of a path whoever writes it.
    SessionId, "session",
    |text| ((1..=128).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)))
        .then(|| text.to_owned()),
    |text| text.to_owned()
);
own_id!(
    /// One webhook. Its name can be given to another after it was removed; this cannot.
    WebhookId, "whk_"
);
name!(
    /// What an operator calls a webhook: 1 to 64 lower-case letters, digits and `-._`, the first a letter
    /// or digit.
    WebhookName, "name of a webhook", label, |text| text.to_owned()
);
own_id!(
    /// One receiver of shared signals; also its OAuth client id.
    ReceiverId, "rcv_"
);
name!(
    /// What an operator calls a receiver of shared signals: as a webhook's name.
    ReceiverName, "name of a receiver", label, |text| text.to_owned()
);
own_id!(
    /// One stream of shared signals.
    StreamId, "str_"
);
own_id!(
    /// One security event token.
    SignalId, "set_"
);

fn label(text: &str) -> Option<String> {
    ((1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b)))
    .then(|| text.to_owned())
}

name!(
    /// A hardware serial number: 8 to 14 upper-case letters and digits (the historic enrolment
    /// contract's `^[A-Z0-9]{8,14}$`).
    SerialNumber, "serial number",
    |text| ((8..=14).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()))
        .then(|| text.to_owned()),
    cut
);
name!(
    /// The MDM UDID of a Mac: its hardware UUID, 8-4-4-4-12 hexadecimal digits, kept in upper case.
    /// It is not the attested identifier: that is the [`ProvisioningUdid`], and no conversion exists.
    Udid, "UDID",
    |text| is_uuid(text).then(|| text.to_ascii_uppercase()),
    cut
);
name!(
    /// The identifier Apple attests in OID 1.2.840.113635.100.8.9.2 on a Mac: chip id and ECID as
    /// `XXXXXXXX-XXXXXXXXXXXXXXXX`.
    ProvisioningUdid, "ProvisioningUDID",
    |text| {
        let (chip, ecid) = text.split_once('-')?;
        (chip.len() == 8 && ecid.len() == 16 && is_hex(chip) && is_hex(ecid))
            .then(|| text.to_ascii_uppercase())
    },
    cut
);
name!(
    /// The name of one command as handed to one Mac: opaque to the Mac, echoed in its reply.
    CommandUuid, "CommandUUID",
    |text| is_uuid(text).then(|| text.to_ascii_uppercase()),
    |text| text.to_owned()
);
name!(
    /// An APNs topic for MDM pushes: the UID of the push certificate's subject.
    Topic, "push topic",
    |text| (text.starts_with("com.apple.mgmt.") && text.len() <= 200
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'))
        .then(|| text.to_owned()),
    |text| text.to_owned()
);

impl CommandUuid {
    /// A new random (version 4) command name.
    pub fn new(entropy: &dyn Entropy) -> Self {
        let uuid = uuid::Builder::from_random_bytes(draw(entropy)).into_uuid();
        Self(uuid.hyphenated().to_string().to_ascii_uppercase())
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// A SHA-256 digest that names something by its bytes.
macro_rules! hash_name {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
        #[schema(value_type = String)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The name of these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self::from_bytes(sha256(bytes))
            }

            /// A name from a digest already computed.
            pub fn from_bytes(digest: [u8; 32]) -> Self {
                Self(digest)
            }

            /// The digest.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads the text form.
            pub fn parse(text: &str) -> Result<Self, Malformed> {
                let hex = text.strip_prefix($prefix).ok_or(Malformed(stringify!($name)))?;
                let mut digest = [0; 32];
                hex::decode_to_slice(hex, &mut digest).map_err(|_| Malformed(stringify!($name)))?;
                Ok(Self(digest))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_name!(
    /// A certificate, named by the SHA-256 of its DER bytes. Text form: 64 hexadecimal digits.
    CertificateHash, ""
);
hash_name!(
    /// Evidence, named by the SHA-256 of its raw bytes. Text form: `evd_` and 64 hexadecimal digits.
    EvidenceId, "evd_"
);
hash_name!(
    /// A stored secret (ticket, API token), named by its SHA-256; the secret itself is not kept.
    SecretHash, ""
);

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Fields, each after its length as 4 bytes, big endian: what is hashed or signed, so that no field
/// runs into the next. The first is a tag that no other use has.
pub fn transcript(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn own_ids_round_trip_and_sort_by_time() {
        let entropy = SeededEntropy::new(7);
        let early = DeviceId::new(Timestamp::from_seconds(1_000), &entropy);
        let late = DeviceId::new(Timestamp::from_seconds(2_000), &entropy);
        assert!(early < late);
        assert_eq!(DeviceId::parse(early.as_str()), Ok(early.clone()));
        assert!(VerificationId::parse(early.as_str()).is_err());
        assert!(DeviceId::parse(&early.as_str().to_lowercase()).is_err());
    }

    #[test]
    fn names_from_outside_are_refused_unless_well_formed() {
        assert!(SerialNumber::parse("SIMQ4T2W7P").is_ok());
        for bad in [
            "",
            "SHORT",
            "c02xl3fhjg5j",
            "TOOLONGSERIAL15",
            "SIM Q4T2W7P",
            "SIMQ4T2W7\u{c9}",
        ] {
            assert!(SerialNumber::parse(bad).is_err(), "{bad}");
        }
        assert!(Udid::parse("5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D").is_ok());
        assert!(Udid::parse("00006040-001A2B3C4D5E801C").is_err());
        assert!(ProvisioningUdid::parse("00006040-001A2B3C4D5E801C").is_ok());
        assert!(Topic::parse("com.apple.mgmt.External.0f0e0d0c").is_ok());
        assert!(Topic::parse("com.apple.mgmt.External\r\nx: y").is_err());
    }

    #[test]
    fn debug_of_a_serial_is_cut() {
        let serial = SerialNumber::parse("SIMQ4T2W7P").expect("valid");
        assert_eq!(format!("{serial:?}"), "SIMQ…");
    }

    #[test]
    fn command_names_are_version_4_uuids() {
        let uuid = CommandUuid::new(&SeededEntropy::new(1));
        assert_eq!(uuid.as_str().len(), 36);
        assert_eq!(&uuid.as_str()[14..15], "4");
    }
}
