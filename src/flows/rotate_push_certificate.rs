//! The yearly push certificate: installed by an operator, taken into use without a restart, and back
//! again if need be.

use super::{Context, Failure};
use crate::audit::{Entry, Verb, Who, Words};
use crate::entropy::Entropy;
use crate::ids::{DeviceId, PushCertificateId, Topic};
use crate::keys::KeyPair;
use crate::pki::{Signer as _, pem};
use crate::push::approval::Proposal;
use crate::push::certificate::{AcceptedPushCertificate, PushCertificate, PushCertificateRefusal};
use crate::push::key::read_private_key;
use crate::push::rotation::{
    self, Held, Misplaced, NoWayBack, NotReady, Standing, may_be_activated, place,
};
use crate::secret::Secret;
use crate::store::{self, Read, Store, StoreError, Write};
use crate::time::Timestamp;

/// Where the private key is.
#[derive(Debug)]
pub enum OfferedKey<'a> {
    /// In a file: PEM, not encrypted.
    Pem(&'a [u8]),
    /// PKCS #8, DER.
    Pkcs8(Secret<Vec<u8>>),
    /// Here: it was made for a request.
    Requested,
}

/// What an operator has from Apple's portal.
#[derive(Debug)]
pub struct Offer<'a> {
    /// PEM or DER, with or without those that lead upwards.
    pub certificate: &'a [u8],
    pub key: OfferedKey<'a>,
    /// Under which Apple Account it is renewed.
    pub apple_account: Option<String>,
    /// It is meant to begin a fleet of its own.
    pub new_fleet: bool,
    /// APNs is Apple's own, so the certificate must be, too.
    pub apples: bool,
}

