//! What the database says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::days;
use super::finding::Findings;
use crate::app::database_url;
use crate::config::Config;
use crate::flows::hand_over_master_key::follow;
use crate::flows::read_status::SOON;
use crate::flows::watch_clock::newest_seen;
use crate::keys::MasterSeal;
use crate::push::Standing as Use;
use crate::push::expiry::TOLD_AT;
use crate::store::Store;
use crate::time::watch::CLOCKS_APART;
use crate::time::{Clock as _, SystemClock, Timestamp};

/// How long the database may take for all that it is asked.
const PATIENCE: Duration = Duration::from_secs(10);
/// Receivers that are this far behind are told to somebody.
const BEHIND: Duration = Duration::from_secs(10 * 60);
/// What needs the database.
const CHECKS: [&str; 7] = [
    "clock",
    "master_key_handover",
    "push_certificates",
    "identities",
    "receivers",
    "time_server",
    "backup",
];

/// Looks at the database, and at what it says of everything else.
pub(super) async fn examine(
    config: &Config,
    seal: Option<Arc<MasterSeal>>,
    findings: &mut Findings,
    now: Timestamp,
) {
    const CHECK: &str = "database";
    let Some(seal) = seal else {
        findings.not_checked(CHECK, "there is no master key");
        return without(findings);
    };
    let opened = async {
        let store = Store::open(&database_url(config)?, seal.clone()).await?;
        let (is_new, is_current) = (store.is_new().await?, store.schema_is_current().await?);
        anyhow::Ok((store, is_new, is_current))
    };
    let todo = "see that it runs, and that database.url and its password are right";
    let store = match timeout(PATIENCE, opened).await {
        Err(_) => {
            let found = format!("it did not answer within {} s", PATIENCE.as_secs());
            findings.fault(CHECK, found, todo);
            return without(findings);
        }
        Ok(Err(error)) => {
            findings.fault(CHECK, format!("{error:#}"), todo);
            return without(findings);
        }
        Ok(Ok((_, true, _))) => {
            let todo = "start the server, which makes them";
            findings.warning(CHECK, "it has no tables yet", todo);
            return without(findings);
        }
        Ok(Ok((_, false, false))) => {
            let todo = "start the server of this version, which changes them; or use the program of that one";
            findings.fault(CHECK, "its tables belong to another version", todo);
            return without(findings);
        }
        Ok(Ok((store, false, true))) => store,
    };
    findings.ok(
        CHECK,
        format!(
            "{} answers, its tables are of this version",
            store.backend()
        ),
    );
    let mut asked = Findings::default();
    match timeout(PATIENCE, ask(config, &store, &seal, &mut asked, now)).await {
        Ok(Ok(())) => findings.0.append(&mut asked.0),
        Ok(Err(error)) => {
            findings.0.append(&mut asked.0);
            findings.fault(CHECK, format!("it cannot be read: {error:#}"), todo);
        }
        Err(_) => {
            findings.0.append(&mut asked.0);
            findings.fault(CHECK, "it answers too slowly to be read", todo);
        }
    }
}

fn without(findings: &mut Findings) {
    for check in CHECKS {
        findings.not_checked(check, "that is asked of the database");
    }
}

async fn ask(
    config: &Config,
    store: &Store,
    seal: &MasterSeal,
    findings: &mut Findings,
    now: Timestamp,
) -> anyhow::Result<()> {
    clock(store, findings).await?;
    handover(store, seal, findings).await?;
    push_certificates(store, findings, now).await?;
    identities(store, findings, now).await?;
    receivers(config, store, findings, now).await?;
    findings.not_checked(
        "time_server",
        "whether this machine follows one is its own to tell: `chronyc tracking`, `timedatectl`",
    );
    findings.not_checked(
        "backup",
        "the service does not know where its backups are: see that one is made each day, and copied elsewhere",
    );
    Ok(())
}

