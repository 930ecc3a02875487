//! The closed list of reasons.
//!
//! A refusal is data: a stable code, a text for the owner of the Mac, and who acts next. Codes are
//! the service's public vocabulary (posture answers, events, progress pages, metrics labels,
//! `attestd verify`): they are added to, never renamed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who can do something about a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Nobody needs to: the service goes on by itself.
    Service,
    /// The owner of the Mac.
    Owner,
    /// Whoever runs this service.
    Operator,
}

/// What a reason does to a verdict when it stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// A definite negative: the verdict becomes contraindicated.
    Contraindicates,
    /// Says why something is not known, or not counted; never demotes.
    LeavesUnknown,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $weight:ident, $actor:ident, $text:literal;)*) => {
        /// Why something was refused, is unknown, or is held against a Mac.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable code.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Text for the owner of the Mac: what it means and what to do.
            pub fn owner_text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Who acts next.
            pub fn actor(self) -> Actor {
                match self { $(Self::$name => Actor::$actor,)* }
            }

            /// What it does to a verdict.
            pub fn weight(self) -> Weight {
                match self { $(Self::$name => Weight::$weight,)* }
            }

            /// The reason with this code.
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }

        impl utoipa::ToSchema for Reason {}

        impl utoipa::PartialSchema for Reason {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                crate::json::words_schema(
                    "Why something was refused, is unknown, or is held against a Mac.",
                    &[$($code,)*],
                )
            }
        }
    };
}

