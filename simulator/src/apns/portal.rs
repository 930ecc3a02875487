//! The double of identity.apple.com/pushcert: takes what a vendor signed, and issues a push
//! certificate for the customer's key (apple-protocol 9.4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::MessageDigest;
use openssl::sign::Verifier;
use openssl::x509::{X509, X509Req};
use plist::{Dictionary, Value};

use super::PushAuthority;

/// Why the portal takes nothing. Apple's says little more than the last one.
#[derive(Debug, thiserror::Error)]
pub enum PortalRefusal {
    #[error("the upload is no base64 of a property list with exactly the three members")]
    NotAnUpload,
    #[error(
        "the chain does not lead from a vendor's certificate to the root, each signed by the next"
    )]
    Chain,
    #[error("the signature is invalid")]
    Signature,
    #[error("the request is not of its own key")]
    Request,
    #[error(transparent)]
    Crypto(#[from] openssl::error::ErrorStack),
}

/// The portal: which vendors it knows, and who issues for it.
#[derive(Debug)]
pub struct Portal<'a> {
    pub authority: &'a PushAuthority,
    /// All vendors' certificates lead to it.
    pub vendors: &'a X509,
}

impl Portal<'_> {
    /// Takes an upload, and gives the certificate, PEM: for a new topic with "Create", for the former
    /// one with "Renew".
    ///
    /// # Errors
    /// [`PortalRefusal`].
    pub fn issue(&self, upload: &str, topic: &str, from_ms: i64) -> Result<X509, PortalRefusal> {
        let list = STANDARD
            .decode(upload.trim_end())
            .map_err(|_| PortalRefusal::NotAnUpload)?;
        if !list.starts_with(b"<?xml") {
            return Err(PortalRefusal::NotAnUpload);
        }
        let list: Dictionary = plist::from_bytes(&list).map_err(|_| PortalRefusal::NotAnUpload)?;
        let text = |name: &str| {
            let text = list.get(name).and_then(Value::as_string);
            text.ok_or(PortalRefusal::NotAnUpload)
        };
        let base64 = |name: &str| {
            let decoded = STANDARD.decode(text(name)?);
            decoded.map_err(|_| PortalRefusal::NotAnUpload)
        };
        let csr = base64("PushCertRequestCSR")?;
        let signature = base64("PushCertSignature")?;
        let chain = X509::stack_from_pem(text("PushCertCertificateChain")?.as_bytes())?;
        if list.len() != 3 {
            return Err(PortalRefusal::NotAnUpload);
        }
        let vendor = self.vendor_of(&chain)?;
        let key = vendor.public_key()?;
        let mut verifier = Verifier::new(MessageDigest::sha256(), &key)?;
        if !verifier.verify_oneshot(&signature, &csr)? {
            return Err(PortalRefusal::Signature);
        }
        let request = X509Req::from_der(&csr)?;
        let public = request.public_key()?;
        if !request.verify(&public)? {
            return Err(PortalRefusal::Request);
        }
        Ok(self.authority.certify(&public, topic, from_ms)?)
    }

    fn vendor_of<'c>(&self, chain: &'c [X509]) -> Result<&'c X509, PortalRefusal> {
        for pair in chain.windows(2) {
            if let [one, by] = pair
                && !one.verify(&*by.public_key()?)?
            {
                return Err(PortalRefusal::Chain);
            }
        }
        let ends = chain.last().map(|last| last.to_der()).transpose()?;
        if chain.len() < 2 || ends != Some(self.vendors.to_der()?) {
            return Err(PortalRefusal::Chain);
        }
        chain.first().ok_or(PortalRefusal::Chain)
    }
}
