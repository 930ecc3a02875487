//! The nonce ledger: what was handed to which Mac, and from what it was made.

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::attestation::freshness::{Minted, NonceInputs, Scheme};
use crate::ids::{CommandUuid, DeviceId};

impl Read {
    /// The nonce minted for a command.
    pub async fn minted_for(
        &self,
        command_uuid: &CommandUuid,
    ) -> Result<Option<Minted>, StoreError> {
        self.ledger_row(
            "SELECT scheme, nonce, inputs FROM nonces WHERE command_uuid = $1",
            [Value::from(command_uuid.as_str())],
        )
        .await
    }

    /// The first time this nonce was handed to this Mac.
    pub async fn ledger_entry(
        &self,
        device_id: &DeviceId,
        nonce: [u8; 32],
    ) -> Result<Option<Minted>, StoreError> {
        self.ledger_row(
            "SELECT scheme, nonce, inputs FROM nonces WHERE device_id = $1 AND nonce = $2 \
             ORDER BY minted_at LIMIT 1",
            [Value::from(device_id.as_str()), Value::from(nonce.to_vec())],
        )
        .await
    }

    async fn ledger_row<const N: usize>(
        &self,
        sql: &str,
        values: [Value; N],
    ) -> Result<Option<Minted>, StoreError> {
        let statement =
            Statement::from_sql_and_values(self.tx().get_database_backend(), sql, values);
        let found = LedgerRow::find_by_statement(statement)
            .one(self.tx())
            .await?;
        row::read_one(found)
    }
}

impl Write {
    /// Records a nonce: before it leaves the house.
    ///
    /// # Errors
    /// `Conflict` when the command has one already, or there is no such Mac.
    pub async fn record_nonce(&mut self, minted: &Minted) -> Result<(), StoreError> {
        self.touch(&minted.inputs.device_id);
        record(minted)?.apply(self.tx()).await
    }
}

pub(super) fn record(minted: &Minted) -> Result<Edit, StoreError> {
    Ok(Edit::new(
        "INSERT INTO nonces (command_uuid, device_id, nonce, scheme, minted_at, inputs) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        [
            Datum::text(&minted.inputs.command_uuid),
            Datum::text(&minted.inputs.device_id),
            Datum::bytes(minted.nonce),
            Datum::text(minted.scheme.as_str()),
            Datum::int(minted.inputs.minted_at.millis()),
            Datum::text(row::body("nonce inputs", &minted.inputs)?),
        ],
    ))
}

/// One entry of the ledger as stored.
#[derive(FromQueryResult)]
pub(super) struct LedgerRow {
    pub(super) scheme: String,
    pub(super) nonce: Vec<u8>,
    pub(super) inputs: String,
}

impl Row for LedgerRow {
    type Noun = Minted;
    const TABLE: &'static str = "nonces";

    fn id(&self) -> String {
        hex::encode(&self.nonce)
    }

    fn noun(self) -> Option<Minted> {
        let scheme = Scheme::from_word(&self.scheme)?;
        let inputs: NonceInputs = row::parsed(&self.inputs, serde_json::from_str)?;
        // Without its head such a nonce has no age.
        let is_whole = (scheme == Scheme::BeaconV2) == inputs.beacon.is_some();
        is_whole.then_some(Minted {
            nonce: row::digest(&self.nonce)?,
            scheme,
            inputs,
        })
    }
}
