//! The Macs. Push address and bootstrap token are sealed.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    Condition, QueryOrder, QuerySelect,
};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write, push_addresses};
use crate::enrollment::{Enrollment, Hardware, PushAddress, State};
use crate::ids::{CertificateHash, DeviceId, SerialNumber, TicketId, Topic, Udid};
use crate::secret::{Sealer, Secret};
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "enrollments")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub device_id: String,
        pub udid: String,
        pub serial: Option<String>,
        pub state: String,
        pub identity: Vec<u8>,
        pub ticket_id: Option<String>,
        pub topic: String,
        pub push_sealed: Option<Vec<u8>>,
        pub push_updated_at: Option<i64>,
        pub push_dead_since: Option<i64>,
        pub hardware: String,
        pub bootstrap_sealed: Option<Vec<u8>>,
        pub authenticated_at: i64,
        pub enrolled_at: Option<i64>,
        pub checked_out_at: Option<i64>,
        pub last_seen: Option<i64>,
        pub contends_with: Option<String>,
        pub held_since: Option<i64>,
        pub proved_at: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

/// Which Macs are looked for; everything of it must hold.
#[derive(Debug, Clone, Default)]
pub struct Sieve {
    /// In one of these states.
    pub states: Option<Vec<State>>,
    /// Whose serial number begins so: letters and digits only.
    pub serial_prefix: Option<String>,
}

impl Read {
    /// The Mac.
    pub async fn enrollment(&self, device_id: &DeviceId) -> Result<Option<Enrollment>, StoreError> {
        let found = Entity::find_by_id(device_id.as_str())
            .one(self.tx())
            .await?;
        found.map(|row| self.unsealed(row)).transpose()
    }

    /// The Mac that stands under this MDM UDID; those that contend are not found by it.
    pub async fn enrollment_by_udid(&self, udid: &Udid) -> Result<Option<Enrollment>, StoreError> {
        let found = Entity::find()
            .filter(Column::Udid.eq(udid.as_str()))
            .filter(Column::ContendsWith.is_null())
            .one(self.tx())
            .await?;
        found.map(|row| self.unsealed(row)).transpose()
    }

    /// Every Mac that says it has this serial number: the one that stands, then those that contend,
    /// each in the order in which they came. Those that were superseded are not among them.
    pub async fn enrollments_by_serial(
        &self,
        serial: &SerialNumber,
    ) -> Result<Vec<Enrollment>, StoreError> {
        self.claimants(Column::Serial.eq(serial.as_str())).await
    }

    /// As [`Read::enrollments_by_serial`], by MDM UDID.
    pub async fn enrollments_by_udid(&self, udid: &Udid) -> Result<Vec<Enrollment>, StoreError> {
        self.claimants(Column::Udid.eq(udid.as_str())).await
    }

    async fn claimants(&self, claim: Expr) -> Result<Vec<Enrollment>, StoreError> {
        let found = Entity::find()
            .filter(claim)
            .filter(Column::State.ne(State::Superseded.as_str()))
            .order_by_asc(Column::DeviceId)
            .all(self.tx())
            .await?;
        let mut found: Vec<_> = found
            .into_iter()
            .map(|row| self.unsealed(row))
            .collect::<Result<_, _>>()?;
        found.sort_by_key(|enrollment| enrollment.contends_with.is_some());
        Ok(found)
    }

    /// The Mac that holds this serial number: Apple evidence for it exists. Proved counts before it
    /// is settled.
    pub async fn holder(&self, serial: &SerialNumber) -> Result<Option<Enrollment>, StoreError> {
        let proved = Condition::any()
            .add(Column::HeldSince.is_not_null())
            .add(Column::ProvedAt.is_not_null());
        let found = Entity::find()
            .filter(Column::Serial.eq(serial.as_str()))
            .filter(Column::ContendsWith.is_null())
            .filter(proved)
            .order_by_desc(Column::HeldSince.is_not_null())
            .order_by_asc(Column::ProvedAt)
            .limit(1)
            .one(self.tx())
            .await?;
        found.map(|row| self.unsealed(row)).transpose()
    }

