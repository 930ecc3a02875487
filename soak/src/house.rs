//! The server, in process: its flows on a clock that is moved by hand, with the real store, the real
//! push client and real keys. It can be stopped without a word and started again.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use attestd::acme::NonceKey;
use attestd::apns::{Apns, ApnsSettings, Endpoint};
use attestd::attestation::Anchors;
use attestd::audit::Who;
use attestd::ca::ProvedSigner;
use attestd::ca::{CertificateKind, CertificateProfile, Issuer, prepare};
use attestd::enrollment::Protocol;
use attestd::enrollment::profile::{Constants, PayloadIdentifiers, Uuids};
use attestd::entropy::{Entropy, SeededEntropy, draw};
use attestd::flows::answers::Answers;
use attestd::flows::authorities::{Authorities, Held, Registration as Scep};
use attestd::flows::authorize::Clients;
use attestd::flows::follow_events::Outlet;
use attestd::flows::limits::Limits;
use attestd::flows::publish_evidence::Bundles;
use attestd::flows::service_secret::service_secret;
use attestd::flows::sign_result::{SUBJECT_SECRET, Signing};
use attestd::flows::wake::Wakeups;
use attestd::flows::watch_standstill::Watched;
use attestd::flows::{Context, Settings, refuse, release, rotate_push_certificate, watch_clock};
use attestd::keys::{KeyKind, KeyPair, MasterKey, MasterSeal};
use attestd::outbound::Outbound;
use attestd::pki::{
    KnownIntermediates, OwnedCertificate, PublicKey, Signer, TrustAnchors, read_certificates,
};
use attestd::posture::policy::Policy;
use attestd::provider::release::Registration;
use attestd::publication::feed::Disclosure;
use attestd::push::approval::Approval;
use attestd::store::Store;
use attestd::telemetry::Metrics;
use attestd::time::{Clock, ManualClock, Timestamp};
use attestd::verification::agenda::Rules;
use attestd_sim::World;
use openssl::nid::Nid;
use rusqlite::{Connection, OpenFlags};

use crate::plan::Plan;
use crate::time::{DAY, HOUR, Ms, START};

/// Its canonical base URL. Nothing is ever sent there.
pub const BASE_URL: &str = "https://soak.test";
/// Macs that wait to be woken at most, and how many are within any second: the server's defaults.
const QUEUE: usize = 4096;
const PUSHES_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).expect("not zero");
/// The program that is released: its hash.
pub const PROGRAM: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
const YEAR: Ms = 365 * DAY;

/// What outlives a restart.
#[derive(Debug)]
pub struct Estate {
    database: String,
    seed: u64,
    policy: Arc<Policy>,
    pushes_an_hour: u32,
    master: MasterKey,
    device_ca: Kept,
    registration: Kept,
    profile_signer: Kept,
    attestation_root: Vec<u8>,
    former_device_ca: Vec<u8>,
    apns_url: String,
    apns_root: Vec<u8>,
    push_certificate: (Vec<u8>, Vec<u8>),
    pub clock: Arc<ManualClock>,
}

/// A key of the server's and its certificates.
#[derive(Debug)]
struct Kept {
    pair: Arc<KeyPair>,
    chain: Vec<OwnedCertificate>,
}

impl Kept {
    fn held(&self) -> anyhow::Result<Held> {
        let signer = ProvedSigner::prove(Arc::clone(&self.pair) as Arc<dyn Signer>)?;
        Held::new(signer, self.chain.clone()).context("a key without its certificate")
    }
}

impl Estate {
    fn authorities(&self) -> anyhow::Result<Authorities> {
        let registration = Scep {
            held: self.registration.held()?,
            decryptor: Arc::new(self.registration.pair.decryptor()?),
        };
        let (device_ca, signer) = (self.device_ca.held()?, self.profile_signer.held()?);
        Authorities::new(vec![device_ca], vec![registration], vec![signer])
            .context("a key of the server is missing")
    }
}

/// The running server.
#[derive(Debug)]
pub struct House {
    pub ctx: Arc<Context>,
    pub refusals: refuse::Waiting,
    /// How often it was started before.
    pub times: u64,
    due: Due,
}

/// Knows when the next sweep finds somebody, by a look past the server: asking it would cost more than
/// most sweeps.
#[derive(Debug)]
enum Due {
    /// The embedded database.
    Read(Connection),
    /// Nobody looks: each sweep is run.
    Unknown(Arc<ManualClock>),
}