/// The machine's clock, against what was seen and against the database's.
async fn clock(store: &Store, findings: &mut Findings) -> anyhow::Result<()> {
    const CHECK: &str = "clock";
    let todo = "set it right by a time server: while it is wrong, nothing is said of trust";
    let before = SystemClock.now();
    let others = store.server_time().await?;
    let now = SystemClock.now();
    if let Some(newest) = newest_seen(store).await?
        && newest.since(now) > CLOCKS_APART
    {
        let behind = newest.since(now).as_secs();
        let found =
            format!("it is {behind} s behind {newest}, which a server on this database saw");
        findings.fault(CHECK, found, todo);
    } else if let Some(others) = others {
        // It was read between the two.
        let apart = others.since(now).max(before.since(others));
        if apart > CLOCKS_APART {
            let found = format!(
                "it is {} s apart from the clock of PostgreSQL's machine",
                apart.as_secs()
            );
            findings.fault(CHECK, found, todo);
        } else {
            findings.ok(
                CHECK,
                "as on PostgreSQL's machine, and not behind what was seen",
            );
        }
    } else {
        findings.ok(CHECK, "not behind what was seen");
    }
    Ok(())
}

async fn handover(store: &Store, seal: &MasterSeal, findings: &mut Findings) -> anyhow::Result<()> {
    const CHECK: &str = "master_key_handover";
    match follow(store, seal).await {
        Ok(None) => findings.ok(CHECK, "none is on its way"),
        Ok(Some(handover)) => findings.warning(
            CHECK,
            format!("from {} to {} is not finished", handover.from, handover.to),
            "`attestd secrets status` shows what is left, `attestd secrets finish` ends it",
        ),
        Err(error) => findings.fault(
            CHECK,
            format!("{:#}", anyhow::Error::from(error)),
            "give this node the master key that is in force; `attestd secrets status` on another names it",
        ),
    }
    Ok(())
}

async fn push_certificates(
    store: &Store,
    findings: &mut Findings,
    now: Timestamp,
) -> anyhow::Result<()> {
    const CHECK: &str = "push_certificates";
    let todo = "docs/operations.md, every year: the push certificate";
    let mut found = store.read().await?.push_certificates().await?;
    found.retain(|one| one.standing == Use::Active);
    if found.is_empty() {
        findings.fault(
            CHECK,
            "none is in use: no Mac can enrol or be woken",
            "`attestd push-cert request`, then `push-cert install`",
        );
    }
    for one in found {
        let left = days(now, one.not_after);
        let said = format!("{} until {}, {left} days", one.topic, one.not_after);
        if one.not_after <= now {
            findings.fault(
                CHECK,
                format!("{} ended {}", one.topic, one.not_after),
                todo,
            );
        } else if left < u64::from(TOLD_AT[0]) {
            findings.warning(CHECK, said, todo);
        } else {
            findings.ok(CHECK, said);
        }
    }
    Ok(())
}

async fn identities(store: &Store, findings: &mut Findings, now: Timestamp) -> anyhow::Result<()> {
    const CHECK: &str = "identities";
    let tx = store.read().await?;
    let expired = tx.identities_ending(now).await?;
    let ending = tx.identities_ending(now.plus(SOON)).await?;
    if ending == 0 {
        findings.ok(CHECK, "none ends within 60 days");
    } else {
        findings.warning(
            CHECK,
            format!(
                "of enrolled Macs, {expired} ended, and {} end within 60 days",
                ending - expired
            ),
            "have their owners install a new profile (docs/identities.md)",
        );
    }
    Ok(())
}

/// How far behind those are who are told of events.
async fn receivers(
    config: &Config,
    store: &Store,
    findings: &mut Findings,
    now: Timestamp,
) -> anyhow::Result<()> {
    const CHECK: &str = "receivers";
    let tx = store.read().await?;
    let mut cursors: Vec<(String, i64)> = tx
        .webhooks()
        .await?
        .into_iter()
        .map(|webhook| (format!("webhook {}", webhook.name), webhook.course.cursor))
        .collect();
    if config.shared_signals.url.is_some()
        && let Some(cursor) = tx.signals_made_up_to().await?
    {
        cursors.push(("shared signals".to_owned(), cursor));
    }
    drop(tx);
    let mut late = Vec::new();
    for (name, cursor) in &cursors {
        let first = store.first_event_after(*cursor).await?;
        let behind = first.map(|at| now.since(at)).unwrap_or_default();
        if behind > BEHIND {
            late.push(format!("{name} is {} min behind", behind.as_secs() / 60));
        }
    }
    match late.is_empty() {
        true if cursors.is_empty() => findings.ok(CHECK, "there are none"),
        true => findings.ok(CHECK, format!("{} were told of everything", cursors.len())),
        false => findings.warning(
            CHECK,
            late.join(", "),
            "is the server running? `attestd webhook list` shows how each receiver fares",
        ),
    }
    Ok(())
}
