//! Object identifiers, each with the document that assigns it.

use const_oid::ObjectIdentifier;

const fn oid(dotted: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(dotted)
}

// Keys and signatures.

/// rsaEncryption, RFC 8017 appendix C.
pub const RSA_ENCRYPTION: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
/// sha1WithRSAEncryption, RFC 8017 appendix C.
pub const SHA1_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.5");
/// sha256WithRSAEncryption, RFC 8017 appendix C.
pub const SHA256_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
/// sha384WithRSAEncryption, RFC 8017 appendix C.
pub const SHA384_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
/// sha512WithRSAEncryption, RFC 8017 appendix C.
pub const SHA512_WITH_RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.13");
/// id-ecPublicKey, RFC 5480 section 2.1.1.
pub const EC_PUBLIC_KEY: ObjectIdentifier = oid("1.2.840.10045.2.1");
/// secp256r1 (P-256), RFC 5480 section 2.1.1.1.
pub const SECP256R1: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
/// secp384r1 (P-384), RFC 5480 section 2.1.1.1.
pub const SECP384R1: ObjectIdentifier = oid("1.3.132.0.34");
/// ecdsa-with-SHA1, RFC 3279 section 2.2.3.
pub const ECDSA_WITH_SHA1: ObjectIdentifier = oid("1.2.840.10045.4.1");
/// ecdsa-with-SHA256, RFC 5758 section 3.2.
pub const ECDSA_WITH_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
/// ecdsa-with-SHA384, RFC 5758 section 3.2.
pub const ECDSA_WITH_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
/// ecdsa-with-SHA512, RFC 5758 section 3.2.
pub const ECDSA_WITH_SHA512: ObjectIdentifier = oid("1.2.840.10045.4.3.4");

// Digests.

/// id-sha1, RFC 3370 section 2.1.
pub const SHA1: ObjectIdentifier = oid("1.3.14.3.2.26");
/// id-sha256, RFC 5754 section 2.2.
pub const SHA256: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.1");
/// id-sha384, RFC 5754 section 2.3.
pub const SHA384: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.2");
/// id-sha512, RFC 5754 section 2.4.
pub const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");

// Certificate extensions and names.

/// id-ce-subjectKeyIdentifier, RFC 5280 section 4.2.1.2.
pub const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = oid("2.5.29.14");
/// id-ce-keyUsage, RFC 5280 section 4.2.1.3.
pub const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
/// id-ce-subjectAltName, RFC 5280 section 4.2.1.6.
pub const SUBJECT_ALT_NAME: ObjectIdentifier = oid("2.5.29.17");
/// id-ce-basicConstraints, RFC 5280 section 4.2.1.9.
pub const BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
/// id-ce-authorityKeyIdentifier, RFC 5280 section 4.2.1.1.
pub const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = oid("2.5.29.35");
/// id-ce-extKeyUsage, RFC 5280 section 4.2.1.12.
pub const EXTENDED_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37");
/// id-kp-clientAuth, RFC 5280 section 4.2.1.12.
pub const CLIENT_AUTH: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.2");
/// id-at-commonName, RFC 5280 appendix A.1.
pub const COMMON_NAME: ObjectIdentifier = oid("2.5.4.3");
/// id-at-serialNumber, RFC 5280 appendix A.1.
pub const SERIAL_NUMBER: ObjectIdentifier = oid("2.5.4.5");
/// id-at-countryName, RFC 5280 appendix A.1.
pub const COUNTRY: ObjectIdentifier = oid("2.5.4.6");
/// id-at-localityName, RFC 5280 appendix A.1.
pub const LOCALITY: ObjectIdentifier = oid("2.5.4.7");
/// id-at-stateOrProvinceName, RFC 5280 appendix A.1.
pub const STATE: ObjectIdentifier = oid("2.5.4.8");
/// id-at-organizationName, RFC 5280 appendix A.1.
pub const ORGANIZATION: ObjectIdentifier = oid("2.5.4.10");
/// id-at-organizationalUnitName, RFC 5280 appendix A.1.
pub const ORGANIZATIONAL_UNIT: ObjectIdentifier = oid("2.5.4.11");
/// uid, RFC 4519 section 2.39: in a push certificate it holds the topic.
pub const USER_ID: ObjectIdentifier = oid("0.9.2342.19200300.100.1.1");

// Cryptographic messages.

/// id-data, RFC 5652 section 4.
pub const DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.1");
/// id-signedData, RFC 5652 section 5.1.
pub const SIGNED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.2");
/// id-envelopedData, RFC 5652 section 6.1.
pub const ENVELOPED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.3");
/// id-contentType, RFC 5652 section 11.1.
pub const CONTENT_TYPE: ObjectIdentifier = oid("1.2.840.113549.1.9.3");
/// id-messageDigest, RFC 5652 section 11.2.
pub const MESSAGE_DIGEST: ObjectIdentifier = oid("1.2.840.113549.1.9.4");
/// id-signingTime, RFC 5652 section 11.3.
pub const SIGNING_TIME: ObjectIdentifier = oid("1.2.840.113549.1.9.5");
/// aes128-CBC, RFC 3565 section 4.1.
pub const AES128_CBC: ObjectIdentifier = oid("2.16.840.1.101.3.4.1.2");
/// aes192-CBC, RFC 3565 section 4.1.
pub const AES192_CBC: ObjectIdentifier = oid("2.16.840.1.101.3.4.1.22");
/// aes256-CBC, RFC 3565 section 4.1.
pub const AES256_CBC: ObjectIdentifier = oid("2.16.840.1.101.3.4.1.42");
/// des-ede3-cbc, RFC 3370 section 5.1.
pub const DES_EDE3_CBC: ObjectIdentifier = oid("1.2.840.113549.3.7");

// Certificate requests.

/// pkcs-9-at-challengePassword, RFC 2985 section 5.4.1.
pub const CHALLENGE_PASSWORD: ObjectIdentifier = oid("1.2.840.113549.1.9.7");
/// pkcs-9-at-extensionRequest, RFC 2985 section 5.4.2.
pub const EXTENSION_REQUEST: ObjectIdentifier = oid("1.2.840.113549.1.9.14");
