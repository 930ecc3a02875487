//! The authority behind MDM push certificates (apple-protocol 9.1, 9.4).

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Public};
use openssl::x509::X509;

use crate::certs::{Identity, Issuer, public_half};
use crate::clock::DAY_MS;
use crate::keys::{self, KeyKind};

/// What every MDM topic begins with.
pub const TOPIC_PREFIX: &str = "com.apple.mgmt.External.";

/// Issues push certificates the double accepts.
#[derive(Debug, Clone)]
pub struct PushAuthority {
    issuer: Issuer,
}

/// A customer's push certificate with its key.
#[derive(Debug, Clone)]
pub struct PushCertificate {
    /// `com.apple.mgmt.External.<uuid>`: the UID of the subject.
    pub topic: String,
    pub identity: Identity,
}

impl PushAuthority {
    /// A new authority, valid for ten years around `now_ms`.
    pub fn new(now_ms: i64) -> Result<Self, ErrorStack> {
        let issuer = Issuer::root(
            "SIMULATED Push CA",
            "Simulated, not Apple",
            KeyKind::Rsa2048,
            now_ms,
        )?;
        Ok(Self { issuer })
    }

    /// The authority from an identity kept before.
    pub fn from_identity(identity: Identity) -> Self {
        Self {
            issuer: Issuer { identity },
        }
    }

    /// Certificate and key, for [`PushAuthority::from_identity`].
    pub fn identity(&self) -> &Identity {
        &self.issuer.identity
    }

    /// A topic nobody else has.
    pub fn new_topic() -> Result<String, ErrorStack> {
        Ok(format!(
            "{TOPIC_PREFIX}{}",
            keys::random_uuid()?.to_lowercase()
        ))
    }

    /// A certificate for `topic`, valid for one year from `from_ms`: as the portal issues it, and,
    /// for the same topic, as it renews it.
    pub fn issue(&self, topic: &str, from_ms: i64) -> Result<PushCertificate, ErrorStack> {
        let key = keys::generate(KeyKind::Rsa2048)?;
        let certificate = self.certify(&public_half(&key)?, topic, from_ms)?;
        Ok(PushCertificate {
            topic: topic.to_owned(),
            identity: Identity { key, certificate },
        })
    }

    /// As [`PushAuthority::issue`], for a key that somebody else has.
    pub fn certify(
        &self,
        public: &PKey<Public>,
        topic: &str,
        from_ms: i64,
    ) -> Result<X509, ErrorStack> {
        let uuid = topic.strip_prefix(TOPIC_PREFIX).unwrap_or(topic);
        let common_name = format!("APSP:{uuid}");
        let subject = [
            (Nid::USERID, topic),
            (Nid::COMMONNAME, common_name.as_str()),
            (Nid::COUNTRYNAME, "US"),
        ];
        self.issuer
            .client_for(&subject, public, from_ms, from_ms + 365 * DAY_MS)
    }
}

/// The UID of a push certificate's subject, or nothing.
pub(crate) fn topic_of(certificate: &X509) -> String {
    let uid = certificate
        .subject_name()
        .entries_by_nid(Nid::USERID)
        .next();
    uid.and_then(|entry| entry.data().to_string().ok())
        .unwrap_or_default()
}
