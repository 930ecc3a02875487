//! Macs that were enrolled elsewhere and now speak to another server at the old addresses
//! (apple-protocol 1.7): they never send Authenticate again.

use std::sync::Arc;

use super::identity_payload::IdentityPayload;
use super::profile::{EnrollmentProfile, MdmPayload, check_url};
use super::wire::Wire;
use super::{Enrolled, Mac, MacError, MacSpec};
use crate::certs::Identity;
use crate::world::World;

/// An enrollment as a former server left it.
#[derive(Debug, Clone)]
pub struct FormerEnrollment {
    /// Topic, addresses, rights and identifiers of the profile that is installed.
    pub mdm: MdmPayload,
    /// PayloadIdentifier and PayloadUUID of the whole profile.
    pub profile_identifier: String,
    pub profile_uuid: String,
    /// By whatever CA, expired or not.
    pub identity: Identity,
    /// Where pushes reach it.
    pub token: Vec<u8>,
    pub magic: String,
}

impl Mac {
    /// A Mac with this enrollment: it only connects, at the addresses it knows, and answers what
    /// it is asked. Its token lives at the world's push service.
    pub fn enrolled_elsewhere(
        spec: MacSpec,
        world: &World,
        former: FormerEnrollment,
    ) -> Result<Self, MacError> {
        for url in [&former.mdm.server_url, &former.mdm.check_in_url] {
            check_url(url, spec.allow_http_loopback)?;
        }
        let wire = Wire::new(&world.trusted(), &[], Some(&former.identity))?;
        let inbox = world.apns().register(&former.token, &former.mdm.topic);
        let profile = EnrollmentProfile {
            identifier: former.profile_identifier,
            uuid: former.profile_uuid,
            mdm: former.mdm,
            identity: IdentityPayload::Former,
            roots: Vec::new(),
            signed: true,
        };
        let mac = Self::new(spec, world);
        mac.state().enrolled = Some(Arc::new(Enrolled {
            profile,
            identity: former.identity,
            identity_kind: None,
            wire,
            token: former.token,
            magic: former.magic,
            inbox: Some(inbox),
        }));
        Ok(mac)
    }
}
