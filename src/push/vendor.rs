//! What an MDM vendor signs, so that Apple's portal issues a push certificate to a customer: a
//! property list around the customer's request (apple-protocol 9.4; fixture `push-cert-request.plist`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::pki::key::{Digest, LegacyDigest};
use crate::pki::pem::to_pem;
use crate::pki::{
    Certificate, CertificateRequest, KeyAlgorithm, OwnedCertificate, PkiError, SignatureAlgorithm,
    Signer, oid,
};
use crate::time::Timestamp;

/// How the common name of every vendor's certificate begins ("MDM CSR" in the developer portal).
const VENDOR: &str = "MDM Vendor: ";
/// The certificate, two or three above it: Apple has had one between it and its root.
const LONGEST: usize = 5;

/// A vendor's certificate and all that lead from it to Apple's root, checked.
#[derive(Debug)]
pub struct VendorChain(Vec<OwnedCertificate>);

/// Why nothing is signed. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VendorRefusal {
    #[error("the file of the vendor's certificate must hold that one certificate")]
    NotOne,
    #[error(
        "{0} is no MDM vendor's certificate (\"{VENDOR}…\"): take the one of the type \"MDM CSR\" from \
         Apple's developer portal"
    )]
    NotAVendor(String),
    #[error("the key is not that of the vendor's certificate")]
    KeyMismatch,
    #[error("the vendor's key must be RSA of at least 2048 bits: the portal takes no other")]
    NotRsa,
    #[error(
        "the chain lacks certificates: it must lead from the vendor's certificate over Apple's \
         intermediate (Worldwide Developer Relations) to Apple's root"
    )]
    NoChain,
    #[error("the chain has more than {LONGEST} certificates")]
    TooLong,
    #[error(
        "the chain is out of order or incomplete: {subject} was issued by {issuer}, but {next} follows"
    )]
    Order {
        subject: String,
        issuer: String,
        next: String,
    },
    #[error(
        "the chain ends with {0}, which is no root: add what it was issued by, up to Apple's root"
    )]
    NoRoot(String),
    #[error("{0} may not issue certificates")]
    NoAuthority(String),
    #[error(
        "{subject} was not signed by the certificate after it, which bears the right name: it is \
         another edition of it; download the one that issued it"
    )]
    NotSigned { subject: String },
    #[error(
        "{subject} expired at {at}; download the present one from https://www.apple.com/certificateauthority"
    )]
    Expired { subject: String, at: Timestamp },
    #[error("{subject} is valid from {at}; wait, or set the clock of this machine right")]
    NotYetValid { subject: String, at: Timestamp },
    #[error("a certificate cannot be read: {0}")]
    Unreadable(PkiError),
    #[error("the request of the customer cannot be taken: {0}")]
    Request(PkiError),
    #[error("the request of the customer must be for an RSA key of at least 2048 bits")]
    RequestKey,
    #[error("the key did not sign")]
    NotMade,
}

impl VendorChain {
    /// Checks the vendor's certificate with its key's DER SubjectPublicKeyInfo, and what is above it:
    /// order, names, signatures, dates, up to a root.
    ///
    /// # Errors
    /// [`VendorRefusal`], by cause.
    pub fn check(
        vendor: &[OwnedCertificate],
        above: &[OwnedCertificate],
        key: &dyn Signer,
        now: Timestamp,
    ) -> Result<Self, VendorRefusal> {
        let [leaf] = vendor else {
            return Err(VendorRefusal::NotOne);
        };
        let subject = leaf.certificate().subject();
        let name = subject.text_of(oid::COMMON_NAME).unwrap_or_default();
        if !name.starts_with(VENDOR) {
            return Err(VendorRefusal::NotAVendor(subject.to_string()));
        }
        if leaf.certificate().spki() != key.public_key_spki() {
            return Err(VendorRefusal::KeyMismatch);
        }
        if !is_rsa(leaf.certificate().public_key().map(|key| key.algorithm())) {
            return Err(VendorRefusal::NotRsa);
        }
        // Many a file has the vendor's own certificate in front.
        let above = above.strip_prefix(vendor).unwrap_or(above);
        let chain = [vendor, above].concat();
        if chain.len() > LONGEST {
            return Err(VendorRefusal::TooLong);
        }
        for (at, one) in chain.iter().enumerate() {
            timely(&one.certificate(), now)?;
            match chain.get(at + 1) {
                Some(next) => issued(&one.certificate(), &next.certificate())?,
                None if at == 0 => return Err(VendorRefusal::NoChain),
                None => ends(&one.certificate())?,
            }
        }
        Ok(Self(chain))
    }

