//! EnvelopedData (RFC 5652 section 6) with RSA key transport, as SCEP uses it.

use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};

use super::cipher::ContentCipher;
use super::signer_info::SignerId;
use crate::pki::key::algorithm_parts;
use crate::pki::tlv::{DerFault, Reader, tag, whole};
use crate::pki::{Certificate, Decryptor, KeyAlgorithm, PkiError, oid, write};
use crate::secret::Secret;

/// More recipients than any honest SCEP message has.
const MAX_RECIPIENTS: usize = 8;

/// A message that only its recipients can read. Unsigned by itself.
#[derive(Debug)]
pub struct EnvelopedData<'a> {
    recipients: Vec<Recipient<'a>>,
    cipher: ContentCipher,
    vector: &'a [u8],
    ciphertext: Vec<u8>,
}

/// What seals one envelope: a cipher, and a key and an initialization vector drawn for it alone.
#[derive(Debug)]
pub struct Sealing {
    /// The cipher.
    pub cipher: ContentCipher,
    /// 32 random octets; the cipher takes as many as it needs.
    pub key: Secret<[u8; 32]>,
    /// 16 random octets; the cipher takes as many as it needs.
    pub vector: [u8; 16],
}

/// Why an envelope is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeRefusal {
    /// Not an envelope in DER.
    #[error("malformed envelope: {0}")]
    Malformed(DerFault),
    /// Another cipher, or another way to carry its key, than those accepted.
    #[error("the envelope's algorithm is not accepted")]
    UnsupportedAlgorithm,
    /// Sealed for somebody else.
    #[error("the envelope is for another recipient")]
    NotForUs,
    /// Does not open. Says no more, on purpose.
    #[error("the envelope does not open")]
    CannotOpen,
}

#[derive(Debug)]
struct Recipient<'a> {
    id: SignerId<'a>,
    encrypted_key: &'a [u8],
    is_rsa: bool,
}

impl<'a> EnvelopedData<'a> {
    /// Reads a ContentInfo with EnvelopedData in DER (see [`super::read`]).
    pub fn parse(der: &'a [u8]) -> Result<Self, EnvelopeRefusal> {
        let mut outer = whole(der, tag::SEQUENCE)?.inside();
        if outer.oid()? != oid::ENVELOPED_DATA.as_bytes() {
            return Err(DerFault::Value.into());
        }
        let mut wrapper = outer.expect(tag::context_constructed(0))?.inside();
        outer.finish()?;
        let mut members = wrapper.expect(tag::SEQUENCE)?.inside();
        wrapper.finish()?;

        if members.small_integer()? > 4 {
            return Err(DerFault::Value.into());
        }
        members.optional(tag::context_constructed(0))?;
        let mut infos = members.expect(tag::SET)?.inside();
        let mut recipients = Vec::new();
        while !infos.is_empty() {
            if recipients.len() == MAX_RECIPIENTS {
                return Err(DerFault::Depth.into());
            }
            let info = infos.any()?;
            // The other choices (key agreement, passwords) are no SEQUENCE and never for us.
            if info.tag == tag::SEQUENCE {
                recipients.push(Recipient::parse(info.inside())?);
            }
        }
        let mut content = members.expect(tag::SEQUENCE)?.inside();
        members.optional(tag::context_constructed(1))?;
        members.finish()?;

        if content.oid()? != oid::DATA.as_bytes() {
            return Err(DerFault::Value.into());
        }
        let algorithm = content.expect(tag::SEQUENCE)?.raw;
        let parsed = ContentCipher::parse(algorithm);
        let (cipher, vector) = parsed.map_err(|_| EnvelopeRefusal::UnsupportedAlgorithm)?;
        let ciphertext = ciphertext(&mut content)?;
        content.finish()?;
        Ok(Self {
            recipients,
            cipher,
            vector,
            ciphertext,
        })
    }

    /// The cipher the sender chose: the one to answer with.
    pub fn cipher(&self) -> ContentCipher {
        self.cipher
    }

    /// Whether `certificate` is named as a recipient's.
    pub fn is_for(&self, certificate: &Certificate<'_>) -> bool {
        self.recipients.iter().any(|one| one.id.names(certificate))
    }

