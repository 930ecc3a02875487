//! Signed notes (C2SP `signed-note`): a text, and lines below it that say who signed it.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Malformed;
use crate::ids::sha256;

/// Signature types of verifier keys (`signed-note`, `tlog-cosignature`).
const ED25519_NOTE: u8 = 1;
const ED25519_COSIGNATURE: u8 = 4;
const ML_DSA_44_COSIGNATURE: u8 = 6;

/// Whose key it is: a witness signs another text than a log, so that neither can pass for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ed25519, type 01.
    Log,
    /// Ed25519, type 04.
    Witness,
}

/// Why a key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    #[error("it is no verifier key: name+key id+base64, the id that of the name and the key")]
    Malformed,
    #[error("it is of ML-DSA-44 (type 06), of which nothing is verified here: Ed25519 (type 04)")]
    MlDsa,
    #[error("it is of type {is:02x}, but {wanted:02x} belongs here")]
    OtherKind { is: u8, wanted: u8 },
}

/// A text and its signatures.
#[derive(Debug)]
pub struct Note<'a> {
    /// What is signed, with its last newline.
    pub text: &'a str,
    /// Name, and what stands after it.
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> Note<'a> {
    /// Reads one.
    pub fn read(note: &'a str) -> Result<Self, Malformed> {
        const FORM: Malformed = Malformed("no signed note");
        if !note.ends_with('\n') {
            return Err(FORM);
        }
        let end = note.find("\n\n").ok_or(FORM)? + 1;
        let (text, rest) = note.split_at(end);
        let signatures = rest.trim_start_matches('\n').lines().map(|line| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            Some((name, STANDARD.decode(signature).ok()?))
        });
        Ok(Self {
            text,
            signatures: signatures.collect::<Option<_>>().ok_or(FORM)?,
        })
    }

    /// Whether it is signed by this key. `None`: one of its signatures in this key's name is wrong, and the note
    /// is to be refused whole (`signed-note`).
    pub fn is_signed_by(&self, key: &VerifierKey<'_>) -> Option<bool> {
        let by = self.signatures.iter().filter(|(name, _)| *name == key.name);
        let mut found = false;
        for signature in by.filter_map(|(_, signature)| signature.strip_prefix(&key.id)) {
            if !key.verifies(self.text, signature) {
                return None;
            }
            found = true;
        }
        Some(found)
    }

    /// The first signature by this key, as far as its name and id say, with the id before it.
    pub fn signature_of(&self, key: &VerifierKey<'_>) -> Option<&[u8]> {
        let mut by = self.signatures.iter().filter(|(name, _)| *name == key.name);
        let signature = by.find(|(_, signature)| signature.starts_with(&key.id));
        signature.map(|(_, signature)| signature.as_slice())
    }
}

/// A key of a signed note: `name+keyID+base64(type‖key)`.
#[derive(Debug)]
pub struct VerifierKey<'a> {
    pub name: &'a str,
    id: [u8; 4],
    kind: Kind,
    key: Vec<u8>,
}

impl<'a> VerifierKey<'a> {
    /// Reads one of this kind.
    pub fn read(text: &'a str, kind: Kind) -> Result<Self, UnusableKey> {
        use UnusableKey::Malformed;
        let (rest, key) = split_at_plus(text).ok_or(Malformed)?;
        let (name, id) = rest.rsplit_once('+').ok_or(Malformed)?;
        let key = STANDARD.decode(key).map_err(|_| Malformed)?;
        let id = hex::decode(id).map_err(|_| Malformed)?;
        if key_id(name, &key).as_slice() != id {
            return Err(Malformed);
        }
        let (is, public) = key.split_first().ok_or(Malformed)?;
        let wanted = kind.byte();
        match (*is, kind) {
            (ML_DSA_44_COSIGNATURE, Kind::Witness) => Err(UnusableKey::MlDsa),
            (is, _) if is != wanted => Err(UnusableKey::OtherKind { is, wanted }),
            _ if public.len() != 32 => Err(Malformed),
            _ => Ok(Self {
                name,
                id: key_id(name, &key),
                kind,
                key: public.to_vec(),
            }),
        }
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        match self.kind {
            Kind::Log => key.verify(text.as_bytes(), signature).is_ok(),
            Kind::Witness => signature
                .split_first_chunk::<8>()
                .is_some_and(|(time, rest)| {
                    let message = cosigned(u64::from_be_bytes(*time), text);
                    key.verify(message.as_bytes(), rest).is_ok()
                }),
        }
    }
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Log => ED25519_NOTE,
            Self::Witness => ED25519_COSIGNATURE,
        }
    }
}

