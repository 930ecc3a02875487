//! What the feed is made of, kept from one look to the next.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use super::document::{Document, Provider};
use super::{Context, Failure};
use crate::flows::publish_evidence::{apple_chain, minted_for};
use crate::flows::read_binding::{glance, registered, standing};
use crate::ids::{EvidenceId, SessionId, sha256};
use crate::posture::Occasion;
use crate::provider::SelfReport;
use crate::publication::feed::{Chain, Disclosure, Judged, Listing, ProviderId, Terms};
use crate::publication::packed::Packer;
use crate::store::{Glance, Marks};
use crate::time::Timestamp;

/// Sessions that are read from the database at a time.
const AT_ONCE: usize = 4;
/// Names of sessions that are read at a time.
const PAGE: usize = 1_000;
/// What would be judged the same so much later is not judged again until then, unless it changes.
const STEADY: Duration = Duration::from_secs(60);

/// Every session whose key has spoken, and the feed that was made of them last.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: HashMap<SessionId, Entry>,
    /// To be looked at, and not looked at yet.
    pending: Marks,
    document: Option<Arc<Document>>,
}

#[derive(Debug)]
struct Entry {
    provider_id: ProviderId,
    glance: Glance,
    report: SelfReport,
    /// What it was registered with, as JSON members; and Apple's chain.
    signed: Bytes,
    chain: Option<(Chain, Bytes)>,
    judged: Option<Steady>,
    provider: Option<Provider>,
}

/// A judgement, and until when it stays what it is.
#[derive(Debug, Clone)]
struct Steady {
    judged: Judged,
    from: Timestamp,
    until: Timestamp,
}

