//! `Mdm-Signature`: the header that says which identity sent a message.
//!
//! Standard base64 of a detached CMS SignedData over the exact request body (Apple, "Managing
//! certificates for device management services and devices"). Real Macs send BER with indefinite
//! lengths and SHA-1. Verifying it says that the holder of the enclosed certificate's key signed
//! these bytes; whose certificate that is, is for the caller to find out, and a captured message can
//! be sent again: the signature has neither time nor nonce.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::pki::cms::{Refused, SignedDataRefusal};

/// Name of the header.
pub const HEADER: &str = "mdm-signature";

/// Largest header value; real ones have 2 to 4 KB.
pub const MAX_HEADER: usize = 16 * 1024;

/// Largest message it decodes to.
pub const MAX_MESSAGE: usize = MAX_HEADER / 4 * 3;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The CMS message in a header value; white space between the characters is ignored.
///
/// # Refusals
/// Larger than [`MAX_HEADER`]; not base64.
pub fn decode(header: &[u8]) -> Result<Vec<u8>, Refused> {
    if header.len() > MAX_HEADER {
        return Err(SignedDataRefusal::TooLarge.into());
    }
    let decoded = if header.iter().any(u8::is_ascii_whitespace) {
        let packed: Vec<u8> = header
            .iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect();
        BASE64.decode(packed)
    } else {
        BASE64.decode(header)
    };
    decoded.map_err(|_| SignedDataRefusal::NotCms.into())
}
