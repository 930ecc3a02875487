//! `attestd secrets`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::store::{Desk, with_desk};
use super::{Configured, output};
use crate::app::{KEYS, master_key_source};
use crate::config::Config;
use crate::flows::hand_over_master_key::{
    Column, FOLLOWED, begin, count, finish, follow, seal_anew, seal_by_the_new,
};
use crate::keys::handover::Phase;
use crate::keys::{FileKeeper, Handover, MasterKey, MasterKeySource};
use crate::store::SEALED;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Which master key is in use, and what is sealed under which.
    Status {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
    /// Seal everything under another master key, while servers run. May be run again when it was
    /// interrupted, and on each further node for the keys there.
    #[command(after_help = ROTATE)]
    Rotate {
        #[command(flatten)]
        configured: Configured,
        /// The file of the new key; made when it is not there. Beside the present one when not given.
        #[arg(long, value_name = "FILE")]
        new_key: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// End a rotation: the former key opens nothing any more. Restart every server with the new key first.
    Finish {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
}

const ROTATE: &str = "\
What it does: the new key is told to the running servers, sealed under the present one; five seconds later
they seal by the new one; everything in the database and in the folder of keys is sealed anew; then the new
key is put where the present one is, which stays beside it as FILE.former. A master key that systemd hands
over is put in its place by you.

Afterwards: give the new key to the other nodes and run this there, restart each server when it suits you
(until `finish` a server may be started with either key), run `attestd secrets finish`, take a backup, and
destroy the former key when no backup needs it any more. Links to profiles that were handed out before and
not used open until `finish`.";

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Status { configured, json } => {
            with_desk(configured, async |desk| status(desk, *json).await)
        }
        What::Rotate {
            configured,
            new_key,
            json,
        } => {
            let config = Config::load(&configured.config, configured.insecure_http)?;
            let place = Place::of(&config, new_key.as_deref())?;
            with_desk(configured, async |desk| rotate(desk, &place, *json).await)
        }
        What::Finish { configured, json } => with_desk(configured, async |desk| {
            let handover = finish(&desk.store, &desk.sealer, &desk.who, desk.now).await??;
            output::result(
                *json,
                &json!({ "from": handover.from, "to": handover.to, "finished": true }),
                &[
                    format!("Master key {} is out of use.", handover.from),
                    "Values that were sealed under it are gone from here; backups that were taken before need it still."
                        .to_owned(),
                ],
            );
            Ok(())
        }),
    }
}

/// Where keys are on this node.
struct Place {
    keys: PathBuf,
    present: MasterKeySource,
    /// Where the new master key is, or is put.
    new_key: PathBuf,
}

impl Place {
    fn of(config: &Config, new_key: Option<&Path>) -> anyhow::Result<Self> {
        let present = master_key_source(config)?;
        let new_key = match (new_key, &present) {
            (Some(path), _) => path.to_owned(),
            (None, MasterKeySource::File(path)) => beside(path, "next"),
            (None, MasterKeySource::Credential(_)) => bail!(
                "the master key is a systemd credential, which is not written from here: name the file of the new \
                 one with --new-key, and give it to the unit afterwards"
            ),
        };
        Ok(Self {
            keys: config.data_dir.join(KEYS),
            present,
            new_key,
        })
    }

    /// Puts the new key where the present one is; false where somebody else must.
    fn put(&self, new: &MasterKey) -> anyhow::Result<bool> {
        let MasterKeySource::File(present) = &self.present else {
            return Ok(false);
        };
        if MasterKey::read(&self.present)?.name() == new.name() {
            return Ok(true);
        }
        let former = beside(present, "former");
        // What a rotation that was interrupted just here left is the same key.
        match fs::hard_link(present, &former) {
            Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {
                let same = fs::read(present)? == fs::read(&former)?;
                if !same {
                    bail!(
                        "{} is there from an earlier rotation: move it away, and run this again",
                        former.display()
                    );
                }
            }
            linked => linked.with_context(|| format!("{} cannot be made", former.display()))?,
        }
        let draft = beside(present, "draft");
        match fs::remove_file(&draft) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(cause).with_context(|| format!("{} stands there", draft.display()));
            }
            _ => {}
        }
        super::init::new_file(&draft, new.text().expose().as_bytes(), 0o600)?;
        fs::rename(&draft, present)
            .with_context(|| format!("{} cannot be replaced", present.display()))?;
        sync_folder(present)?;
        // It stands in its place now.
        if self.new_key == beside(present, "next") {
            let _ = fs::remove_file(&self.new_key);
        }
        Ok(true)
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}"));
    path.with_file_name(name)
}

fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("{} cannot be synced", folder.display()))
}

async fn status(desk: &Desk, json: bool) -> anyhow::Result<()> {
    let handover = follow(&desk.store, &desk.sealer).await?;
    let columns = count(&desk.store, &desk.sealer).await?;
    let object = json!({
        "master_key": desk.sealer.mine().name(),
        "rotation": handover.as_ref().map(|one| json!({
            "from": one.from, "to": one.to, "phase": one.phase, "begun_at": one.begun_at,
        })),
        "values": columns.iter().map(describe).collect::<Vec<_>>(),
    });
    let mut lines = vec![format!("Master key {}", desk.sealer.mine().name())];
    lines.push(match &handover {
        None => "No other is on its way.".to_owned(),
        Some(one) => format!("From {} to {} since {}", one.from, one.to, one.begun_at),
    });
    lines.push(table(&columns));
    output::result(json, &object, &lines);
    Ok(())
}

fn describe(column: &Column) -> serde_json::Value {
    json!({
        "column": column.name, "present": column.present, "former": column.former,
        "unreadable": column.unreadable,
    })
}

fn table(columns: &[Column]) -> String {
    let mut table = Table::new();
    table.set_header([
        "sealed values",
        "by the present key",
        "by the former",
        "unreadable",
    ]);
    for column in columns {
        table.add_row([
            column.name.clone(),
            column.present.to_string(),
            column.former.to_string(),
            column.unreadable.join(" "),
        ]);
    }
    table.to_string()
}

async fn rotate(desk: &Desk, place: &Place, json: bool) -> anyhow::Result<()> {
    let handover = match follow(&desk.store, &desk.sealer).await? {
        Some(under_way) => under_way,
        None => {
            let new = new_key(desk, &place.new_key)?;
            begin(&desk.store, &desk.sealer, &new, &desk.who, desk.now).await?
        }
    };
    let columns = carry_out(desk, &handover).await?;
    let keys = FileKeeper::open(place.keys.clone(), desk.sealer.clone())?.seal_anew()?;
    let put = place.put(&desk.sealer.new_key(&handover)?)?;
    let unreadable = columns
        .iter()
        .map(|one| one.unreadable.len())
        .sum::<usize>();
    let left: u64 = columns.iter().map(|one| one.former).sum();
    let object = json!({
        "from": handover.from, "to": handover.to, "keys_sealed_anew": keys,
        "new_key_in_place": put, "former_left": left,
        "values": columns.iter().map(describe).collect::<Vec<_>>(),
    });
    let mut lines = vec![
        table(&columns),
        format!("{keys} key files of this node are sealed anew."),
    ];
    lines.push(if put {
        format!(
            "Master key {} is in its place; the former one stays beside it.",
            handover.to
        )
    } else {
        format!(
            "Give the unit the new master key: {} ({}).",
            place.new_key.display(),
            handover.to
        )
    });
    lines.push(
        "Next: the other nodes, a restart of each server, then `attestd secrets finish`."
            .to_owned(),
    );
    output::result(json, &object, &lines);
    if unreadable > 0 {
        bail!("{unreadable} values open by no key: they were damaged, or sealed under another");
    }
    Ok(())
}

/// From phase to phase, until nothing is left under the former key.
async fn carry_out(desk: &Desk, handover: &Handover) -> anyhow::Result<Vec<Column>> {
    if handover.phase == Phase::Opening {
        output::progress(format!(
            "Servers learn master key {} ({} s)",
            handover.to,
            FOLLOWED.as_secs()
        ));
        tokio::time::sleep(FOLLOWED).await;
        seal_by_the_new(&desk.store, &desk.sealer).await?;
    }
    output::progress(format!("Servers seal by it ({} s)", FOLLOWED.as_secs()));
    tokio::time::sleep(FOLLOWED).await;
    let mut columns = Vec::with_capacity(SEALED.len());
    for column in &SEALED {
        let done = seal_anew(&desk.store, &desk.sealer, column).await?;
        output::progress(format!("{}: {}", done.name, done.present));
        columns.push(done);
    }
    Ok(columns)
}

fn new_key(desk: &Desk, path: &Path) -> anyhow::Result<MasterKey> {
    if !path.exists() {
        let new = MasterKey::make(desk.entropy.as_ref());
        super::init::new_file(path, new.text().expose().as_bytes(), 0o600)?;
        sync_folder(path)?;
    }
    Ok(MasterKey::read(&MasterKeySource::File(path.to_owned()))?)
}
