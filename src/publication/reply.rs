//! A saved reply, from its bytes down to the root: who signed it, what the feed says of that key, and what
//! the evidence proves. `docs/verify.md` is the contract.

use serde::Serialize;

use super::bundle::trust::Trust;
use super::bundle::{self, By, Fault, Finding, Standing, key_of};
use super::feed::reader::{Entry, Feed};
use super::trust_headers::{TrustHeaders, VerifiedReply};
use crate::provider::SePublicKey;
use crate::reason::Reason;
use crate::time::Timestamp;

/// A finding, and in what it was found.
#[derive(Debug, Clone, Serialize)]
pub struct Placed {
    #[serde(rename = "in")]
    pub place: Place,
    #[serde(flatten)]
    pub finding: Finding,
}

/// Where a claim is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Reply,
    Feed,
    Evidence,
}

/// What the headers and the body of a reply say by themselves.
#[derive(Debug)]
pub struct Saved<'a> {
    pub headers: &'a TrustHeaders,
    pub body: &'a [u8],
}

impl Saved<'_> {
    /// Whose reply it is, and what whoever sent it on says of that.
    pub fn examine(&self) -> Vec<Placed> {
        let signed = self.headers.verify(self.body);
        let signed = signed.map_err(|refusal| Fault::new(refusal.reason(), refusal));
        let signed = signed.map(|VerifiedReply { .. }| Standing::Proved { by: By::SeKey });
        let mut findings = vec![place(Place::Reply, "signed", signed)];
        if self.headers.attested {
            let said = Standing::Asserted {
                by: By::Coordinator,
            };
            findings.push(place(Place::Reply, "attested", Ok(said)));
        }
        findings
    }

    /// The provider of the feed whose key signed the reply.
    ///
    /// # Refusals
    /// Nobody's key, nobody there, or another provider than the headers name.
    pub fn provider<'f>(&self, feed: &'f Feed) -> Result<&'f Entry, Fault> {
        let key = self.headers.key.as_ref();
        let key = key.ok_or_else(|| Fault::new(Reason::FieldMissing, "the headers name no key"))?;
        let mut entries = feed.providers.iter();
        let found = entries.find(|entry| {
            let listed = SePublicKey::parse(&entry.se_public_key);
            listed.is_ok_and(|listed| listed.point() == key.point())
        });
        let entry = found.ok_or_else(|| {
            Fault::new(
                Reason::ProviderNotBound,
                "no provider of the feed has this key",
            )
        })?;
        match &self.headers.provider_id {
            Some(named) if *named != entry.provider_id => Err(Fault::new(
                Reason::KeyMismatch,
                "the headers name another provider",
            )),
            _ => Ok(entry),
        }
    }
}

/// What the feed says of the provider.
pub fn examine_entry(entry: &Entry, trust: &Trust, at: Timestamp) -> Vec<Placed> {
    let findings = entry.examine(trust, at).into_iter();
    findings
        .map(|finding| Placed {
            place: Place::Feed,
            finding,
        })
        .collect()
}

/// That a reply's provider is not in the feed.
pub fn not_listed(fault: Fault) -> Placed {
    place(Place::Feed, "listed", Err(fault))
}

/// What the evidence bundle proves, and that it is about the key that signed.
pub fn examine_evidence(
    bytes: &[u8],
    saved: &Saved<'_>,
    trust: &Trust,
    at: Timestamp,
) -> Vec<Placed> {
    let same = match (key_of(bytes), &saved.headers.key) {
        (Some(named), Some(key)) if named.point() == key.point() => {
            Ok(Standing::Proved { by: By::Arithmetic })
        }
        _ => Err(Fault::new(
            Reason::KeyMismatch,
            "the evidence is about another key",
        )),
    };
    let mut findings = vec![place(Place::Evidence, "same_key", same)];
    findings.extend(
        bundle::examine(bytes, trust, at)
            .into_iter()
            .map(|finding| Placed {
                place: Place::Evidence,
                finding,
            }),
    );
    findings
}

/// That the reply itself cannot be read.
pub fn failed(claim: &'static str, reason: Reason, detail: &dyn ToString) -> Placed {
    place(
        Place::Reply,
        claim,
        Err(Fault::new(reason, detail.to_string())),
    )
}

impl Place {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Feed => "feed",
            Self::Evidence => "evidence",
        }
    }
}

fn place(place: Place, claim: &'static str, standing: Result<Standing, Fault>) -> Placed {
    Placed {
        place,
        finding: Finding {
            claim,
            standing: standing.unwrap_or_else(Standing::from),
        },
    }
}
