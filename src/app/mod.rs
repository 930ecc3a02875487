//! The composition root: settings in, a running service out. Only here are shells made and joined.

pub mod authorities;
#[cfg(feature = "otel")]
mod collector;
mod issuer;
pub mod tls;
mod witnesses;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::issuer::source;
pub use self::witnesses::witnesses;
use crate::acme::NonceKey;
use crate::apns::{Apns, ApnsSettings, Endpoint, Unreached, reach};
use crate::attestation::Anchors;
use crate::audit::Who;
use crate::config::{Config, NonceScheme};
use crate::enrollment::profile::{Constants, PayloadIdentifiers, Uuids};
use crate::entropy::{Entropy, OsEntropy, draw};
use crate::flows::answers::Answers;
use crate::flows::append_to_log::Log;
use crate::flows::authorize::{Clients, Role};
use crate::flows::begin_service::{claim_database, use_policy};
use crate::flows::draw_beacon::Beacons;
use crate::flows::follow_events::Outlet;
use crate::flows::limits::Limits;
use crate::flows::publish_evidence::Bundles;
use crate::flows::publish_feed::Feed;
use crate::flows::relay_command::Relaying;
use crate::flows::service_secret::service_secret;
use crate::flows::sign_result::{SUBJECT_SECRET, Signing};
use crate::flows::transmit_signals::Signals;
use crate::flows::wake::Wakeups;
use crate::flows::watch_standstill::Watched;
use crate::flows::{
    Context, Settings, hand_over_master_key, refuse, rotate_result_key, transmit_signals,
    watch_clock,
};
use crate::http::limit::PerClient;
use crate::http::listener::{self, Listener};
use crate::http::proxies::Proxies;
use crate::http::streams::Streams;
use crate::http::{self, Internal, Public};
use crate::keys::{BearerKey, FileKeeper, MasterKey, MasterKeySource, MasterSeal};
use crate::outbound::{Outbound, Reach, Target, check_root};
use crate::pki::{KnownIntermediates, TrustAnchors, read_certificates};
use crate::posture::policy::{Policy, STRICT, shipped};
use crate::publication::jwk::Algorithm;
use crate::publication::shared_signals::Transmitter;
use crate::publication::shared_signals::access::AccessKey;
use crate::secret::{Sealer, Secret};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::traces::Traces;
use crate::time::{Clock, SystemClock, Timestamp};
use crate::verification::agenda::Rules;
use crate::web;
use crate::workers::{self, Queues};

/// Name of the master key file in the data folder.
pub const MASTER_KEY: &str = "master.key";
/// Name of the folder of sealed keys in the data folder.
pub const KEYS: &str = "keys";
/// Name of the embedded database in the data folder.
pub const DATABASE: &str = "attestd.db";
/// The fact that names the rules by which agendas were kept last.
const AGENDAS_BY: &str = "agendas_by";
/// The secret under which nonces of ACME are minted, and the one under which access tokens of receivers are.
const ACME_NONCES: &str = "acme_nonces";
const SIGNALS_ACCESS: &str = "shared_signals_access";

/// A service that is ready to answer.
#[derive(Debug)]
pub struct App {
    ctx: Arc<Context>,
    queues: Queues,
    public: Listener,
    internal: Listener,
    stop_streams: CancellationToken,
}

