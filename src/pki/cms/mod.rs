//! Cryptographic Message Syntax (RFC 5652): signatures over bodies, profiles and SCEP messages.
//!
//! Read: exactly one signer, RSA PKCS#1 v1.5 or ECDSA, with or without signed attributes, the
//! signer's certificate among those enclosed. BER is rewritten first ([`super::ber::to_der`]).
//! Envelopes: RSA key transport (RFC 3370 section 4.2.1) and AES-CBC; triple DES for old SCEP clients.
//! Written: DER, SHA-256 or better.

pub mod build;
pub mod cipher;
pub mod enveloped_data;
pub mod refusal;
pub mod signed_data;
#[cfg(test)]
mod signed_data_test;
pub mod signer_info;

pub use build::{SignedDataBuilder, certificates_only};
pub use cipher::ContentCipher;
pub use enveloped_data::{EnvelopeRefusal, EnvelopedData, Sealing};
pub use refusal::{Refused, SignedDataRefusal};
pub use signed_data::{SignedData, read};
pub use signer_info::SignerId;

/// The largest `Mdm-Signature` read, decoded (DESIGN section 5). Real ones have about 2 KiB.
pub const MAX_DETACHED: usize = 16 * 1024;

/// The largest message with attached content read. SCEP requests have about 3 KiB; a key of 8,192
/// bits and a long chain stay far below this.
pub const MAX_ATTACHED: usize = 64 * 1024;
