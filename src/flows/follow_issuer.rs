//! The keys of the OpenID provider are fetched, and fetched again before they are old.
//!
//! Only a worker fetches. Whoever shows a token waits for nobody, but for the first fetch after a start; and
//! however many tokens name a key that is not known, no more is fetched than once within [`PAUSE`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Context, Failure};
use crate::oidc::{
    KeySet, MAX_KEY_SET, MAX_METADATA, UnusableKeySet, UnusableMetadata, address, jwks_uri,
};
use crate::outbound::{Answer, Fault, Outbound, Reach, Target, UnusableRoot, UnusableTarget};

/// How often it is looked whether something is to be fetched.
pub const LOOKED: Duration = Duration::from_secs(1);
/// From one fetch to the next at least, whatever asks for it.
pub const PAUSE: Duration = Duration::from_secs(30);
/// Keys are fetched again after what `Cache-Control` says, within these bounds, and the lesser where it says
/// nothing.
pub const SOONEST: Duration = Duration::from_secs(5 * 60);
pub const LATEST: Duration = Duration::from_secs(24 * 60 * 60);
/// While the provider does not answer, the last keys are used for so long after they ought to have been fetched again.
pub const OUTAGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long each of the two answers may take,
const DEADLINE: Duration = Duration::from_secs(10);
/// and whoever shows a token before the first.
const FIRST: Duration = Duration::from_secs(20);

/// Where keys are fetched.
#[derive(Debug, Clone)]
pub struct Source {
    pub issuer: String,
    /// Where its keys are; else its metadata say so.
    pub jwks_url: Option<String>,
    pub reach: Reach,
}

/// Why keys were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum NotFetched {
    /// The first of it: it may be what the provider says.
    #[error("{0:?} is no address that is asked")]
    Target(String, #[source] UnusableTarget),
    #[error("{0} was asked")]
    Fault(String, #[source] Fault),
    #[error("{0} answers {1}")]
    Status(String, u16),
    #[error(transparent)]
    Metadata(#[from] UnusableMetadata),
    #[error(transparent)]
    Keys(#[from] UnusableKeySet),
    #[error(transparent)]
    Root(#[from] UnusableRoot),
}

impl NotFetched {
    /// The stable word, as it is counted.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Target(..) => "target",
            Self::Fault(_, fault) => fault.as_str(),
            Self::Status(..) => "status",
            Self::Metadata(_) => "metadata",
            Self::Keys(_) => "key_set",
            Self::Root(_) => "root",
        }
    }
}

/// Keys, and how long they are fresh.
#[derive(Debug)]
pub struct Fetched {
    pub keys: KeySet,
    pub fresh_for: Duration,
}

/// The keys of an issuer, as far as they are known. Times are of the steady clock.
#[derive(Debug)]
pub struct Keys {
    source: Source,
    held: ArcSwapOption<Held>,
    course: Mutex<Course>,
    tried: watch::Sender<bool>,
}

#[derive(Debug)]
struct Held {
    keys: Arc<KeySet>,
    due_at: Duration,
}

#[derive(Debug, Default)]
struct Course {
    began: Option<Duration>,
    under_way: bool,
    /// A token named a key that is not known.
    wanted: bool,
}

impl Course {
    fn may_begin(&self, now: Duration) -> bool {
        !self.under_way
            && self
                .began
                .is_none_or(|began| now.saturating_sub(began) >= PAUSE)
    }
}

impl Keys {
    /// None yet.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            held: ArcSwapOption::empty(),
            course: Mutex::default(),
            tried: watch::Sender::new(false),
        }
    }

    /// What tokens are verified by now; `None` where that cannot be known.
    pub(super) async fn known(&self, ctx: &Context) -> Option<Arc<KeySet>> {
        if self.held.load().is_none() && !*self.tried.borrow() {
            let mut tried = self.tried.subscribe();
            // Late is as good as never: it is looked at just below.
            let _ = timeout(FIRST, tried.wait_for(|tried| *tried)).await;
        }
        self.at_hand(ctx.clock.steady())
    }

    /// The same, without waiting.
    pub(super) fn at_hand(&self, now: Duration) -> Option<Arc<KeySet>> {
        let held = self.held.load();
        let held = held.as_ref()?;
        let is_good = now < held.due_at.saturating_add(OUTAGE);
        is_good.then(|| Arc::clone(&held.keys))
    }

    /// A token names a key that is not known. False where the keys are as new as may be.
    pub(super) fn want(&self, now: Duration) -> bool {
        let mut course = self.course();
        course.wanted |= course.may_begin(now);
        course.wanted || course.under_way
    }

    fn begin(&self, now: Duration) -> bool {
        let held = self.held.load();
        let is_due = held.as_ref().is_none_or(|held| now >= held.due_at);
        let mut course = self.course();
        if !(is_due || course.wanted) || !course.may_begin(now) {
            return false;
        }
        *course = Course {
            began: Some(now),
            under_way: true,
            wanted: false,
        };
        true
    }

    /// Keys that are what they were stay the same value: what was verified by them is remembered.
    fn take(&self, fetched: Fetched, now: Duration) {
        let former = self.held.load_full();
        let former = former.filter(|held| *held.keys == fetched.keys);
        let keys = former.map_or_else(|| Arc::new(fetched.keys), |former| Arc::clone(&former.keys));
        let due_at = now.saturating_add(fetched.fresh_for);
        self.held.store(Some(Arc::new(Held { keys, due_at })));
    }

    fn end(&self) {
        self.course().under_way = false;
        self.tried.send_replace(true);
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches what is due.
///
/// # Errors
/// None: a provider that does not answer is told of, and asked again.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let Some(issuer) = &ctx.settings.issuer else {
        return Ok(());
    };
    let keys = &issuer.keys;
    if !keys.begin(ctx.clock.steady()) {
        return Ok(());
    }
    match fetch(&ctx.outbound, &keys.source).await {
        Ok(fetched) => {
            tracing::debug!(keys = fetched.keys.count(), "keys of the issuer are known");
            keys.take(fetched, ctx.clock.steady());
            ctx.metrics.issuer_asked("fetched");
        }
        Err(not) => {
            ctx.metrics.issuer_asked(not.as_str());
            let cause = std::error::Error::source(&not).map(ToString::to_string);
            tracing::warn!(
                why = not.as_str(),
                error = %not,
                detail = cause,
                "the issuer's keys were not fetched"
            );
        }
    }
    keys.end();
    Ok(())
}

