//! What attestation chains must lead to.

use serde::{Deserialize, Serialize};

use crate::pki::{PkiError, TrustAnchors, read_certificates};

/// Apple Enterprise Attestation Root CA, compiled in (certs/README.md has source and hash).
pub const APPLE_ROOT: &[u8] =
    include_bytes!("../../certs/apple_enterprise_attestation_root_ca.pem");

/// Whose root a result rests on. A result gained with another root than Apple's always says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    Apple,
    Custom,
}

/// The roots in force; never empty, never mixed.
#[derive(Debug, Clone)]
pub struct Anchors {
    pub(super) trust: TrustAnchors,
    kind: Anchor,
}

impl Anchors {
    /// Apple's pinned root.
    ///
    /// # Errors
    /// Never with the certificate this was built with; a test holds that.
    pub fn apple() -> Result<Self, PkiError> {
        Ok(Self {
            trust: TrustAnchors::new(read_certificates(APPLE_ROOT)?)?,
            kind: Anchor::Apple,
        })
    }

    /// Other roots, for simulated Macs and tests. A file that holds just Apple's root is Apple's.
    ///
    /// # Errors
    /// No certificate in the file, or one that is no authority.
    pub fn custom(file: &[u8]) -> Result<Self, PkiError> {
        let certificates = read_certificates(file)?;
        let apple = read_certificates(APPLE_ROOT)?;
        let kind = match (certificates.as_slice(), apple.as_slice()) {
            ([only], [root]) if only.hash() == root.hash() => Anchor::Apple,
            _ => Anchor::Custom,
        };
        Ok(Self {
            trust: TrustAnchors::new(certificates)?,
            kind,
        })
    }

    /// Whether this is the SHA-256, in hexadecimal, of the one root in force.
    pub fn are(&self, sha256: &str) -> bool {
        let mut roots = self.trust.certificates();
        let only = roots.next().filter(|_| roots.next().is_none());
        only.is_some_and(|root| root.hash().to_string().eq_ignore_ascii_case(sha256))
    }

    /// Whose they are.
    pub fn kind(&self) -> Anchor {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_root_is_apples() {
        let anchors = Anchors::apple().expect("compiled in");
        assert_eq!(anchors.kind(), Anchor::Apple);
        let roots: Vec<_> = anchors
            .trust
            .certificates()
            .map(|root| root.hash().to_string())
            .collect();
        assert_eq!(
            roots,
            ["ccf59ef8fcb3017d97f8b5fa6fa90e7a3f9283f76b55ac6cf6eda8b8b949f05b"]
        );
    }
}
