//! `attestd device`.

mod list;
mod show;
mod verify;
mod words;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use super::store::{Desk, with_owner_desk};
use super::{Configured, output};
use crate::flows::name_mac::named;
use crate::flows::revoke::{MAX_NOTE, restore, revoke};
use crate::flows::show_device::By;
use crate::time::Timestamp;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    List(list::List),
    Show(show::Show),
    Verify(verify::Verify),
    /// Withdraw trust in a Mac and every identity it has. It stays withdrawn whoever enrols it again,
    /// until `restore`.
    Revoke(Change),
    /// Give trust in a Mac back. It enrols again: its identities stay withdrawn.
    Restore(Change),
}

#[derive(Debug, Args)]
#[command(after_help = "\
With PostgreSQL this works beside running servers. A SQLite database belongs to the server that
runs on it: stop it, or ask it instead, with an operator's token:
  curl -X POST -H \"Authorization: Bearer TOKEN\" http://INTERNAL/internal/v1/devices/DEVICE/revoke")]
struct Change {
    #[command(flatten)]
    configured: Configured,
    /// The device id (dev_…), the serial number, or the UDID.
    #[arg(value_name = "DEVICE|SERIAL|UDID")]
    device: String,
    /// Why, in your words; subscribers of events are told.
    #[arg(long, default_value = "")]
    reason: String,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let done = match &arguments.what {
        What::List(list) => list.run(),
        What::Show(show) => show.run(),
        What::Verify(verify) => match verify.run() {
            Ok(verdict) => return verdict.into(),
            Err(error) => Err(error),
        },
        What::Revoke(change) => set(change, true),
        What::Restore(change) => set(change, false),
    };
    output::exit("device", done)
}

fn set(change: &Change, withdraw: bool) -> anyhow::Result<()> {
    if change.reason.chars().count() > MAX_NOTE || change.reason.chars().any(char::is_control) {
        bail!("--reason must be at most {MAX_NOTE} characters, none of them a control character");
    }
    with_owner_desk(&change.configured, async |desk| {
        let device_id = named(&desk.store, &change.device).await?;
        let (store, policy, note) = (&desk.store, &desk.policy, &change.reason);
        let (who, now) = (&desk.who, desk.now);
        let outcome = if withdraw {
            revoke(store, policy, &device_id, note, who, now).await?
        } else {
            restore(store, policy, &device_id, note, who, now).await?
        };
        let Some(changed) = outcome else {
            bail!("there is no device {device_id}");
        };
        let object = json!({
            "device_id": changed.device_id,
            "changed": changed.changed,
            "revocation_epoch": changed.revocation_epoch,
            "identities_withdrawn": changed.identities,
            "verdict": changed.verdict,
        });
        let what = match (changed.changed, withdraw) {
            (true, true) => "is revoked",
            (true, false) => "is trusted again, once it has enrolled again",
            (false, true) => "was revoked before",
            (false, false) => "was not revoked",
        };
        output::result(change.json, &object, &[format!("{device_id} {what}")]);
        Ok(())
    })
}

/// Judge at this time.
fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

/// By what a Mac is judged here.
fn by(desk: &Desk, at: Option<Timestamp>) -> By<'_> {
    By {
        store: &desk.store,
        policy: &desk.policy,
        anchor: desk.anchor,
        rules: &desk.rules,
        now: at.unwrap_or(desk.now),
    }
}
