//! `attestd restore`.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::backup::{key_files, open, read_through, told};
use super::operator::operator;
use super::progress::Bar;
use super::{Configured, output};
use crate::app::{KEYS, database_url, master_key};
use crate::backup::{Manifest, Piece};
use crate::config::Config;
use crate::entropy::{Entropy, OsEntropy};
use crate::flows::restore_backup::{LogGoesOn, Ordered, Settled, settle};
use crate::flows::revoke::MAX_NOTE;
use crate::keys::{MasterKey, MasterSeal};
use crate::secret::Sealer;
use crate::store::{Rebuild, Rebuilt, Store, StoreError, occupants};
use crate::time::{Clock as _, SystemClock, Timestamp};

#[derive(Debug, Args)]
#[command(after_help = "\
Restores into an empty place only: a database without tables, and no `keys` beside the configuration (or the
very same ones). Needs the configuration and the master key of then. Everything or nothing: what is
interrupted leaves the place as it was, and can be begun again. It may be another kind of database.

Nobody knows what happened after the backup was made. So, as it restores:
  tickets that nobody had used let nobody in; their owners ask for new profiles
  questions that were out are given up, and asked anew; an answer that was kept is no answer any more
  events go on with numbers that nobody has seen: whoever follows is told to list everything again
  revision and revocation epoch of every Mac rise, so that nothing that was remembered of it is newer
What it cannot know, and you must do: see `attestd restore` when it is done, and docs/operations.md.

The transparency log: every head that was published after the backup says more than the backup has. To go on
there (--log continue) is right only if nothing was published after it; otherwise whoever watches sees a
fork, for which there is no excuse. --log anew begins a new log under a new key, which witnesses and
whoever checks evidence must be given.
Exit status: 0 restored; 1 nothing was changed.")]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The backup.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// How the transparency log goes on; asked for where the backup has one.
    #[arg(long, value_enum)]
    log: Option<Fate>,
    /// Why, in your words; subscribers of events are told.
    #[arg(long, default_value = "")]
    reason: String,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fate {
    /// Where the backup ends: only if nothing was published after it.
    Continue,
    /// From nothing, under a new key.
    Anew,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let reason = &arguments.reason;
    if reason.chars().count() > MAX_NOTE || reason.chars().any(char::is_control) {
        bail!("--reason must be at most {MAX_NOTE} characters, none of them a control character");
    }
    let Configured {
        config,
        insecure_http,
    } = &arguments.configured;
    let config = Config::load(config, *insecure_http)?;
    let master = master_key(&config)?;
    // The whole file, before anything is written.
    let mut keys = Vec::new();
    let manifest = read_through(&arguments.from, &master, "Checking", |piece| {
        if let Piece::Key { name, content } = piece {
            keys.push((name, content));
        }
        Ok(())
    })?;
    let log = fitting(&manifest, &config, arguments.log)?;
    let keys = Keys::check(config.data_dir.join(KEYS), keys)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = Work {
        url: database_url(&config)?,
        from: &arguments.from,
        master: &master,
        reason,
        log,
        now: SystemClock.now(),
    };
    let settled = runtime.block_on(async {
        let (rebuilt, settled) = work.rebuild(&manifest).await?;
        keys.put()?;
        // Last: who finds a database finds everything.
        rebuilt.complete().await?;
        anyhow::Ok(settled)
    })?;
    tell(arguments, &manifest, &settled, log);
    Ok(())
}

/// Whether the backup can be gone on with here, and how its log does.
fn fitting(manifest: &Manifest, config: &Config, log: Option<Fate>) -> anyhow::Result<LogGoesOn> {
    if manifest.server_id != config.base_url {
        bail!(
            "the backup is of {}, and base_url here is {}: an enrolled Mac can never change its server's \
             URL, so base_url must stay what it was",
            manifest.server_id,
            config.base_url
        );
    }
    let known = Store::schema_steps();
    if !known.starts_with(&manifest.schema) {
        bail!(
            "the backup was made by attestd {}, whose tables this version, {}, does not know: restore it \
             with that version or a newer one",
            manifest.made_by,
            env!("CARGO_PKG_VERSION")
        );
    }
    match (manifest.log_size, log) {
        (_, Some(Fate::Anew)) => Ok(LogGoesOn::Anew),
        (None, None) | (_, Some(Fate::Continue)) => Ok(LogGoesOn::Continued),
        (Some(size), None) => bail!(
            "the transparency log had {size} entries when the backup was made. Look at the newest head that \
             anybody has (a witness, a monitor, {}/log/checkpoint of the former server): if it says {size}, \
             add --log continue; if it says more, or nobody can tell, add --log anew, and give the new key \
             to witnesses and to whoever checks evidence",
            manifest.server_id
        ),
    }
}

/// What is restored where.
struct Work<'a> {
    url: String,
    from: &'a Path,
    master: &'a MasterKey,
    reason: &'a str,
    log: LogGoesOn,
    now: Timestamp,
}