    /// Opens the envelope with the key of `certificate`.
    ///
    /// Bad padding of the key must not be told from bad padding of the content, or the sender can
    /// decrypt foreign envelopes by asking often (RFC 3218 section 2.3.2): a [`Decryptor`] gives a key
    /// in any case, and the work fails later like any other. The caller must answer
    /// [`EnvelopeRefusal::CannotOpen`] and nonsense inside alike.
    pub fn open(
        &self,
        certificate: &Certificate<'_>,
        key: &dyn Decryptor,
    ) -> Result<Secret<Vec<u8>>, EnvelopeRefusal> {
        let recipient = self.recipients.iter().find(|one| one.id.names(certificate));
        let recipient = recipient.ok_or(EnvelopeRefusal::NotForUs)?;
        if !recipient.is_rsa {
            return Err(EnvelopeRefusal::UnsupportedAlgorithm);
        }
        let length = self.cipher.key_length();
        let content_key = key
            .decrypt_content_key(recipient.encrypted_key, length)
            .map_err(|_| EnvelopeRefusal::CannotOpen)?;
        self.cipher
            .decrypt(content_key.expose(), self.vector, &self.ciphertext)
            .map_err(|_| EnvelopeRefusal::CannotOpen)
    }
}

impl<'a> Recipient<'a> {
    fn parse(mut info: Reader<'a>) -> Result<Self, DerFault> {
        if !matches!(info.small_integer()?, 0 | 2) {
            return Err(DerFault::Value);
        }
        let id = SignerId::parse(info.any()?)?;
        let algorithm = info.expect(tag::SEQUENCE)?.raw;
        let encrypted_key = info.expect(tag::OCTET_STRING)?.value;
        info.finish()?;
        let is_rsa = algorithm_parts(algorithm).is_ok_and(|(oid, parameters)| {
            oid == oid::RSA_ENCRYPTION.as_bytes()
                && matches!(parameters, None | Some([tag::NULL, 0]))
        });
        Ok(Self {
            id,
            encrypted_key,
            is_rsa,
        })
    }
}

impl From<DerFault> for EnvelopeRefusal {
    fn from(fault: DerFault) -> Self {
        Self::Malformed(fault)
    }
}

/// Seals `content` for the RSA key of `recipient`.
///
/// # Errors
/// When that key is not RSA.
pub fn seal(
    content: &[u8],
    recipient: &Certificate<'_>,
    sealing: &Sealing,
) -> Result<Vec<u8>, PkiError> {
    let public_key = recipient.public_key()?;
    if !matches!(public_key.algorithm(), KeyAlgorithm::Rsa { .. }) {
        return Err(PkiError::UnsupportedKey);
    }
    let cipher = sealing.cipher;
    let (content_key, _) = sealing.key.expose().split_at(cipher.key_length());
    let (vector, _) = sealing.vector.split_at(cipher.block_length());
    let transport = PublicEncryptingKey::from_der(public_key.spki())
        .map_err(|_| PkiError::UnsupportedKey)
        .and_then(|key| Pkcs1PublicEncryptingKey::new(key).map_err(|_| PkiError::UnsupportedKey))?;
    let mut encrypted_key = vec![0; transport.ciphertext_size()];
    let encrypted_key = transport
        .encrypt(content_key, &mut encrypted_key)
        .map_err(|_| PkiError::UnsupportedKey)?;
    let ciphertext = cipher.encrypt(content_key, vector, content);
    let ciphertext = ciphertext.map_err(|_| PkiError::UnsupportedAlgorithm)?;

    let serial = write::element(tag::INTEGER, recipient.serial());
    let recipient_info = write::sequence(&[
        &write::unsigned(&[0]),
        &write::sequence(&[recipient.issuer().as_der(), &serial]),
        &write::sequence(&[&write::oid(oid::RSA_ENCRYPTION), &write::null()]),
        &write::octet_string(encrypted_key),
    ]);
    let enveloped = write::sequence(&[
        &write::unsigned(&[0]),
        &write::set_of(vec![recipient_info]),
        &write::sequence(&[
            &write::oid(oid::DATA),
            &cipher.to_der(vector),
            &write::element(tag::context(0), &ciphertext),
        ]),
    ]);
    Ok(write::sequence(&[
        &write::oid(oid::ENVELOPED_DATA),
        &write::element(tag::context_constructed(0), &enveloped),
    ]))
}

/// `[0] IMPLICIT OCTET STRING`: whole, or in pieces, which the rewriting of BER leaves to whoever
/// knows the type.
fn ciphertext(content: &mut Reader<'_>) -> Result<Vec<u8>, DerFault> {
    if let Some(whole) = content.optional(tag::context(0))? {
        return Ok(whole.value.to_vec());
    }
    let mut pieces = content.expect(tag::context_constructed(0))?.inside();
    let mut joined = Vec::new();
    while !pieces.is_empty() {
        joined.extend_from_slice(pieces.expect(tag::OCTET_STRING)?.value);
    }
    Ok(joined)
}
