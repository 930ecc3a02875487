//! `attestd ticket`.

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::store::with_desk;
use super::{Configured, output};
use crate::enrollment::Protocol;
use crate::enrollment::ticket::{Bounds, is_account};
use crate::flows::offer_profile::{Links, offer};
use crate::ids::SerialNumber;
use crate::provider::SePublicKey;

#[derive(Debug, Args)]
#[command(after_help = "\
The links are shown once. Whoever has one can enrol a Mac by it, once, so hand it to its owner only.
Works beside a running server, which hands the profile out.")]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Whose Mac it is, as the coordinator names accounts: its sessions are joined to the Mac.
    #[arg(long)]
    account: Option<String>,
    /// The provider's Secure Enclave key, base64: Apple's first statement about the Mac names it.
    #[arg(long, value_name = "BASE64")]
    se_public_key: Option<String>,
    /// Only the Mac with this serial number may use it.
    #[arg(long)]
    serial_number: Option<String>,
    /// The identity the profile asks for, acme or scep; as configured when not given.
    #[arg(long, value_parser = protocol)]
    identity: Option<Protocol>,
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments
        .account
        .as_deref()
        .is_some_and(|name| !is_account(name))
    {
        bail!("--account must be 1 to 256 characters, none of them a control character");
    }
    let serial = arguments.serial_number.as_deref().map(SerialNumber::parse);
    let key = arguments.se_public_key.as_deref().map(SePublicKey::parse);
    let key = key.transpose().context("--se-public-key")?;
    let serial = serial.transpose()?;
    with_desk(&arguments.configured, async |desk| {
        let bounds = Bounds {
            serial,
            account: arguments.account.clone(),
            se_public_key: key.map(|key| key.text().to_owned()),
            protocol: arguments.identity.unwrap_or(desk.identity),
        };
        let (sealer, entropy) = (desk.sealer.as_ref(), desk.entropy.as_ref());
        let offer = offer(
            &desk.store,
            sealer,
            entropy,
            bounds,
            Some(&desk.who),
            desk.now,
        )
        .await?;
        let links = Links::of(&offer, &desk.base_url);
        let object = json!({
            "ticket_id": offer.ticket_id,
            "enroll_url": links.page.expose(),
            "profile_url": links.profile.expose(),
            "fetch_until": offer.fetch_until,
            "progress_id": offer.progress_id,
            "progress_url": links.progress,
            "expires_at": offer.expires_at,
        });
        let lines = [
            links.page.expose().clone(),
            format!(
                "# The profile can be fetched until {}, and installed until {}.",
                offer.fetch_until, offer.expires_at
            ),
            format!("# How far it is: {}", links.progress),
        ];
        output::result(arguments.json, &object, &lines);
        Ok(())
    })
}

fn protocol(word: &str) -> Result<Protocol, String> {
    Protocol::from_word(word).ok_or_else(|| "an identity is acme or scep".to_owned())
}
