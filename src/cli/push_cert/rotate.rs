//! Push certificates are installed, taken into use, and back.

use std::path::Path;

use anyhow::bail;
use serde_json::json;

use super::super::input::{text_of, whole};
use super::super::store::{Desk, with_desk};
use super::super::{Configured, output};
use crate::flows::approve_push_certificate::{self as approve, Order, Ordered};
use crate::flows::discard_push_certificate;
use crate::flows::read_push_certificates::described;
use crate::flows::rotate_push_certificate::{self as flow, Offer, OfferedKey};
use crate::ids::{PushCertificateId, PushProposalId, PushRequestId, Topic};
use crate::keys::pkcs12::{self, looks_like_pkcs12};
use crate::push::Standing;
use crate::push::approval::Proposal;
use crate::push::view::PushProposalV1;
use crate::secret::Secret;
use crate::store::PushCertificate;

/// A certificate with its chain and its key have some kilobytes.
const MAX_FILE: usize = 256 * 1024;

/// What is installed.
pub(super) struct Files<'a> {
    pub(super) certificate: &'a Path,
    pub(super) key: Option<&'a Path>,
    pub(super) password: Option<&'a Path>,
}

/// The certificate, and where its key is.
struct Brought {
    certificate: Vec<u8>,
    key: Key,
}

enum Key {
    Pem(Vec<u8>),
    Pkcs8(Secret<Vec<u8>>),
    Requested,
}

impl Files<'_> {
    fn read(&self) -> anyhow::Result<Brought> {
        let file = whole(self.certificate, MAX_FILE)?;
        if looks_like_pkcs12(&file) {
            let Some(password) = self.password else {
                bail!(
                    "a PKCS #12 file needs its password: --password-file FILE (- is standard input)"
                );
            };
            let text = Secret::new(text_of(password)?);
            let line = text.expose().lines().next().unwrap_or_default();
            let contents = pkcs12::open(&file, &Secret::new(line.to_owned()))?;
            return Ok(Brought {
                certificate: contents.certificates,
                key: Key::Pkcs8(contents.private_key),
            });
        }
        let key = match self.key {
            Some(path) => Key::Pem(whole(path, MAX_FILE)?),
            None if has_private_key(&file) => Key::Pem(file.clone()),
            None => Key::Requested,
        };
        Ok(Brought {
            certificate: file,
            key,
        })
    }
}

fn has_private_key(file: &[u8]) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY-----";
    file.windows(MARK.len()).any(|window| window == MARK)
}

pub(super) fn install(
    configured: &Configured,
    files: Files<'_>,
    (apple_account, new_fleet): (Option<String>, bool),
    json: bool,
) -> anyhow::Result<()> {
    let brought = files.read()?;
    with_desk(configured, async |desk| {
        let offer = Offer {
            certificate: &brought.certificate,
            key: match &brought.key {
                Key::Pem(pem) => OfferedKey::Pem(pem),
                Key::Pkcs8(key) => OfferedKey::Pkcs8(key.clone()),
                Key::Requested => OfferedKey::Requested,
            },
            apple_account,
            new_fleet,
            apples: desk.apples_apns,
        };
        let installed = flow::install(
            &desk.store,
            desk.entropy.as_ref(),
            offer,
            &desk.who,
            desk.now,
        )
        .await?;
        let standing = installed.standing;
        let installed = described(installed, desk.now);
        let lines = [
            format!(
                "{} is installed for topic {}",
                installed.push_certificate_id, installed.topic
            ),
            format!(
                "valid until {} ({} days); renew it in time, under the same Apple Account",
                installed.not_after, installed.days_left
            ),
            match standing {
                Standing::Active => "it is the first of its topic, and in use at once".to_owned(),
                _ => format!(
                    "it is staged, the one in use stays in use. Next: attestd push-cert canary {} \
                     --device SERIAL, then activate",
                    installed.push_certificate_id
                ),
            },
        ];
        output::result(json, &serde_json::to_value(&installed)?, &lines);
        Ok(())
    })
}

pub(super) fn activate(
    configured: &Configured,
    id: &PushCertificateId,
    untried_because: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        match approve::activate(order(desk), id, untried_because).await? {
            Ordered::Done(taken) => is_in_use(desk, *taken, json),
            Ordered::Proposed(proposal) => is_proposed(*proposal, json),
        }
    })
}

pub(super) fn roll_back(
    configured: &Configured,
    topic: Option<&Topic>,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        match approve::roll_back(order(desk), topic).await? {
            Ordered::Done(back) => is_in_use(desk, *back, json),
            Ordered::Proposed(proposal) => is_proposed(*proposal, json),
        }
    })
}

pub(super) fn confirm(
    configured: &Configured,
    id: &PushProposalId,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let taken = approve::confirm(&desk.store, id, &desk.who, desk.now).await?;
        is_in_use(desk, taken, json)
    })
}

pub(super) fn withdraw(
    configured: &Configured,
    id: &PushProposalId,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        approve::withdraw(&desk.store, id, &desk.who, desk.now).await?;
        let lines = [format!("{id} cannot be confirmed any more")];
        output::result(json, &json!({ "withdrawn": id }), &lines);
        Ok(())
    })
}

fn order(desk: &Desk) -> Order<'_> {
    Order {
        store: &desk.store,
        entropy: desk.entropy.as_ref(),
        approval: desk.approval,
        who: &desk.who,
        now: desk.now,
    }
}

fn is_in_use(desk: &Desk, taken: PushCertificate, json: bool) -> anyhow::Result<()> {
    let taken = described(taken, desk.now);
    let lines = [
        format!(
            "{} is in use for topic {} until {}",
            taken.push_certificate_id, taken.topic, taken.not_after
        ),
        "running servers follow within seconds; attestd push-cert rollback brings the former one back"
            .to_owned(),
    ];
    output::result(json, &serde_json::to_value(&taken)?, &lines);
    Ok(())
}

fn is_proposed(proposal: Proposal, json: bool) -> anyhow::Result<()> {
    let proposal = PushProposalV1::from(proposal);
    let id = &proposal.push_proposal_id;
    let lines = [
        format!(
            "{id} proposes to have {} in use for topic {}; nothing is changed yet",
            proposal.push_certificate_id, proposal.topic
        ),
        format!(
            "another person confirms it until {}: attestd push-cert confirm {id}",
            proposal.good_until
        ),
    ];
    output::result(json, &serde_json::to_value(&proposal)?, &lines);
    Ok(())
}

/// What may be thrown away.
#[derive(Debug, Clone)]
pub(super) enum Unwanted {
    Certificate(PushCertificateId),
    Request(PushRequestId),
}

pub(super) fn discard(
    configured: &Configured,
    unwanted: &Unwanted,
    why: &str,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let (store, who, now) = (&desk.store, &desk.who, desk.now);
        let id = match unwanted {
            Unwanted::Certificate(id) => {
                discard_push_certificate::discard(store, id, why, who, now).await?;
                id.to_string()
            }
            Unwanted::Request(id) => {
                discard_push_certificate::discard_request(store, id, why, who, now).await?;
                id.to_string()
            }
        };
        let lines = [format!("{id} is gone, and its key with it")];
        output::result(json, &json!({ "discarded": id }), &lines);
        Ok(())
    })
}
