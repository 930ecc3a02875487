//! Everything that is sealed comes under another master key, while servers run.
//!
//! Begun by a command, which goes from phase to phase and waits between them until every node has
//! followed ([`FOLLOWED`]); nodes look once a second. Between beginning and end a node can be started with either
//! key.

use std::time::Duration;

use super::Failure;
use crate::audit::{Entry, Verb, Who, Words};
use crate::keys::handover::Phase;
use crate::keys::{Handover, MasterKey, MasterSeal};
use crate::secret::{Sealer as _, Unsealable};
use crate::store::{Look, SEALED, SealedColumn, Store, Write};
use crate::time::Timestamp;

/// The fact by which nodes follow.
const HANDOVER: &str = "master_key_handover";
/// How often nodes look.
pub const LOOKED: Duration = Duration::from_secs(1);
/// After so long every node that reaches the database has looked.
pub const FOLLOWED: Duration = Duration::from_secs(5);
/// Rows that are sealed anew at a time: few, for nobody else writes meanwhile on SQLite.
const BATCH: u32 = 200;

/// Why nothing is begun or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no other master key is on its way: `attestd secrets rotate` begins")]
    NotBegun,
    #[error("the master key of this node is still the former one; give it the new one, {0}")]
    FormerKeyHere(String),
    #[error(
        "{0} values are still sealed under the former master key; run `attestd secrets rotate` again"
    )]
    NotDone(u64),
}

/// The values of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Sealed under the key by which is sealed now.
    pub present: u64,
    /// Under the former one.
    pub former: u64,
    /// Rows whose value opens by none.
    pub unreadable: Vec<String>,
}

/// What is on its way, if anything; the seal follows it.
///
/// # Errors
/// A node whose key is neither of the two.
pub async fn follow(store: &Store, seal: &MasterSeal) -> Result<Option<Handover>, Failure> {
    let handover = read(store.read().await?.fact(HANDOVER).await?)?;
    seal.follow(handover.as_ref())?;
    Ok(handover)
}

/// Begins to hand over to `to`; where that is on its way already, goes on with it.
///
/// # Errors
/// Another key is on its way, or it is the same.
pub async fn begin(
    store: &Store,
    seal: &MasterSeal,
    to: &MasterKey,
    who: &Who,
    now: Timestamp,
) -> Result<Handover, Failure> {
    let mut tx = store.write().await?;
    let handover = match read(tx.fact_to_change(HANDOVER).await?)? {
        Some(under_way) => under_way,
        None => {
            let begun = seal.begin_handover(to, now)?;
            let entry = Entry::new(who, Verb::SecretsRotate, "master_key", now)
                .before("name", Words(&begun.from))
                .after("name", Words(&begun.to));
            tx.record(entry);
            begun
        }
    };
    save(&mut tx, &handover).await?;
    tx.commit().await?;
    seal.follow(Some(&handover))?;
    Ok(handover)
}

/// From now on everybody seals by the new key.
///
/// # Errors
/// When it cannot be kept.
pub async fn seal_by_the_new(store: &Store, seal: &MasterSeal) -> Result<(), Failure> {
    let mut tx = store.write().await?;
    let handover = read(tx.fact_to_change(HANDOVER).await?)?;
    let mut handover = handover.ok_or(Failure::Inconsistent("no master key is handed over"))?;
    handover.phase = Phase::Sealing;
    save(&mut tx, &handover).await?;
    tx.commit().await?;
    seal.follow(Some(&handover))?;
    Ok(())
}

/// Seals the values of a column under the present key, where they are not.
///
/// # Errors
/// When the store does not answer; what was sealed anew until then stays so.
pub async fn seal_anew(
    store: &Store,
    seal: &MasterSeal,
    column: &SealedColumn,
) -> Result<Column, Failure> {
    go_through(store, seal, column, |place, sealed| {
        let plain = zeroize::Zeroizing::new(seal.open(place, sealed)?);
        Ok(Look::Replace(seal.seal(place, &plain)))
    })
    .await
}

/// By which key what is stored is sealed.
///
/// # Errors
/// When the store does not answer.
pub async fn count(store: &Store, seal: &MasterSeal) -> Result<Vec<Column>, Failure> {
    let mut columns = Vec::with_capacity(SEALED.len());
    for column in &SEALED {
        let look = |place: &str, sealed: &[u8]| seal.open(place, sealed).map(|_| Look::Leave);
        columns.push(go_through(store, seal, column, look).await?);
    }
    Ok(columns)
}

/// Ends it: the former key opens nothing any more, and servers that were started with it must be
/// started with the new one when they are started next.
///
/// # Errors
/// When the store does not answer.
pub async fn finish(
    store: &Store,
    seal: &MasterSeal,
    who: &Who,
    now: Timestamp,
) -> Result<Result<Handover, Refusal>, Failure> {
    let Some(handover) = follow(store, seal).await? else {
        return Ok(Err(Refusal::NotBegun));
    };
    if seal.mine().name() != handover.to {
        return Ok(Err(Refusal::FormerKeyHere(handover.to)));
    }
    let left: u64 = count(store, seal).await?.iter().map(|one| one.former).sum();
    if handover.phase != Phase::Sealing || left > 0 {
        return Ok(Err(Refusal::NotDone(left)));
    }
    let mut tx = store.write().await?;
    tx.forget_fact(HANDOVER).await?;
    let entry = Entry::new(who, Verb::SecretsFinish, "master_key", now)
        .before("opens_by", Words(&handover.from))
        .after("opens_by", Words(&handover.to));
    tx.record(entry);
    tx.commit().await?;
    seal.follow(None)?;
    Ok(Ok(handover))
}

async fn go_through(
    store: &Store,
    seal: &MasterSeal,
    column: &SealedColumn,
    look: impl Fn(&str, &[u8]) -> Result<Look, Unsealable>,
) -> Result<Column, Failure> {
    let (mut present, mut former) = (0, 0);
    let mut unreadable = Vec::new();
    let mut after = String::new();
    loop {
        let counts = std::cell::Cell::new((0, 0));
        let counted = |place: &str, sealed: &[u8]| {
            let (present, former) = counts.get();
            if seal.is_present(sealed) {
                counts.set((present + 1, former));
                return seal.open(place, sealed).map(|_| Look::Leave);
            }
            let looked = look(place, sealed)?;
            counts.set((present, former + 1));
            Ok(looked)
        };
        let gone = store
            .look_through_sealed(column, &after, BATCH, counted)
            .await?;
        let (is, was) = counts.get();
        present += is + gone.replaced;
        former += was - gone.replaced;
        unreadable.extend(gone.unreadable);
        match gone.last {
            Some(last) => after = last,
            None => break,
        }
    }
    Ok(Column {
        name: column.name(),
        present,
        former,
        unreadable,
    })
}

fn read(fact: Option<String>) -> Result<Option<Handover>, Failure> {
    fact.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|_| Failure::Inconsistent("the record of a change of the master key is damaged"))
}

async fn save(tx: &mut Write, handover: &Handover) -> Result<(), Failure> {
    let text = serde_json::to_string(handover)
        .map_err(|_| Failure::Inconsistent("a change of the master key cannot be written"))?;
    Ok(tx.set_fact(HANDOVER, &text).await?)
}
