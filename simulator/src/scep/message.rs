//! The messages: the CSR, the signed and enveloped request, and the reply (RFC 8894 3).

use openssl::error::ErrorStack;
use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::pkey::{PKey, Private};
use openssl::stack::Stack;
use openssl::symm;
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use super::capabilities::{Authority, Capabilities, Cipher};
use super::{ScepError, ScepSettings};
use crate::certs::Identity;
use crate::cms::{self, SignatureDigest};
use crate::csr;
use crate::der::{self, Element, sequence, tag, tlv};
use crate::keys;

const MESSAGE_TYPE: &str = "2.16.840.1.113733.1.9.2";
const PKI_STATUS: &str = "2.16.840.1.113733.1.9.3";
const FAIL_INFO: &str = "2.16.840.1.113733.1.9.4";
const SENDER_NONCE: &str = "2.16.840.1.113733.1.9.5";
const TRANSACTION_ID: &str = "2.16.840.1.113733.1.9.7";
const CHALLENGE_PASSWORD: &str = "1.2.840.113549.1.9.7";

/// A request ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiMessage {
    pub der: Vec<u8>,
    pub transaction_id: String,
    pub sender_nonce: [u8; 16],
}

/// The PKCS#10 request: subject, challenge password, and the key usage the profile asks for.
pub fn csr(
    key: &PKey<Private>,
    settings: &ScepSettings,
    digest: SignatureDigest,
) -> Result<Vec<u8>, ErrorStack> {
    let mut attributes = Vec::new();
    if let Some(challenge) = &settings.challenge {
        let printable = challenge
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte));
        let kind = if printable {
            tag::PRINTABLE_STRING
        } else {
            tag::UTF8_STRING
        };
        attributes.push(cms::attribute(
            CHALLENGE_PASSWORD,
            &tlv(kind, challenge.as_bytes()),
        )?);
    }
    if let Some(usage) = csr::key_usage(settings.key_usage)? {
        attributes.push(csr::extension_request(&[usage])?);
    }
    csr::request(key, &settings.subject, attributes, digest)
}

/// Upper-case hexadecimal SHA-1 of the public key data (apple-protocol 8.1). Only RSA keys have
/// a PKCS #1 form; of others, which macOS never uses here, the whole public key is hashed.
fn transaction_id(key: &PKey<Private>) -> Result<String, ErrorStack> {
    let public = match key.rsa() {
        Ok(rsa) => rsa.public_key_to_der_pkcs1()?,
        Err(_not_rsa) => key.public_key_to_der()?,
    };
    Ok(hex::encode_upper(openssl::sha::sha1(&public)))
}

/// A PKCSReq (message type 19), signed with the temporary certificate of the new key.
pub fn pkcs_req(
    temporary: &Identity,
    settings: &ScepSettings,
    authority: &Authority,
    capabilities: Capabilities,
    now_seconds: i64,
) -> Result<PkiMessage, ErrorStack> {
    let request = csr(&temporary.key, settings, capabilities.digest)?;
    let transaction_id = transaction_id(&temporary.key)?;
    pki_message(
        "19",
        &request,
        transaction_id,
        temporary,
        authority,
        capabilities,
        now_seconds,
    )
}

/// A PKCSReq around any request (or what is none) under any transactionID, as an attacker would
/// send it.
pub fn pkcs_req_around(
    request: &[u8],
    transaction_id: &str,
    temporary: &Identity,
    authority: &Authority,
    capabilities: Capabilities,
    now_seconds: i64,
) -> Result<PkiMessage, ErrorStack> {
    pki_message(
        "19",
        request,
        transaction_id.to_owned(),
        temporary,
        authority,
        capabilities,
        now_seconds,
    )
}

/// A RenewalReq (17): a certificate for `key`, signed with the identity it renews (RFC 8894 3.3.1.2).
pub fn renewal_req(
    renewed: &Identity,
    key: &PKey<Private>,
    settings: &ScepSettings,
    authority: &Authority,
    capabilities: Capabilities,
    now_seconds: i64,
) -> Result<PkiMessage, ErrorStack> {
    pki_message(
        "17",
        &csr(key, settings, capabilities.digest)?,
        transaction_id(key)?,
        renewed,
        authority,
        capabilities,
        now_seconds,
    )
}

