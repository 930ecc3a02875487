//! Witnesses are shown each new head of the transparency log, and what they sign is published with it.
//!
//! Nothing waits for a witness that does not answer: the log grows without it, and each witness is asked by
//! itself. What one answers counts once it is verified, and kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::watch;

use super::append_to_log::{Head, Log, head};
use super::watch_clock::trouble;
use super::{Context, Failure};
use crate::outbound::{Line, Reach, Target};
use crate::store::{Cosigned, Read, Store};
use crate::time::Timestamp;
use crate::transparency::note::{Kind, UnusableKey, VerifierKey};
use crate::transparency::witness::{ADD_CHECKPOINT, Answer, Asked, Cosignature, Fault};
use crate::transparency::{Proof, tree};

/// A head that nobody watched is published once the last that was watched has been overtaken for so long: a
/// log that is seen by nobody is better than one that stands still.
const LAG: Duration = Duration::from_secs(10);
/// How long whoever wants evidence waits for witnesses, while they answer.
const WAIT: Duration = Duration::from_secs(2);
/// How often a witness may say that it knows another size, in one go: another node may be asking it, too.
const TRIES: usize = 3;
/// The first pause after a fault; each is twice the one before,
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Who watches a log.
#[derive(Debug)]
pub struct Witnesses {
    each: Vec<Witness>,
    /// So many make a head a witnessed one.
    quorum: usize,
    /// The newest witnessed head.
    newest: watch::Sender<Option<Arc<Head>>>,
    shown: Mutex<Shown>,
}

/// What was published last, on this node.
#[derive(Debug, Default)]
struct Shown {
    /// The largest head, so that nobody sees the log shrink.
    size: u64,
    /// Since when the newest witnessed head, of this size, is not the newest.
    overtaken: Option<(u64, Timestamp)>,
    /// When a witness signed last what made a head a witnessed one, by its clock.
    signed_at: Option<Timestamp>,
    /// Witnesses did not answer while somebody waited: nobody waits until they do.
    is_slow: bool,
}

/// A witness, as the settings name it.
#[derive(Debug)]
pub struct Witness {
    vkey: String,
    target: Target,
    reach: Reach,
    course: tokio::sync::Mutex<Course>,
}

/// How asking it goes.
#[derive(Debug, Default)]
struct Course {
    line: Option<Line>,
    failures: u32,
    next_at: Option<Timestamp>,
}

impl Witness {
    /// A witness with this verifier key, whose prefix is this URL.
    ///
    /// # Errors
    /// A key that is none, or not of a witness.
    pub fn new(vkey: String, target: Target, reach: Reach) -> Result<Self, UnusableKey> {
        VerifierKey::read(&vkey, Kind::Witness)?;
        Ok(Self {
            vkey,
            target,
            reach,
            course: tokio::sync::Mutex::default(),
        })
    }

    /// Its name, which is public.
    pub fn name(&self) -> &str {
        self.vkey.split('+').next().unwrap_or_default()
    }
}

impl Witnesses {
    /// These, of whom so many make a head a witnessed one.
    pub fn new(each: Vec<Witness>, quorum: usize) -> Self {
        Self {
            each,
            quorum,
            newest: watch::Sender::new(None),
            shown: Mutex::default(),
        }
    }

    /// Each of them.
    pub fn each(&self) -> &[Witness] {
        &self.each
    }

