//! The ciphers for the content of an envelope.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, EncryptionContext,
    PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use const_oid::ObjectIdentifier;
use openssl::symm;

use crate::pki::key::{KeyFailure, algorithm_parts};
use crate::pki::tlv::{Reader, tag};
use crate::pki::{PkiError, oid, write};
use crate::secret::Secret;

/// A content cipher: CBC with PKCS #7 padding (RFC 5652 section 6.3).
///
/// It hides, it does not protect: only the signature around an envelope says that nobody changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCipher {
    Aes128,
    Aes192,
    Aes256,
    /// What SCEP clients used before RFC 8894; read and answered, never offered.
    TripleDes,
}

impl ContentCipher {
    const ALL: [Self; 4] = [Self::Aes128, Self::Aes192, Self::Aes256, Self::TripleDes];

    /// Octets of the key.
    pub fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
        }
    }

    /// Octets of a block, and of the initialization vector.
    pub fn block_length(self) -> usize {
        match self {
            Self::Aes128 | Self::Aes192 | Self::Aes256 => 16,
            Self::TripleDes => 8,
        }
    }

    /// Reads an AlgorithmIdentifier and the initialization vector in it.
    pub(super) fn parse(algorithm: &[u8]) -> Result<(Self, &[u8]), PkiError> {
        let unsupported = PkiError::UnsupportedAlgorithm;
        let (oid, parameters) = algorithm_parts(algorithm)?;
        let cipher = Self::ALL
            .into_iter()
            .find(|cipher| cipher.oid().as_bytes() == oid);
        let cipher = cipher.ok_or(unsupported)?;
        let vector = Reader::new(parameters.ok_or(unsupported)?).expect(tag::OCTET_STRING);
        let vector = vector.map_err(|_| unsupported)?.value;
        if vector.len() == cipher.block_length() {
            Ok((cipher, vector))
        } else {
            Err(unsupported)
        }
    }

    pub(super) fn to_der(self, vector: &[u8]) -> Vec<u8> {
        write::sequence(&[&write::oid(self.oid()), &write::octet_string(vector)])
    }

    /// Decrypts. Every failure is the same one: see [`super::EnvelopedData::open`].
    pub(super) fn decrypt(
        self,
        key: &[u8],
        vector: &[u8],
        ciphertext: &[u8],
    ) -> Result<Secret<Vec<u8>>, KeyFailure> {
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(self.block_length()) {
            return Err(KeyFailure);
        }
        let Some(algorithm) = self.aes() else {
            let triple_des = symm::Cipher::des_ede3_cbc();
            let plaintext = symm::decrypt(triple_des, key, Some(vector), ciphertext);
            return plaintext.map(Secret::new).map_err(|_| KeyFailure);
        };
        let context = FixedLength::try_from(vector).map(DecryptionContext::Iv128);
        let mut buffer = ciphertext.to_vec();
        let plaintext = UnboundCipherKey::new(algorithm, key)
            .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
            .and_then(|key| Ok(key.decrypt(&mut buffer, context?)?.len()));
        let length = plaintext.map_err(|_| KeyFailure)?;
        buffer.truncate(length);
        Ok(Secret::new(buffer))
    }

    pub(super) fn encrypt(
        self,
        key: &[u8],
        vector: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, KeyFailure> {
        let Some(algorithm) = self.aes() else {
            let triple_des = symm::Cipher::des_ede3_cbc();
            if key.len() != self.key_length() || vector.len() != self.block_length() {
                return Err(KeyFailure);
            }
            return symm::encrypt(triple_des, key, Some(vector), plaintext).map_err(|_| KeyFailure);
        };
        let context = FixedLength::try_from(vector).map(EncryptionContext::Iv128);
        let mut buffer = plaintext.to_vec();
        UnboundCipherKey::new(algorithm, key)
            .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
            .and_then(|key| key.less_safe_encrypt(&mut buffer, context?))
            .map_err(|_| KeyFailure)?;
        Ok(buffer)
    }

    fn aes(self) -> Option<&'static Algorithm> {
        match self {
            Self::Aes128 => Some(&AES_128),
            Self::Aes192 => Some(&AES_192),
            Self::Aes256 => Some(&AES_256),
            Self::TripleDes => None,
        }
    }

    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Aes128 => oid::AES128_CBC,
            Self::Aes192 => oid::AES192_CBC,
            Self::Aes256 => oid::AES256_CBC,
            Self::TripleDes => oid::DES_EDE3_CBC,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_decrypts_and_openssl_agrees() {
        for (cipher, theirs) in [
            (ContentCipher::Aes128, symm::Cipher::aes_128_cbc()),
            (ContentCipher::Aes192, symm::Cipher::aes_192_cbc()),
            (ContentCipher::Aes256, symm::Cipher::aes_256_cbc()),
            (ContentCipher::TripleDes, symm::Cipher::des_ede3_cbc()),
        ] {
            let key: Vec<u8> = (1..).take(cipher.key_length()).collect();
            let vector: Vec<u8> = (101..).take(cipher.block_length()).collect();
            for length in [0, 1, 15, 16, 17, 1000] {
                let plaintext = vec![0x5a; length];
                let sealed = cipher
                    .encrypt(&key, &vector, &plaintext)
                    .expect("encrypted");
                let expected =
                    symm::encrypt(theirs, &key, Some(&vector), &plaintext).expect("theirs");
                assert_eq!(sealed, expected, "{cipher:?}");
                let opened = cipher.decrypt(&key, &vector, &sealed).expect("decrypted");
                assert_eq!(opened.expose(), &plaintext, "{cipher:?}");
            }
        }
    }

    #[test]
    fn broken_lengths_are_refused_without_a_panic() {
        for cipher in ContentCipher::ALL {
            let key = vec![7; cipher.key_length()];
            let vector = vec![0; cipher.block_length()];
            for length in [0, 1, 7, 17] {
                let refused = cipher.decrypt(&key, &vector, &vec![0; length]);
                assert!(refused.is_err(), "{cipher:?} {length}");
            }
            assert!(cipher.encrypt(&key[1..], &vector, b"x").is_err());
            assert!(cipher.encrypt(&key, &vector[1..], b"x").is_err());
        }
    }
}