/// A GetCertInitial (20), sent after PENDING: issuer and subject (RFC 8894 3.3.3).
pub fn get_cert_initial(
    temporary: &Identity,
    settings: &ScepSettings,
    authority: &Authority,
    capabilities: Capabilities,
    now_seconds: i64,
) -> Result<PkiMessage, ErrorStack> {
    let content = sequence(&[
        &authority.ca.subject_name().to_der()?,
        &csr::name(&settings.subject)?,
    ]);
    let transaction_id = transaction_id(&temporary.key)?;
    pki_message(
        "20",
        &content,
        transaction_id,
        temporary,
        authority,
        capabilities,
        now_seconds,
    )
}

/// A message of any type around any content, as RFC 8894 section 3 has it.
pub fn pki_message(
    message_type: &str,
    content: &[u8],
    transaction_id: String,
    temporary: &Identity,
    authority: &Authority,
    capabilities: Capabilities,
    now_seconds: i64,
) -> Result<PkiMessage, ErrorStack> {
    let mut recipients = Stack::new()?;
    recipients.push(authority.recipient.clone())?;
    let cipher = match capabilities.cipher {
        Cipher::Aes128Cbc => symm::Cipher::aes_128_cbc(),
        Cipher::Aes192Cbc => symm::Cipher::aes_192_cbc(),
        Cipher::Aes256Cbc => symm::Cipher::aes_256_cbc(),
        Cipher::TripleDesCbc => symm::Cipher::des_ede3_cbc(),
    };
    let enveloped = Pkcs7::encrypt(&recipients, content, cipher, Pkcs7Flags::BINARY)?.to_der()?;
    let sender_nonce = keys::random()?;
    let printable = |text: &str| tlv(tag::PRINTABLE_STRING, text.as_bytes());
    let digest = capabilities.digest;
    let attributes = vec![
        cms::attribute(cms::ATTRIBUTE_CONTENT_TYPE, &der::oid(cms::ID_DATA)?)?,
        cms::attribute(
            cms::ATTRIBUTE_MESSAGE_DIGEST,
            &cms::digest_octets(digest, &enveloped)?,
        )?,
        cms::attribute(cms::ATTRIBUTE_SIGNING_TIME, &der::time(now_seconds))?,
        cms::attribute(MESSAGE_TYPE, &printable(message_type))?,
        cms::attribute(SENDER_NONCE, &tlv(tag::OCTET_STRING, &sender_nonce))?,
        cms::attribute(TRANSACTION_ID, &printable(&transaction_id))?,
    ];
    let algorithm = cms::signature_algorithm(&temporary.key, digest, false)?;
    let signer = cms::signer_info(temporary, &enveloped, digest, Some(attributes), &algorithm)?;
    let encapsulated = sequence(&[
        &der::oid(cms::ID_DATA)?,
        &tlv(tag::CONTEXT_0, &tlv(tag::OCTET_STRING, &enveloped)),
    ]);
    let signed = sequence(&[
        &der::small_integer(1),
        &tlv(tag::SET, &digest.algorithm()?),
        &encapsulated,
        &tlv(tag::CONTEXT_0, &temporary.certificate.to_der()?),
        &tlv(tag::SET, &signer),
    ]);
    let der = sequence(&[
        &der::oid(cms::ID_SIGNED_DATA)?,
        &tlv(tag::CONTEXT_0, &signed),
    ]);
    Ok(PkiMessage {
        der,
        transaction_id,
        sender_nonce,
    })
}

/// What a CertRep says.
#[derive(Debug)]
pub enum CertRep {
    /// The first certificate of the reply, which is the issued one.
    Issued(Box<X509>),
    Pending,
    /// failInfo as sent: "0" badAlg, "1" badMessageCheck, "2" badRequest, "3" badTime, "4" badCertId.
    Refused(String),
}

/// Reads a reply: it must be signed by `signer`, the certificate GetCACert gave.
///
/// As macOS does, it does not compare recipientNonce.
pub fn read_cert_rep(
    body: &[u8],
    signer: &X509,
    temporary: &Identity,
) -> Result<CertRep, ScepError> {
    read_cert_rep_for(body, signer, temporary, &temporary.key)
}