/// Fetches the keys of an issuer now.
///
/// # Errors
/// [`NotFetched`].
pub async fn fetch(outbound: &Outbound, source: &Source) -> Result<Fetched, NotFetched> {
    let url = match &source.jwks_url {
        Some(url) => url.clone(),
        None => {
            let metadata = get(outbound, source, &address(&source.issuer), MAX_METADATA).await?;
            jwks_uri(&metadata.body, &source.issuer)?
        }
    };
    let answer = get(outbound, source, &url, MAX_KEY_SET).await?;
    let control = answer.headers.get(header::CACHE_CONTROL);
    let control = control.and_then(|control| control.to_str().ok());
    Ok(Fetched {
        keys: KeySet::parse(&answer.body)?,
        fresh_for: fresh_for(control.unwrap_or_default()),
    })
}

async fn get(
    outbound: &Outbound,
    source: &Source,
    url: &str,
    most: usize,
) -> Result<Answer, NotFetched> {
    // Not plain http, wherever it is: whoever can change the answer can let anybody in.
    let target = Target::parse(url, false);
    let target =
        target.map_err(|cause| NotFetched::Target(url.chars().take(200).collect(), cause))?;
    let origin = target.origin();
    let line = outbound.line(target, &source.reach)?;
    match line.get(most, DEADLINE).await {
        Ok(answer) if answer.status == 200 => Ok(answer),
        Ok(answer) => Err(NotFetched::Status(origin, answer.status)),
        Err(fault) => Err(NotFetched::Fault(origin, fault)),
    }
}

/// RFC 9111 section 5.2.2.1, within bounds.
fn fresh_for(control: &str) -> Duration {
    let directives = control.split(',').filter_map(|one| one.split_once('='));
    let mut ages = directives.filter_map(|(name, value)| {
        let is_age = name.trim().eq_ignore_ascii_case("max-age");
        is_age.then(|| value.trim().trim_matches('"').parse().ok())?
    });
    let age = ages.next().map_or(SOONEST, Duration::from_secs);
    age.clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_freshness_is_taken_within_bounds() {
        let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
        for (control, expected) in [
            ("", SOONEST),
            ("no-store", SOONEST),
            ("max-age=0", SOONEST),
            ("public, max-age=21600, must-revalidate", hours(6)),
            ("Max-Age=\"7200\"", hours(2)),
            ("max-age=31536000", LATEST),
            ("max-age=soon", SOONEST),
            ("s-maxage=7200", SOONEST),
        ] {
            assert_eq!(fresh_for(control), expected, "{control}");
        }
    }

    #[test]
    fn however_many_ask_no_more_is_fetched_than_once_within_the_pause() {
        let keys = Keys::new(Source {
            issuer: "https://id.example.org".to_owned(),
            jwks_url: None,
            reach: Reach::default(),
        });
        let at = Duration::from_secs(1000);
        assert!(keys.begin(at) && !keys.begin(at), "none is known: once");
        assert!(keys.want(at), "what is under way may tell");
        keys.end();
        assert!(!keys.want(at) && !keys.begin(at + PAUSE / 2));
        assert!(keys.begin(at + PAUSE));
        let set = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let fetched = || Fetched {
            keys: KeySet::parse(set).expect("a key"),
            fresh_for: SOONEST,
        };
        keys.take(fetched(), at + PAUSE);
        keys.end();
        let first = keys.held.load_full().expect("keys");
        assert!(!keys.begin(at + PAUSE * 2), "they are fresh");
        assert!(keys.want(at + PAUSE * 2) && keys.want(at + PAUSE * 2));
        assert!(keys.begin(at + PAUSE * 2) && !keys.begin(at + PAUSE * 2));
        keys.take(fetched(), at + PAUSE * 2);
        keys.end();
        let second = keys.held.load_full().expect("keys");
        assert!(Arc::ptr_eq(&first.keys, &second.keys));
        assert!(!keys.want(at + PAUSE * 2), "no more is to be had");
    }
}