impl App {
    /// Makes everything a configuration asks for and binds both listeners.
    ///
    /// # Errors
    /// What is missing or does not fit, with what to do about it.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        Self::start_at(config, Arc::new(SystemClock)).await
    }

    /// As [`App::start`], on another clock.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_at(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy::default());
        let master = master_key(config)?;
        let seal = Arc::new(MasterSeal::new(&master, Arc::clone(&entropy)));
        let keeper = FileKeeper::open(config.data_dir.join(KEYS), Arc::clone(&seal))
            .context("the folder of keys cannot be used; `attestd init` makes it")?;
        let store = Store::open_exclusive(&database_url(config)?, seal.clone()).await?;
        store
            .migrate()
            .await
            .context("the database cannot be brought up to date")?;
        claim_database(&store, &config.base_url, &Who::Service, clock.now()).await??;
        hand_over_master_key::follow(&store, &seal).await?;
        let nonce_secret =
            service_secret(&store, seal.as_ref(), entropy.as_ref(), ACME_NONCES).await?;
        let acme_nonces = if store.is_ours_alone() {
            NonceKey::of_one_process(nonce_secret.expose(), draw(entropy.as_ref()))
        } else {
            NonceKey::new(nonce_secret.expose())
        };

        let policy = Arc::new(policy(config)?);
        let settings = settings(config, &policy)?;
        keep_agendas(&store, &settings.rules, &policy.id).await?;
        let room = usize::try_from(config.verification.queue.get()).unwrap_or(usize::MAX);
        let wakeups = Wakeups::new(room, config.apns.pushes_per_second, Arc::clone(&clock));
        let (refusals, waiting_refusals) = refuse::queue();
        let clock_watch = watch_clock::begin(&store, clock.as_ref()).await?;
        let subject_secret =
            service_secret(&store, seal.as_ref(), entropy.as_ref(), SUBJECT_SECRET).await?;
        rotate_result_key::begin(&store, Algorithm::Es256, clock.now()).await?;
        let signals = signals(config, &store, seal.as_ref(), entropy.as_ref(), clock.now()).await?;
        use_policy(&store, &policy, clock.now()).await?;
        let log = match config.transparency.enabled {
            true => {
                let (sealer, witnesses) = (seal.as_ref(), witnesses(config)?);
                let base_url = &config.base_url;
                let beacon = Beacons::new(config.attestation.nonce_scheme == NonceScheme::BeaconV2);
                let entropy = entropy.as_ref();
                Some(Log::open(&store, sealer, entropy, base_url, witnesses, beacon).await?)
            }
            false => None,
        };
        let metrics = Metrics::new();
        let outbound = Outbound::new()?;
        let endpoint = config.telemetry.otlp_endpoint.as_deref();
        let (traces, leaving) = endpoint.map(|_| Traces::new(&metrics)).unzip();
        #[cfg(feature = "otel")]
        let collector = endpoint
            .zip(leaving)
            .map(|(url, leaving)| collector::collector(&config.telemetry, url, &outbound, leaving))
            .transpose()?;
        #[cfg(not(feature = "otel"))]
        anyhow::ensure!(
            leaving.is_none(),
            "telemetry.otlp_endpoint: this attestd was built without traces (feature otel)"
        );
        let ctx = Arc::new(Context {
            store,
            apns: Apns::new(
                apns_settings(config)?,
                Arc::clone(&clock),
                Arc::clone(&entropy),
            )?,
            authorities: authorities::held(&keeper)?,
            policy,
            anchors: anchors(config)?,
            intermediates: KnownIntermediates::default(),
            acme_nonces,
            settings,
            metrics,
            traces,
            watched: Watched::new(clock.now()),
            clock,
            clock_watch,
            entropy,
            sealer: seal,
            wakeups,
            refusals,
            answers: Answers::default(),
            limits: Limits::default(),
            signing: Signing::default(),
            subject_secret,
            outlet: Outlet::default(),
            log,
            bundles: Bundles::new(config.feed.disclosure),
            outbound,
            signals,
        });
        let proxies = Arc::new(proxies(config)?);
        let limit = |per_minute| -> anyhow::Result<Arc<PerClient>> {
            let per_minute = NonZeroU32::new(per_minute).context("a limit of zero")?;
            Ok(Arc::new(PerClient::new(per_minute, Arc::clone(&proxies))))
        };
        let stop_streams = CancellationToken::new();
        let public = Public {
            ctx: Arc::clone(&ctx),
            enroll_limit: limit(config.public.enroll_per_minute)?,
            scep_limit: limit(config.public.scep_per_minute)?,
            acme_limit: limit(config.public.acme_per_minute)?,
            streams: Arc::default(),
            stop: stop_streams.clone(),
            proxies: Arc::clone(&proxies),
            releases: Arc::default(),
            feed: Arc::new(Feed::new(config.feed.disclosure)),
            feed_limit: limit(config.public.feed_per_minute)?,
            log_limit: limit(config.public.log_per_minute)?,
            downloads: Arc::new(Streams::for_downloads()),
        };
        let public = http::public(public, web::pages());
        let internal = Internal::new(Arc::clone(&ctx), stop_streams.clone());
        let internal = http::internal(internal);
        let (outside, inside) = (&config.public, &config.internal);
        let of_macs = if outside.client_certificates {
            tls::Clients::Possession(tls::identity_issuers(&ctx))
        } else {
            tls::Clients::Unasked
        };
        let public_tls = tls::server(
            outside.tls_certificate.as_deref(),
            outside.tls_key.as_deref(),
            of_macs,
        )?;
        let (certificate, key) = (&inside.tls_certificate, &inside.tls_key);
        let of_clients = tls::clients(&inside.client_roots)?;
        let internal_tls = tls::server(certificate.as_deref(), key.as_deref(), of_clients)?;
        let public = Listener::bind(outside.listen, public_tls, public)
            .await
            .with_context(|| format!("{} cannot be bound", outside.listen))?
            .with_share(usize::try_from(outside.connections_per_address)?, proxies);
        let internal = Listener::bind(inside.listen, internal_tls, internal)
            .await
            .with_context(|| format!("{} cannot be bound", inside.listen))?
            .with_silence(http::events::LONGEST + listener::SILENCE)
            .with_known_clients();
        for (name, not_after) in tls::ends(&ctx, config)? {
            ctx.metrics.certificate(name, not_after);
        }
        let queues = Queues {
            refusals: waiting_refusals,
            #[cfg(feature = "otel")]
            collector,
        };
        Ok(Self {
            ctx,
            queues,
            public,
            internal,
            stop_streams,
        })
    }

    /// The addresses bound: public, internal.
    ///
    /// # Errors
    /// A socket that is no longer usable.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.public.address()?, self.internal.address()?))
    }

    /// What its flows work with: for whoever embeds the service and runs a flow that is due later.
    pub fn context(&self) -> Arc<Context> {
        Arc::clone(&self.ctx)
    }

    /// Serves until `stop`. Then: no new connections, requests in flight end, workers end, what is
    /// soft is written.
    pub async fn serve(self, stop: CancellationToken) {
        let workers_stop = CancellationToken::new();
        let mut workers = workers::start(&self.ctx, self.queues, &workers_stop);
        let end_streams = async {
            stop.cancelled().await;
            self.stop_streams.cancel();
        };
        tokio::join!(
            end_streams,
            self.public.serve(stop.clone()),
            self.internal.serve(stop.clone())
        );
        workers_stop.cancel();
        while workers.join_next().await.is_some() {}
    }
}

