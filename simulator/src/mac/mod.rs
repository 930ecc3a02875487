//! Virtual Macs.

mod device_information;
pub mod messages;
mod profile;
mod security_info;
mod spec;

pub use device_information::{ATTESTATION, query_responses};
pub use profile::{EnrollmentProfile, MdmPayload, ProfileError};
pub use security_info::security_info;
pub use spec::{Lie, MacSpec, ReducedSecurityForm};