reasons! {
    // Definite negatives about the Mac.
    SipDisabled = "sip_disabled", Contraindicates, Owner,
        "System Integrity Protection is off. Start up in Recovery, run `csrutil enable`, restart, and verify again.";
    SecureBootReduced = "secure_boot_reduced", Contraindicates, Owner,
        "The startup disk uses Reduced Security. Start up in Recovery, open Startup Security Utility, choose Full Security, restart, and verify again.";
    SecureBootOff = "secure_boot_off", Contraindicates, Owner,
        "The startup disk uses Permissive Security, or Secure Boot is off. Start up in Recovery, open Startup Security Utility, choose Full Security, restart, and verify again.";
    ThirdPartyKexts = "third_party_kexts", Contraindicates, Owner,
        "Third-party kernel extensions are allowed. Start up in Recovery, open Startup Security Utility, choose Full Security, restart, and verify again.";
    FilevaultOff = "filevault_off", Contraindicates, Owner,
        "FileVault is off. Turn it on in System Settings, Privacy & Security, and verify again.";
    AuthenticatedRootOff = "authenticated_root_off", Contraindicates, Owner,
        "The sealed system volume is not enforced. Start up in Recovery, run `csrutil authenticated-root enable`, restart, and verify again.";
    SerialMismatch = "serial_mismatch", Contraindicates, Owner,
        "The evidence is about a Mac with another serial number than the enrolled one. Remove the profile and enrol this Mac with a profile of its own.";
    ChainInvalid = "chain_invalid", Contraindicates, Operator,
        "The attestation certificates do not lead to Apple's root by the rules. This does not happen in normal operation.";
    KeyMismatch = "key_mismatch", Contraindicates, Operator,
        "The evidence names a key that was never proved for this Mac.";
    EvidenceConflict = "evidence_conflict", Contraindicates, Owner,
        "What this Mac reports and what Apple attests contradict each other.";
    SignatureInvalid = "signature_invalid", Contraindicates, Owner,
        "A signature does not verify. If this persists, remove the profile and enrol again.";
    Revoked = "revoked", Contraindicates, Operator,
        "Trust in this Mac, or in its identity, was withdrawn by an operator.";

    // Not known, or not counted.
    DeviceNotFound = "device_not_found", LeavesUnknown, Owner,
        "This Mac is not known here. Install the enrollment profile.";
    NotEnrolled = "not_enrolled", LeavesUnknown, Owner,
        "This Mac is not enrolled (any more). Install the enrollment profile in System Settings, General, Device Management.";
    AwaitingPush = "awaiting_push", LeavesUnknown, Service,
        "A question waits for this Mac; it answers when it is awake and reaches Apple's push service.";
    PushThrottled = "push_throttled", LeavesUnknown, Service,
        "This Mac was woken often enough for now; the next question follows by itself.";
    PushTokenInvalid = "push_token_invalid", LeavesUnknown, Owner,
        "Apple's push service no longer knows this Mac's address. Restart the Mac; if that does not help, install the profile again.";
    NotNow = "not_now", LeavesUnknown, Owner,
        "The Mac said it cannot answer now, as in Power Nap on battery. Wake it and connect it to power.";
    CommandError = "command_error", LeavesUnknown, Service,
        "The Mac could not carry out a question. It is asked again later.";
    AnswerTimeout = "answer_timeout", LeavesUnknown, Owner,
        "The Mac did not answer in time. Check that it is awake and online; it is asked again by itself.";
    AnswerMalformed = "answer_malformed", LeavesUnknown, Operator,
        "An answer did not have the form it must have, and was not used.";
    AnswerUnsolicited = "answer_unsolicited", LeavesUnknown, Service,
        "An answer came that nobody asked this Mac for, or that was counted already; it was not used.";
    FieldMissing = "field_missing", LeavesUnknown, Owner,
        "The Mac's answer lacks a property that the policy needs.";
    AppleRateLimit = "apple_rate_limit", LeavesUnknown, Service,
        "Apple makes a new attestation for a Mac at most every seven days; the next one follows by itself.";
    AttestationCached = "attestation_cached", LeavesUnknown, Service,
        "Apple answered with an earlier attestation of this Mac; it counts with the age it has.";
    AttestationUnavailable = "attestation_unavailable", LeavesUnknown, Owner,
        "The Mac brought no attestation. It needs Apple silicon, macOS 14.2 or later, and a network that lets it reach Apple.";
    AttestationWithheld = "attestation_withheld", LeavesUnknown, Owner,
        "The Mac keeps bringing an old attestation although Apple would make a new one. Check that it can reach Apple's attestation servers.";
    NonceUnrecognized = "nonce_unrecognized", LeavesUnknown, Service,
        "The attestation was not made for a question of this service, so nothing says when it was made.";
    AwaitingBinding = "awaiting_binding", LeavesUnknown, Service,
        "The first attestation waits until the provider software's key is known, so that it can name it.";
    PendingProof = "pending_proof", LeavesUnknown, Service,
        "This serial number is held by an earlier enrollment; an Apple attestation for it decides.";
    IdentityExpired = "identity_expired", LeavesUnknown, Owner,
        "The certificate this Mac identifies itself with has expired. Install a new enrollment profile.";
    IdentityMismatch = "identity_mismatch", LeavesUnknown, Owner,
        "A message in the name of this Mac was signed by another identity than the enrolled one, and was not used.";
    IdentityUnknown = "identity_unknown", LeavesUnknown, Owner,
        "The message was signed by a certificate that this service did not issue. Install the enrollment profile again.";
    ChannelNotAttested = "channel_not_attested", LeavesUnknown, Owner,
        "The key this Mac identifies itself with is not vouched for by Apple. Enrol again with an attested identity.";
    ProviderNotBound = "provider_not_bound", LeavesUnknown, Owner,
        "No provider software is bound to this Mac. Start it and sign in.";
    BindingUnproved = "binding_unproved", LeavesUnknown, Owner,
        "The provider software claims this Mac, but nothing proves that it belongs to it. Enrol through the provider software.";
    ChallengeStale = "challenge_stale", LeavesUnknown, Owner,
        "The provider software has not answered a challenge in time.";
    ChallengeMismatch = "challenge_mismatch", LeavesUnknown, Owner,
        "The provider software answered another challenge than the one it was asked. Restart it.";
    CanonicalMismatch = "canonical_mismatch", LeavesUnknown, Owner,
        "The status of the provider software is not written in the one form that can be signed. Update it.";
    TimestampOutOfWindow = "timestamp_out_of_window", LeavesUnknown, Owner,
        "Something the provider software signed is too old, or its time lies ahead. Check the date and time of this Mac, and restart the provider software.";
    SecureEnclaveUnavailable = "secure_enclave_unavailable", LeavesUnknown, Owner,
        "The provider software cannot use a Secure Enclave on this Mac, so nothing it signs can be held to this Mac. It needs Apple silicon, or an Intel Mac with a T2 chip.";
    ReleaseUnknown = "release_unknown", LeavesUnknown, Owner,
        "The provider software is not a registered release. Update it.";
    ReleaseRevoked = "release_revoked", LeavesUnknown, Owner,
        "This release of the provider software was withdrawn. Update it.";
    ServiceDegraded = "service_degraded", LeavesUnknown, Operator,
        "The service has a fault of its own; no Mac is to blame.";

    // Enrolment.
    TicketUnknown = "ticket_unknown", LeavesUnknown, Owner,
        "The profile is not (or no longer) valid. Download a new one.";
    TicketExpired = "ticket_expired", LeavesUnknown, Owner,
        "The profile was not installed in time. Download a new one.";
    TicketUsed = "ticket_used", LeavesUnknown, Owner,
        "The profile was already used; each is good for one installation. Download a new one.";
    TicketExhausted = "ticket_exhausted", LeavesUnknown, Owner,
        "The profile was tried too often. Download a new one.";
    IdentifierMismatch = "identifier_mismatch", LeavesUnknown, Owner,
        "A certificate was asked for another Mac than the profile was made for. Download a profile for this Mac.";
    AccountUnknown = "account_unknown", LeavesUnknown, Owner,
        "A certificate was asked for by another client than the one that began. Install the profile again.";
    NonceUnusable = "nonce_unusable", LeavesUnknown, Service,
        "A request repeated an earlier one, or came too late, and was not used.";
    OrderNotReady = "order_not_ready", LeavesUnknown, Service,
        "A certificate was asked for before Apple's attestation was accepted, or twice.";
    KeyRejected = "key_rejected", LeavesUnknown, Owner,
        "The key is of a kind or size that is not accepted.";
    RequestMalformed = "request_malformed", LeavesUnknown, Owner,
        "The request does not have the form it must have.";
    RequestTooLarge = "request_too_large", LeavesUnknown, Owner,
        "The request is larger than any honest one.";
    BodyEncoded = "body_encoded", LeavesUnknown, Operator,
        "The message came compressed or otherwise encoded, and its signature is over what it was before. Something between the Mac and this service changes messages.";
    MessageUnsupported = "message_unsupported", LeavesUnknown, Service,
        "The message is of a kind this service does not take.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Self::from_code(&code)
            .ok_or_else(|| serde::de::Error::custom(format!("{code} is not a reason code")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
            assert!(
                reason.owner_text().ends_with('.'),
                "{reason} ends its sentence"
            );
        }
    }
}
