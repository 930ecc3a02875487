//! Where a Mac's pushes go: token and magic, sealed as one value in the row of the Mac.

use super::edit::Datum;
use super::enrollments::{open, place};
use super::exchange::Columns;
use super::{Store, StoreError, row};
use crate::enrollment::PushAddress;
use crate::ids::{DeviceId, Topic};
use crate::secret::{Sealer, Secret};
use crate::time::Timestamp;

/// A push address as stored.
pub(super) struct Stored<'a> {
    pub(super) device_id: &'a str,
    pub(super) sealed: Option<&'a [u8]>,
    pub(super) updated_at: Option<i64>,
    pub(super) dead_since: Option<i64>,
}

impl Store {
    /// A Mac's topic and push address; `None` when there is no such Mac.
    ///
    /// # Errors
    /// `Unavailable`, `Inconsistent`, `Unsealable`.
    pub async fn push_address(
        &self,
        device_id: &DeviceId,
    ) -> Result<Option<(Topic, Option<PushAddress>)>, StoreError> {
        const SQL: &str = "SELECT topic, push_sealed, push_updated_at, push_dead_since \
             FROM enrollments WHERE device_id = $1";
        let read = |row: &dyn Columns| {
            let columns = (row.bytes(1)?, row.int(2)?, row.int(3)?);
            Ok((row.text(0)?.unwrap_or_default(), columns))
        };
        let mut stored = self.glimpse().await?;
        let found = stored.rows(SQL, [Datum::text(device_id)], read).await?;
        let Some((topic, (sealed, updated_at, dead_since))) = found.into_iter().next() else {
            return Ok(None);
        };
        let topic = Topic::parse(&topic).map_err(|_| inconsistent(device_id.as_str()))?;
        let stored = Stored {
            device_id: device_id.as_str(),
            sealed: sealed.as_deref(),
            updated_at,
            dead_since,
        };
        Ok(Some((topic, stored.open(&*self.0.sealer)?)))
    }
}

impl Stored<'_> {
    /// In clear; `None` where the Mac brought none yet.
    pub(super) fn open(&self, sealer: &dyn Sealer) -> Result<Option<PushAddress>, StoreError> {
        let Some(sealed) = self.sealed else {
            return Ok(None);
        };
        let context = place("push_sealed", self.device_id);
        let plain = Secret::new(open(sealer, &context, self.device_id, sealed)?);
        let parts = unpacked(plain.expose()).zip(self.updated_at);
        let ((token, magic), updated_at) = parts.ok_or_else(|| inconsistent(self.device_id))?;
        Ok(Some(PushAddress {
            token: Secret::new(token),
            magic: Secret::new(magic),
            updated_at: Timestamp::from_millis(updated_at),
            dead_since: row::time(self.dead_since),
        }))
    }
}

/// A push address as it is stored with this Mac.
pub(super) fn seal(sealer: &dyn Sealer, device_id: &str, address: &PushAddress) -> Vec<u8> {
    let plain = Secret::new(packed(address));
    sealer.seal(&place("push_sealed", device_id), plain.expose())
}

fn inconsistent(device_id: &str) -> StoreError {
    StoreError::Inconsistent {
        table: "enrollments",
        id: device_id.to_owned(),
    }
}

/// Token and magic as one value: the token's length in 4 bytes, big endian, the token, the magic.
fn packed(address: &PushAddress) -> Vec<u8> {
    let token = address.token.expose();
    let length = u32::try_from(token.len()).unwrap_or(u32::MAX);
    let mut plain = Vec::with_capacity(4 + token.len() + address.magic.expose().len());
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(token);
    plain.extend_from_slice(address.magic.expose().as_bytes());
    plain
}

fn unpacked(plain: &[u8]) -> Option<(Vec<u8>, String)> {
    let (length, rest) = plain.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (token, magic) = rest.split_at_checked(length)?;
    Some((token.to_vec(), String::from_utf8(magic.to_vec()).ok()?))
}