impl House {
    /// When something is due; `None` while nothing ever will be.
    pub fn due_at(&self) -> anyhow::Result<Option<Ms>> {
        match &self.due {
            Due::Unknown(clock) => Ok(Some(clock.now().millis())),
            Due::Read(connection) => {
                // Lane by lane, so that each is one step along the index; and who holds a serial number
                // may be left to settle, which the sweep does at once.
                let mut statement = connection.prepare_cached(
                    "SELECT MIN(at) FROM (SELECT MIN(due_at) AS at FROM agendas \
                     WHERE due_at IS NOT NULL AND priority = 0 UNION ALL \
                     SELECT MIN(due_at) FROM agendas WHERE due_at IS NOT NULL AND priority = 1 \
                     UNION ALL SELECT MIN(due_at) FROM agendas \
                     WHERE due_at IS NOT NULL AND priority = 2 UNION ALL \
                     SELECT MIN(proved_at) FROM enrollments \
                     WHERE proved_at IS NOT NULL AND held_since IS NULL)",
                )?;
                Ok(statement.query_row([], |row| row.get(0))?)
            }
        }
    }
}

impl Estate {
    /// Keys, certificates and an address for a database that is there and empty.
    pub fn new(world: &World, plan: &Plan) -> anyhow::Result<Self> {
        let seed = plan.seed;
        let now = Timestamp::from_millis(START);
        let entropy = SeededEntropy::new(seed);
        let master = hex::encode(draw::<32>(&entropy));
        let device_ca = authority(&entropy, now)?;
        let registration = issued(
            &device_ca,
            KeyKind::Rsa2048,
            CertificateKind::RegistrationAuthority,
            &entropy,
            now,
        )?;
        let profile_signer = issued(
            &device_ca,
            KeyKind::P256,
            CertificateKind::ProfileSigner,
            &entropy,
            now,
        )?;
        Ok(Self {
            database: plan.database.clone(),
            seed,
            policy: Arc::new(Policy::parse(&plan.policy)?),
            pushes_an_hour: plan.pushes_an_hour,
            master: MasterKey::parse(master.as_bytes())?,
            device_ca,
            registration,
            profile_signer,
            attestation_root: world.apple().root_pem()?,
            former_device_ca: world.former_device_ca().certificate_pem()?,
            apns_url: world.apns().url(),
            apns_root: world.apns().root_pem().to_vec(),
            push_certificate: push_certificate(world)?,
            clock: Arc::new(ManualClock::at(now)),
        })
    }

    /// Starts the server; `times` counts how often that was done before.
    pub async fn start(&self, times: u64) -> anyhow::Result<House> {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        // Another stream after each start: no name is made twice.
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(
            self.seed.wrapping_mul(1_000_003).wrapping_add(times + 1),
        ));
        let seal = Arc::new(MasterSeal::new(&self.master, Arc::clone(&entropy)));
        let store = Store::open_exclusive(&self.database, seal.clone())
            .await
            .context("the database cannot be opened")?;
        store.migrate().await?;
        let settings = ApnsSettings {
            endpoint: Endpoint::parse(&self.apns_url)?,
            extra_roots: Some(self.apns_root.clone()),
            ..ApnsSettings::default()
        };
        let policy = Arc::clone(&self.policy);
        let former = TrustAnchors::new(read_certificates(&self.former_device_ca)?)?;
        let server_settings = settings_of(&policy, self.pushes_an_hour, former);
        store.keep_agendas_by(Rules::clone(&server_settings.rules));
        let (refusals, waiting_refusals) = refuse::queue();
        let clock_watch = watch_clock::begin(&store, clock.as_ref()).await?;
        let subject_secret =
            service_secret(&store, seal.as_ref(), entropy.as_ref(), SUBJECT_SECRET).await?;
        let ctx = Arc::new(Context {
            answers: Answers::default(),
            limits: Limits::default(),
            signing: Signing::default(),
            subject_secret,
            outlet: Outlet::default(),
            log: None,
            bundles: Bundles::new(Disclosure::Redacted),
            outbound: Outbound::new()?,
            signals: None,
            store,
            apns: Apns::new(settings, Arc::clone(&clock), Arc::clone(&entropy))?,
            authorities: self.authorities()?,
            policy,
            anchors: Anchors::custom(&self.attestation_root)?,
            intermediates: KnownIntermediates::default(),
            acme_nonces: NonceKey::new(&draw(entropy.as_ref())),
            settings: server_settings,
            metrics: Metrics::new(),
            wakeups: Wakeups::new(QUEUE, PUSHES_PER_SECOND, Arc::clone(&clock)),
            watched: Watched::new(clock.now()),
            traces: None,
            clock,
            clock_watch,
            entropy,
            sealer: seal,
            refusals,
        });
        if times == 0 {
            let release = format!(r#"{{"binary_hash":"{PROGRAM}","version":"0.8.16"}}"#);
            let release = Registration::parse(release.as_bytes())?;
            release::register(&ctx.store, &release, &Who::Service, ctx.clock.now()).await??;
            let (certificate, key) = &self.push_certificate;
            rotate_push_certificate::install(
                &ctx.store,
                ctx.entropy.as_ref(),
                rotate_push_certificate::Offer {
                    certificate,
                    key: rotate_push_certificate::OfferedKey::Pem(key),
                    apple_account: None,
                    new_fleet: false,
                    apples: false,
                },
                &Who::Service,
                ctx.clock.now(),
            )
            .await?;
        }
        rotate_push_certificate::take_into_use(&ctx, 0).await?;
        let due = match self.database.strip_prefix("sqlite://") {
            Some(file) => Due::Read(Connection::open_with_flags(
                file,
                OpenFlags::SQLITE_OPEN_READ_ONLY,
            )?),
            None => Due::Unknown(Arc::clone(&self.clock)),
        };
        Ok(House {
            due,
            ctx,
            refusals: waiting_refusals,
            times,
        })
    }
}

