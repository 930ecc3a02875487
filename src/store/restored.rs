//! What a restored database must not go on with as it stands, because others may have gone on without it.

use sea_orm::ConnectionTrait as _;
use sea_orm::Statement;

use super::catalog;
use super::edit::Edit;
use super::events::REMOVED_UP_TO;
use super::postures;
use super::{StoreError, Write};
use crate::ids::DeviceId;
use crate::time::Timestamp;

/// Postures that are changed together.
const PAGE: usize = 500;

impl Write {
    /// No ticket that was not used yet lets anybody in any more. Returns how many there were.
    pub async fn void_open_tickets(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let void = "UPDATE tickets SET expires_at = $1 WHERE used_at IS NULL AND expires_at > $1";
        let backend = self.tx().get_database_backend();
        let statement = Statement::from_sql_and_values(backend, void, [now.millis().into()]);
        let voided = self.tx().execute_raw(statement).await?.rows_affected();
        Edit::new("DELETE FROM acme_directories", [])
            .apply(self.tx())
            .await?;
        Ok(voided)
    }

    /// The Macs of whom an answer is awaited.
    pub async fn asked_devices(&self) -> Result<Vec<DeviceId>, StoreError> {
        let sql = "SELECT device_id FROM verifications WHERE finished_at IS NULL \
                   UNION SELECT device_id FROM commands WHERE concluded_at IS NULL";
        let statement = Statement::from_string(self.tx().get_database_backend(), sql);
        let rows = self.tx().query_all_raw(statement).await?;
        let read = |row: &sea_orm::QueryResult| {
            let id: String = row.try_get_by_index(0)?;
            DeviceId::parse(&id).map_err(|_| StoreError::Inconsistent {
                table: "commands",
                id,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Raises revision and revocation epoch of every Mac by so much. What is believed stays. Returns how
    /// many Macs there are.
    pub async fn raise_postures(&mut self, revisions: u64, epochs: u64) -> Result<u64, StoreError> {
        let (mut raised, mut after) = (0, None);
        loop {
            let page = self.postures(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(raised);
            };
            after = Some(last.device_id.clone());
            for mut posture in page {
                posture.revision += revisions;
                posture.revocation_epoch += epochs;
                for edit in postures::save(&posture)? {
                    edit.apply(self.tx()).await?;
                }
                raised += 1;
            }
        }
    }

    /// Leaves so many numbers of events out: whoever has a cursor of before is told to list anew. Returns
    /// the last number that is left out.
    pub async fn leave_a_gap_in_events(&mut self, numbers: i64) -> Result<i64, StoreError> {
        let removed = self.fact_to_change(REMOVED_UP_TO).await?;
        let removed = super::events::removed_up_to(removed)?;
        let last = catalog::numbered_up_to(self.tx(), "events").await?;
        let gap_to = removed.max(last.unwrap_or(0)).saturating_add(numbers);
        catalog::number_after(self.tx(), "events", gap_to).await?;
        self.set_fact(REMOVED_UP_TO, &gap_to.to_string()).await?;
        Ok(gap_to)
    }

    /// Nothing was ever published: the log, its key and what was said in it are forgotten.
    pub async fn forget_log(&mut self) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM log_entries",
            "DELETE FROM log_hashes",
            "DELETE FROM log_cosignatures",
            "DELETE FROM service_meta WHERE name IN ('log_head', 'log_cursor', 'log_key') \
             OR name LIKE 'logged\\_%' ESCAPE '\\'",
        ] {
            Edit::new(sql, []).apply(self.tx()).await?;
        }
        Ok(())
    }
}
