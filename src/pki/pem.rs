//! Certificates as files hold them: one in DER, or any number in PEM (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::csr::begins_like_a_request;
use super::tlv::DerFault;
use super::{Certificate, OwnedCertificate, PkiError};

/// A file of certificates larger than this is none.
const MAX_FILE: usize = 256 * 1024;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Reads one DER certificate, or every CERTIFICATE block of a PEM text (other blocks and text
/// between them are skipped, as `openssl x509 -text` writes them).
///
/// # Errors
/// [`PkiError::NotACertificate`] when the bytes are neither; any other error when they are, but
/// broken.
pub fn read_certificates(bytes: &[u8]) -> Result<Vec<OwnedCertificate>, PkiError> {
    if bytes.len() > MAX_FILE {
        let begins = bytes.first() == Some(&super::tlv::tag::SEQUENCE);
        let named = || {
            bytes
                .windows(BEGIN.len())
                .any(|part| part == BEGIN.as_bytes())
        };
        return Err(if begins || named() {
            PkiError::TooLarge(MAX_FILE)
        } else {
            PkiError::NotACertificate
        });
    }
    if bytes.first() == Some(&super::tlv::tag::SEQUENCE) {
        return Ok(vec![OwnedCertificate::parse(bytes)?]);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PkiError::NotACertificate)?;
    let fault = PkiError::malformed("PEM certificate");
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, after) = after
            .split_once(END)
            .ok_or_else(|| fault(DerFault::Truncated))?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(body).map_err(|_| fault(DerFault::Value))?;
        certificates.push(OwnedCertificate::parse(der)?);
        rest = after;
    }
    if certificates.is_empty() {
        Err(PkiError::NotACertificate)
    } else {
        Ok(certificates)
    }
}

/// Reads one certificate request, in DER or as a PEM block of either label (RFC 7468 section 7).
/// Gives its DER, for [`super::CertificateRequest::parse`].
///
/// # Errors
/// [`PkiError::NotARequest`] when the bytes are neither; any other error when they are, but broken.
pub fn read_request(bytes: &[u8]) -> Result<Vec<u8>, PkiError> {
    if bytes.first() == Some(&super::tlv::tag::SEQUENCE) {
        return if begins_like_a_request(bytes) {
            Ok(bytes.to_vec())
        } else {
            Err(PkiError::NotARequest)
        };
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PkiError::NotARequest)?;
    let fault = PkiError::malformed("PEM certificate request");
    for label in ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"] {
        let Some((_, after)) = text.split_once(&format!("-----BEGIN {label}-----")) else {
            continue;
        };
        if bytes.len() > MAX_FILE {
            return Err(PkiError::TooLarge(MAX_FILE));
        }
        let (body, rest) = after
            .split_once(&format!("-----END {label}-----"))
            .ok_or_else(|| fault(DerFault::Truncated))?;
        // Which of two would it be?
        if rest.contains("-----BEGIN ") {
            return Err(fault(DerFault::Trailing));
        }
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        return STANDARD.decode(body).map_err(|_| fault(DerFault::Value));
    }
    Err(PkiError::NotARequest)
}

/// The certificate as a PEM block, lines of 64 characters.
pub fn to_pem(certificate: &Certificate<'_>) -> String {
    block("CERTIFICATE", certificate.as_der())
}

/// A certificate request (PKCS #10, DER) as a PEM block.
pub fn request_to_pem(request: &[u8]) -> String {
    block("CERTIFICATE REQUEST", request)
}

fn block(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every byte position is a character boundary.
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-leaf-good.pem");
    const ROOT: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-root.pem");

    #[test]
    fn pem_and_der_name_the_same_certificate() {
        let leaf = read_certificates(LEAF).expect("PEM");
        let again = read_certificates(leaf[0].as_der()).expect("DER");
        assert_eq!(leaf, again);
        let pem = to_pem(&leaf[0].certificate());
        assert_eq!(read_certificates(pem.as_bytes()), Ok(leaf));
    }

    #[test]
    fn several_blocks_keep_their_order() {
        let both = [LEAF, b"\nsome text\n", ROOT].concat();
        let certificates = read_certificates(&both).expect("PEM");
        assert_eq!(certificates.len(), 2);
        assert!(certificates[1].certificate().is_ca());
    }

    #[test]
    fn what_is_no_certificate_is_told_from_a_broken_one() {
        for bytes in [
            &b""[..],
            b"hello",
            b"\xff\xfe",
            b"\x30\x03\x02\x01\x01",
            b"-----BEGIN KEY-----",
        ] {
            assert_eq!(
                read_certificates(bytes),
                Err(PkiError::NotACertificate),
                "{bytes:02x?}"
            );
        }
        assert_eq!(
            read_certificates(&vec![b' '; MAX_FILE + 1]),
            Err(PkiError::NotACertificate)
        );
        let padded = [LEAF, &vec![b' '; MAX_FILE]].concat();
        assert_eq!(
            read_certificates(&padded),
            Err(PkiError::TooLarge(MAX_FILE))
        );
        let request = include_bytes!("../../tests/fixtures/acme/acme-csr-good.der");
        assert_eq!(read_certificates(request), Err(PkiError::NotACertificate));
        let cut = &LEAF[..LEAF.len() - 40];
        let broken = String::from_utf8_lossy(LEAF).replacen("MII", "M!I", 1);
        let mut trailing = read_certificates(LEAF).expect("PEM")[0].as_der().to_vec();
        trailing.push(0);
        let cut_der = &trailing[..trailing.len() - 40];
        for bytes in [cut, broken.as_bytes(), &trailing, cut_der] {
            assert!(matches!(
                read_certificates(bytes),
                Err(PkiError::Malformed { .. })
            ));
        }
    }

    #[test]
    fn a_request_is_read_in_der_and_under_both_labels() {
        let der = include_bytes!("../../tests/fixtures/acme/acme-csr-good.der");
        assert_eq!(read_request(der).as_deref(), Ok(&der[..]));
        let body = STANDARD.encode(der);
        let block =
            |label: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        for label in ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"] {
            let file = format!("Certificate Request:\n{}", block(label));
            assert_eq!(read_request(file.as_bytes()).as_deref(), Ok(&der[..]));
            let two = [block(label), block(label)].concat();
            assert!(matches!(
                read_request(two.as_bytes()),
                Err(PkiError::Malformed { .. })
            ));
            let cut = file.split("-----END").next().expect("a part");
            assert!(matches!(
                read_request(cut.as_bytes()),
                Err(PkiError::Malformed { .. })
            ));
        }
    }

    #[test]
    fn something_else_is_no_request_and_a_broken_request_is_one() {
        let der = include_bytes!("../../tests/fixtures/acme/acme-csr-good.der");
        let certificate = read_certificates(LEAF).expect("PEM")[0].as_der().to_vec();
        for other in [
            &b""[..],
            b"text",
            b"\x30\x03\x02\x01\x00",
            LEAF,
            &certificate,
        ] {
            assert_eq!(read_request(other), Err(PkiError::NotARequest));
        }
        assert!(read_request(&der[..200]).is_ok());
        assert!(read_request(&[&der[..], b"\0"].concat()).is_ok());
    }
}