/// The server's defaults where they matter here.
fn settings_of(policy: &Policy, pushes_an_hour: u32, former_device_ca: TrustAnchors) -> Settings {
    let span = |ms: Ms| std::time::Duration::from_millis(ms.unsigned_abs());
    Settings {
        server_id: BASE_URL.to_owned(),
        profile: Constants {
            identifier: "test.soak.attestation".to_owned(),
            payloads: PayloadIdentifiers::default(),
            organization: "Soak".to_owned(),
            uuids: Uuids::of(BASE_URL),
            server_url: format!("{BASE_URL}/mdm/connect"),
            check_in_url: format!("{BASE_URL}/mdm/checkin"),
            scep_url: format!("{BASE_URL}/scep"),
            tls_root: None,
        },
        identity: Protocol::Acme,
        identity_lifetime: span(5 * YEAR),
        attestation_hold: span(24 * HOUR),
        // As short as it may be: what is removed must change no verdict.
        kept: span(30 * DAY),
        patience: span(HOUR),
        rules: Arc::new(Rules::new(policy, pushes_an_hour, span(HOUR))),
        adopted_cas: Some(former_device_ca),
        release_key: None,
        clients: Clients::default(),
        issuer: None,
        apples_apns: false,
        approval: Approval::OnePerson,
        relay: None,
    }
}

/// TLS peers look at the real time, the server at the simulated one: a certificate for both.
fn push_certificate(world: &World) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let issuer = attestd_sim::certs::Issuer {
        identity: world.push_authority().identity().clone(),
    };
    let topic = world.topic();
    let subject = [
        (Nid::USERID, topic),
        (Nid::COMMONNAME, "APSP:soak"),
        (Nid::COUNTRYNAME, "US"),
    ];
    let key = attestd_sim::keys::generate(attestd_sim::keys::KeyKind::Rsa2048)?;
    let identity = issuer.client(&subject, key, START - 10 * YEAR, START + 50 * YEAR)?;
    Ok((identity.certificate_pem()?, identity.key_pem()?))
}

fn profile(kind: CertificateKind) -> CertificateProfile {
    let span = |ms: Ms| std::time::Duration::from_millis(ms.unsigned_abs());
    CertificateProfile {
        kind,
        common_name: format!("soak {kind:?}"),
        organization: "Soak".to_owned(),
        validity: span(match kind {
            CertificateKind::DeviceAuthority => 25 * YEAR,
            _ => 10 * YEAR,
        }),
        backdated: span(HOUR),
    }
}

fn authority(entropy: &dyn Entropy, now: Timestamp) -> anyhow::Result<Kept> {
    let pair = KeyPair::generate(KeyKind::P256)?;
    let key = PublicKey::parse(pair.public_key_spki())?;
    let profile = profile(CertificateKind::DeviceAuthority);
    let prepared = prepare(
        &profile,
        &key,
        Issuer::Itself,
        pair.algorithm(),
        now,
        draw(entropy),
    )?;
    let certificate = prepared.sign(&pair)?;
    Ok(Kept {
        pair: Arc::new(pair),
        chain: vec![certificate],
    })
}

fn issued(
    authority: &Kept,
    key_kind: KeyKind,
    kind: CertificateKind,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> anyhow::Result<Kept> {
    let pair = KeyPair::generate(key_kind)?;
    let key = PublicKey::parse(pair.public_key_spki())?;
    let above = authority.chain.first().context("an authority")?;
    let prepared = prepare(
        &profile(kind),
        &key,
        Issuer::Authority(&above.certificate()),
        authority.pair.algorithm(),
        now,
        draw(entropy),
    )?;
    let certificate = prepared.sign(authority.pair.as_ref())?;
    Ok(Kept {
        pair: Arc::new(pair),
        chain: vec![certificate, above.clone()],
    })
}

/// The address of an embedded database in a folder.
pub fn sqlite(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("attestd.db").display())
}
