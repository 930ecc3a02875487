//! A SCEP client asks for the outcome of a request (RFC 8894 section 3.3.3).
//!
//! Every request is decided at once, so whoever asks did not get the answer: it is given again, from
//! the record. Nothing is issued and no ticket looked at. What was issued is public but for the
//! envelope, which only the holder of the key opens; and only that holder can sign the question.

use super::{Context, Failure};
use crate::enrollment::Identity;
use crate::pki::{Certificate, Name};
use crate::scep::PkiMessage;

/// How many transactions of one name are looked through, the newest first. Names are hashes of keys:
/// whoever gives thousands of requests one name leaves only questions of their own unanswered.
const NAMESAKES: usize = 64;

/// The certificate that was issued under this transaction for the key that signs the question;
/// `None` where there is none, or where another authority is asked.
///
/// The subject in the question is not compared: it is the client's wish, and what the certificate
/// says is ours.
pub(super) async fn poll_by_scep(
    ctx: &Context,
    message: &PkiMessage<'_>,
    issuer: &Name<'_>,
) -> Result<Option<Identity>, Failure> {
    // Clients name the authority that issues or the one that answers.
    if !ctx.authorities.is_named(issuer.as_der()) {
        return Ok(None);
    }
    // A transactionID is the client's choice and may be another's, too: the key decides.
    let transaction_id = message.exchange().transaction_id();
    let tx = ctx.store.read().await?;
    let issued = tx
        .identities_of_transaction(transaction_id, NAMESAKES)
        .await?;
    let key = message.signer().spki();
    let is_for_key = |identity: &Identity| {
        Certificate::parse(&identity.der).is_ok_and(|certificate| certificate.spki() == key)
    };
    Ok(issued.into_iter().find(is_for_key))
}
