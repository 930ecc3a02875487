//! Somebody names a Mac, in words of their own choice.

use crate::ids::{DeviceId, SerialNumber, Udid};
use crate::store::{Store, StoreError};

/// Why a name is none of a Mac.
#[derive(Debug, thiserror::Error)]
pub enum Unnamed {
    #[error("{0:?} is neither a device id (dev_…), nor a serial number, nor a UDID")]
    NoName(String),
    #[error("no Mac has the {0} {1}; `attestd device list` shows those there are")]
    Nobody(&'static str, String),
    #[error("several Macs claim {0}, and none has proved it: name one by its device id")]
    Claimed(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The Mac of this id, whether there is one or not, or the one that stands under this serial number or UDID.
pub async fn named(store: &Store, name: &str) -> Result<DeviceId, Unnamed> {
    if let Ok(device_id) = DeviceId::parse(name) {
        return Ok(device_id);
    }
    let tx = store.read().await?;
    let (what, found) = if let Ok(serial) = SerialNumber::parse(name) {
        ("serial number", tx.enrollments_by_serial(&serial).await?)
    } else if let Ok(udid) = Udid::parse(name) {
        ("UDID", tx.enrollments_by_udid(&udid).await?)
    } else {
        return Err(Unnamed::NoName(name.to_owned()));
    };
    let mut standing = found.iter().filter(|mac| mac.contends_with.is_none());
    match (standing.next(), standing.next()) {
        (Some(one), None) => Ok(one.device_id.clone()),
        (None, _) => Err(Unnamed::Nobody(what, name.to_owned())),
        (Some(_), Some(_)) => Err(Unnamed::Claimed(name.to_owned())),
    }
}