/// Why a certificate is not installed.
#[derive(Debug, thiserror::Error)]
pub enum NotInstalled {
    #[error(transparent)]
    Refused(#[from] PushCertificateRefusal),
    #[error(
        "its private key is not here: no request of `attestd push-cert request` was for it. Give the \
         key it was requested with (--key)"
    )]
    NotRequestedHere,
    #[error("the private key is not usable: RSA of at least 2048 bits is needed")]
    Key,
    #[error(
        "the certificate is for topic {candidate}, but Macs are enrolled here under {}. A topic can \
         never change: {macs} Macs would have to enrol again by hand. Renew the certificate in Apple's \
         portal on the row it was made in, under the same Apple Account{}. If it is meant for other, \
         new Macs, say --new-fleet",
        listed(.fleets),
        renewed_by(.apple_account)
    )]
    OtherTopic {
        fleets: Vec<Topic>,
        candidate: Topic,
        macs: u64,
        apple_account: Option<String>,
    },
    #[error("--new-fleet is for a topic that is new here, and {0} is not: install it without")]
    NotNew(Topic),
    #[error(
        "the certificate in use is valid for as long or longer, until {0}; nothing was changed"
    )]
    NoLonger(Timestamp),
    #[error("this very certificate is here already as {0}: it is {words}", words = in_words(*.1))]
    Known(PushCertificateId, Standing),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a certificate is not taken into use, or not tried.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error("there is no push certificate {0}; see `attestd push-cert list`")]
    Unknown(PushCertificateId),
    #[error("it is in use already")]
    Active,
    #[error("another took its place; `attestd push-cert rollback` brings the last one back")]
    Retired,
    #[error("the certificate in use is valid for as long or longer, until {0}")]
    NoLonger(Timestamp),
    #[error(
        "no Mac has tried it: run `attestd push-cert canary` first, or say why not with \
         --without-canary REASON"
    )]
    NotTried,
    #[error(
        "not all of the Macs that try it have come: {}. Try others (`attestd push-cert canary`), or \
         say why not to wait with --without-canary REASON",
        listed(.0)
    )]
    NotCome(Vec<DeviceId>),
    #[error(transparent)]
    Refused(#[from] PushCertificateRefusal),
    #[error("its private key cannot be used any more")]
    Key,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the former certificate does not come back.
#[derive(Debug, thiserror::Error)]
pub enum NotRolledBack {
    #[error("no push certificate is in use")]
    Nothing,
    #[error("several topics are in use; name one with --topic: {}", listed(.0))]
    WhichTopic(Vec<Topic>),
    #[error("no push certificate is in use for topic {0}")]
    NothingActive(Topic),
    #[error("the certificate in use was the first of its topic")]
    NoFormer,
    #[error("the former certificate expired at {0}; the present one stays in use")]
    Expired(Timestamp),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks and keeps a push certificate. The first of its topic is in use within seconds; one that
/// renews another is staged.
pub async fn install(
    store: &Store,
    entropy: &dyn Entropy,
    offer: Offer<'_>,
    who: &Who,
    now: Timestamp,
) -> Result<store::PushCertificate, NotInstalled> {
    let candidate = PushCertificate::read(offer.certificate)?;
    if offer.apples {
        candidate.demand_apple()?;
    }
    let mut tx = store.write().await?;
    let request = tx.push_request_for(candidate.spki()).await?;
    let key = match (offer.key, &request) {
        (OfferedKey::Pem(pem), _) => read_private_key(pem)?,
        (OfferedKey::Pkcs8(key), _) => key,
        (OfferedKey::Requested, Some(request)) => request.private_key.clone(),
        (OfferedKey::Requested, None) => return Err(NotInstalled::NotRequestedHere),
    };
    let pair = KeyPair::read(key.clone()).map_err(|_| NotInstalled::Key)?;
    let accepted = candidate.accept(pair.public_key_spki(), now)?;
    let certificate = accepted.certificate();
    let known = tx.push_certificates().await?;
    let held: Vec<_> = known.iter().map(store::PushCertificate::held).collect();
    let standing = match place(certificate, &held, offer.new_fleet) {
        Ok(standing) => standing,
        Err(misplaced) => {
            return Err(not_installed(&tx, misplaced, certificate.topic(), &known).await?);
        }
    };
    let former = known
        .iter()
        .find(|one| one.topic == *certificate.topic() && one.apple_account.is_some());
    let chain: String = certificate
        .chain()
        .iter()
        .map(|link| pem::to_pem(&link.certificate()))
        .collect();
    let installed = store::PushCertificate {
        push_certificate_id: PushCertificateId::new(now, entropy),
        topic: certificate.topic().clone(),
        standing,
        chain,
        private_key: key,
        sha256: certificate.hash(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        installed_at: now,
        // A renewal is under the same account, or it would have another topic.
        apple_account: offer
            .apple_account
            .or_else(|| request.as_ref()?.apple_account.clone())
            .or_else(|| former.and_then(|one| one.apple_account.clone())),
        activated_at: (standing == Standing::Active).then_some(now),
        retired_at: None,
        untried_because: None,
        expiry_told: None,
        generation: 0,
    };
    tx.install_push_certificate(&installed).await?;
    if let Some(request) = request {
        tx.forget_push_request(&request.push_request_id).await?;
    }
    let kept = Entry::new(
        who,
        Verb::PushCertificateInstall,
        &installed.push_certificate_id,
        now,
    )
    .after("topic", &installed.topic)
    .after("sha256", installed.sha256)
    .after("not_after", installed.not_after)
    .after("standing", standing.as_str())
    .after(
        "apple_account",
        installed.apple_account.as_deref().map(Words),
    );
    tx.record(kept);
    tx.commit().await?;
    Ok(installed)
}

async fn not_installed(
    tx: &Read,
    misplaced: Misplaced,
    candidate: &Topic,
    known: &[store::PushCertificate],
) -> Result<NotInstalled, StoreError> {
    Ok(match misplaced {
        Misplaced::Known(id, standing) => NotInstalled::Known(id, standing),
        Misplaced::NoLonger(until) => NotInstalled::NoLonger(until),
        Misplaced::NotNew => NotInstalled::NotNew(candidate.clone()),
        Misplaced::OtherTopic(fleets) => {
            let mut macs = 0;
            for topic in &fleets {
                macs += tx.enrolled_under(topic).await?;
            }
            let account = known.iter().find_map(|one| one.apple_account.clone());
            NotInstalled::OtherTopic {
                apple_account: account.filter(|_| fleets.len() == 1),
                fleets,
                candidate: candidate.clone(),
                macs,
            }
        }
    })
}

/// A certificate that may be taken into use.
pub(super) struct Readiness {
    pub(super) one: store::PushCertificate,
    held: Vec<Held>,
}

/// Whether a certificate may be taken into use now, tried or not.
pub(super) async fn ready(
    tx: &Read,
    id: &PushCertificateId,
    untried: bool,
    now: Timestamp,
) -> Result<Readiness, NotTaken> {
    let one = found(tx, id).await?;
    let held = all_held(tx).await?;
    let canaries = tx.canaries(id).await?;
    may_be_activated(&one.held(), &held, &canaries, untried)?;
    accept(&one, now)?;
    Ok(Readiness { one, held })
}

/// Has all Macs of its topic pushed with this certificate, on every node within seconds.
/// `untried_because`: why no Mac had to try it first.
pub async fn activate(
    store: &Store,
    id: &PushCertificateId,
    untried_because: Option<&str>,
    who: &Who,
    now: Timestamp,
) -> Result<store::PushCertificate, NotTaken> {
    let mut tx = store.write().await?;
    let taken = activate_in(&mut tx, id, untried_because, (who, None), now).await?;
    tx.commit().await?;
    Ok(taken)
}

/// As [`activate`], with whatever else is saved in the same moment; of what another proposed, `proposal` is that.
pub(super) async fn activate_in(
    tx: &mut Write,
    id: &PushCertificateId,
    untried_because: Option<&str>,
    (who, proposal): (&Who, Option<&Proposal>),
    now: Timestamp,
) -> Result<store::PushCertificate, NotTaken> {
    let Readiness { one, held } = ready(tx, id, untried_because.is_some(), now).await?;
    let to = (id, &one.topic);
    tx.take_push_certificate_into_use(to, Standing::Retired, untried_because, now)
        .await?;
    let taken = found(tx, id).await?;
    let former = in_use(&held, &one.topic);
    let entry = Entry::new(who, Verb::PushCertificateActivate, id, now)
        .before("in_use", former)
        .after("in_use", id)
        .after("topic", &one.topic)
        .after("sha256", one.sha256)
        .why(Words(untried_because.unwrap_or_default()));
    tx.record(with_proposal(entry, proposal));
    Ok(taken)
}

/// Whoever proposed it stands beside whoever confirmed it.
fn with_proposal(entry: Entry, proposal: Option<&Proposal>) -> Entry {
    match proposal {
        None => entry,
        Some(proposal) => entry
            .after("proposal", &proposal.push_proposal_id)
            .after("proposed_by", Words(&proposal.proposed_by)),
    }
}

/// What a roll-back changes.
pub(super) struct WayBack {
    pub(super) topic: Topic,
    /// In use afterwards.
    pub(super) former: PushCertificateId,
    newer: PushCertificateId,
}

/// The way back, for this topic or the only one.
pub(super) async fn way_back(
    tx: &Read,
    topic: Option<&Topic>,
    now: Timestamp,
) -> Result<WayBack, NotRolledBack> {
    let held = all_held(tx).await?;
    let mut in_use = held.iter().filter(|one| one.standing == Standing::Active);
    let topic = match (topic, in_use.next(), in_use.next()) {
        (Some(topic), ..) => topic,
        (None, None, _) => return Err(NotRolledBack::Nothing),
        (None, Some(only), None) => &only.topic,
        (None, Some(first), Some(second)) => {
            let rest = in_use.map(|one| one.topic.clone());
            let mut topics = vec![first.topic.clone(), second.topic.clone()];
            topics.extend(rest);
            return Err(NotRolledBack::WhichTopic(topics));
        }
    };
    let way = rotation::way_back(topic, &held, now).map_err(|none| match none {
        NoWayBack::NothingActive => NotRolledBack::NothingActive(topic.clone()),
        NoWayBack::NoFormer => NotRolledBack::NoFormer,
        NoWayBack::Expired(at) => NotRolledBack::Expired(at),
    })?;
    Ok(WayBack {
        topic: topic.clone(),
        former: way.former.push_certificate_id.clone(),
        newer: way.newer.push_certificate_id.clone(),
    })
}

/// Has the certificate back that was in use before, on every node within seconds; the present one is
/// staged, to be tried anew. `topic` may be left out where there is one.
pub async fn roll_back(
    store: &Store,
    topic: Option<&Topic>,
    who: &Who,
    now: Timestamp,
) -> Result<store::PushCertificate, NotRolledBack> {
    let mut tx = store.write().await?;
    let way = way_back(&tx, topic, now).await?;
    let back = roll_back_in(&mut tx, &way, (who, None), now).await?;
    tx.commit().await?;
    Ok(back)
}

/// As [`roll_back`], with whatever else is saved in the same moment.
pub(super) async fn roll_back_in(
    tx: &mut Write,
    way: &WayBack,
    (who, proposal): (&Who, Option<&Proposal>),
    now: Timestamp,
) -> Result<store::PushCertificate, NotRolledBack> {
    let (former, newer, topic) = (&way.former, &way.newer, &way.topic);
    tx.forget_canaries(newer).await?;
    tx.take_push_certificate_into_use((former, topic), Standing::Staged, None, now)
        .await?;
    let back = tx.push_certificate(former).await?;
    let entry = Entry::new(who, Verb::PushCertificateRollback, former, now)
        .before("in_use", newer)
        .after("in_use", former)
        .after("topic", topic);
    tx.record(with_proposal(entry, proposal));
    back.ok_or(NotRolledBack::NoFormer)
}

/// Runs once: takes what came into use since into use here. `generation` is what is in use; returns
/// what is in use afterwards.
pub async fn take_into_use(ctx: &Context, generation: i64) -> Result<i64, Failure> {
    let tx = ctx.store.read().await?;
    let newest = tx.push_certificate_generation().await?;
    if newest == generation {
        return Ok(generation);
    }
    let now = ctx.clock.now();
    let certificates = tx.push_certificates().await?;
    drop(tx);
    for certificate in certificates
        .iter()
        .filter(|c| c.standing == Standing::Active)
    {
        match accept(certificate, now) {
            Ok(accepted) => {
                let number = u64::try_from(certificate.generation).unwrap_or(0);
                match ctx
                    .apns
                    .install(&accepted, &certificate.private_key, number)
                {
                    Ok(_) => tracing::info!(
                        topic = certificate.topic.as_str(),
                        not_after = %certificate.not_after,
                        "push certificate in use"
                    ),
                    Err(error) => tracing::error!(%error, "the push certificate cannot be used"),
                }
            }
            Err(error) => tracing::error!(%error, "the push certificate cannot be used"),
        }
    }
    Ok(newest)
}

/// A stored certificate, if it may be used still.
pub(super) fn accept(
    stored: &store::PushCertificate,
    now: Timestamp,
) -> Result<AcceptedPushCertificate, NotTaken> {
    let pair = KeyPair::read(stored.private_key.clone()).map_err(|_| NotTaken::Key)?;
    Ok(PushCertificate::read(stored.chain.as_bytes())?.accept(pair.public_key_spki(), now)?)
}

pub(super) async fn found(
    tx: &Read,
    id: &PushCertificateId,
) -> Result<store::PushCertificate, NotTaken> {
    let found = tx.push_certificate(id).await?;
    found.ok_or_else(|| NotTaken::Unknown(id.clone()))
}

/// Which certificate Macs of this topic are pushed with.
fn in_use<'a>(held: &'a [Held], topic: &Topic) -> Option<&'a PushCertificateId> {
    let mut of_topic = held.iter().filter(|one| one.topic == *topic);
    let active = of_topic.find(|one| one.standing == Standing::Active)?;
    Some(&active.push_certificate_id)
}

async fn all_held(tx: &Read) -> Result<Vec<Held>, StoreError> {
    let all = tx.push_certificates().await?;
    Ok(all.iter().map(store::PushCertificate::held).collect())
}

impl From<NotReady> for NotTaken {
    fn from(not: NotReady) -> Self {
        match not {
            NotReady::Active => Self::Active,
            NotReady::Retired => Self::Retired,
            NotReady::NoLonger(until) => Self::NoLonger(until),
            NotReady::NotTried => Self::NotTried,
            NotReady::NotCome(missing) => Self::NotCome(missing),
        }
    }
}

fn listed(names: &[impl ToString]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn renewed_by(account: &Option<String>) -> String {
    account
        .as_ref()
        .map_or_else(String::new, |account| format!(" ({account})"))
}

fn in_words(standing: Standing) -> &'static str {
    match standing {
        Standing::Staged => "staged; `attestd push-cert canary` has Macs try it",
        Standing::Canary => "tried by some Macs; `attestd push-cert activate` takes it into use",
        Standing::Active => "in use already",
        Standing::Retired => "retired; `attestd push-cert rollback` brings the last one back",
    }
}
