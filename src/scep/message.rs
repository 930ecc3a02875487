//! A SCEP request, read (RFC 8894 section 3).

use std::borrow::Cow;
use std::fmt;

use const_oid::ObjectIdentifier;

use super::attribute;
use super::refusal::{Refused, ScepRefusal};
use crate::pki::cms::{ContentCipher, EnvelopeRefusal, EnvelopedData, MAX_ATTACHED, SignedData};
use crate::pki::tlv::{DerFault, Tlv, tag, whole};
use crate::pki::{
    Certificate, CertificateRequest, Decryptor, KeyAlgorithm, LegacyDigest, Name, PkiError, ber,
    cms,
};
use crate::secret::Secret;

/// A transaction id is a hash as text (RFC 8894 section 3.2.1.1); this is many times that.
const MAX_TRANSACTION_ID: usize = 256;

/// A nonce has 16 octets (RFC 8894 section 3.2.1.5); some clients send more.
const MAX_NONCE: usize = 64;

/// A request whose signature was verified by the certificate enclosed in it. Whose certificate that
/// is says only the request inside.
#[derive(Debug)]
pub struct PkiMessage<'a> {
    exchange: Exchange,
    message_type: MessageType,
    signer: Certificate<'a>,
    envelope: Cow<'a, [u8]>,
}

/// What is asked for: RFC 8894 section 3.2.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// 19: a certificate for the key that signs the message.
    PkcsReq,
    /// 17: a certificate for a client that has one and signs with it.
    RenewalReq,
    /// 20: the outcome of a request that was left pending.
    GetCertInitial,
}

/// What a reply repeats from its request.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchange {
    pub(super) transaction_id: Vec<u8>,
    pub(super) sender_nonce: Vec<u8>,
}

/// The inside of a request's envelope.
#[derive(Debug)]
pub struct Opened {
    message_type: MessageType,
    signer_key: Vec<u8>,
    cipher: ContentCipher,
    plaintext: Secret<Vec<u8>>,
}

/// What a request asks for.
#[derive(Debug)]
pub enum Ask<'a> {
    /// A first certificate for the key that signed the message.
    Issue(CertificateRequest<'a>),
    /// A further certificate. Whoever decides must check that [`PkiMessage::signer`] is a valid
    /// certificate of ours.
    Renew(CertificateRequest<'a>),
    /// The outcome of an earlier request (RFC 8894 section 3.3.3).
    Poll {
        /// The authority asked.
        issuer: Name<'a>,
        /// The subject of the earlier request.
        subject: Name<'a>,
    },
}

/// The body of a PKIOperation as DER.
pub fn read(body: &[u8]) -> Result<Cow<'_, [u8]>, Refused> {
    Ok(cms::read(body, MAX_ATTACHED)?)
}

impl<'a> PkiMessage<'a> {
    /// Reads a request in DER (see [`read`]) and verifies its signature.
    pub fn parse(der: &'a [u8]) -> Result<Self, Refused> {
        let signed = SignedData::parse(der)?;
        let exchange = Exchange::read(&signed).map_err(|cause| Refused {
            cause,
            exchange: None,
        })?;
        match Self::verified(signed) {
            Ok((message_type, signer, envelope)) => Ok(Self {
                exchange,
                message_type,
                signer,
                envelope,
            }),
            Err(cause) => Err(Refused {
                cause,
                exchange: Some(exchange),
            }),
        }
    }

    /// What is asked for.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// The certificate whose key signed the message: the client's own making, unless it renews.
    /// Replies are sealed for it.
    pub fn signer(&self) -> &Certificate<'a> {
        &self.signer
    }

    /// What a reply must repeat.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Whether the envelope is for the key of `recipient`, by the name that it gives.
    pub fn is_for(&self, recipient: &Certificate<'_>) -> bool {
        EnvelopedData::parse(&self.envelope).is_ok_and(|envelope| envelope.is_for(recipient))
    }

    /// Opens the envelope with the key of `recipient`, the certificate given out by GetCACert.
    pub fn open(
        &self,
        recipient: &Certificate<'_>,
        key: &dyn Decryptor,
    ) -> Result<Opened, Refused> {
        let opened = EnvelopedData::parse(&self.envelope).and_then(|envelope| {
            let plaintext = envelope.open(recipient, key)?;
            Ok((envelope.cipher(), plaintext))
        });
        let (cipher, plaintext) = opened.map_err(|cause| self.refused(cause.into()))?;
        Ok(Opened {
            message_type: self.message_type,
            signer_key: self.signer.spki().to_vec(),
            cipher,
            plaintext,
        })
    }

    /// A refusal that can be answered.
    pub fn refused(&self, cause: ScepRefusal) -> Refused {
        Refused {
            cause,
            exchange: Some(self.exchange.clone()),
        }
    }

    fn verified(
        signed: SignedData<'a>,
    ) -> Result<(MessageType, Certificate<'a>, Cow<'a, [u8]>), ScepRefusal> {
        let content = signed
            .content()
            .ok_or(ScepRefusal::Attribute("pkcsPKIEnvelope"))?;
        // First, because what a weak key signed is not worth verifying.
        let key = signed
            .signer()
            .public_key()
            .map_err(|_| ScepRefusal::SignerKey)?;
        if !matches!(key.algorithm(), KeyAlgorithm::Rsa { .. }) {
            return Err(ScepRefusal::SignerKey);
        }
        signed.verify(content).map_err(|refused| refused.cause)?;
        let message_type = MessageType::read(&signed)?;
        let envelope = ber::to_der(content).map_err(EnvelopeRefusal::Malformed)?;
        Ok((message_type, *signed.signer(), envelope))
    }
}