    /// The newest head that enough of them signed, with what they signed; `None` before there is one.
    pub fn newest(&self) -> Option<Arc<Head>> {
        self.newest.borrow().clone()
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest head among what is kept that enough of them signed.
    fn witnessed(
        &self,
        kept: &[Cosigned],
        log: &Log,
    ) -> Result<Option<(Head, Timestamp)>, Failure> {
        let ours = |it: &&Cosigned| self.each.iter().any(|witness| witness.vkey == it.witness);
        for newest in kept.iter().filter(ours) {
            let alike = kept.iter().filter(ours).filter(|it| it.head == newest.head);
            let alike: Vec<_> = alike.collect();
            if alike.len() >= self.quorum {
                let lines = alike.iter().map(|it| it.line.as_str());
                let note = format!("{}{}", newest.head, lines.collect::<String>());
                let last = alike.iter().map(|it| it.signed_at).max();
                return Ok(Some((log.read(note)?, last.unwrap_or(newest.signed_at))));
            }
        }
        Ok(None)
    }

    /// What was kept is seen by whoever waits for it.
    fn announce(&self, head: Option<(Head, Timestamp)>) {
        let Some((head, signed_at)) = head else {
            return;
        };
        let head = Arc::new(head);
        let is_new = self.newest.send_if_modified(|newest| {
            // One of the same size may have been signed by one more.
            let is_new = newest.as_ref().is_none_or(|newest| {
                head.checkpoint.size >= newest.checkpoint.size && head.note != newest.note
            });
            if is_new {
                *newest = Some(head);
            }
            is_new
        });
        if is_new {
            let mut shown = self.shown();
            shown.is_slow = false;
            shown.signed_at = shown.signed_at.max(Some(signed_at));
        }
    }

    /// The newest witnessed head that has this entry, which is waited for a moment while witnesses answer.
    async fn with_entry(&self, index: u64) -> Option<Arc<Head>> {
        let has = |head: &Option<Arc<Head>>| {
            head.as_ref()
                .is_some_and(|head| head.checkpoint.size > index)
        };
        let mut newest = self.newest.subscribe();
        if self.shown().is_slow {
            return self.newest().filter(|head| head.checkpoint.size > index);
        }
        match tokio::time::timeout(WAIT, newest.wait_for(has)).await {
            Ok(Ok(head)) => head.clone(),
            Ok(Err(_)) => None,
            Err(_) => {
                self.shown().is_slow = true;
                None
            }
        }
    }
}

/// What was signed before this process began is known again.
///
/// # Errors
/// When it cannot be read.
pub async fn begin(store: &Store, log: &Log) -> Result<(), Failure> {
    let kept = store.read().await?.cosignatures().await?;
    log.witnesses.announce(log.witnesses.witnessed(&kept, log)?);
    Ok(())
}

/// The head that is published: the newest that is witnessed, as long as witnesses keep up; `None` while the log
/// is empty.
///
/// # Errors
/// When it cannot be read.
pub async fn published(ctx: &Context, log: &Log) -> Result<Option<Arc<Head>>, Failure> {
    let Some(newest) = head(ctx, log).await? else {
        return Ok(None);
    };
    let Some(witnessed) = log.witnesses.newest() else {
        return Ok(Some(newest));
    };
    let now = ctx.clock.now();
    let size = witnessed.checkpoint.size;
    let mut shown = log.witnesses.shown();
    let head = if size >= newest.checkpoint.size {
        shown.overtaken = None;
        witnessed
    } else {
        let known = shown.overtaken.filter(|(overtaken, _)| *overtaken == size);
        let (_, since) = *shown.overtaken.insert(known.unwrap_or((size, now)));
        // A clock that was set back waits for nothing.
        let keeps_up = since <= now && now.since(since) < LAG;
        if keeps_up && size >= shown.size {
            witnessed
        } else {
            newest
        }
    };
    shown.size = shown.size.max(head.checkpoint.size);
    Ok(Some(head))
}

/// A proof that an entry is in the log under a head that is witnessed; `None` where none is in time.
///
/// # Errors
/// When it cannot be read.
pub async fn prove(ctx: &Context, log: &Log, index: u64) -> Result<Option<String>, Failure> {
    if log.witnesses.each.is_empty() {
        return Ok(None);
    }
    let Some(head) = log.witnesses.with_entry(index).await else {
        return Ok(None);
    };
    prove_under(&ctx.store.read().await?, &head, index)
        .await
        .map(Some)
}

/// A proof that an entry is in the log under this head.
///
/// # Errors
/// When it is not, or cannot be read.
pub(super) async fn prove_under(tx: &Read, head: &Head, index: u64) -> Result<String, Failure> {
    const INCOMPLETE: Failure = Failure::Inconsistent("the log lacks hashes");
    let path = tree::inclusion(index, head.checkpoint.size).ok_or(INCOMPLETE)?;
    let hashes = tx.log_hashes(&tree::wanted(&path)).await?;
    let proof = Proof {
        index,
        hashes: hashes.proof(&path).ok_or(INCOMPLETE)?,
        checkpoint: &head.note,
    };
    Ok(proof.to_string())
}

/// Asks every witness that is due, each by itself.
///
/// # Errors
/// When something cannot be read or kept; it is asked again.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let Some(log) = &ctx.log else { return Ok(()) };
    let all = log.witnesses.each.iter().map(|it| ask(ctx, log, it));
    let answers = futures_util::future::join_all(all).await;
    answers.into_iter().collect()
}