/// As [`read_cert_rep`], for a request signed by `requester` about another key: a renewal.
pub fn read_cert_rep_for(
    body: &[u8],
    signer: &X509,
    requester: &Identity,
    key: &PKey<Private>,
) -> Result<CertRep, ScepError> {
    let message = Pkcs7::from_der(body).map_err(|_| ScepError::NotACertRep("not CMS"))?;
    // Written again by OpenSSL, indefinite lengths are gone.
    let der = message.to_der()?;
    let (attributes, has_content) =
        signed_attributes(&der).ok_or(ScepError::NotACertRep("no signed attributes"))?;
    let value = |oid: &str| {
        let oid = der::oid(oid).ok()?;
        let found = attributes.iter().find(|(name, _)| *name == oid)?;
        String::from_utf8(found.1.clone()).ok()
    };
    let mut signers = Stack::new()?;
    signers.push(signer.clone())?;
    let store = X509StoreBuilder::new()?.build();
    let mut content = Vec::new();
    let flags = Pkcs7Flags::NOVERIFY | Pkcs7Flags::NOINTERN | Pkcs7Flags::BINARY;
    let detached = (!has_content).then_some(&[][..]);
    message
        .verify(&signers, &store, detached, Some(&mut content), flags)
        .map_err(|_| ScepError::ForeignSigner)?;
    if value(MESSAGE_TYPE).as_deref() != Some("3") {
        return Err(ScepError::NotACertRep("messageType is not 3"));
    }
    match value(PKI_STATUS).as_deref() {
        Some("3") => return Ok(CertRep::Pending),
        Some("2") => return Ok(CertRep::Refused(value(FAIL_INFO).unwrap_or_default())),
        Some("0") => {}
        _ => return Err(ScepError::NotACertRep("no pkiStatus")),
    }
    let enveloped =
        Pkcs7::from_der(&content).map_err(|_| ScepError::NotACertRep("content is not CMS"))?;
    let degenerate = enveloped
        .decrypt(&requester.key, &requester.certificate, Pkcs7Flags::BINARY)
        .map_err(|_| ScepError::NotACertRep("content is not encrypted for us"))?;
    let degenerate = Pkcs7::from_der(&degenerate)
        .map_err(|_| ScepError::NotACertRep("no certificates inside"))?;
    let issued = degenerate
        .signed()
        .and_then(|signed| signed.certificates())
        .and_then(|all| all.get(0));
    let issued = issued
        .ok_or(ScepError::NotACertRep("no certificate inside"))?
        .to_owned();
    if !issued.public_key()?.public_eq(key) {
        return Err(ScepError::OtherKey);
    }
    Ok(CertRep::Issued(Box::new(issued)))
}