impl MessageType {
    fn read(signed: &SignedData<'_>) -> Result<Self, ScepRefusal> {
        match printable(signed, attribute::MESSAGE_TYPE, "messageType")?.value {
            b"19" => Ok(Self::PkcsReq),
            b"17" => Ok(Self::RenewalReq),
            b"20" => Ok(Self::GetCertInitial),
            _ => Err(ScepRefusal::MessageType),
        }
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::PkcsReq => "PKCSReq",
            Self::RenewalReq => "RenewalReq",
            Self::GetCertInitial => "GetCertInitial",
        }
    }
}

impl Exchange {
    /// The transaction id as text. Chosen by the client: a name for retries, not a secret, not
    /// unique.
    pub fn transaction_id(&self) -> &str {
        let element = whole(&self.transaction_id, tag::PRINTABLE_STRING);
        element
            .ok()
            .and_then(|text| std::str::from_utf8(text.value).ok())
            .unwrap_or_default()
    }

    fn read(signed: &SignedData<'_>) -> Result<Self, ScepRefusal> {
        let transaction_id = printable(signed, attribute::TRANSACTION_ID, "transactionID")?;
        let nonce = signed
            .signed_attribute(attribute::SENDER_NONCE)
            .filter(|nonce| nonce.tag == tag::OCTET_STRING)
            .filter(|nonce| (1..=MAX_NONCE).contains(&nonce.value.len()))
            .ok_or(ScepRefusal::Attribute("senderNonce"))?;
        Ok(Self {
            transaction_id: transaction_id.raw.to_vec(),
            sender_nonce: nonce.value.to_vec(),
        })
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exchange")
            .field(&self.transaction_id())
            .finish()
    }
}

impl Opened {
    /// The cipher the client used: the one to answer with.
    pub fn cipher(&self) -> ContentCipher {
        self.cipher
    }

    /// Reads what is asked for. The possession of the requested key is proved by the request itself.
    ///
    /// # Errors
    /// A [`ScepRefusal`], to be answered by [`PkiMessage::refused`].
    pub fn ask(&self) -> Result<Ask<'_>, ScepRefusal> {
        let inside = self.plaintext.expose();
        match self.message_type {
            MessageType::PkcsReq => {
                let request = read_request(inside)?;
                if request.public_key().spki() != self.signer_key {
                    return Err(ScepRefusal::OtherKey);
                }
                Ok(Ask::Issue(request))
            }
            MessageType::RenewalReq => Ok(Ask::Renew(read_request(inside)?)),
            MessageType::GetCertInitial => {
                issuer_and_subject(inside).map_err(ScepRefusal::of_request)
            }
        }
    }
}

fn read_request(inside: &[u8]) -> Result<CertificateRequest<'_>, ScepRefusal> {
    CertificateRequest::parse(inside, LegacyDigest::Allowed).map_err(ScepRefusal::of_request)
}

fn issuer_and_subject(inside: &[u8]) -> Result<Ask<'_>, PkiError> {
    let fault = PkiError::malformed("issuerAndSubject");
    let mut names = whole(inside, tag::SEQUENCE).map_err(&fault)?.inside();
    let issuer = Name::parse(names.expect(tag::SEQUENCE).map_err(&fault)?.raw)?;
    let subject = Name::parse(names.expect(tag::SEQUENCE).map_err(&fault)?.raw)?;
    names.finish().map_err(&fault)?;
    Ok(Ask::Poll { issuer, subject })
}

/// A PrintableString attribute, with only the characters of that type (X.680 section 41.4): it is
/// echoed, logged and compared.
fn printable<'a>(
    signed: &SignedData<'a>,
    oid: ObjectIdentifier,
    what: &'static str,
) -> Result<Tlv<'a>, ScepRefusal> {
    let is_printable =
        |octet: &u8| octet.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(octet);
    signed
        .signed_attribute(oid)
        .filter(|element| element.tag == tag::PRINTABLE_STRING)
        .filter(|element| (1..=MAX_TRANSACTION_ID).contains(&element.value.len()))
        .filter(|element| element.value.iter().all(is_printable))
        .ok_or(ScepRefusal::Attribute(what))
}

impl From<DerFault> for Refused {
    fn from(fault: DerFault) -> Self {
        Self {
            cause: fault.into(),
            exchange: None,
        }
    }
}
