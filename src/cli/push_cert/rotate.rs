//! Push certificates are installed, taken into use, and back.

use std::path::Path;

use super::super::input::whole;
use super::super::store::with_desk;
use super::super::{Configured, output};
use super::show::{days_left, describe};
use crate::flows::rotate_push_certificate::{self as flow, Offer};
use crate::ids::{PushCertificateId, Topic};
use crate::push::Standing;

/// A certificate with its chain and its key have some kilobytes.
const MAX_FILE: usize = 256 * 1024;

/// What is installed.
pub(super) struct Files<'a> {
    pub(super) certificate: &'a Path,
    pub(super) key: &'a Path,
}

pub(super) fn install(
    configured: &Configured,
    files: Files<'_>,
    (apple_account, new_fleet): (Option<String>, bool),
    json: bool,
) -> anyhow::Result<()> {
    let certificate = whole(files.certificate, MAX_FILE)?;
    let key = whole(files.key, MAX_FILE)?;
    with_desk(configured, async |desk| {
        let offer = Offer {
            certificate: &certificate,
            key: &key,
            apple_account,
            new_fleet,
            apples: desk.apples_apns,
        };
        let installed = flow::install(&desk.store, desk.entropy.as_ref(), offer, desk.now).await?;
        let object = describe(&installed, desk.now);
        let lines = [
            format!(
                "{} is installed for topic {}",
                installed.push_certificate_id, installed.topic
            ),
            format!(
                "valid until {} ({} days); renew it in time, under the same Apple Account",
                installed.not_after,
                days_left(&installed, desk.now)
            ),
            match installed.standing {
                Standing::Active => "it is the first of its topic, and in use at once".to_owned(),
                _ => format!(
                    "it is staged, the one in use stays in use. Next: attestd push-cert canary {} \
                     --device SERIAL, then activate",
                    installed.push_certificate_id
                ),
            },
        ];
        output::result(json, &object, &lines);
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
        let taken = flow::activate(&desk.store, id, untried_because, desk.now).await?;
        let lines = [
            format!("{id} is in use for topic {} until {}", taken.topic, taken.not_after),
            "running servers follow within seconds; attestd push-cert rollback brings the former one back"
                .to_owned(),
        ];
        output::result(json, &describe(&taken, desk.now), &lines);
        Ok(())
    })
}

pub(super) fn roll_back(
    configured: &Configured,
    topic: Option<&Topic>,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let back = flow::roll_back(&desk.store, topic, desk.now).await?;
        let lines = [format!(
            "{} is in use again for topic {} until {}",
            back.push_certificate_id, back.topic, back.not_after
        )];
        output::result(json, &describe(&back, desk.now), &lines);
        Ok(())
    })
}
