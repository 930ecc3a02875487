//! Enrollment tickets: one use, short life, optionally bound to one serial number.
//!
//! The secret is the SCEP challenge in the profile, or names its ACME directory. Only its SHA-256 is kept. Progress is read
//! under a second random value that authorises nothing and outlives the ticket.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::platform::Protocol;
use crate::entropy::{Entropy, draw};
use crate::ids::{SecretHash, SerialNumber, TicketId};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::time::Timestamp;

/// How long a ticket can be used.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// A stored ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub ticket_id: TicketId,
    pub secret: SecretHash,
    /// Names the progress page; 22 base64url characters, not a secret that authorises anything.
    pub progress_id: String,
    /// Only the Mac with this serial number may use it.
    pub serial: Option<SerialNumber>,
    /// The account that asked for it, as the coordinator names it.
    pub account: Option<String>,
    /// The provider's Secure Enclave key, as the base64 text it was given in.
    pub se_public_key: Option<String>,
    /// By which the identity is got. A ticket for an attested identity gets no other.
    pub protocol: Protocol,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
}

/// For whom a ticket is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    pub serial: Option<SerialNumber>,
    pub account: Option<String>,
    pub se_public_key: Option<String>,
    pub protocol: Protocol,
}

/// What is said of what cannot be the name of an account.
pub const NOT_AN_ACCOUNT: &str =
    "account must be 1 to 256 characters, none of them a control character";

/// Whether this can be the name of an account: 1 to 256 characters, none of them a control character.
pub fn is_account(text: &str) -> bool {
    (1..=256).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Whether this can be the name of a progress page. Nothing else reaches the store: a database may
/// fail on text that another stores (PostgreSQL on NUL), and a stranger must not choose which.
pub fn is_progress_id(text: &str) -> bool {
    text.len() == 22
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

impl Ticket {
    /// A new ticket and its secret: 32 random bytes as 43 base64url characters, shown once.
    pub fn issue(bounds: Bounds, now: Timestamp, entropy: &dyn Entropy) -> (Self, Secret<String>) {
        let secret = Secret::new(URL_SAFE_NO_PAD.encode(draw::<32>(entropy)));
        let ticket = Self {
            ticket_id: TicketId::new(now, entropy),
            secret: SecretHash::of(secret.expose().as_bytes()),
            progress_id: URL_SAFE_NO_PAD.encode(draw::<16>(entropy)),
            serial: bounds.serial,
            account: bounds.account,
            se_public_key: bounds.se_public_key,
            protocol: bounds.protocol,
            created_at: now,
            expires_at: now.plus(LIFETIME),
            used_at: None,
        };
        (ticket, secret)
    }

    /// Whether it may still be redeemed.
    ///
    /// # Refusals
    /// `ticket_used`, `ticket_expired`.
    pub fn open(&self, now: Timestamp) -> Result<(), Reason> {
        if self.used_at.is_some() {
            Err(Reason::TicketUsed)
        } else if now >= self.expires_at {
            Err(Reason::TicketExpired)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_ticket_is_good_once_and_for_an_hour() {
        let now = Timestamp::from_seconds(1_000_000);
        let (mut ticket, secret) = Ticket::issue(Bounds::default(), now, &SeededEntropy::new(1));
        assert_eq!(ticket.secret, SecretHash::of(secret.expose().as_bytes()));
        assert_eq!(ticket.open(now), Ok(()));
        assert_eq!(ticket.open(now.plus(LIFETIME)), Err(Reason::TicketExpired));
        ticket.used_at = Some(now);
        assert_eq!(ticket.open(now), Err(Reason::TicketUsed));
    }

    #[test]
    fn the_progress_id_says_nothing_of_the_secret() {
        let now = Timestamp::from_seconds(1_000_000);
        let (ticket, secret) = Ticket::issue(Bounds::default(), now, &SeededEntropy::new(1));
        assert!(!secret.expose().contains(&ticket.progress_id));
        assert!(is_progress_id(&ticket.progress_id));
        assert_ne!(SecretHash::of(ticket.progress_id.as_bytes()), ticket.secret);
    }
}
