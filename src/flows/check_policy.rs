//! What another policy would change is asked before it is switched on: the fleet is read page by
//! page, so that memory stays flat however many Macs there are.

use std::collections::HashMap;

use super::Failure;
use super::conclude::channel;
use super::read_binding::release;
use crate::enrollment::{Enrollment, Identity, State};
use crate::ids::DeviceId;
use crate::posture::{Channel, Posture};
use crate::publication::forecast::{Seen, Subject};
use crate::publication::posture_v1::{Believed, relation};
use crate::store::{Read, Store};
use crate::time::Timestamp;

/// Macs read at a time.
const PAGE: usize = 500;

/// The Macs of the fleet in the order of their ids, page after page. Each page is of one moment, and
/// the store is free between two.
#[derive(Debug)]
pub struct Fleet<'a> {
    store: &'a Store,
    after: Option<DeviceId>,
    now: Timestamp,
}

impl<'a> Fleet<'a> {
    /// From the first Mac on.
    pub fn of(store: &'a Store, now: Timestamp) -> Self {
        Self {
            store,
            after: None,
            now,
        }
    }

    /// The next page; `None` when there are no more. A page may be empty: those that were superseded
    /// are no Macs any more.
    pub async fn next(&mut self) -> Result<Option<Vec<Subject>>, Failure> {
        let tx = self.store.read().await?;
        let enrollments = tx.enrollments(self.after.as_ref(), PAGE).await?;
        let Some(last) = enrollments.last() else {
            return Ok(None);
        };
        self.after = Some(last.device_id.clone());
        subjects(&tx, enrollments, self.now).await.map(Some)
    }
}

/// One Mac; `None` when there is none of this id.
pub async fn subject(
    store: &Store,
    device_id: &DeviceId,
    now: Timestamp,
) -> Result<Option<Subject>, Failure> {
    let tx = store.read().await?;
    let found = tx.enrollment(device_id).await?.into_iter().collect();
    Ok(subjects(&tx, found, now).await?.pop())
}

pub(super) async fn subjects(
    tx: &Read,
    enrollments: Vec<Enrollment>,
    now: Timestamp,
) -> Result<Vec<Subject>, Failure> {
    let is_current = |enrollment: &Enrollment| enrollment.state != State::Superseded;
    let enrollments: Vec<_> = enrollments.into_iter().filter(is_current).collect();
    let devices: Vec<_> = enrollments.iter().map(|it| it.device_id.clone()).collect();
    let certificates: Vec<_> = enrollments.iter().map(|it| it.identity).collect();
    let mut postures: HashMap<_, _> = tx
        .postures_of(&devices)
        .await?
        .into_iter()
        .map(|posture| (posture.device_id.clone(), posture))
        .collect();
    let identities: HashMap<_, _> = tx
        .identities(&certificates)
        .await?
        .into_iter()
        .map(|identity| (identity.certificate, identity))
        .collect();
    let mut sessions: HashMap<DeviceId, Vec<Seen>> = HashMap::new();
    for session in tx.sessions_of_all(&devices).await? {
        let release = release(&mut tx.glimpse(), &session).await?.err();
        if let Some(device_id) = session.device_id.clone() {
            let seen = Seen { session, release };
            sessions.entry(device_id).or_default().push(seen);
        }
    }
    Ok(enrollments
        .into_iter()
        .map(|enrollment| {
            let identity: Option<&Identity> = identities.get(&enrollment.identity);
            let relation = relation(&enrollment, identity);
            let device_id = enrollment.device_id;
            let posture = postures.remove(&device_id);
            let sessions = sessions.remove(&device_id).unwrap_or_default();
            let mac = Believed {
                relation,
                channel: identity.map_or(Channel::Software, |identity| channel(identity.kind)),
                posture: posture.unwrap_or_else(|| Posture::unknown(device_id.clone(), now)),
                serial: enrollment.serial,
                attempt: Vec::new(),
                device_id,
            };
            Subject { mac, sessions }
        })
        .collect())
}