/// Reads the master key from where the configuration, the environment or systemd put it.
///
/// # Errors
/// No key, or one that must not be used.
pub fn master_key(config: &Config) -> anyhow::Result<MasterKey> {
    Ok(MasterKey::read(&master_key_source(config)?)?)
}

/// Where the master key is.
///
/// # Errors
/// Nobody said, and it is not in the data folder.
pub fn master_key_source(config: &Config) -> anyhow::Result<MasterKeySource> {
    let beside = config.data_dir.join(MASTER_KEY);
    let configured = config.secrets.master_key_file.as_deref();
    let found = MasterKeySource::find(configured, |name| std::env::var_os(name));
    match found {
        Ok(source) => Ok(source),
        Err(_) if beside.exists() => Ok(MasterKeySource::File(beside)),
        Err(fault) => Err(fault.into()),
    }
}

/// The address of the database.
///
/// # Errors
/// A file with the address that cannot be read.
pub fn database_url(config: &Config) -> anyhow::Result<String> {
    let database = &config.database;
    if let Some(file) = &database.url_file {
        let url = std::fs::read_to_string(file)
            .with_context(|| format!("database.url_file {} cannot be read", file.display()))?;
        return Ok(url.trim().to_owned());
    }
    if let Some(url) = &database.url {
        return Ok(url.clone());
    }
    let folder = std::path::absolute(&config.data_dir)?;
    Ok(format!("sqlite://{}", folder.join(DATABASE).display()))
}

