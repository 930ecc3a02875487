//! `attestd backup`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::progress::Bar;
use super::store::with_desk;
use super::{Configured, output};
use crate::app::{KEYS, master_key};
use crate::backup::{Elsewhere, Manifest, Piece};
use crate::config::Config;
use crate::flows::back_up::{BackupFault, Beside, Pieces, back_up};
use crate::keys::MasterKey;
use crate::keys::vault::{SealedReader, SealedWriter};

/// The longest file of the folder of keys.
const MAX_KEY_FILE: u64 = 64 * 1024;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
The file holds the whole database as it is at one moment, while servers go on, and the folder `keys`. It is
sealed under a key that follows from the master key: without the master key it is worthless, with it
it is everything. The MASTER KEY ITSELF IS NOT IN IT, nor are attestd.toml and the files it names (TLS,
policy, key files): keep copies of those, and of the master key elsewhere than the backup.
A file that is there already is never replaced.
  attestd backup --config attestd.toml --to /backup/attestd-$(date +%F).backup
  attestd backup verify --config attestd.toml /backup/attestd-2026-11-23.backup
  attestd restore --help
Exit status: 0 done; 1 nothing was written, or the backup is not whole."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    make: Make,
}

#[derive(Debug, Args)]
struct Make {
    /// The configuration file that `attestd init` made.
    #[arg(long, value_name = "FILE", env = "ATTESTD_CONFIG", required = true)]
    config: Option<PathBuf>,
    /// Accept a plain http base URL on a loopback address.
    #[arg(long)]
    insecure_http: bool,
    /// The file to write.
    #[arg(long, value_name = "FILE", required = true)]
    to: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Read a backup from its beginning to its end, and say what it holds. Needs the master key, and no
    /// database.
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    configured: Configured,
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match (&arguments.what, &arguments.make) {
        (Some(What::Verify(verify)), _) => run_verify(verify),
        (
            None,
            Make {
                config: Some(config),
                insecure_http,
                to: Some(to),
                json,
            },
        ) => {
            let configured = Configured {
                config: config.clone(),
                insecure_http: *insecure_http,
            };
            make(&configured, to, *json)
        }
        (None, _) => bail!("--config and --to are needed"),
    }
}

fn make(configured: &Configured, to: &Path, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&configured.config, configured.insecure_http)?;
    let master = master_key(&config)?;
    if to.exists() {
        bail!("{} is there already; name another file", to.display());
    }
    let keys = key_files(&config.data_dir.join(KEYS))?;
    let draft = Draft::beside(to)?;
    let elsewhere = elsewhere(&configured.config, &config);
    let manifest = with_desk(configured, async |desk| {
        let beside = Beside {
            made_at: desk.now,
            server_id: config.base_url.clone(),
            keys,
            elsewhere,
        };
        let bar = Bar::new("Backing up", "rows");
        let sealed = SealedWriter::begin(draft.file()?, &master, desk.entropy.as_ref())?;
        let mut tell = |done, all| bar.at(done, all);
        let (manifest, file) = back_up(&desk.store, beside, sealed, &mut tell).await?;
        file.sync_all()?;
        Ok(manifest)
    })
    .with_context(|| format!("{} was not written", to.display()))?;
    draft.keep_as(to)?;
    let bytes = fs::metadata(to).map_or(0, |about| about.len());
    let mut object = told(&manifest);
    object["file"] = json!(to);
    object["bytes"] = json!(bytes);
    let mut lines = vec![format!(
        "{} holds {} of {} as of {}: {} rows, {} key files, {bytes} bytes.",
        to.display(),
        macs(&manifest),
        manifest.server_id,
        manifest.made_at,
        manifest.rows(),
        manifest.keys.len(),
    )];
    lines.extend(not_held(&manifest));
    output::result(json, &object, &lines);
    Ok(())
}

fn run_verify(verify: &Verify) -> anyhow::Result<()> {
    let Configured {
        config,
        insecure_http,
    } = &verify.configured;
    let config = Config::load(config, *insecure_http)?;
    let manifest = read_through(&verify.file, &master_key(&config)?, "Reading", |_| Ok(()))?;
    let mut lines = vec![format!(
        "{} is whole: {} of {} as of {}, {} rows, made by attestd {} from {}.",
        verify.file.display(),
        macs(&manifest),
        manifest.server_id,
        manifest.made_at,
        manifest.rows(),
        manifest.made_by,
        manifest.database,
    )];
    lines.extend(not_held(&manifest));
    output::result(verify.json, &told(&manifest), &lines);
    Ok(())
}

