//! What is next for each Mac: a JSON body, and columns for what is searched by.
//!
//! Nobody keeps an agenda by hand: whoever stores an enrollment, a posture or a verification, in a
//! transaction or in an exchange, has the Mac's agenda follow in the same step, here.

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};

use super::edit::{Datum, Edit};
use super::row;
use super::{Read, StoreError, Write};
use crate::enrollment::State;
use crate::ids::DeviceId;
use crate::posture::Posture;
use crate::time::Timestamp;
use crate::verification::agenda::Next;
use crate::verification::{Agenda, Priority, Verification};

/// What was stored of a Mac in one transaction.
#[derive(Debug, Default)]
pub(super) struct News {
    /// In which state it is, and since when it is enrolled.
    pub(super) standing: Option<(State, Timestamp)>,
    pub(super) posture: Option<Posture>,
    /// In this order.
    pub(super) attempts: Vec<Verification>,
    /// What was done besides.
    pub(super) agenda: Option<Agenda>,
}

impl Read {
    /// What is next for a Mac; `None` when there is no such Mac.
    pub async fn agenda(&self, device_id: &DeviceId) -> Result<Option<Agenda>, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT body FROM agendas WHERE device_id = $1",
            [Value::from(device_id.as_str())],
        );
        let found = self.tx().query_one_raw(statement).await?;
        let body = match found {
            Some(row) => row.try_get_by_index::<Option<String>>(0)?,
            None => None,
        };
        if let Some(body) = body {
            return read(device_id, &body).map(Some);
        }
        let Some(enrollment) = self.enrollment(device_id).await? else {
            return Ok(None);
        };
        let posture = self.posture(device_id).await?;
        let open = self.open_verification(device_id).await?;
        Ok(Some(made_of(
            device_id,
            enrollment.state,
            enrollment.authenticated_at,
            posture.as_ref(),
            open.as_ref(),
        )))
    }

    /// When something must be done about a Mac, and how urgent it is, as it is searched for.
    pub async fn due(
        &self,
        device_id: &DeviceId,
    ) -> Result<Option<(Timestamp, Priority)>, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT due_at, priority FROM agendas WHERE device_id = $1 AND due_at IS NOT NULL",
            [Value::from(device_id.as_str())],
        );
        let found: Option<QueryResult> = self.tx().query_one_raw(statement).await?;
        let Some(row) = found else { return Ok(None) };
        let lane: i64 = row.try_get_by_index(1)?;
        let priority = LANES.into_iter().find(|known| self::lane(*known) == lane);
        let priority = priority.ok_or_else(|| inconsistent(device_id))?;
        let due_at = Timestamp::from_millis(row.try_get_by_index(0)?);
        Ok(Some((due_at, priority)))
    }
}

impl Write {
    /// As [`Read::agenda`], before what this transaction stored is followed; on PostgreSQL nobody
    /// else changes the Mac until the end.
    pub async fn agenda(&mut self, device_id: &DeviceId) -> Result<Option<Agenda>, StoreError> {
        if let Some(agenda) = self.agenda_to_be(device_id) {
            return Ok(Some(agenda.clone()));
        }
        self.lock_device(device_id).await?;
        Read::agenda(self, device_id).await
    }

    /// Keeps what was done to an agenda. What this transaction stores of the Mac is followed besides.
    pub fn keep_agenda(&mut self, agenda: Agenda) {
        let device_id = agenda.device_id.clone();
        self.touch(&device_id);
        self.news(&device_id).agenda = Some(agenda);
    }

    /// Has every Mac looked at once, because the rules have changed.
    pub async fn plan_anew(&mut self) -> Result<(), StoreError> {
        Edit::new(
            "UPDATE agendas SET due_at = $1 WHERE due_at IS NOT NULL",
            [Datum::int(0)],
        )
        .apply(self.tx())
        .await
    }
}

/// Lets the agenda of a Mac follow what was stored.
pub(super) async fn follow(
    write: &Write,
    device_id: &DeviceId,
    news: News,
) -> Result<(), StoreError> {
    write.lock_device(device_id).await?;
    let agenda = match news.agenda {
        Some(agenda) => Some(agenda),
        // Where there is none yet it is made of what stands in the tables by now.
        None => Read::agenda(write, device_id).await?,
    };
    let Some(mut agenda) = agenda else {
        return Ok(());
    };
    if let Some((state, since)) = news.standing {
        agenda.stands(state == State::Enrolled, since);
    }
    if let Some(posture) = &news.posture {
        agenda.believes(posture);
    }
    for verification in &news.attempts {
        agenda.attempts(verification);
    }
    let next = agenda.next(&write.inner().rules());
    save(&agenda, next, None)?.apply(write.tx()).await
}

/// The agenda of a Mac that has none, from what is stored of it.
pub(super) fn made_of(
    device_id: &DeviceId,
    state: State,
    since: Timestamp,
    posture: Option<&Posture>,
    verification: Option<&Verification>,
) -> Agenda {
    let mut agenda = Agenda::new(device_id.clone(), since);
    agenda.stands(state == State::Enrolled, since);
    if let Some(posture) = posture {
        agenda.believes(posture);
    }
    if let Some(verification) = verification {
        agenda.attempts(verification);
    }
    agenda
}

pub(super) fn read(device_id: &DeviceId, body: &str) -> Result<Agenda, StoreError> {
    serde_json::from_str(body).map_err(|_| inconsistent(device_id))
}

fn inconsistent(device_id: &DeviceId) -> StoreError {
    StoreError::Inconsistent {
        table: "agendas",
        id: device_id.to_string(),
    }
}

/// Nobody looks at a Mac before its `due_at`; that somebody has taken it is said in the same way.
pub(super) fn save(
    agenda: &Agenda,
    next: Next,
    leased_until: Option<Timestamp>,
) -> Result<Edit, StoreError> {
    let due_at = next
        .due_at
        .max(leased_until.filter(|_| next.due_at.is_some()));
    Ok(Edit::new(
        "INSERT INTO agendas (device_id, priority, due_at, owes_from, body) \
         VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (device_id) DO UPDATE SET priority = excluded.priority, \
         due_at = excluded.due_at, owes_from = excluded.owes_from, body = excluded.body",
        [
            Datum::text(&agenda.device_id),
            Datum::int(lane(next.priority)),
            Datum::Int(row::millis(due_at)),
            Datum::Int(row::millis(next.owes_from)),
            Datum::text(row::body("agenda", agenda)?),
        ],
    ))
}

/// The most urgent first.
pub(super) const LANES: [Priority; 3] = [Priority::First, Priority::Expired, Priority::Refresh];

pub(super) fn lane(priority: Priority) -> i64 {
    match priority {
        Priority::First => 0,
        Priority::Expired => 1,
        Priority::Refresh => 2,
    }
}
