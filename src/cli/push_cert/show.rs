//! Push certificates as people and programs read them.

use anyhow::Context as _;
use comfy_table::Table;
use serde_json::{Value, json};

use super::super::store::with_desk;
use super::super::{Configured, output};
use crate::ids::PushCertificateId;
use crate::pki::pem::request_to_pem;
use crate::push::canary::{Canary, Progress};
use crate::push::{PushCertificate as Read, Standing};
use crate::store::{PushCertificate, PushRequest};
use crate::time::Timestamp;

pub(super) fn list(configured: &Configured, json: bool) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let tx = desk.store.read().await?;
        let certificates = tx.push_certificates().await?;
        let requests = tx.push_requests().await?;
        if json {
            let list: Vec<_> = certificates
                .iter()
                .map(|certificate| describe(certificate, desk.now))
                .collect();
            let requests: Vec<_> = requests.iter().map(requested).collect();
            let object = json!({ "push_certificates": list, "requests": requests });
            output::line(object.to_string());
            return Ok(());
        }
        for request in &requests {
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
        if certificates.is_empty() {
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
        for certificate in &certificates {
            table.add_row([
                certificate.push_certificate_id.to_string(),
                certificate.standing.as_str().to_owned(),
                certificate.topic.to_string(),
                certificate.not_after.to_string(),
                days_left(certificate, desk.now).to_string(),
                certificate.apple_account.clone().unwrap_or_default(),
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
        let tx = desk.store.read().await?;
        let found = tx.push_certificate(id).await?;
        let certificate =
            found.with_context(|| format!("there is no push certificate {id}; see `list`"))?;
        let canaries = tx.canaries(id).await?;
        let macs = tx.enrolled_under(&certificate.topic).await?;
        let read = Read::read(certificate.chain.as_bytes())?;
        let mut object = describe(&certificate, desk.now);
        if let Some(members) = object.as_object_mut() {
            members.insert("issuer".to_owned(), read.issuer().into());
            members.insert("common_name".to_owned(), read.common_name().into());
            members.insert("macs".to_owned(), macs.into());
            let canaries: Vec<_> = canaries.iter().map(described).collect();
            members.insert("canaries".to_owned(), canaries.into());
        }
        if json {
            output::line(object.to_string());
            return Ok(());
        }
        let or_not =
            |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let mut table = Table::new();
        table.add_rows([
            ["id", &certificate.push_certificate_id.to_string()],
            ["state", certificate.standing.as_str()],
            ["topic", certificate.topic.as_str()],
            ["Macs enrolled under it", &macs.to_string()],
            ["issued by", &read.issuer()],
            ["SHA-256", &certificate.sha256.to_string()],
            ["valid from", &certificate.not_before.to_string()],
            ["valid until", &certificate.not_after.to_string()],
            ["days left", &days_left(&certificate, desk.now).to_string()],
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
        if !canaries.is_empty() {
            let mut table = Table::new();
            table.set_header(["Mac that tries it", "how far", "since"]);
            for canary in &canaries {
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

/// Whole days until it ends; none after that.
pub(super) fn days_left(certificate: &PushCertificate, now: Timestamp) -> u64 {
    certificate.not_after.since(now).as_secs() / 86_400
}

pub(super) fn describe(certificate: &PushCertificate, now: Timestamp) -> Value {
    json!({
        "push_certificate_id": certificate.push_certificate_id,
        "topic": certificate.topic,
        "state": certificate.standing.as_str(),
        "active": certificate.standing == Standing::Active,
        "sha256": certificate.sha256,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "days_left": days_left(certificate, now),
        "apple_account": certificate.apple_account,
        "installed_at": certificate.installed_at,
        "activated_at": certificate.activated_at,
        "retired_at": certificate.retired_at,
        "untried_because": certificate.untried_because,
    })
}

fn requested(request: &PushRequest) -> Value {
    json!({
        "push_request_id": request.push_request_id,
        "apple_account": request.apple_account,
        "requested_at": request.requested_at,
        "csr": request_to_pem(&request.csr),
    })
}

pub(super) fn described(canary: &Canary) -> Value {
    json!({
        "device_id": canary.device_id,
        "state": canary.progress().as_str(),
        "outcome": canary.refused.as_ref().or(canary.trouble.as_ref()),
        "asked_at": canary.asked_at,
        "sent_at": canary.sent_at,
        "came_at": canary.came_at,
    })
}

/// How far it is with a Mac, in words.
pub(super) fn how_far(canary: &Canary) -> String {
    match canary.progress() {
        Progress::Waiting => match &canary.trouble {
            None => "not pushed yet".to_owned(),
            Some(why) => format!("not pushed yet ({why}); is tried again"),
        },
        Progress::Sent => "pushed; APNs took it".to_owned(),
        Progress::Came(_) => "came".to_owned(),
        Progress::Refused(why) => format!("could not be pushed: {why}"),
    }
}
