//! Somebody names a Mac, in words of their own choice.

use crate::ids::{DeviceId, SerialNumber};
use crate::store::{Store, StoreError};

/// Why a name is none of a Mac.
#[derive(Debug, thiserror::Error)]
pub enum Unnamed {
    #[error("{0:?} is neither a device id (dev_…) nor a serial number")]
    NoName(String),
    #[error("no Mac has the serial number {0}")]
    Nobody(SerialNumber),
    #[error("several Macs claim {0}, and none has proved it: name one by its device id")]
    Claimed(SerialNumber),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The Mac of this id, whether there is one or not, or the one that stands under this serial number.
pub async fn named(store: &Store, name: &str) -> Result<DeviceId, Unnamed> {
    if let Ok(device_id) = DeviceId::parse(name) {
        return Ok(device_id);
    }
    let serial = SerialNumber::parse(name).map_err(|_| Unnamed::NoName(name.to_owned()))?;
    let found = store.read().await?.enrollments_by_serial(&serial).await?;
    let mut standing = found.iter().filter(|mac| mac.contends_with.is_none());
    match (standing.next(), standing.next()) {
        (Some(one), None) => Ok(one.device_id.clone()),
        (None, _) => Err(Unnamed::Nobody(serial)),
        (Some(_), Some(_)) => Err(Unnamed::Claimed(serial)),
    }
}