/// What is shared, and with a key to sign it; nothing waits for signals that are not.
async fn signals(
    config: &Config,
    store: &Store,
    sealer: &dyn Sealer,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> anyhow::Result<Option<Signals>> {
    let Some(url) = &config.shared_signals.url else {
        transmit_signals::end(store).await?;
        return Ok(None);
    };
    rotate_result_key::begin(store, Algorithm::Rs256, now).await?;
    transmit_signals::begin(store).await?;
    let transmitter = Transmitter {
        issuer: config.base_url.clone(),
        url: url.clone(),
        tenant: config.shared_signals.tenant.clone(),
    };
    let secret = service_secret(store, sealer, entropy, SIGNALS_ACCESS).await?;
    let access = AccessKey::new(*secret.expose());
    Ok(Some(Signals::new(transmitter, access)))
}

/// The authorities whose identities this server adopts at Authenticate.
fn adopted_cas(config: &Config) -> anyhow::Result<Option<TrustAnchors>> {
    let mut certificates = Vec::new();
    for path in &config.pki.adopted_cas {
        let found = read_certificates(&read(path)?)
            .with_context(|| format!("pki.adopted_cas: {} holds no certificate", path.display()))?;
        certificates.extend(found);
    }
    if certificates.is_empty() {
        return Ok(None);
    }
    TrustAnchors::new(certificates).map(Some).context(
        "pki.adopted_cas: a certificate is no authority, or has a key that is not accepted",
    )
}

/// Settings that flows read.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn settings(config: &Config, policy: &Policy) -> anyhow::Result<Settings> {
    let base = &config.base_url;
    let adopted = &config.enrollment.adopted;
    let usual = Uuids::of(base);
    let named = |theirs: &Option<String>, usual: String| theirs.clone().unwrap_or(usual);
    let tls_root = match &config.public.tls_root {
        None => None,
        Some(path) => {
            let roots = read_certificates(&read(path)?)
                .with_context(|| format!("{} holds no certificate", path.display()))?;
            roots.first().map(|root| root.as_der().to_vec())
        }
    };
    Ok(Settings {
        server_id: base.clone(),
        profile: Constants {
            identifier: config.payload_identifier(),
            payloads: PayloadIdentifiers {
                identity: adopted.identity_identifier.clone(),
                mdm: adopted.mdm_identifier.clone(),
            },
            organization: config.enrollment.organization.clone(),
            uuids: Uuids {
                profile: named(&adopted.profile_uuid, usual.profile),
                identity: named(&adopted.identity_uuid, usual.identity),
                attested_identity: usual.attested_identity,
                mdm: named(&adopted.mdm_uuid, usual.mdm),
                tls_root: usual.tls_root,
            },
            server_url: format!("{base}/mdm/connect"),
            check_in_url: format!("{base}/mdm/checkin"),
            scep_url: format!("{base}/scep"),
            tls_root,
        },
        identity: config.enrollment.identity,
        identity_lifetime: config.enrollment.identity_lifetime.0,
        attestation_hold: config.attestation.hold.0,
        kept: config.retention.answers.0,
        patience: config.verification.patience.0,
        rules: Arc::new(rules(config, policy)),
        adopted_cas: adopted_cas(config)?,
        release_key: release_key(config)?,
        clients: clients(config)?,
        issuer: issuer::issuer(config)?,
        apples_apns: config.apns.root.is_none(),
        approval: config.push_certificates.approval(),
        relay: relaying(config)?,
    })
}

/// Who is known on the internal listener by a certificate.
fn clients(config: &Config) -> anyhow::Result<Clients> {
    let mut clients = Clients::default();
    for client in &config.internal.clients {
        let role = Role::from_word(&client.role).with_context(|| {
            let words: Vec<_> = Role::ALL.iter().map(|role| role.as_str()).collect();
            let (name, words) = (&client.name, words.join(", "));
            format!("internal.clients: {name:?}: a role is one of {words}")
        })?;
        match (&client.spiffe_id, client.key()) {
            (Some(id), _) => clients.add_spiffe_id(&client.name, role, id),
            (None, Some(key)) => clients.add_key(&client.name, role, key),
            (None, None) => {
                anyhow::bail!("internal.clients: {:?} is known by nothing", client.name)
            }
        }
    }
    Ok(clients)
}

/// By what the agendas of Macs are kept.
pub fn rules(config: &Config, policy: &Policy) -> Rules {
    let verification = &config.verification;
    let pushes_per_hour = verification.pushes_per_hour.get();
    Rules::new(policy, pushes_per_hour, verification.patience.0)
}