/// Reads a backup to its end; `take` gets what it holds.
///
/// # Errors
/// One that is not whole, with what is wrong with it; what `take` says.
pub(super) fn read_through(
    file: &Path,
    master: &MasterKey,
    work: &str,
    mut take: impl FnMut(Piece) -> anyhow::Result<()>,
) -> anyhow::Result<Manifest> {
    let (mut pieces, bar) = (open(file, master)?, Bar::new(work, "rows"));
    let (mut done, all) = (0, pieces.manifest().rows());
    let unusable = || format!("{} cannot be used", file.display());
    while let Some(piece) = pieces.next_piece().with_context(unusable)? {
        if let Piece::Rows { rows, .. } = &piece {
            done += u64::try_from(rows.len()).unwrap_or(0);
            bar.at(done, all);
        }
        take(piece)?;
    }
    Ok(pieces.manifest().clone())
}

/// Opens a backup and reads what it says of itself.
///
/// # Errors
/// A file that is none, or of another master key.
pub(super) fn open(file: &Path, master: &MasterKey) -> anyhow::Result<Pieces<File>> {
    let opened = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let sealed = SealedReader::begin(opened, master).map_err(BackupFault::from);
    let pieces = sealed.and_then(Pieces::begin);
    pieces.with_context(|| format!("{} cannot be used", file.display()))
}

/// The files in the folder of keys.
pub(super) fn key_files(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let unreadable = || format!("the folder of keys {} cannot be read", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            bail!("{} has no name in UTF-8", entry.path().display());
        };
        if name.starts_with('.') {
            // What a crash left of a key that was being made.
            continue;
        }
        let about = entry.metadata().with_context(unreadable)?;
        if !about.is_file() || about.len() > MAX_KEY_FILE {
            bail!(
                "{} is no file of a key: it does not belong there",
                entry.path().display()
            );
        }
        let content = fs::read(entry.path()).with_context(unreadable)?;
        files.push((name.to_owned(), content));
    }
    files.sort();
    if files.is_empty() {
        bail!("the folder of keys {} is empty", folder.display());
    }
    Ok(files)
}

/// What belongs to the service and is not in the backup.
fn elsewhere(file: &Path, config: &Config) -> Vec<Elsewhere> {
    let named = |what: &str, path: &Path| Elsewhere {
        what: what.to_owned(),
        path: path.display().to_string(),
    };
    let mut elsewhere = vec![named("the configuration", file)];
    if config.secrets.master_key_file.is_none() {
        elsewhere.push(Elsewhere {
            what: "the master key".to_owned(),
            path: "data_dir/master.key, $ATTESTD_MASTER_KEY_FILE or a systemd credential"
                .to_owned(),
        });
    }
    let files = config.files();
    elsewhere.extend(files.iter().map(|(setting, path)| named(setting, path)));
    elsewhere
}

fn macs(manifest: &Manifest) -> String {
    match manifest.rows_of("enrollments").unwrap_or(0) {
        1 => "1 Mac".to_owned(),
        count => format!("{count} Macs"),
    }
}

fn not_held(manifest: &Manifest) -> Vec<String> {
    let mut lines = vec!["Not in it, and needed with it:".to_owned()];
    let named = manifest.elsewhere.iter();
    lines.extend(named.map(|it| format!("  {:<28} {}", it.what, it.path)));
    lines
}

/// A backup, for a program.
pub(super) fn told(manifest: &Manifest) -> Value {
    json!({
        "made_at": manifest.made_at,
        "made_by": manifest.made_by,
        "server_id": manifest.server_id,
        "database": manifest.database,
        "schema": manifest.schema.last(),
        "macs": manifest.rows_of("enrollments"),
        "rows": manifest.rows(),
        "keys": manifest.keys,
        "elsewhere": manifest.elsewhere,
        "log_size": manifest.log_size,
    })
}

/// A file under another name, until it is complete. Gone if it never is.
#[derive(Debug)]
struct Draft(PathBuf);

impl Draft {
    fn beside(to: &Path) -> anyhow::Result<Self> {
        let Some(name) = to.file_name() else {
            bail!("{} names no file", to.display());
        };
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(format!(".{}.draft", std::process::id()));
        Ok(Self(to.with_file_name(draft)))
    }

    fn file(&self) -> std::io::Result<File> {
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.0)
    }

    /// Gives it its name, unless there is such a file by now.
    fn keep_as(&self, to: &Path) -> anyhow::Result<()> {
        fs::hard_link(&self.0, to).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                anyhow::anyhow!("{} is there already; name another file", to.display())
            }
            _ => anyhow::Error::new(error).context(format!("{} cannot be written", to.display())),
        })?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|it| it.sync_all());
        synced.with_context(|| {
            format!(
                "{} is there, and may be lost if the power goes",
                to.display()
            )
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_file(&self.0);
    }
}
