//! `attestd init`: everything a server needs before its first start.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::operator::operator;
use super::output;
use crate::app::{DATABASE, KEYS, MASTER_KEY};
use crate::config::{Config, check_base_url};
use crate::entropy::{Entropy, OsEntropy, draw};
use crate::flows::begin_service::claim_database;
use crate::flows::replace_authority::{self, Maker};
use crate::keys::{FileKeeper, MasterKey, MasterKeySource, MasterSeal};
use crate::store::Store;
use crate::time::{Clock as _, SystemClock};

/// Name of the configuration file.
const CONFIG: &str = "attestd.toml";

#[derive(Debug, Args)]
#[command(after_help = "\
Makes DIR with: the master key, sealed keys and certificates of the device CA, its RSA registration
authority and the profile signer, an embedded database, and attestd.toml.
Refuses to touch a folder in which any of these is there already.
Back DIR up: without it every Mac would have to enrol again.")]
pub(super) struct Arguments {
    /// The folder to make.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Canonical URL of the public listener, https://host[:port]. Enrolled Macs keep it for ever.
    #[arg(long, value_name = "URL")]
    base_url: String,
    /// Shown to owners when they install the profile.
    #[arg(long, default_value = "attestd")]
    organization: String,
    /// Accept a plain http base URL on a loopback address.
    #[arg(long)]
    insecure_http: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = &arguments.folder;
    let config_path = folder.join(CONFIG);
    let master_path = folder.join(MASTER_KEY);
    let keys_path = folder.join(KEYS);
    let database_path = folder.join(DATABASE);
    for path in [&config_path, &master_path, &keys_path, &database_path] {
        if path.exists() {
            bail!(
                "{} is there already; nothing was changed. Choose another folder",
                path.display()
            );
        }
    }
    // First: what listens follows from the URL, and would be blamed in its place.
    check_base_url(&arguments.base_url, arguments.insecure_http)?;
    let text = config_text(arguments)?;
    // A configuration that could not be served is not written.
    Config::parse(&text, arguments.insecure_http)?;

    let now = SystemClock.now();
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy::default());
    private_folder(folder)?;
    let master = hex::encode(draw::<32>(entropy.as_ref()));
    new_file(&master_path, format!("{master}\n").as_bytes(), 0o600)?;
    let master = MasterKey::read(&MasterKeySource::File(master_path.clone()))?;
    let seal = Arc::new(MasterSeal::new(&master, Arc::clone(&entropy)));

    private_folder(&keys_path)?;
    let keeper = FileKeeper::open(keys_path.clone(), Arc::clone(&seal))?;
    replace_authority::begin(&Maker {
        keeper: &keeper,
        organization: &arguments.organization,
        entropy: entropy.as_ref(),
        now,
    })?;

    let url = format!(
        "sqlite://{}",
        std::path::absolute(&database_path)?.display()
    );
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let store = Store::open_exclusive(&url, seal).await?;
            store.migrate().await?;
            claim_database(&store, &arguments.base_url, &operator(), now).await??;
            anyhow::Ok(())
        })?;
    // Last: what has a configuration is complete.
    new_file(&config_path, text.as_bytes(), 0o600)?;
    tell(
        arguments,
        &config_path,
        &master_path,
        &keys_path,
        &database_path,
    );
    Ok(())
}

fn config_text(arguments: &Arguments) -> anyhow::Result<String> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let plain_http = arguments.base_url.starts_with("http://");
    // In clear only for a base URL that is in clear itself; otherwise a proxy must be named.
    let (listen, proxy) = if plain_http {
        let authority = arguments.base_url.trim_start_matches("http://");
        let listen = if authority.contains(':') {
            authority.replace("localhost", "127.0.0.1")
        } else {
            format!("{}:80", authority.replace("localhost", "127.0.0.1"))
        };
        (listen, "")
    } else {
        ("127.0.0.1:8443".to_owned(), "behind_proxy = true\n")
    };
    if arguments.organization.is_empty() || arguments.organization.chars().count() > 64 {
        bail!("the organization must have 1 to 64 characters");
    }
    Ok(format!(
        "# Configuration of attestd. `attestd check-config` shows it as it is understood.\n\
         \n\
         # Everything a Mac is told derives from this URL. It can never change for an enrolled Mac.\n\
         base_url = {}\n\
         data_dir = \".\"\n\
         \n\
         [public]\n\
         listen = {}\n\
         # TLS ends at a reverse proxy. To end it here, remove this line and set tls_certificate and\n\
         # tls_key (PEM files), and listen on an outside address.\n\
         {}\
         \n\
         [internal]\n\
         listen = \"127.0.0.1:8444\"\n\
         \n\
         [enrollment]\n\
         organization = {}\n",
        quoted(&arguments.base_url),
        quoted(&listen),
        proxy,
        quoted(&arguments.organization),
    ))
}

fn private_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("{} cannot be made", folder.display()))
}

pub(super) fn new_file(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

fn tell(arguments: &Arguments, config: &Path, master: &Path, keys: &Path, database: &Path) {
    let object = json!({
        "config": config, "master_key": master, "keys": keys, "database": database,
        "base_url": arguments.base_url,
    });
    let config = config.display();
    output::result(
        arguments.json,
        &object,
        &[
            format!("Made in {}:", arguments.folder.display()),
            format!(
                "  {MASTER_KEY:<14} the key under which every other secret is sealed; keep a copy elsewhere"
            ),
            format!("  {KEYS:<14} device CA, registration authority, profile signer"),
            format!("  {DATABASE:<14} the database"),
            format!("  {CONFIG:<14} the configuration"),
            String::new(),
            "Next:".to_owned(),
            format!("  attestd check-config --config {config}"),
            format!("  attestd push-cert install --config {config} --certificate FILE --key FILE"),
            format!("  attestd token create --config {config} --role coordinator --label NAME"),
            format!("  attestd serve --config {config}"),
        ],
    );
}