/// Agendas that were kept by other rules are looked at once.
async fn keep_agendas(store: &Store, rules: &Rules, policy_id: &str) -> anyhow::Result<()> {
    store.keep_agendas_by(rules.clone());
    let now_by = format!("{policy_id}, {} an hour", rules.pushes_per_hour);
    let mut tx = store.write().await?;
    if tx.fact(AGENDAS_BY).await?.as_deref() != Some(now_by.as_str()) {
        tx.set_fact(AGENDAS_BY, &now_by).await?;
        tx.plan_anew().await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The key of whoever registers releases without a token.
///
/// # Errors
/// A file that cannot be read, or holds a key that must not be used.
pub fn release_key(config: &Config) -> anyhow::Result<Option<BearerKey>> {
    let Some(path) = &config.releases.key_file else {
        return Ok(None);
    };
    let key = BearerKey::read(path).context("releases.key_file")?;
    Ok(Some(key))
}

/// The coordinator that was written for MicroMDM.
///
/// # Errors
/// A file that cannot be read, or holds a key that must not be used; a webhook that is none.
pub fn relaying(config: &Config) -> anyhow::Result<Option<Relaying>> {
    let Some(micromdm) = &config.micromdm else {
        return Ok(None);
    };
    let token = match &micromdm.webhook_token_file {
        None => None,
        Some(path) => {
            // Presented, and so kept as it is; but one that is weak is none.
            BearerKey::read(path).context("micromdm.webhook_token_file")?;
            let text = String::from_utf8(read(path)?).context("micromdm.webhook_token_file")?;
            Some(Secret::new(text.trim().to_owned()))
        }
    };
    let root = micromdm.webhook_root.as_deref().map(read).transpose()?;
    if let Some(root) = &root {
        check_root(root).context("micromdm.webhook_root")?;
    }
    let webhook = Target::parse(&micromdm.webhook, micromdm.allow_private);
    Ok(Some(Relaying {
        key: BearerKey::read(&micromdm.key_file).context("micromdm.key_file")?,
        webhook: webhook.context("micromdm.webhook")?,
        reach: Reach {
            allow_private: micromdm.allow_private,
            root,
        },
        token,
        answered: Notify::new(),
    }))
}

/// The policy that judges.
///
/// # Errors
/// A file that cannot be read, or is no policy.
pub fn policy(config: &Config) -> anyhow::Result<Policy> {
    let policy = Policy::parse(&policy_text(config)?);
    match &config.policy.file {
        None => Ok(policy?),
        Some(path) => policy.with_context(|| format!("the policy {}", path.display())),
    }
}

/// The text of the policy that judges.
///
/// # Errors
/// A file that cannot be read.
fn policy_text(config: &Config) -> anyhow::Result<String> {
    let settings = &config.policy;
    match (&settings.file, settings.name.as_deref()) {
        (Some(path), _) => std::fs::read_to_string(path)
            .with_context(|| format!("the policy {} cannot be read", path.display())),
        (None, Some(name)) => shipped(name)
            .map(str::to_owned)
            .with_context(|| format!("no policy called {name} ships with this server")),
        (None, None) => Ok(STRICT.to_owned()),
    }
}

/// What attestation chains must lead to.
///
/// # Errors
/// A file that cannot be read, or holds no authority.
pub fn anchors(config: &Config) -> anyhow::Result<Anchors> {
    match &config.attestation.root {
        None => Ok(Anchors::apple()?),
        Some(path) => {
            tracing::warn!("attestations are judged by another root than Apple's");
            Anchors::custom(&read(path)?)
                .with_context(|| format!("{} is no root certificate", path.display()))
        }
    }
}

/// Whether APNs can be reached, as it is configured.
///
/// # Errors
/// An address that is none; a root that cannot be read.
pub async fn reach_apns(config: &Config) -> anyhow::Result<Result<(), Unreached>> {
    Ok(reach(&apns_settings(config)?).await)
}

fn apns_settings(config: &Config) -> anyhow::Result<ApnsSettings> {
    let extra_roots = match &config.apns.root {
        None => None,
        Some(path) => Some(read(path)?),
    };
    let endpoint = Endpoint::parse(&config.apns.url)?;
    Ok(ApnsSettings {
        endpoint,
        extra_roots,
        ..ApnsSettings::default()
    })
}

fn proxies(config: &Config) -> anyhow::Result<Proxies> {
    let public = &config.public;
    let header = public.client_certificate_header.as_deref();
    Ok(Proxies {
        networks: public.trusted_proxies.clone(),
        behind_proxy: public.behind_proxy,
        certificate_header: header
            .map(str::parse)
            .transpose()
            .context("public.client_certificate_header is no name of a header")?,
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