impl Work<'_> {
    async fn rebuild(&self, manifest: &Manifest) -> anyhow::Result<(Rebuilt, Settled)> {
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy::default());
        let seal: Arc<dyn Sealer> = Arc::new(MasterSeal::new(self.master, entropy));
        let stands = occupants(&self.url, Arc::clone(&seal)).await;
        let stands = stands.context("the database cannot be looked into")?;
        if !stands.is_empty() {
            let mut named: Vec<_> = stands.iter().filter(|(_, rows)| *rows > 0).collect();
            // Macs first: they are what matters.
            named.sort_by_key(|(name, rows)| (name != "enrollments", std::cmp::Reverse(*rows)));
            let named = named.iter().take(5);
            let named: Vec<_> = named
                .map(|(name, rows)| format!("{name} ({rows})"))
                .collect();
            let rows = if named.is_empty() {
                "without rows".to_owned()
            } else {
                format!("with rows in {}", named.join(", "))
            };
            bail!(
                "the database is not empty: it has {} tables, {rows}. Nothing was changed; move it away, or \
                 name an empty one",
                stands.len()
            );
        }
        let steps = manifest.schema.len();
        let rebuild = Rebuild::begin(&self.url, seal, steps, &manifest.tables).await;
        let mut rebuild = match rebuild {
            Err(StoreError::InUse(lock)) => {
                bail!("a server runs there (lock file {lock}): stop it")
            }
            begun => begun.context("the tables cannot be made")?,
        };
        let (mut pieces, bar) = (open(self.from, self.master)?, Bar::new("Restoring", "rows"));
        if pieces.manifest() != manifest {
            bail!("{} was changed meanwhile", self.from.display());
        }
        let (mut done, all) = (0, manifest.rows());
        while let Some(piece) = pieces.next_piece()? {
            if let Piece::Rows { table, rows } = piece {
                done += u64::try_from(rows.len()).unwrap_or(0);
                rebuild.add(table, rows).await?;
                bar.at(done, all);
            }
        }
        let mut rebuilt = rebuild.finish().await?;
        let who = operator();
        let ordered = Ordered {
            who: &who,
            why: self.reason,
        };
        let settled = settle(rebuilt.write(), manifest, self.log, ordered, self.now).await?;
        Ok((rebuilt, settled))
    }
}

/// The folder of keys.
#[derive(Debug)]
struct Keys {
    folder: PathBuf,
    files: Vec<(String, Vec<u8>)>,
    /// They are there already, the very same.
    stand: bool,
}

impl Keys {
    fn check(folder: PathBuf, mut files: Vec<(String, Vec<u8>)>) -> anyhow::Result<Self> {
        files.sort();
        for (name, _) in &files {
            let is_plain =
                !name.starts_with('.') && !name.contains(['/', '\0']) && !name.is_empty();
            if !is_plain {
                bail!("the backup names a key file {name:?}, which is no name of a file");
            }
        }
        let is_empty = match fs::read_dir(&folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be read", folder.display()));
            }
        };
        let stand = !is_empty;
        if stand && key_files(&folder)? != files {
            bail!(
                "{} holds other keys than the backup. Nothing was changed; move it away first",
                folder.display()
            );
        }
        Ok(Self {
            folder,
            files,
            stand,
        })
    }

    /// Puts them in their place, all at once.
    fn put(&self) -> anyhow::Result<()> {
        if self.stand {
            return Ok(());
        }
        let mut unfinished = self.folder.clone().into_os_string();
        unfinished.push(".restoring");
        let unfinished = PathBuf::from(unfinished);
        let put = || -> std::io::Result<()> {
            if unfinished.exists() {
                // What a restore left that came to no end.
                fs::remove_dir_all(&unfinished)?;
            }
            DirBuilder::new().mode(0o700).create(&unfinished)?;
            for (name, content) in &self.files {
                let mut file = File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(unfinished.join(name))?;
                file.write_all(content)?;
                file.sync_all()?;
            }
            File::open(&unfinished)?.sync_all()?;
            // It takes the place of an empty folder, and of no other.
            fs::rename(&unfinished, &self.folder)?;
            match self.folder.parent() {
                Some(parent) => File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        };
        put().with_context(|| format!("{} cannot be written", self.folder.display()))
    }
}

fn tell(arguments: &Arguments, manifest: &Manifest, settled: &Settled, log: LogGoesOn) {
    let mut object = told(manifest);
    object["tickets_voided"] = json!(settled.tickets_voided);
    object["questions_given_up"] = json!(settled.questions_given_up);
    object["postures_raised"] = json!(settled.postures);
    object["events_after"] = json!(settled.events_after);
    object["log"] = json!(match log {
        LogGoesOn::Continued => "continued",
        LogGoesOn::Anew => "anew",
    });
    let since = manifest.made_at;
    let mut lines = vec![
        format!(
            "{} is restored as of {since}: {} rows, {} key files.",
            manifest.server_id,
            manifest.rows(),
            manifest.keys.len()
        ),
        format!(
            "{} tickets let nobody in any more, {} Macs are asked anew, events go on after {}.",
            settled.tickets_voided, settled.questions_given_up, settled.events_after
        ),
        String::new(),
        format!("What happened after {since} is not known. Before the server is started, be sure that the"),
        "former one never runs again. Then, for that time:".to_owned(),
        "  Macs that were revoked             attestd device revoke".to_owned(),
        "  tokens that were withdrawn         attestd token list, attestd token revoke".to_owned(),
        "  releases that were withdrawn       attestd release list, attestd release revoke".to_owned(),
        "  keys of results that were withdrawn   attestd keys list, attestd keys withdraw".to_owned(),
        "  push certificates that were installed attestd push-cert status, attestd push-cert install".to_owned(),
        "  Macs that enrolled, or renewed their identity, enrol again: they read `identity_unknown`".to_owned(),
        "  Macs with a new push address are woken in vain until they come by themselves".to_owned(),
    ];
    if log == LogGoesOn::Anew {
        lines.push(
            "  the new key of the transparency log  log of the server; tell witnesses, and say why"
                .to_owned(),
        );
    }
    output::result(arguments.json, &object, &lines);
}
