//! Who shows an access token of the OpenID provider.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::Context;
use super::authorize::{Act, Role};
use super::follow_issuer::{Keys, Source};
use crate::audit::Who;
use crate::ids::SecretHash;
use crate::oidc::{AccessToken, Expected, KeySet, MAX_TOKEN, Refused};
use crate::time::Timestamp;

/// Tokens that are remembered, so that a request with a known one costs no signature.
const REMEMBERED: usize = 4096;

/// The provider whose tokens let somebody in.
#[derive(Debug)]
pub struct Issuer {
    pub keys: Keys,
    expected: Expected,
    /// What a value of the role claim means here.
    roles: BTreeMap<String, Role>,
    known: Mutex<HashMap<SecretHash, Known>>,
}

#[derive(Debug)]
struct Known {
    vouched: Arc<Vouched>,
    by: Arc<KeySet>,
}

/// Somebody whom the provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    pub issuer: String,
    pub subject: String,
    pub name: Option<String>,
    /// All of them count.
    pub roles: Vec<Role>,
    expires_at: Timestamp,
}

/// What is to be said of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    Vouched(Arc<Vouched>),
    Refused(Refused),
    /// The keys it would be judged by are not known, or not yet.
    Undecided,
}

impl Vouched {
    /// Whether one of the roles allows it.
    pub fn allows(&self, act: Act) -> bool {
        self.roles.iter().any(|role| role.allows(act))
    }

    /// Who it is, for the audit log.
    pub fn who(&self) -> Who {
        Who::Oidc {
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            name: self.name.clone(),
        }
    }
}

impl Issuer {
    /// Nothing is fetched yet.
    pub fn new(expected: Expected, roles: BTreeMap<String, Role>, source: Source) -> Self {
        Self {
            keys: Keys::new(source),
            expected,
            roles,
            known: Mutex::default(),
        }
    }

    fn remembered(&self, hash: &SecretHash, by: &Arc<KeySet>) -> Option<Arc<Vouched>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(hash)?;
        // The provider may have withdrawn the key meanwhile.
        Arc::ptr_eq(&known.by, by).then(|| Arc::clone(&known.vouched))
    }

    fn remember(&self, hash: SecretHash, by: Arc<KeySet>, vouched: Arc<Vouched>, now: Timestamp) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, known| known.vouched.expires_at > now && Arc::ptr_eq(&known.by, &by));
            if known.len() >= REMEMBERED {
                known.clear();
            }
        }
        known.insert(hash, Known { vouched, by });
    }
}

/// Whom a token is about.
pub(super) async fn identify(ctx: &Context, issuer: &Issuer, text: &str) -> Judged {
    let judged = judge(ctx, issuer, text).await;
    if let Judged::Refused(refused) = &judged {
        ctx.metrics.bearer_refused(*refused);
        tracing::info!(
            why = refused.as_str(),
            detail = %refused,
            "an access token was refused"
        );
    }
    judged
}

async fn judge(ctx: &Context, issuer: &Issuer, text: &str) -> Judged {
    if text.len() > MAX_TOKEN {
        return Judged::Refused(Refused::TooLong);
    }
    let now = ctx.clock.now();
    let hash = SecretHash::of(text.as_bytes());
    let at_hand = issuer.keys.at_hand(ctx.clock.steady());
    if let Some(vouched) = at_hand.and_then(|keys| issuer.remembered(&hash, &keys)) {
        return match now < vouched.expires_at {
            true => Judged::Vouched(vouched),
            false => Judged::Refused(Refused::Expired),
        };
    }
    let token = match AccessToken::parse(text) {
        Ok(token) => token,
        Err(refused) => return Judged::Refused(refused),
    };
    let Some(keys) = issuer.keys.known(ctx).await else {
        return Judged::Undecided;
    };
    let bearer = match token.verify(&keys, &issuer.expected, now) {
        Ok(bearer) => bearer,
        Err(Refused::UnknownKey) if issuer.keys.want(ctx.clock.steady()) => {
            return Judged::Undecided;
        }
        Err(refused) => return Judged::Refused(refused),
    };
    let roles = bearer.roles.iter();
    let vouched = Arc::new(Vouched {
        roles: roles
            .filter_map(|value| issuer.roles.get(value).copied())
            .collect(),
        issuer: bearer.issuer,
        subject: bearer.subject,
        name: bearer.name,
        expires_at: bearer.expires_at,
    });
    issuer.remember(hash, keys, Arc::clone(&vouched), now);
    Judged::Vouched(vouched)
}
