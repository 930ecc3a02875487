//! CertRep, the reply to every request (RFC 8894 section 3.3.2).

use super::attribute;
use super::message::Exchange;
use super::refusal::FailInfo;
use crate::pki::cms::enveloped_data::seal;
use crate::pki::cms::{Sealing, SignedDataBuilder, certificates_only};
use crate::pki::{Certificate, PkiError, Signer, write};

/// Who answers: the certificate that GetCACert gave out, and its key. The digest of the reply is the
/// key's, SHA-256 at least, also for clients that asked with SHA-1.
#[derive(Debug)]
pub struct Responder<'a> {
    certificate: Certificate<'a>,
    key: &'a dyn Signer,
}

/// RFC 8894 section 3.2.1.2: the type of every reply.
const CERT_REP: &str = "3";

impl<'a> Responder<'a> {
    /// Answers as `certificate`.
    pub fn new(certificate: Certificate<'a>, key: &'a dyn Signer) -> Self {
        Self { certificate, key }
    }

    /// SUCCESS: the certificates, the issued one first, sealed for `recipient`, the certificate that
    /// signed the request. `nonce` and `sealing` are drawn for this reply.
    pub fn success(
        &self,
        exchange: &Exchange,
        recipient: &Certificate<'_>,
        certificates: &[Certificate<'_>],
        sealing: &Sealing,
        nonce: &[u8; 16],
    ) -> Result<Vec<u8>, PkiError> {
        let envelope = seal(&certificates_only(certificates), recipient, sealing)?;
        reply(SignedDataBuilder::attached(&envelope), exchange, "0", nonce)
            .sign(&self.certificate, self.key)
    }

    /// FAILURE: the code, and a text for people. Carries no content.
    pub fn failure(
        &self,
        exchange: &Exchange,
        fail_info: FailInfo,
        text: &str,
        nonce: &[u8; 16],
    ) -> Result<Vec<u8>, PkiError> {
        reply(SignedDataBuilder::without_content(), exchange, "2", nonce)
            .attribute(
                attribute::FAIL_INFO,
                &write::printable_string(fail_info.code()),
            )
            .attribute(attribute::FAIL_INFO_TEXT, &write::utf8_string(text))
            .sign(&self.certificate, self.key)
    }

    /// PENDING: ask again later with GetCertInitial.
    pub fn pending(&self, exchange: &Exchange, nonce: &[u8; 16]) -> Result<Vec<u8>, PkiError> {
        reply(SignedDataBuilder::without_content(), exchange, "3", nonce)
            .sign(&self.certificate, self.key)
    }
}

fn reply<'a>(
    message: SignedDataBuilder<'a>,
    exchange: &Exchange,
    status: &str,
    nonce: &[u8; 16],
) -> SignedDataBuilder<'a> {
    message
        .attribute(attribute::MESSAGE_TYPE, &write::printable_string(CERT_REP))
        .attribute(attribute::PKI_STATUS, &write::printable_string(status))
        .attribute(attribute::TRANSACTION_ID, &exchange.transaction_id)
        .attribute(
            attribute::RECIPIENT_NONCE,
            &write::octet_string(&exchange.sender_nonce),
        )
        .attribute(attribute::SENDER_NONCE, &write::octet_string(nonce))
}
