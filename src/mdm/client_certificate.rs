//! A Mac's certificate as a TLS-terminating proxy passes it on.
//!
//! The alternative to `Mdm-Signature`: the Mac proves possession of its key in the TLS handshake,
//! and whoever ended TLS says with which certificate. Proxies write it in four ways, which a value
//! tells by itself: a structured field (RFC 9440 section 2.1), percent-encoded PEM (nginx, AWS),
//! a member of `X-Forwarded-Client-Cert` (Envoy), and bare base64 (HAProxy). Whether the sender of
//! the header may be believed is not for this module to say.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::pki::{OwnedCertificate, read_certificates};

/// Largest header value: a certificate of 8 KiB, base64, every third character escaped.
pub const MAX_HEADER: usize = 16 * 1024;

/// RFC 8941 section 4.2.7 has readers not insist on padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a value is not taken for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("larger than any honest certificate")]
    TooLarge,
    #[error("not a certificate in a form that proxies use")]
    Form,
    /// Several hops each added theirs: which of them ended the Mac's TLS, nothing here can tell.
    #[error("certificates of more than one connection")]
    SeveralConnections,
}

/// The certificate in a header value; `None` where the value is empty, as proxies leave it for a
/// client without a certificate. Of a chain, the first: the client's own.
///
/// # Refusals
/// See [`Unreadable`].
pub fn decode(value: &[u8]) -> Result<Option<OwnedCertificate>, Unreadable> {
    if value.len() > MAX_HEADER {
        return Err(Unreadable::TooLarge);
    }
    let value = value.trim_ascii();
    let bytes = match value {
        [] => return Ok(None),
        [b':', inside @ .., b':'] => BASE64.decode(inside).map_err(|_| Unreadable::Form)?,
        [b':', ..] => return Err(Unreadable::Form),
        _ if value.windows(2).any(|pair| pair == b"=\"") => percent_decoded(forwarded(value)?)?,
        _ => match percent_decoded(value)? {
            pem if pem.starts_with(b"-----BEGIN ") => pem,
            der => BASE64.decode(der).map_err(|_| Unreadable::Form)?,
        },
    };
    let certificates = read_certificates(&bytes).map_err(|_| Unreadable::Form)?;
    let first = certificates.into_iter().next().ok_or(Unreadable::Form)?;
    Ok(Some(first))
}

/// The member `Cert` of the one element of an `X-Forwarded-Client-Cert`.
fn forwarded(value: &[u8]) -> Result<&[u8], Unreadable> {
    if split(value, b',').nth(1).is_some() {
        return Err(Unreadable::SeveralConnections);
    }
    let mut found = split(value, b';').filter_map(|member| {
        let (name, text) = member.trim_ascii().split_at_checked(5)?;
        name.eq_ignore_ascii_case(b"cert=").then_some(text)
    });
    match (found.next(), found.next()) {
        (Some([b'"', inside @ .., b'"']), None) => Ok(inside),
        _ => Err(Unreadable::Form),
    }
}

/// The parts between separators that stand outside quotation marks.
fn split(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value.split(move |byte| {
        quoted ^= *byte == b'"';
        !quoted && *byte == separator
    })
}

/// Percent-decoding and nothing else: a plus sign is a character of base64, not a space.
fn percent_decoded(value: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            decoded.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or(Unreadable::Form)?;
        let mut octet = [0];
        hex::decode_to_slice(digits, &mut octet).map_err(|_| Unreadable::Form)?;
        decoded.extend(octet);
        rest = after;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pki::pem::to_pem;

    /// One header a line, as proxies write them, all of the certificate beside it.
    const HEADERS: &str = include_str!("../../tests/fixtures/mdm/proxy-cert-headers.txt");
    const CERTIFICATE: &[u8] = include_bytes!("../../tests/fixtures/mdm/sim-device-identity.pem");

    fn certificate() -> OwnedCertificate {
        read_certificates(CERTIFICATE).expect("PEM").remove(0)
    }

    fn read(value: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Unreadable> {
        decode(value.as_ref()).map(|read| read.map(|owned| owned.as_der().to_vec()))
    }

    fn recorded() -> Vec<&'static str> {
        let lines = HEADERS.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.split_once(": ").expect("a header").1)
            .collect()
    }

    fn escaped(text: &str, safe: &str) -> String {
        let escape = |c: char| {
            if c.is_ascii_alphanumeric() || safe.contains(c) {
                c.to_string()
            } else {
                format!("%{:02X}", u32::from(c))
            }
        };
        text.chars().map(escape).collect()
    }

    #[test]
    fn every_form_in_which_proxies_pass_a_certificate_is_read() {
        let (owned, recorded) = (certificate(), recorded());
        let expected = Ok(Some(owned.as_der().to_vec()));
        assert_eq!(recorded.len(), 3);
        for value in recorded {
            assert_eq!(read(value), expected, "{value}");
        }
        let pem = to_pem(&owned.certificate());
        assert!(pem.contains('+') && pem.contains('/') && pem.contains('='));
        // nginx escapes everything, AWS leaves the characters of base64: a plus sign is one of them.
        let everything = escaped(&pem, "-");
        let of_aws = escaped(&pem, "-+=/");
        assert!(of_aws.contains('+') && !everything.contains('+'));
        let envoy = format!("Hash=00;Subject=\"CN=a,b;c\";Cert=\"{everything}\";URI=x",);
        let lower = everything.replace("%2B", "%2b");
        let chain = escaped(&format!("{pem}{pem}"), "-");
        for value in [&everything, &of_aws, &envoy, &lower, &chain] {
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn no_certificate_is_none_and_anything_else_is_refused() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("  "), Ok(None));
        let of_9440 = recorded()[0];
        let everything = escaped(&to_pem(&certificate().certificate()), "-");
        let two = format!("Cert=\"{everything}\",Cert=\"{everything}\"");
        assert_eq!(read(two), Err(Unreadable::SeveralConnections));
        assert_eq!(read("A".repeat(MAX_HEADER + 1)), Err(Unreadable::TooLarge));
        for value in [
            // A plus sign that a form decoder made a space.
            of_9440.replacen('+', " ", 1),
            of_9440.trim_end_matches(':').to_owned(),
            ":".to_owned(),
            "::".to_owned(),
            ":MIID:".to_owned(),
            "-----BEGIN%20CERTIFICATE-----".to_owned(),
            everything.replacen("%0A", "%0", 1),
            everything.replacen("%0A", "%zz", 1),
            format!("{everything}%"),
            format!("Hash=\"{everything}\""),
            format!("Cert={everything};Hash=\"00\""),
            format!("Cert=\"{everything}\";Cert=\"{everything}\""),
            format!("Cert=\"{everything}"),
            "C=DE, CN=a Mac".to_owned(),
            "-".to_owned(),
            "AAAA".to_owned(),
        ] {
            assert_eq!(read(&value), Err(Unreadable::Form), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&value);
        }
    }
}
