//! Every place where a value is sealed, so that all can be sealed anew under another key.
//!
//! A value is sealed for its place, `<table>.<column>:<owner>`; secrets of the service are facts, sealed for
//! their name and written in hexadecimal.

use sea_orm::{ConnectionTrait as _, Statement, Value};

use super::{Store, StoreError};
use crate::secret::Unsealable;

/// A column of sealed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedColumn {
    pub table: &'static str,
    column: &'static str,
    /// Names the row.
    key: &'static str,
    /// Names whose it is.
    owner: &'static str,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bytes,
    /// Among values that are not sealed.
    Hexadecimal,
}

/// Each of them.
pub const SEALED: [SealedColumn; 9] = [
    column("enrollments", "push_sealed", "device_id"),
    column("enrollments", "bootstrap_sealed", "device_id"),
    column("push_certificates", "key_sealed", "push_certificate_id"),
    column("push_requests", "key_sealed", "push_request_id"),
    column("result_keys", "key_sealed", "kid"),
    column("signal_streams", "sealed", "stream_id"),
    column("webhooks", "sealed", "webhook_id"),
    SealedColumn {
        owner: "device_id",
        ..column("relayed_commands", "sealed", "command_uuid")
    },
    SealedColumn {
        form: Form::Hexadecimal,
        ..column("service_meta", "value", "name")
    },
];

const fn column(table: &'static str, column: &'static str, key: &'static str) -> SealedColumn {
    SealedColumn {
        table,
        column,
        key,
        owner: key,
        form: Form::Bytes,
    }
}

/// How a hexadecimal value begins that is sealed: `ATSD` and the version.
const HEXADECIMAL_PREFIX: &str = "4154534401";

/// What came of a look at a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It is as it should be.
    Leave,
    /// This is to stand in its place.
    Replace(Vec<u8>),
}

/// Some values of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gone {
    /// Values looked at.
    pub seen: u64,
    /// Values replaced.
    pub replaced: u64,
    /// Rows whose value does not open.
    pub unreadable: Vec<String>,
    /// The last row; `None`: there are no more.
    pub last: Option<String>,
}

struct Sealed {
    key: String,
    place: String,
    value: Vec<u8>,
    stored: Value,
}

impl SealedColumn {
    /// `table.column`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.table, self.column)
    }

    fn select(&self) -> String {
        let Self {
            table,
            column,
            key,
            owner,
            form,
        } = self;
        let sealed = match form {
            Form::Bytes => format!("{column} IS NOT NULL"),
            Form::Hexadecimal => format!("{column} LIKE '{HEXADECIMAL_PREFIX}%'"),
        };
        format!(
            "SELECT {key}, {owner}, {column} FROM {table} WHERE {sealed} AND {key} > $1 \
             ORDER BY {key} LIMIT $2"
        )
    }

    /// Nothing is lost that changed meanwhile.
    fn update(&self) -> String {
        let Self {
            table, column, key, ..
        } = self;
        format!("UPDATE {table} SET {column} = $1 WHERE {key} = $2 AND {column} = $3")
    }

    fn read(&self, row: &sea_orm::QueryResult) -> Result<Sealed, StoreError> {
        let key: String = row.try_get_by_index(0)?;
        let owner: String = row.try_get_by_index(1)?;
        let (value, stored) = match self.form {
            Form::Bytes => {
                let bytes: Vec<u8> = row.try_get_by_index(2)?;
                (bytes.clone(), Value::from(bytes))
            }
            Form::Hexadecimal => {
                let text: String = row.try_get_by_index(2)?;
                (hex::decode(&text).unwrap_or_default(), Value::from(text))
            }
        };
        let place = match self.form {
            Form::Bytes => format!("{}:{owner}", self.name()),
            Form::Hexadecimal => owner,
        };
        Ok(Sealed {
            key,
            place,
            value,
            stored,
        })
    }

    fn stored(&self, sealed: Vec<u8>) -> Value {
        match self.form {
            Form::Bytes => Value::from(sealed),
            Form::Hexadecimal => Value::from(hex::encode(sealed)),
        }
    }
}

impl Store {
    /// Shows `look` the next `limit` values of a column, in the order of their rows, each with its place, and
    /// puts in place what it says. May be done beside a server: it keeps none of these in memory.
    ///
    /// # Errors
    /// `Unavailable`; then none of these was replaced.
    pub async fn look_through_sealed(
        &self,
        column: &SealedColumn,
        after: &str,
        limit: u32,
        look: impl Fn(&str, &[u8]) -> Result<Look, Unsealable>,
    ) -> Result<Gone, StoreError> {
        let tx = self.write().await?;
        let backend = tx.tx().get_database_backend();
        let select = Statement::from_sql_and_values(
            backend,
            column.select(),
            [Value::from(after), Value::from(i64::from(limit))],
        );
        let mut gone = Gone::default();
        for row in tx.tx().query_all_raw(select).await? {
            let sealed = column.read(&row)?;
            gone.seen += 1;
            gone.last = Some(sealed.key.clone());
            match look(&sealed.place, &sealed.value) {
                Ok(Look::Leave) => {}
                Ok(Look::Replace(new)) => {
                    let values = [column.stored(new), Value::from(sealed.key), sealed.stored];
                    let update = Statement::from_sql_and_values(backend, column.update(), values);
                    gone.replaced += tx.tx().execute_raw(update).await?.rows_affected();
                }
                Err(Unsealable) => gone.unreadable.push(sealed.key),
            }
        }
        tx.commit().await?;
        Ok(gone)
    }
}