    /// The Mac that came in by this ticket.
    pub async fn enrollment_of_ticket(
        &self,
        ticket_id: &TicketId,
    ) -> Result<Option<Enrollment>, StoreError> {
        let found = Entity::find()
            .filter(Column::TicketId.eq(ticket_id.as_str()))
            .filter(Column::State.ne(State::Superseded.as_str()))
            .one(self.tx())
            .await?;
        found.map(|row| self.unsealed(row)).transpose()
    }

    /// Macs that Apple proved to have their serial number, where it is not settled yet who holds
    /// it.
    pub async fn unsettled(&self, limit: usize) -> Result<Vec<DeviceId>, StoreError> {
        let found: Vec<String> = Entity::find()
            .filter(Column::ProvedAt.is_not_null())
            .filter(Column::HeldSince.is_null())
            .filter(Column::State.ne(State::Superseded.as_str()))
            .select_only()
            .column(Column::DeviceId)
            .limit(row::limited(limit))
            .into_tuple()
            .all(self.tx())
            .await?;
        Ok(found
            .iter()
            .filter_map(|device_id| DeviceId::parse(device_id).ok())
            .collect())
    }

    /// At most `limit` Macs in the order of their ids, from the one after `after` on.
    pub async fn enrollments(
        &self,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Enrollment>, StoreError> {
        self.enrollments_like(&Sieve::default(), after, limit).await
    }

    /// As [`Read::enrollments`], of those Macs only that pass a sieve.
    pub async fn enrollments_like(
        &self,
        sieve: &Sieve,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Enrollment>, StoreError> {
        let mut query = Entity::find()
            .order_by_asc(Column::DeviceId)
            .limit(row::limited(limit));
        if let Some(after) = after {
            query = query.filter(Column::DeviceId.gt(after.as_str()));
        }
        if let Some(states) = &sieve.states {
            query = query.filter(Column::State.is_in(states.iter().map(|state| state.as_str())));
        }
        if let Some(prefix) = &sieve.serial_prefix {
            query = query.filter(Column::Serial.starts_with(prefix));
        }
        let found = query.all(self.tx()).await?;
        found.into_iter().map(|row| self.unsealed(row)).collect()
    }

    /// The escrowed bootstrap token of a Mac.
    pub async fn bootstrap_token(
        &self,
        device_id: &DeviceId,
    ) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        let sealed: Option<Option<Vec<u8>>> = Entity::find_by_id(device_id.as_str())
            .select_only()
            .column(Column::BootstrapSealed)
            .into_tuple()
            .one(self.tx())
            .await?;
        let Some(sealed) = sealed.flatten() else {
            return Ok(None);
        };
        let context = place("bootstrap_sealed", device_id.as_str());
        open(&*self.inner().sealer, &context, device_id.as_str(), &sealed)
            .map(|plain| Some(Secret::new(plain)))
    }

    fn unsealed(&self, row: Model) -> Result<Enrollment, StoreError> {
        let stored = push_addresses::Stored {
            device_id: &row.device_id,
            sealed: row.push_sealed.as_deref(),
            updated_at: row.push_updated_at,
            dead_since: row.push_dead_since,
        };
        let push = stored.open(&*self.inner().sealer)?;
        row::read(Opened { row, push })
    }
}

impl Write {
    /// As [`Read::enrollment`]; on PostgreSQL nobody else changes the Mac until the end.
    pub async fn enrollment(
        &mut self,
        device_id: &DeviceId,
    ) -> Result<Option<Enrollment>, StoreError> {
        if !self.lock_device(device_id).await? {
            return Ok(None);
        }
        Read::enrollment(self, device_id).await
    }

    /// As [`Read::enrollment_by_udid`]; on PostgreSQL nobody else changes the Mac until the end.
    pub async fn enrollment_by_udid(
        &mut self,
        udid: &Udid,
    ) -> Result<Option<Enrollment>, StoreError> {
        match Read::enrollment_by_udid(self, udid).await? {
            None => Ok(None),
            Some(found) => self.enrollment(&found.device_id).await,
        }
    }

