//! `attestd import`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::store::with_owner_desk;
use super::{Configured, output};
use crate::flows::import_fleet::{Import, Imported, Outcome, import_fleet};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Adopt the Macs of a server that this one replaces: every line of the file, or none.
    Fleet(Fleet),
}

#[derive(Debug, Args)]
#[command(after_help = "\
One JSON object a line; docs/adopting.md has the form. Lines that were imported before change
nothing. A SQLite database belongs to the server that runs on it: stop it first.
Exit status: 0 imported, or everything is in order (--dry-run); 1 nothing was written.")]
struct Fleet {
    #[command(flatten)]
    configured: Configured,
    /// The file.
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// Check everything and write nothing.
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let What::Fleet(fleet) = &arguments.what;
    let file = std::fs::read_to_string(&fleet.file)
        .with_context(|| format!("{} cannot be read as text", fleet.file.display()))?;
    with_owner_desk(&fleet.configured, async |desk| {
        let import = Import {
            store: &desk.store,
            entropy: desk.entropy.as_ref(),
            profiles: &desk.profiles,
            attestation_hold: desk.attestation_hold,
            who: &desk.who,
            now: desk.now,
        };
        let imported = import_fleet(&import, &file, fleet.dry_run).await?;
        let (object, lines) = report(&imported);
        output::result(fleet.json, &object, &lines);
        if !imported.is_good() {
            bail!("nothing was written");
        }
        Ok(())
    })
}

fn report(imported: &Imported) -> (Value, Vec<String>) {
    let mut objects = Vec::new();
    let mut texts = Vec::new();
    let mut counts = [0_usize; 3];
    for (line, outcome) in &imported.lines {
        match outcome {
            Outcome::Adopted(device_id) => {
                counts[0] += 1;
                objects.push(json!({ "line": line, "outcome": "adopted", "device_id": device_id }));
            }
            Outcome::Known(device_id) => {
                counts[1] += 1;
                objects.push(json!({ "line": line, "outcome": "known", "device_id": device_id }));
            }
            Outcome::Refused(faults) => {
                counts[2] += 1;
                let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                texts.extend(faults.iter().map(|fault| format!("line {line}: {fault}")));
                objects.push(json!({ "line": line, "outcome": "refused", "faults": faults }));
            }
        }
    }
    let [adopted, known, refused] = counts;
    let done = if imported.written {
        "adopted"
    } else {
        "could be adopted"
    };
    texts.push(format!(
        "{adopted} {done}, {known} known already, {refused} refused"
    ));
    let object = json!({
        "written": imported.written,
        "adopted": adopted,
        "known": known,
        "refused": refused,
        "lines": objects,
    });
    (object, texts)
}