    /// The vendor's certificate first.
    pub fn certificates(&self) -> &[OwnedCertificate] {
        &self.0
    }

    /// What the customer uploads at <https://identity.apple.com/pushcert>: the XML property list, in
    /// base64. `csr` is PKCS #10, DER.
    ///
    /// # Errors
    /// [`VendorRefusal::Request`], [`VendorRefusal::RequestKey`], [`VendorRefusal::NotMade`].
    pub fn sign(&self, csr: &[u8], key: &dyn Signer) -> Result<String, VendorRefusal> {
        let request = CertificateRequest::parse(csr, LegacyDigest::Refused)
            .map_err(VendorRefusal::Request)?;
        if !is_rsa(Ok(request.public_key().algorithm())) {
            return Err(VendorRefusal::RequestKey);
        }
        if key.algorithm() != SignatureAlgorithm::Rsa(Digest::Sha256) {
            return Err(VendorRefusal::NotRsa);
        }
        let signature = key.sign(csr).map_err(|_| VendorRefusal::NotMade)?;
        let chain: String = self
            .0
            .iter()
            .map(|one| to_pem(&one.certificate()))
            .collect();
        Ok(STANDARD.encode(property_list(&[
            ("PushCertCertificateChain", chain),
            ("PushCertRequestCSR", STANDARD.encode(csr)),
            ("PushCertSignature", STANDARD.encode(signature)),
        ])))
    }
}

/// One dictionary of strings that hold base64 and PEM only, so that nothing is to be escaped.
fn property_list(members: &[(&str, String)]) -> String {
    let members: String = members
        .iter()
        .map(|(name, text)| format!("\t<key>{name}</key>\n\t<string>{text}</string>\n"))
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n{members}</dict>\n</plist>\n"
    )
}

fn is_rsa(algorithm: Result<KeyAlgorithm, PkiError>) -> bool {
    matches!(algorithm, Ok(KeyAlgorithm::Rsa { bits }) if bits >= 2048)
}

fn timely(one: &Certificate<'_>, now: Timestamp) -> Result<(), VendorRefusal> {
    if one.is_valid_at(now) {
        return Ok(());
    }
    let subject = one.subject().to_string();
    Err(if now < one.not_before() {
        let at = one.not_before();
        VendorRefusal::NotYetValid { subject, at }
    } else {
        let at = one.not_after();
        VendorRefusal::Expired { subject, at }
    })
}

fn issued(one: &Certificate<'_>, by: &Certificate<'_>) -> Result<(), VendorRefusal> {
    let subject = one.subject().to_string();
    if one.issuer().as_der() != by.subject().as_der() {
        return Err(VendorRefusal::Order {
            subject,
            issuer: one.issuer().to_string(),
            next: by.subject().to_string(),
        });
    }
    if !by.is_ca() {
        return Err(VendorRefusal::NoAuthority(by.subject().to_string()));
    }
    let key = by.public_key().map_err(VendorRefusal::Unreadable)?;
    one.verify_signature(&key, LegacyDigest::Refused)
        .map_err(|_| VendorRefusal::NotSigned { subject })
}

/// A root vouches for itself, by whatever digest: that of Apple's is SHA-1.
fn ends(root: &Certificate<'_>) -> Result<(), VendorRefusal> {
    let subject = root.subject().to_string();
    if root.issuer().as_der() != root.subject().as_der() {
        return Err(VendorRefusal::NoRoot(subject));
    }
    let key = root.public_key().map_err(VendorRefusal::Unreadable)?;
    root.verify_signature(&key, LegacyDigest::Allowed)
        .map_err(|_| VendorRefusal::NotSigned { subject })
}

#[cfg(test)]
#[path = "vendor_test.rs"]
mod tests;