impl Memory {
    /// Reads what changed since it was called last.
    pub(super) async fn look(
        &mut self,
        ctx: &Context,
        now: Timestamp,
        disclosure: Disclosure,
    ) -> Result<(), Failure> {
        // Before anything is read: what changes meanwhile is looked at again.
        self.note(ctx.store.board().take_marks());
        if self.pending.all {
            let live = live_sessions(ctx).await?;
            self.entries
                .retain(|session_id, _| live.contains(session_id));
            self.pending = Marks {
                sessions: live,
                ..Marks::default()
            };
        }
        for (session_id, entry) in &self.entries {
            let chain = Chain::wanted(&standing(&entry.glance), &ctx.policy, now);
            let known = entry.chain.as_ref().map(|(chain, _)| chain.evidence_id);
            let device_id = entry.glance.session.device_id.as_ref();
            if self.pending.releases
                || device_id.is_some_and(|device_id| self.pending.macs.contains(device_id))
                || known != chain.map(|(evidence_id, _)| evidence_id)
            {
                self.pending.sessions.insert(session_id.clone());
            }
        }
        self.pending.releases = false;
        self.pending.macs.clear();
        let changed: Vec<_> = self.pending.sessions.iter().cloned().collect();
        let mut read = stream::iter(changed)
            .map(|session_id| {
                let known = self.entries.remove(&session_id);
                async move {
                    let entry = load(ctx, &session_id, known, now, disclosure).await;
                    (session_id, entry)
                }
            })
            .buffer_unordered(AT_ONCE);
        let mut loaded = Vec::new();
        let mut failed = None;
        while let Some((session_id, entry)) = read.next().await {
            match entry {
                Ok(entry) => loaded.push((session_id, entry)),
                Err(failure) => failed = Some(failure),
            }
        }
        drop(read);
        for (session_id, entry) in loaded {
            self.pending.sessions.remove(&session_id);
            if let Some(entry) = entry {
                self.entries.insert(session_id, entry);
            }
        }
        match failed {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    fn note(&mut self, marks: Marks) {
        let Marks {
            all,
            sessions,
            macs,
            releases,
        } = marks;
        self.pending.all |= all;
        self.pending.releases |= releases;
        self.pending.sessions.extend(sessions);
        self.pending.macs.extend(macs);
    }

    /// The feed that holds from `now` to `until`, and how many entries were written for it.
    pub(super) fn document(
        &mut self,
        terms: &Terms<'_>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(Arc<Document>, u64), Failure> {
        let mut written = 0;
        let mut packer = Packer::default();
        let mut shown: BTreeMap<&ProviderId, &Entry> = BTreeMap::new();
        for entry in self.entries.values_mut() {
            written += u64::from(entry.write(terms, now, until, &mut packer)?);
        }
        for entry in self.entries.values() {
            match shown.entry(&entry.provider_id) {
                Place::Vacant(place) => drop(place.insert(entry)),
                Place::Occupied(mut place) if place.get().rank() < entry.rank() => {
                    place.insert(entry);
                }
                Place::Occupied(_) => {}
            }
        }
        let providers = shown.into_iter().filter_map(|(provider_id, entry)| {
            Some((provider_id.clone(), entry.provider.clone()?))
        });
        let document = Document::new(
            providers.collect(),
            terms,
            self.document.as_ref(),
            &mut packer,
        )?;
        self.document = Some(Arc::clone(&document));
        Ok((document, written))
    }
}

impl Entry {
    /// Of several sessions of one key, the one that stands furthest is shown.
    fn rank(&self) -> impl Ord {
        let judged = self.judged.as_ref().map(|steady| &steady.judged);
        let session = &self.glance.session;
        (
            judged.map(|judged| (judged.level, judged.routable)),
            session.began_at,
            session.binding_id.clone(),
        )
    }

    /// Judges and writes it, as far as that is not known; whether it reads differently now.
    fn write(
        &mut self,
        terms: &Terms<'_>,
        now: Timestamp,
        until: Timestamp,
        packer: &mut Packer,
    ) -> Result<bool, Failure> {
        let is_steady = |known: &&Steady| known.from <= now && until <= known.until;
        let former = self.judged.as_ref();
        let is_written = self.provider.is_some();
        if is_written && former.filter(is_steady).is_some() {
            return Ok(false);
        }
        let steady = self.judge(terms, now, until);
        let is_same = former.is_some_and(|former| former.judged == steady.judged);
        let mut reads_differently = false;
        if !(is_written && is_same) {
            reads_differently = self.compose(&steady.judged, terms, packer)?;
        }
        self.judged = Some(steady);
        Ok(reads_differently)
    }

    fn judge(&self, terms: &Terms<'_>, now: Timestamp, until: Timestamp) -> Steady {
        let at = |time| Judged::at(standing(&self.glance), &self.report, terms.policy, time);
        // Every rule about time is one-way: what is the same at both ends is the same between.
        let (judged, later) = (at(now), until.plus(STEADY));
        if judged == at(later) {
            return Steady {
                judged,
                from: now,
                until: later,
            };
        }
        Steady {
            judged: judged.and(at(until)),
            from: now,
            until,
        }
    }

    /// False if it reads as it did.
    fn compose(
        &mut self,
        judged: &Judged,
        terms: &Terms<'_>,
        packer: &mut Packer,
    ) -> Result<bool, Failure> {
        const UNWRITTEN: Failure = Failure::Inconsistent("a provider that cannot be written");
        let listing = Listing {
            provider_id: &self.provider_id,
            standing: standing(&self.glance),
            report: &self.report,
            chain: self.chain.as_ref().map(|(chain, _)| chain),
        };
        let mut text = listing.head(judged, terms).map_err(|_| UNWRITTEN)?;
        let chain = self.chain.as_mut().filter(|_| judged.mda_verified);
        let chain_at = text.len();
        if let Some((_, members)) = &chain {
            text.extend_from_slice(members);
        }
        let signed_at = text.len();
        text.extend_from_slice(&self.signed);
        let end = text.len();
        text.push(b'}');
        // What reads the same need not be compressed again.
        let digest = sha256(&text);
        let known = self.provider.as_ref();
        if known.is_some_and(|known| known.digest == digest) {
            return Ok(false);
        }
        let piece = packer.pack(text).ok_or(UNWRITTEN)?;
        // Kept once: a part of the text as it is shown.
        let plain = piece.plain();
        if let Some((_, members)) = chain {
            *members = plain.slice(chain_at..signed_at);
        }
        self.signed = plain.slice(signed_at..end);
        self.provider = Some(Provider {
            session_id: self.glance.session.session_id.clone(),
            piece,
            digest,
        });
        Ok(true)
    }
}

async fn live_sessions(ctx: &Context) -> Result<HashSet<SessionId>, Failure> {
    let mut live = HashSet::new();
    let mut last = None;
    loop {
        let tx = ctx.store.read().await?;
        let page = tx.live_session_ids(last.as_ref(), PAGE).await?;
        let Some(end) = page.last() else {
            return Ok(live);
        };
        last = Some(end.clone());
        live.extend(page);
    }
}

/// A session as it is now; `None` if it is not shown. What is `known` of it and still true is not read
/// again.
async fn load(
    ctx: &Context,
    session_id: &SessionId,
    known: Option<Entry>,
    now: Timestamp,
    disclosure: Disclosure,
) -> Result<Option<Entry>, Failure> {
    // What is found in memory is found at once: let others in.
    tokio::task::yield_now().await;
    let Some(glance) = glance(ctx, session_id).await? else {
        return Ok(None);
    };
    // Of a key that has not spoken itself there is nothing to show.
    if !glance.session.is_live() || !glance.session.has_spoken() {
        return Ok(None);
    }
    let wanted = Chain::wanted(&standing(&glance), &ctx.policy, now);
    let registered_as = glance.session.registered_as();
    let known = known.filter(|known| known.glance.session.registered_as() == registered_as);
    let (mut chain, base) = match known {
        Some(known) => {
            let wanted = wanted.map(|(evidence_id, _)| evidence_id);
            let chain = known
                .chain
                .filter(|(chain, _)| Some(chain.evidence_id) == wanted);
            (chain, Some((known.report, known.signed, known.provider)))
        }
        None => (None, None),
    };
    let base = match base {
        Some(base) => Some(base),
        None => signed(ctx, &glance, disclosure).await?,
    };
    let Some((report, signed, provider)) = base else {
        return Ok(None);
    };
    if let (None, Some((evidence_id, occasion))) = (&chain, wanted) {
        chain = chain_of(ctx, evidence_id, occasion, &glance, disclosure).await?;
    }
    Ok(Some(Entry {
        provider_id: ProviderId::of(&ctx.settings.server_id, &glance.session.key.point()),
        glance,
        report,
        signed,
        chain,
        judged: None,
        provider,
    }))
}

type Base = (SelfReport, Bytes, Option<Provider>);

async fn signed(
    ctx: &Context,
    glance: &Glance,
    disclosure: Disclosure,
) -> Result<Option<Base>, Failure> {
    let Some(mut signed) = registered(ctx, &glance.session).await? else {
        return Ok(None);
    };
    // The same key; read once, kept once.
    signed.report.se_public_key = glance.session.key.clone();
    let members = signed.members(disclosure);
    let members =
        members.map_err(|_| Failure::Inconsistent("a registration that cannot be written"))?;
    Ok(Some((signed.report, members.into(), None)))
}

/// A chain as it came.
async fn chain_of(
    ctx: &Context,
    evidence_id: EvidenceId,
    occasion: Occasion,
    glance: &Glance,
    disclosure: Disclosure,
) -> Result<Option<(Chain, Bytes)>, Failure> {
    let tx = ctx.store.read().await?;
    let (evidence, minted) = match occasion {
        Occasion::Acme => {
            let key = tx.attested_key_of(evidence_id).await?;
            (key.map(|key| key.evidence()), None)
        }
        Occasion::Mda => match tx.evidence(evidence_id).await? {
            None => (None, None),
            Some(kept) => {
                let chain = apple_chain(&kept.stored);
                let minted = match &chain {
                    Some(chain) => minted_for(&tx, &kept.device_id, chain).await?,
                    None => None,
                };
                (chain, minted)
            }
        },
    };
    drop(tx);
    let (key, minted) = (glance.session.key.text(), minted.as_ref());
    let chain = evidence.and_then(|it| Chain::read(evidence_id, occasion, &it, key, minted));
    let Some(chain) = chain else {
        return Ok(None);
    };
    let members = chain.members(disclosure);
    let members = members.map_err(|_| Failure::Inconsistent("a chain that cannot be written"))?;
    Ok(Some((chain.without_certificates(), members.into())))
}