/// OID (encoded) and contents of the first value of each signed attribute.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The signed attributes of the one signer, and whether the message has content.
fn signed_attributes(der: &[u8]) -> Option<(Attributes, bool)> {
    let (content_info, _) = der::read(der)?;
    let signed = content_info
        .children()?
        .into_iter()
        .nth(1)?
        .children()?
        .into_iter()
        .next()?;
    let parts = signed.children()?;
    let has_content = parts.get(2)?.children()?.len() > 1;
    let signer = parts.last()?.children()?.into_iter().next()?;
    let list = signer
        .children()?
        .into_iter()
        .find(|part| part.tag == tag::CONTEXT_0)?;
    let read_one = |attribute: &Element<'_>| {
        let parts = attribute.children()?;
        let value = parts.get(1)?.children()?.into_iter().next()?;
        Some((parts.first()?.whole.to_vec(), value.contents.to_vec()))
    };
    let attributes: Option<Vec<_>> = list.children()?.iter().map(read_one).collect();
    Some((attributes?, has_content))
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509Req;

    use super::*;
    use crate::certs::Issuer;
    use crate::clock::Clock;
    use crate::keys::KeyKind;

    fn settings() -> ScepSettings {
        ScepSettings {
            challenge: Some("one-time_7f".into()),
            subject: vec![
                vec![("O".into(), "Sim".into())],
                vec![("CN".into(), "SIMQ4T2W7P".into())],
            ],
            key_usage: 5,
            ..ScepSettings::default()
        }
    }

    #[test]
    fn the_csr_verifies_and_carries_subject_and_challenge() {
        let key = keys::generate(KeyKind::Rsa2048).unwrap();
        for digest in [
            SignatureDigest::Sha1,
            SignatureDigest::Sha256,
            SignatureDigest::Sha384,
            SignatureDigest::Sha512,
        ] {
            let request = csr(&key, &settings(), digest).unwrap();
            let read = X509Req::from_der(&request).unwrap();
            assert!(read.verify(&key).unwrap());
            assert_eq!(read.subject_name().entries().count(), 2);
            assert!(request.windows(11).any(|part| part == b"one-time_7f"));
        }
    }

    #[test]
    fn the_authority_can_open_what_is_sent_and_openssl_verifies_it() {
        let now = Clock::system();
        let ca = Issuer::root("CA", "Test", KeyKind::Rsa2048, now.now_ms())
            .unwrap()
            .identity;
        let authority = Authority {
            signer: ca.certificate.clone(),
            recipient: ca.certificate.clone(),
            ca: ca.certificate.clone(),
        };
        let temporary = Identity::self_signed("TMP", KeyKind::Rsa2048, now.now_ms()).unwrap();
        for cipher in [Cipher::Aes128Cbc, Cipher::TripleDesCbc] {
            let capabilities = Capabilities {
                cipher,
                digest: SignatureDigest::Sha256,
                post: true,
            };
            let message = pkcs_req(
                &temporary,
                &settings(),
                &authority,
                capabilities,
                now.now_seconds(),
            )
            .unwrap();
            let signed = Pkcs7::from_der(&message.der).unwrap();
            let mut signers = Stack::new().unwrap();
            signers.push(temporary.certificate.clone()).unwrap();
            let store = X509StoreBuilder::new().unwrap().build();
            let mut content = Vec::new();
            signed
                .verify(
                    &signers,
                    &store,
                    None,
                    Some(&mut content),
                    Pkcs7Flags::NOVERIFY | Pkcs7Flags::BINARY,
                )
                .unwrap();
            let inner = Pkcs7::from_der(&content).unwrap();
            let request = inner
                .decrypt(&ca.key, &ca.certificate, Pkcs7Flags::BINARY)
                .unwrap();
            assert!(
                X509Req::from_der(&request)
                    .unwrap()
                    .verify(&temporary.key)
                    .unwrap()
            );
            assert_eq!(message.transaction_id.len(), 40);
        }
    }

    #[test]
    fn a_renewal_is_signed_by_the_former_identity_and_read_with_its_key() {
        let now = Clock::system();
        let ca = Issuer::root("CA", "Test", KeyKind::Rsa2048, now.now_ms()).unwrap();
        let authority = Authority {
            signer: ca.identity.certificate.clone(),
            recipient: ca.identity.certificate.clone(),
            ca: ca.identity.certificate.clone(),
        };
        let capabilities = Capabilities {
            cipher: Cipher::Aes128Cbc,
            digest: SignatureDigest::Sha256,
            post: true,
        };
        let former = Identity::self_signed("OLD", KeyKind::P256, now.now_ms()).unwrap();
        let key = keys::generate(KeyKind::Rsa2048).unwrap();
        let made = renewal_req(
            &former,
            &key,
            &settings(),
            &authority,
            capabilities,
            now.now_seconds(),
        )
        .unwrap();
        let (attributes, has_content) = signed_attributes(&made.der).unwrap();
        let message_type = der::oid(MESSAGE_TYPE).unwrap();
        let found = attributes.iter().find(|(oid, _)| *oid == message_type);
        assert!(has_content && found.unwrap().1 == b"17");
        let mut signers = Stack::new().unwrap();
        signers.push(former.certificate.clone()).unwrap();
        let store = X509StoreBuilder::new().unwrap().build();
        let flags = Pkcs7Flags::NOVERIFY | Pkcs7Flags::NOINTERN | Pkcs7Flags::BINARY;
        let message = Pkcs7::from_der(&made.der).unwrap();
        let mut content = Vec::new();
        message
            .verify(&signers, &store, None, Some(&mut content), flags)
            .unwrap();
        let request = Pkcs7::from_der(&content)
            .unwrap()
            .decrypt(&ca.identity.key, &ca.identity.certificate, flags)
            .unwrap();
        let request = X509Req::from_der(&request).unwrap();
        assert!(request.verify(&key).unwrap());
    }

    #[test]
    fn the_captured_failure_is_read_and_a_foreign_signer_is_refused() {
        let now = Clock::system().now_ms();
        let temporary = Identity::self_signed("TMP", KeyKind::Rsa2048, now).unwrap();
        let reply = include_bytes!("../../fixtures/scep-certrep-failure-badrequest.der");
        let ca = X509::from_der(include_bytes!("../../fixtures/scep-getcacert.der")).unwrap();
        let read = read_cert_rep(reply, &ca, &temporary).unwrap();
        assert!(matches!(read, CertRep::Refused(info) if info == "2"));
        let refused = read_cert_rep(reply, &temporary.certificate, &temporary);
        assert!(matches!(refused, Err(ScepError::ForeignSigner)));
        assert!(matches!(
            read_cert_rep(b"0", &ca, &temporary),
            Err(ScepError::NotACertRep(_))
        ));
    }
}
