//! The push topic in a push certificate.

use super::{Certificate, PkiError, oid};
use crate::ids::Topic;

/// The topic of an MDM push certificate: the UID of its subject (apple-protocol 9.4). It is fixed in
/// every profile that was installed with it, so it is read, never configured by hand.
///
/// # Errors
/// When the subject has no UID, more than one, or one that is no MDM topic.
pub fn push_topic(certificate: &Certificate<'_>) -> Result<Topic, PkiError> {
    certificate
        .subject()
        .text_of(oid::USER_ID)
        .and_then(|uid| Topic::parse(uid).ok())
        .ok_or(PkiError::MissingName("push topic"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::read_certificates;

    #[test]
    fn the_topic_is_the_uid_of_the_subject() {
        let push = include_bytes!("../../tests/fixtures/apns/sim-push-certificate.pem");
        let push = read_certificates(push).expect("PEM");
        let topic = push_topic(&push[0].certificate()).expect("has a topic");
        assert!(topic.as_str().starts_with("com.apple.mgmt."));
    }

    #[test]
    fn a_certificate_for_something_else_has_none() {
        let leaf = include_bytes!("../../tests/fixtures/mda/sim-mda-leaf-good.pem");
        let leaf = read_certificates(leaf).expect("PEM");
        let refused = push_topic(&leaf[0].certificate());
        assert_eq!(refused, Err(PkiError::MissingName("push topic")));
    }
}
