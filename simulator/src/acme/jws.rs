//! The account key of one run and what it signs: JWS in flattened form (RFC 7515 7.2.2, RFC 8555
//! 6.2), members in alphabetical order as Apple's client writes them (apple-protocol 7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use serde_json::{Value, json};

use crate::keys::{self, KeyKind};

/// Bytes of a P-256 coordinate, and of half an ES256 signature (RFC 7518 3.4, 6.2.1).
const HALF: i32 = 32;

/// Who a message names as its signer: exactly one of the two (RFC 8555 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// `jwk`: the key itself, for newAccount.
    Key,
    /// `kid`: the account's URL, for everything else.
    Account(&'a str),
}

/// A P-256 key that lives for one run.
#[derive(Debug, Clone)]
pub struct AccountKey {
    key: EcKey<Private>,
    x: String,
    y: String,
}

impl AccountKey {
    /// A new key.
    pub fn generate() -> Result<Self, ErrorStack> {
        Self::from_key(&keys::generate(KeyKind::P256)?)
    }

    /// A key from elsewhere, which must be on P-256.
    pub fn from_key(key: &PKey<Private>) -> Result<Self, ErrorStack> {
        let key = key.ec_key()?;
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
        let mut context = BigNumContext::new()?;
        key.public_key()
            .affine_coordinates(&group, &mut x, &mut y, &mut context)?;
        let encoded = |number: &BigNum| {
            Ok::<_, ErrorStack>(URL_SAFE_NO_PAD.encode(number.to_vec_padded(HALF)?))
        };
        Ok(Self {
            x: encoded(&x)?,
            y: encoded(&y)?,
            key,
        })
    }

    /// The public half as a JWK.
    pub fn jwk(&self) -> Value {
        json!({ "crv": "P-256", "kty": "EC", "x": self.x, "y": self.y })
    }

    /// The thumbprint of the JWK (RFC 7638).
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(sha256(self.jwk().to_string().as_bytes()))
    }

    /// The body of a POST to `url`. An empty payload makes it a POST-as-GET.
    pub fn sign(
        &self,
        named: Named<'_>,
        nonce: &str,
        url: &str,
        payload: &str,
    ) -> Result<Vec<u8>, ErrorStack> {
        let protected = match named {
            Named::Key => json!({ "alg": "ES256", "jwk": self.jwk(), "nonce": nonce, "url": url }),
            Named::Account(kid) => {
                json!({ "alg": "ES256", "kid": kid, "nonce": nonce, "url": url })
            }
        };
        self.sign_protected(&protected.to_string(), payload)
    }

    /// As [`AccountKey::sign`] under any protected header, as an attacker would.
    pub fn sign_protected(&self, protected: &str, payload: &str) -> Result<Vec<u8>, ErrorStack> {
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let protected = URL_SAFE_NO_PAD.encode(protected);
        let digest = sha256(format!("{protected}.{payload}").as_bytes());
        let signature = EcdsaSig::sign(&digest, &self.key)?;
        let halves = [
            signature.r().to_vec_padded(HALF)?,
            signature.s().to_vec_padded(HALF)?,
        ]
        .concat();
        let jws = json!({
            "payload": payload,
            "protected": protected,
            "signature": URL_SAFE_NO_PAD.encode(halves),
        });
        Ok(jws.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 7515 A.3.1.
    fn example() -> AccountKey {
        let number =
            |text: &str| BigNum::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let x = number("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        let y = number("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let d = number("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI");
        let public = EcKey::from_public_key_affine_coordinates(&group, &x, &y).unwrap();
        let key = EcKey::from_private_components(&group, &d, public.public_key()).unwrap();
        AccountKey::from_key(&PKey::from_ec_key(key).unwrap()).unwrap()
    }

    fn parts(jws: &[u8]) -> (String, String, Vec<u8>) {
        let value: Value = serde_json::from_slice(jws).unwrap();
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        let signature = URL_SAFE_NO_PAD.decode(text("signature")).unwrap();
        (text("protected"), text("payload"), signature)
    }

    #[test]
    fn the_thumbprint_hashes_the_required_members_only() {
        // SHA-256 of {"crv":"P-256","kty":"EC","x":…,"y":…} computed with another program.
        assert_eq!(
            example().thumbprint(),
            "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
        );
    }

    #[test]
    fn openssl_verifies_the_signature_over_exactly_these_parts() {
        let key = example();
        let jws = key
            .sign(
                Named::Account("https://a.test/1"),
                "n-1",
                "https://a.test/o",
                "{}",
            )
            .unwrap();
        let (protected, payload, signature) = parts(&jws);
        assert_eq!(signature.len(), 64);
        let (r, s) = signature.split_at(32);
        let number = |half: &[u8]| BigNum::from_slice(half).unwrap();
        let signature = EcdsaSig::from_private_components(number(r), number(s)).unwrap();
        let holds = |text: String| {
            signature
                .verify(&sha256(text.as_bytes()), &key.key)
                .unwrap()
        };
        assert!(holds(format!("{protected}.{payload}")));
        assert!(!holds(format!("{payload}.{protected}")));
    }

    #[test]
    fn members_stand_in_alphabetical_order_and_name_one_signer() {
        let key = example();
        let jws = key.sign(Named::Key, "n", "u", "").unwrap();
        assert!(jws.starts_with(br#"{"payload":"","protected":""#));
        let header = |named| {
            let (protected, _, _) = parts(&key.sign(named, "n", "u", "").unwrap());
            String::from_utf8(URL_SAFE_NO_PAD.decode(protected).unwrap()).unwrap()
        };
        assert_eq!(
            header(Named::Key),
            format!(
                r#"{{"alg":"ES256","jwk":{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}},"nonce":"n","url":"u"}}"#,
                key.x, key.y
            )
        );
        assert_eq!(
            header(Named::Account("k")),
            r#"{"alg":"ES256","kid":"k","nonce":"n","url":"u"}"#
        );
    }
}
