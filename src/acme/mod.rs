//! ACME (RFC 8555) with the device-attest-01 challenge, the server's side, as values.
//!
//! The secret of an enrollment ticket is the path of an ACME directory of its own. Everything that
//! happens under it is one aggregate, [`Directory`]: accounts, orders, spent nonces. The caller
//! loads it, hands it each request, keeps what it then is, signs the certificate it asks for, and
//! sends the reply; every rule is here.
//!
//! ```text
//! read                                    the directory, a nonce (unsigned requests)
//! Directory::post -> Act::Answer          a reply, and nothing else to do
//!                 -> Act::Attested        a Mac proved its key: evidence to be kept, and a reply
//!                 -> Act::Issue           sign, then Directory::issued (or not_issued) -> a reply
//! ```
//!
//! # What an issuance proves
//! That Apple vouched, in an answer to a token of this order and of no other, for the key in the
//! certificate, for the serial number it will be recorded under, and for the Mac's condition then.
//!
//! # What it leaves to others
//! What stands in the certificate (nothing of the CSR but its key is used), whether the ticket was
//! used elsewhere in the meantime, rate limits, and the collection of directories nobody uses.
//!
//! # Source
//! RFC 8555; draft-ietf-acme-device-attest; Apple's client as apple-protocol 7 describes it.

mod account;
mod attested;
mod cbor;
mod directory;
#[cfg(test)]
mod directory_test;
mod jws;
mod nonce;
mod octets;
mod order;
mod refusal;
mod reply;
mod resources;
mod route;
mod statement;
mod token;

pub use self::attested::AttestedKey;
pub use self::cbor::{CborFault, is_cbor};
pub use self::directory::{Act, Directory, Issue, Outcome, Request, Terms};
pub use self::nonce::NonceKey;
pub use self::refusal::{Problem, Refusal, csr_reason};
pub use self::reply::{Link, Method, Refused, Reply, read};
pub use self::route::Route;
pub use self::statement::{
    AttestationObject, StatementRefusal, answers, attested_key, is_attested, serial,
};
pub use self::token::{TokenInputs, identifier};

/// The largest request body that is read: an attestation object of two certificates of the largest
/// size, twice in base64url, and something around it.
pub const MAX_BODY: usize = 64 * 1024;
