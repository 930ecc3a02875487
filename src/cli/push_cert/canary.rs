//! Some Macs try a certificate, and the operator watches them come.

use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::super::store::{Desk, with_desk};
use super::super::{Configured, output};
use super::show::how_far;
use crate::flows::try_push_certificate::{begin, chosen};
use crate::ids::PushCertificateId;
use crate::push::canary::{Canary, Progress};
use crate::push::view::CanaryV1;

/// How often it is looked how far the server is.
const LOOK: Duration = Duration::from_millis(500);
/// A running server has begun after this.
const BEGUN: Duration = Duration::from_secs(15);

pub(super) fn run(
    configured: &Configured,
    id: &PushCertificateId,
    devices: &[String],
    wait: Duration,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let chosen = chosen(&desk.store, devices).await?;
        let begun = begin(&desk.store, id, &chosen, &desk.who, desk.now).await?;
        let canaries = watch(desk, id, begun, wait, json).await?;
        let came = canaries
            .iter()
            .filter(|canary| matches!(canary.progress(), Progress::Came(_)))
            .count();
        if json {
            let canaries: Vec<_> = canaries.iter().map(CanaryV1::from).collect();
            let object = json!({ "push_certificate_id": id, "came": came, "canaries": canaries });
            output::line(object.to_string());
        }
        if came < canaries.len() {
            bail!(
                "{came} of {} Macs came. What is still to come is noted all the same (push-cert show \
                 {id}); a Mac that sleeps comes when it wakes",
                canaries.len()
            );
        }
        if !json {
            output::line(format!("all came; next: attestd push-cert activate {id}"));
        }
        Ok(())
    })
}

/// Tells of every change until nothing more can come of it, or the time is over.
async fn watch(
    desk: &Desk,
    id: &PushCertificateId,
    begun: Vec<Canary>,
    wait: Duration,
    json: bool,
) -> anyhow::Result<Vec<Canary>> {
    let (start, mut known, mut hinted) = (Instant::now(), begun, false);
    loop {
        let now = desk.store.read().await?.canaries(id).await?;
        for canary in &now {
            if !json && !known.contains(canary) {
                output::line(format!(
                    "{}: {}",
                    canary.device_id,
                    how_far(&CanaryV1::from(canary))
                ));
            }
        }
        known = now;
        if known.iter().all(Canary::is_over) || start.elapsed() >= wait {
            return Ok(known);
        }
        let untouched = known.iter().all(|canary| {
            matches!(canary.progress(), Progress::Waiting) && canary.trouble.is_none()
        });
        if untouched && start.elapsed() >= BEGUN && !hinted {
            hinted = true;
            if !json {
                output::line("no server has begun yet: does `attestd serve` run on this database?");
            }
        }
        sleep(LOOK).await;
    }
}
