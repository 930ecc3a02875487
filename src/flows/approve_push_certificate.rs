//! A push certificate is to be taken into use, or back: at once, or once another person confirms it.

use super::rotate_push_certificate::{
    self as rotate, NotRolledBack, NotTaken, Readiness, ready, way_back,
};
use crate::audit::{Entry, Verb, Who, Words};
use crate::entropy::Entropy;
use crate::ids::{PushCertificateId, PushProposalId, Topic};
use crate::push::approval::{Approval, Change, Proposal, Unconfirmed};
use crate::store::{PushCertificate, Store, StoreError, Write};
use crate::time::Timestamp;

/// Who orders it, when, and whether that is enough.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub store: &'a Store,
    pub entropy: &'a dyn Entropy,
    pub approval: Approval,
    pub who: &'a Who,
    pub now: Timestamp,
}

/// What came of it.
#[derive(Debug)]
pub enum Ordered {
    /// The certificate that is in use now.
    Done(Box<PushCertificate>),
    /// Another person is to confirm it.
    Proposed(Box<Proposal>),
}

/// Why a proposal is not confirmed, or not withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum NotConfirmed {
    #[error("there is no open proposal {0}; see `attestd push-cert list`")]
    Unknown(PushProposalId),
    #[error("whoever proposes it cannot confirm it: that is for another person")]
    SamePerson,
    #[error("it could be confirmed until {0}; propose it again")]
    TooLate(Timestamp),
    #[error("another certificate would come into use now than was proposed; propose it again")]
    Changed,
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    #[error(transparent)]
    NotRolledBack(#[from] NotRolledBack),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Has all Macs of its topic pushed with this certificate. `untried_because`: why no Mac had to try it first.
pub async fn activate(
    order: Order<'_>,
    id: &PushCertificateId,
    untried_because: Option<&str>,
) -> Result<Ordered, NotTaken> {
    let Approval::TwoPersons { .. } = order.approval else {
        let taken = rotate::activate(order.store, id, untried_because, order.who, order.now);
        return Ok(Ordered::Done(Box::new(taken.await?)));
    };
    let tx = order.store.write().await?;
    let Readiness { one, .. } = ready(&tx, id, untried_because.is_some(), order.now).await?;
    let because = untried_because.map(str::to_owned);
    Ok(propose(tx, order, (Change::Activate, id, &one.topic), because).await?)
}

/// Has the certificate back that was in use before. `topic` may be left out where there is one.
pub async fn roll_back(order: Order<'_>, topic: Option<&Topic>) -> Result<Ordered, NotRolledBack> {
    let Approval::TwoPersons { .. } = order.approval else {
        let back = rotate::roll_back(order.store, topic, order.who, order.now);
        return Ok(Ordered::Done(Box::new(back.await?)));
    };
    let tx = order.store.write().await?;
    let way = way_back(&tx, topic, order.now).await?;
    let to = (Change::RollBack, &way.former, &way.topic);
    Ok(propose(tx, order, to, None).await?)
}

async fn propose(
    mut tx: Write,
    order: Order<'_>,
    (change, id, topic): (Change, &PushCertificateId, &Topic),
    untried_because: Option<String>,
) -> Result<Ordered, StoreError> {
    let Order { who, now, .. } = order;
    let within = match order.approval {
        Approval::TwoPersons { within } => within,
        Approval::OnePerson => std::time::Duration::ZERO,
    };
    let proposal = Proposal {
        push_proposal_id: PushProposalId::new(now, order.entropy),
        topic: topic.clone(),
        change,
        push_certificate_id: id.clone(),
        untried_because,
        person: who.person(),
        proposed_by: who.to_string(),
        proposed_at: now,
        good_until: now.plus(within),
    };
    tx.propose(&proposal).await?;
    let entry = Entry::new(who, Verb::PushCertificatePropose, id, now)
        .after("proposal", &proposal.push_proposal_id)
        .after("change", change.as_str())
        .after("topic", topic)
        .after("good_until", proposal.good_until)
        .why(Words(
            proposal.untried_because.as_deref().unwrap_or_default(),
        ));
    tx.record(entry);
    tx.commit().await?;
    Ok(Ordered::Proposed(Box::new(proposal)))
}

/// Does what another person proposed. What was checked then is checked again.
pub async fn confirm(
    store: &Store,
    id: &PushProposalId,
    who: &Who,
    now: Timestamp,
) -> Result<PushCertificate, NotConfirmed> {
    let mut tx = store.write().await?;
    let proposal = tx.push_proposal(id).await?;
    let proposal = proposal.ok_or_else(|| NotConfirmed::Unknown(id.clone()))?;
    proposal
        .may_be_confirmed(&who.person(), now)
        .map_err(|why| match why {
            Unconfirmed::SamePerson => NotConfirmed::SamePerson,
            Unconfirmed::TooLate(until) => NotConfirmed::TooLate(until),
        })?;
    tx.forget_push_proposal(id).await?;
    let certificate = &proposal.push_certificate_id;
    let taken = match proposal.change {
        Change::Activate => {
            let because = proposal.untried_because.as_deref();
            rotate::activate_in(&mut tx, certificate, because, (who, Some(&proposal)), now).await?
        }
        Change::RollBack => {
            let way = way_back(&tx, Some(&proposal.topic), now).await?;
            if way.former != *certificate {
                return Err(NotConfirmed::Changed);
            }
            rotate::roll_back_in(&mut tx, &way, (who, Some(&proposal)), now).await?
        }
    };
    tx.commit().await?;
    Ok(taken)
}

/// Takes a proposal away, whoever made it.
pub async fn withdraw(
    store: &Store,
    id: &PushProposalId,
    who: &Who,
    now: Timestamp,
) -> Result<(), NotConfirmed> {
    let mut tx = store.write().await?;
    let proposal = tx.push_proposal(id).await?;
    let proposal = proposal.ok_or_else(|| NotConfirmed::Unknown(id.clone()))?;
    tx.forget_push_proposal(id).await?;
    let subject = &proposal.push_certificate_id;
    let entry = Entry::new(who, Verb::PushCertificateWithdraw, subject, now)
        .before("proposal", id)
        .before("change", proposal.change.as_str())
        .before("proposed_by", Words(&proposal.proposed_by));
    tx.record(entry);
    tx.commit().await?;
    Ok(())
}
