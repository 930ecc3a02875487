//! GetCACaps (RFC 8894 section 3.5.1).

/// The content type of the answer.
pub const CONTENT_TYPE: &str = "text/plain";

/// What a client should use with us, one keyword a line. Lines end in LF alone: Apple's client
/// splits at exactly that and would not know "AES\r" (apple-protocol 8.1).
///
/// Triple DES and SHA-1 are understood too (clients that never ask for capabilities use them), but
/// not offered: a client that can do better must. Renewal is signed by the identity it renews; macOS
/// renews by a new profile instead (apple-protocol 1.7), other clients as the RFC has it.
///
/// SHA-384 is no keyword of the RFC, which has clients pass over what they do not know. We take it,
/// and strongSwan to 5.9.8 needs to see it: that client numbers the keywords where it should count
/// bits, and finds its SCEPStandard (8) in the bit of SHA-384.
pub const CAPABILITIES: &str =
    "AES\nPOSTPKIOperation\nRenewal\nSCEPStandard\nSHA-256\nSHA-384\nSHA-512\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_lf_alone_and_name_the_standard_set() {
        assert!(!CAPABILITIES.contains('\r'));
        // RFC 8894 section 3.5.2: SCEPStandard stands for these three.
        for keyword in ["AES", "POSTPKIOperation", "SHA-256", "SCEPStandard"] {
            assert!(
                CAPABILITIES.split('\n').any(|line| line == keyword),
                "{keyword}"
            );
        }
    }
}