    /// As [`Read::holder`]; on PostgreSQL nobody else changes the Mac until the end.
    pub async fn holder(
        &mut self,
        serial: &SerialNumber,
    ) -> Result<Option<Enrollment>, StoreError> {
        match Read::holder(self, serial).await? {
            None => Ok(None),
            Some(found) => self.enrollment(&found.device_id).await,
        }
    }

    /// Everybody else who says so of this serial number contends with its holder from now on.
    pub async fn make_contend(
        &mut self,
        serial: &SerialNumber,
        holder: &DeviceId,
    ) -> Result<(), StoreError> {
        for other in self.enrollments_by_serial(serial).await? {
            if other.device_id != *holder && other.contends_with.as_ref() != Some(holder) {
                self.yield_to(&other.device_id, holder).await?;
            }
        }
        Ok(())
    }

    /// An enrollment no longer stands under its UDID: it contends with another.
    pub async fn yield_to(
        &mut self,
        device_id: &DeviceId,
        holder: &DeviceId,
    ) -> Result<(), StoreError> {
        self.touch(device_id);
        Entity::update_many()
            .col_expr(Column::ContendsWith, Expr::value(holder.as_str()))
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// Keeps a Mac, new or changed.
    ///
    /// # Errors
    /// `Conflict` when UDID, identity or held serial number belong to another Mac, or the identity
    /// is not known.
    pub async fn save_enrollment(&mut self, enrollment: &Enrollment) -> Result<(), StoreError> {
        self.touch(&enrollment.device_id);
        let device_id = enrollment.device_id.to_string();
        let push = enrollment.push.as_ref();
        let sealer = &*self.inner().sealer;
        let push_sealed = push.map(|address| push_addresses::seal(sealer, &device_id, address));
        let model = ActiveModel {
            device_id: Set(device_id),
            udid: Set(enrollment.udid.to_string()),
            serial: Set(enrollment.serial.as_ref().map(ToString::to_string)),
            state: Set(enrollment.state.as_str().to_owned()),
            identity: Set(enrollment.identity.as_bytes().to_vec()),
            ticket_id: Set(enrollment.ticket_id.as_ref().map(ToString::to_string)),
            topic: Set(enrollment.topic.to_string()),
            push_sealed: Set(push_sealed),
            push_updated_at: Set(push.map(|address| address.updated_at.millis())),
            push_dead_since: Set(row::millis(push.and_then(|address| address.dead_since))),
            hardware: Set(row::body("hardware", &enrollment.hardware)?),
            bootstrap_sealed: NotSet,
            authenticated_at: Set(enrollment.authenticated_at.millis()),
            enrolled_at: Set(row::millis(enrollment.enrolled_at)),
            checked_out_at: Set(row::millis(enrollment.checked_out_at)),
            last_seen: NotSet,
            contends_with: Set(enrollment.contends_with.as_ref().map(ToString::to_string)),
            held_since: Set(row::millis(enrollment.held_since)),
            proved_at: Set(row::millis(enrollment.proved_at)),
        };
        // Bootstrap token and last_seen have lives of their own.
        let replace = OnConflict::column(Column::DeviceId)
            .update_columns([
                Column::Udid,
                Column::Serial,
                Column::State,
                Column::Identity,
                Column::TicketId,
                Column::Topic,
                Column::PushSealed,
                Column::PushUpdatedAt,
                Column::PushDeadSince,
                Column::Hardware,
                Column::AuthenticatedAt,
                Column::EnrolledAt,
                Column::CheckedOutAt,
                Column::ContendsWith,
                Column::HeldSince,
                Column::ProvedAt,
            ])
            .to_owned();
        Entity::insert(model)
            .on_conflict(replace)
            .exec_without_returning(self.tx())
            .await?;
        self.news(&enrollment.device_id).standing =
            Some((enrollment.state, enrollment.authenticated_at));
        Ok(())
    }

    /// Keeps the bootstrap token of a Mac, or forgets it. False when there is no such Mac.
    pub async fn set_bootstrap_token(
        &mut self,
        device_id: &DeviceId,
        token: Option<&Secret<Vec<u8>>>,
    ) -> Result<bool, StoreError> {
        self.touch(device_id);
        let context = place("bootstrap_sealed", device_id.as_str());
        let sealed = token.map(|token| self.inner().sealer.seal(&context, token.expose()));
        let outcome = Entity::update_many()
            .col_expr(Column::BootstrapSealed, Expr::value(sealed))
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected == 1)
    }
}

/// Apple proved the serial number on the Mac's present channel.
pub(super) fn prove(device_id: &DeviceId, at: Timestamp) -> Edit {
    Edit::new(
        "UPDATE enrollments SET proved_at = $1 WHERE device_id = $2",
        [Datum::int(at.millis()), Datum::text(device_id)],
    )
}

/// APNs said at `since` that the push token is dead. Changes nothing when the Mac has brought a new
/// token meanwhile, or was marked before: `updated_at` says which token was tried.
pub(super) fn mark_push_dead(
    device_id: &DeviceId,
    updated_at: Timestamp,
    since: Timestamp,
) -> Edit {
    Edit::new(
        "UPDATE enrollments SET push_dead_since = $1 \
         WHERE device_id = $2 AND push_updated_at = $3 AND push_dead_since IS NULL",
        [
            Datum::int(since.millis()),
            Datum::text(device_id),
            Datum::int(updated_at.millis()),
        ],
    )
}

/// As [`prove`], and the Mac holds its serial number from then on, if it did not before. Not where
/// another one says by now that it has it: then it is to be settled who holds it.
pub(super) fn prove_and_hold(device_id: &DeviceId, at: Timestamp) -> Edit {
    Edit::new(
        "UPDATE enrollments SET proved_at = $1, held_since = CASE \
         WHEN held_since IS NULL AND serial IS NOT NULL AND contends_with IS NULL \
         AND NOT EXISTS (SELECT 1 FROM enrollments o \
            WHERE o.serial = enrollments.serial AND o.device_id <> enrollments.device_id) \
         THEN $2 ELSE held_since END WHERE device_id = $3",
        [
            Datum::int(at.millis()),
            Datum::int(at.millis()),
            Datum::text(device_id),
        ],
    )
}

/// Where a sealed value belongs.
pub(super) fn place(column: &str, device_id: &str) -> String {
    format!("enrollments.{column}:{device_id}")
}

pub(super) fn open(
    sealer: &dyn Sealer,
    context: &str,
    device_id: &str,
    sealed: &[u8],
) -> Result<Vec<u8>, StoreError> {
    sealer
        .open(context, sealed)
        .map_err(|source| StoreError::Unsealable {
            table: "enrollments",
            id: device_id.to_owned(),
            source,
        })
}

/// A row and its push address in clear.
struct Opened {
    row: Model,
    push: Option<PushAddress>,
}

impl Row for Opened {
    type Noun = Enrollment;
    const TABLE: &'static str = "enrollments";

    fn id(&self) -> String {
        self.row.device_id.clone()
    }

    fn noun(self) -> Option<Enrollment> {
        let row = self.row;
        Some(Enrollment {
            device_id: row::parsed(&row.device_id, DeviceId::parse)?,
            udid: row::parsed(&row.udid, Udid::parse)?,
            serial: row::parsed_if_any(row.serial.as_deref(), SerialNumber::parse)?,
            state: State::from_word(&row.state)?,
            identity: CertificateHash::from_bytes(row::digest(&row.identity)?),
            ticket_id: row::parsed_if_any(row.ticket_id.as_deref(), TicketId::parse)?,
            topic: row::parsed(&row.topic, Topic::parse)?,
            push: self.push,
            hardware: row::parsed(&row.hardware, serde_json::from_str::<Hardware>)?,
            authenticated_at: Timestamp::from_millis(row.authenticated_at),
            enrolled_at: row::time(row.enrolled_at),
            checked_out_at: row::time(row.checked_out_at),
            contends_with: row::parsed_if_any(row.contends_with.as_deref(), DeviceId::parse)?,
            held_since: row::time(row.held_since),
            proved_at: row::time(row.proved_at),
        })
    }
}