/// Shows a witness the newest head, unless it signed that, or is left alone for a while.
///
/// # Errors
/// When something cannot be read or kept. What the witness did wrong is none: it is asked again later.
pub async fn ask(ctx: &Context, log: &Log, witness: &Witness) -> Result<(), Failure> {
    if trouble(ctx).is_some() {
        // Whether it signed in time cannot be told.
        return Ok(());
    }
    let mut course = witness.course.lock().await;
    let now = ctx.clock.now();
    // A pause that a wrong clock set is none.
    let waits = |at: Timestamp| now < at && at.since(now) <= LONGEST_PAUSE;
    if course.next_at.is_some_and(waits) {
        return Ok(());
    }
    let tx = ctx.store.read().await?;
    let Some(note) = tx.log_head().await? else {
        return Ok(());
    };
    let kept = tx.cosignatures().await?;
    drop(tx);
    // Another node may have asked.
    log.witnesses.announce(log.witnesses.witnessed(&kept, log)?);
    let head = log.read(note)?;
    let last = kept.iter().find(|it| it.witness == witness.vkey);
    let old = last.map_or(0, |last| last.size);
    if old >= head.checkpoint.size {
        return Ok(());
    }
    let outcome = submit(ctx, witness, &mut course.line, &head, old).await?;
    let answered = match outcome {
        Ok(cosignature) => {
            *course = Course {
                line: course.line.take(),
                ..Course::default()
            };
            drop(course);
            keep(ctx, log, witness, &head, cosignature).await?;
            "cosigned"
        }
        Err(word) => {
            let pause = FIRST_PAUSE.saturating_mul(1 << course.failures.min(10));
            course.next_at = Some(now.plus(pause.min(LONGEST_PAUSE)));
            course.failures = course.failures.saturating_add(1);
            course.line = None;
            tracing::warn!(
                witness.name = witness.name(),
                why = word,
                "a witness did not sign the head of the log"
            );
            word
        }
    };
    ctx.metrics.witness_answered(answered);
    Ok(())
}

/// Asks until the witness signs, or says something else than which head it knows.
async fn submit(
    ctx: &Context,
    witness: &Witness,
    line: &mut Option<Line>,
    head: &Head,
    mut old: u64,
) -> Result<Result<Cosignature, &'static str>, Failure> {
    let key = VerifierKey::read(&witness.vkey, Kind::Witness)
        .map_err(|_| Failure::Inconsistent("a witness without a usable key"))?;
    for _ in 0..TRIES {
        let size = head.checkpoint.size;
        // Every log was empty once: nothing is to be proved of that.
        let path = tree::consistency(old, size).unwrap_or_default();
        let tx = ctx.store.read().await?;
        let hashes = tx.log_hashes(&tree::wanted(&path)).await?;
        drop(tx);
        let proof = hashes
            .proof(&path)
            .ok_or(Failure::Inconsistent("the log lacks hashes"))?;
        let asked = Asked {
            head: &head.note,
            size,
            old,
        };
        let line = match line {
            Some(line) => line,
            None => match ctx.outbound.line(witness.target.clone(), &witness.reach) {
                Ok(new) => line.insert(new),
                Err(_) => return Ok(Err("untrusted")),
            },
        };
        let answer = match line
            .post(&headers(), &Bytes::from(asked.body(&proof)))
            .await
        {
            Ok(answer) => answer,
            Err(fault) => return Ok(Err(fault.as_str())),
        };
        let answer = (answer.status, &answer.body[..]);
        match asked.read(answer, &key, ctx.clock.now()) {
            Ok(Answer::Cosigned(cosignature)) => return Ok(Ok(cosignature)),
            Ok(Answer::Knows(known)) => old = known,
            Err(fault) => {
                if matches!(fault, Fault::OtherTree | Fault::KnowsMore) {
                    tracing::error!(
                        witness.name = witness.name(),
                        log.size = size,
                        why = fault.as_str(),
                        "a witness knows this log as another one: was the database restored from a backup?"
                    );
                }
                return Ok(Err(fault.as_str()));
            }
        }
    }
    Ok(Err("moves_on"))
}

async fn keep(
    ctx: &Context,
    log: &Log,
    witness: &Witness,
    head: &Head,
    cosignature: Cosignature,
) -> Result<(), Failure> {
    let mut tx = ctx.store.write().await?;
    tx.keep_cosignature(&Cosigned {
        witness: witness.vkey.clone(),
        size: head.checkpoint.size,
        head: head.note.clone(),
        line: cosignature.line,
        signed_at: Timestamp::from_millis(cosignature.time.saturating_mul(1000)),
    })
    .await?;
    let kept = tx.cosignatures().await?;
    tx.commit().await?;
    log.witnesses.announce(log.witnesses.witnessed(&kept, log)?);
    measure(ctx, log);
    Ok(())
}

/// Tells the metrics how far the log and its witnesses are.
pub fn measure(ctx: &Context, log: &Log) {
    ctx.metrics.log_grew(*log.growth().borrow());
    let (newest, signed_at) = (log.witnesses.newest(), log.witnesses.shown().signed_at);
    if let (Some(newest), Some(at)) = (newest, signed_at) {
        let seconds = at.millis().div_euclid(1000);
        ctx.metrics.log_witnessed(seconds, newest.checkpoint.size);
    }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let agent = HeaderValue::from_static(concat!("attestd/", env!("CARGO_PKG_VERSION")));
    headers.insert(header::USER_AGENT, agent);
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, text);
    headers
}

/// The settings' address of a witness is a prefix.
pub fn address(prefix: &str) -> String {
    format!("{prefix}{ADD_CHECKPOINT}")
}
