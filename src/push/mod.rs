//! Pushes: the certificate that allows them, what is sent, and what the answer means.
//!
//! A push only asks a Mac to connect. Nothing here sends one; see `apns`.
//!
//! Sources: Apple, *Setting Up Push Notifications for Your MDM Customers* and *Handling notification
//! responses from APNs*; apple-protocol section 9.

pub mod approval;
pub mod canary;
pub mod certificate;
pub mod expiry;
pub mod key;
pub mod outcome;
pub mod rate;
pub mod rotation;
pub mod trouble;
pub mod vendor;
pub mod view;
pub mod wake;
pub mod words;

pub use certificate::{AcceptedPushCertificate, PushCertificate, PushCertificateRefusal};
pub use outcome::{ApnsReason, Blame, Duty, PushOutcome};
pub use rotation::Standing;
pub use wake::{Expiration, Wake, WakeRefusal};
