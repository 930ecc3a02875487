//! ECDSA over P-256 with SHA-256, by OpenSSL.

use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::PointConversionForm;
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{PKey, Private};

/// `04‖X‖Y`.
pub(super) fn point(key: &PKey<Private>) -> Result<Vec<u8>, ErrorStack> {
    let key = key.ec_key()?;
    let mut context = BigNumContext::new()?;
    key.public_key()
        .to_bytes(key.group(), PointConversionForm::UNCOMPRESSED, &mut context)
}

/// DER, with S in the upper half of the group's order where `high`, else in the lower.
pub(super) fn sign(key: &PKey<Private>, message: &[u8], high: bool) -> Result<Vec<u8>, ErrorStack> {
    let key = key.ec_key()?;
    let digest = hash(MessageDigest::sha256(), message)?;
    let signature = EcdsaSig::sign(&digest, &key)?;
    let (mut order, mut context) = (BigNum::new()?, BigNumContext::new()?);
    key.group().order(&mut order, &mut context)?;
    let mut mirrored = BigNum::new()?;
    mirrored.checked_sub(&order, signature.s())?;
    let is_high = signature.s() > &mirrored;
    let s = match is_high == high {
        true => signature.s().to_owned()?,
        false => mirrored,
    };
    EcdsaSig::from_private_components(signature.r().to_owned()?, s)?.to_der()
}
