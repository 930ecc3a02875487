//! Push certificates as people and programs read them.

use anyhow::Context as _;
use comfy_table::Table;

use super::super::store::with_desk;
use super::super::{Configured, output};
use crate::flows::read_push_certificates as flow;
use crate::ids::PushCertificateId;
use crate::push::view::CanaryV1;
use crate::time::Timestamp;

pub(super) fn list(configured: &Configured, json: bool) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let listed = flow::list(&desk.store, desk.now).await?;
        if json {
            output::line(serde_json::to_string(&listed)?);
            return Ok(());
        }
        for request in &listed.requests {
            output::line(format!(
                "{} was requested {} and has not come{}",
                request.push_request_id,
                request.requested_at,
                request
                    .apple_account
                    .as_ref()
                    .map_or_else(String::new, |account| format!(" (Apple Account {account})"))
            ));
        }
        for proposal in &listed.proposals {
            output::line(format!(
                "{}: {} proposes to {} {}; another person confirms it until {}",
                proposal.push_proposal_id,
                proposal.proposed_by,
                if proposal.change == "activate" {
                    "activate"
                } else {
                    "roll back to"
                },
                proposal.push_certificate_id,
                proposal.good_until
            ));
        }
        if listed.push_certificates.is_empty() {
            output::line("no push certificate is installed: no Mac can enrol or be woken");
            return Ok(());
        }
        let mut table = Table::new();
        table.set_header([
            "id",
            "state",
            "topic",
            "until",
            "days left",
            "Apple Account",
        ]);
        for certificate in listed.push_certificates {
            table.add_row([
                certificate.push_certificate_id.to_string(),
                certificate.state.to_owned(),
                certificate.topic.to_string(),
                certificate.not_after.to_string(),
                certificate.days_left.to_string(),
                certificate.apple_account.unwrap_or_default(),
            ]);
        }
        output::line(table.to_string());
        Ok(())
    })
}

pub(super) fn show(
    configured: &Configured,
    id: &PushCertificateId,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let found = flow::one(&desk.store, id, desk.now).await?;
        let details =
            found.with_context(|| format!("there is no push certificate {id}; see `list`"))?;
        if json {
            output::line(serde_json::to_string(&details)?);
            return Ok(());
        }
        let certificate = &details.certificate;
        let or_not =
            |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let mut table = Table::new();
        table.add_rows([
            ["id", certificate.push_certificate_id.as_str()],
            ["state", certificate.state],
            ["topic", certificate.topic.as_str()],
            ["Macs enrolled under it", &details.macs.to_string()],
            ["issued by", &details.issuer],
            ["SHA-256", &certificate.sha256.to_string()],
            ["valid from", &certificate.not_before.to_string()],
            ["valid until", &certificate.not_after.to_string()],
            ["days left", &certificate.days_left.to_string()],
            [
                "Apple Account",
                certificate.apple_account.as_deref().unwrap_or("-"),
            ],
            ["installed", &certificate.installed_at.to_string()],
            ["in use since", &or_not(certificate.activated_at)],
            ["replaced", &or_not(certificate.retired_at)],
            [
                "not tried because",
                certificate.untried_because.as_deref().unwrap_or("-"),
            ],
        ]);
        output::line(table.to_string());
        if !details.canaries.is_empty() {
            let mut table = Table::new();
            table.set_header(["Mac that tries it", "how far", "since"]);
            for canary in &details.canaries {
                let since = canary.came_at.or(canary.sent_at).unwrap_or(canary.asked_at);
                table.add_row([
                    canary.device_id.to_string(),
                    how_far(canary),
                    since.to_string(),
                ]);
            }
            output::line(table.to_string());
        }
        Ok(())
    })
}

/// How far it is with a Mac, in words.
pub(super) fn how_far(canary: &CanaryV1) -> String {
    match (canary.state, &canary.outcome) {
        ("came", _) => "came".to_owned(),
        ("sent", _) => "pushed; APNs took it".to_owned(),
        ("refused", why) => format!("could not be pushed: {}", why.as_deref().unwrap_or("?")),
        (_, Some(why)) => format!("not pushed yet ({why}); is tried again"),
        (_, None) => "not pushed yet".to_owned(),
    }
}