/// What a witness signs (`tlog-cosignature`): that it saw this, and when, in seconds since 1970.
fn cosigned(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// The key may have a `+` of base64; the two before it are the separators.
fn split_at_plus(text: &str) -> Option<(&str, &str)> {
    let first = text.find('+')?;
    let second = first + 1 + text[first + 1..].find('+')?;
    Some((&text[..second], &text[second + 1..]))
}

fn key_id(name: &str, key: &[u8]) -> [u8; 4] {
    let hash = sha256(&[name.as_bytes(), b"\n", key].concat());
    [hash[0], hash[1], hash[2], hash[3]]
}

/// Who signs the log.
pub struct NoteSigner {
    name: String,
    pair: Ed25519KeyPair,
}

impl NoteSigner {
    /// A log of this name, with the key of this seed (RFC 8032 section 5.1.5). `None` when the name is no name
    /// of a key: it is not empty, and has neither white space nor `+`.
    pub fn new(name: &str, seed: &[u8; 32]) -> Option<Self> {
        let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        is_name.then(|| Self {
            name: name.to_owned(),
            pair,
        })
    }

    /// The name of the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What others check it by.
    pub fn verifier_key(&self) -> String {
        let key = self.public();
        let id = hex::encode(key_id(&self.name, &key));
        format!("{}+{id}+{}", self.name, STANDARD.encode(key))
    }

    /// The text, which ends with a newline, with a signature below.
    pub fn sign(&self, text: &str) -> String {
        let mut signature = key_id(&self.name, &self.public()).to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!(
            "{text}\n\u{2014} {} {}\n",
            self.name,
            STANDARD.encode(signature)
        )
    }

    fn public(&self) -> Vec<u8> {
        [&[ED25519_NOTE], self.pair.public_key().as_ref()].concat()
    }
}

impl std::fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.verifier_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_signed_by_its_key_and_no_other() {
        let signer = NoteSigner::new("log.example/posture", &[7; 32]).expect("a signer");
        let other = NoteSigner::new("log.example/posture", &[8; 32]).expect("a signer");
        let (key, stranger) = (signer.verifier_key(), other.verifier_key());
        let key = VerifierKey::read(&key, Kind::Log).expect("a key");
        let stranger = VerifierKey::read(&stranger, Kind::Log).expect("a key");
        let signed = signer.sign("one\ntwo\n");
        let note = Note::read(&signed).expect("a note");
        assert_eq!(note.text, "one\ntwo\n");
        assert_eq!(note.is_signed_by(&key), Some(true));
        assert_eq!(note.is_signed_by(&stranger), Some(false));
        let forged = signed.replace("two", "six");
        let note = Note::read(&forged).expect("a note");
        assert_eq!(note.is_signed_by(&key), None);
    }

    #[test]
    fn a_name_with_a_plus_or_a_blank_is_none() {
        for name in ["", "a b", "a+b", "a\nb"] {
            assert!(NoteSigner::new(name, &[7; 32]).is_none(), "{name:?}");
        }
    }

    #[test]
    fn a_key_is_of_the_kind_that_is_wanted_or_none() {
        let of = |kind: u8, length: usize| {
            let key = [&[kind], &vec![7; length][..]].concat();
            let id = hex::encode(key_id("w.example", &key));
            format!("w.example+{id}+{}", STANDARD.encode(key))
        };
        let read = |text: &str, kind| VerifierKey::read(text, kind).map(|key| key.name.to_owned());
        let (log, witness) = (of(1, 32), of(4, 32));
        assert_eq!(read(&log, Kind::Log), Ok("w.example".to_owned()));
        assert_eq!(read(&witness, Kind::Witness), Ok("w.example".to_owned()));
        let other = |is, wanted| Err(UnusableKey::OtherKind { is, wanted });
        assert_eq!(read(&witness, Kind::Log), other(4, 1));
        assert_eq!(read(&log, Kind::Witness), other(1, 4));
        assert_eq!(read(&of(6, 1312), Kind::Witness), Err(UnusableKey::MlDsa));
        assert_eq!(read(&of(6, 1312), Kind::Log), other(6, 1));
        for text in ["", "w.example", &of(4, 31), &witness.replace('+', "-")] {
            assert_eq!(read(text, Kind::Witness), Err(UnusableKey::Malformed));
        }
    }
}
