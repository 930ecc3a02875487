//! Somebody wants to know what an enrollment would do to a Mac, before it does.

use super::deliver_profile::topic;
use super::issue_by_acme::base as acme_base;
use super::{Context, Failure};
use crate::acme::Route;
use crate::enrollment::Protocol;
use crate::enrollment::outline::{Outline, outline};
use crate::enrollment::profile::{IdentitySlots, Slots, fill};
use crate::ids::Topic;
use crate::secret::Secret;

/// Stands in the profile that is shown, where each real one has its ticket's secret.
const SECRET: &str = "(a secret made for one Mac, good once and for an hour)";
/// As long as there is no push certificate, its topic is not known. Never installed.
const TOPIC: &str = "com.apple.mgmt.External.not-known-yet";

/// What this server would install.
#[derive(Debug)]
pub struct Description {
    /// Whether profiles are to be had: there is a push certificate.
    pub open: bool,
    pub outline: Outline,
    /// The profile as XML, everything in it real but the secret.
    pub profile: String,
}

/// The profile of this server as most Macs get it, read back from what would be installed.
pub async fn describe_enrollment(ctx: &Context) -> Result<Description, Failure> {
    let topic = topic(ctx).await?;
    let open = topic.is_some();
    let shown = Topic::parse(TOPIC).map_err(|_| Failure::Inconsistent("a topic of ours"))?;
    let secret = Secret::new(SECRET.to_owned());
    let base = acme_base(&ctx.settings.server_id, SECRET);
    let directory_url = Secret::new(Route::Directory.url(&base));
    let slots = Slots {
        topic: topic.as_ref().unwrap_or(&shown),
        identity: match ctx.settings.identity {
            Protocol::Scep => IdentitySlots::Scep { challenge: &secret },
            Protocol::Acme => IdentitySlots::Acme {
                directory_url: &directory_url,
                client_identifier: &secret,
            },
        },
    };
    let profile = fill(&ctx.settings.profile, &slots)?;
    let outline = outline(&profile)?;
    let profile = String::from_utf8(profile)
        .map_err(|_| Failure::Inconsistent("a profile of ours is not UTF-8"))?;
    Ok(Description {
        open,
        outline,
        profile,
    })
}
