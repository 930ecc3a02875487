//! What can be looked at without a database: this machine, its files, and its way to Apple.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::statvfs;

use super::days;
use super::finding::Findings;
use crate::app::authorities::held;
use crate::app::tls::as_a_mac_sees_it;
use crate::app::{KEYS, reach_apns, source};
use crate::config::Config;
use crate::flows::follow_issuer::fetch;
use crate::keys::{FileKeeper, MasterSeal};
use crate::outbound::Outbound;
use crate::time::Timestamp;

/// Less is free than one upgrade of the tables, or a day of a large fleet, may take.
const LITTLE: u64 = 1024 * 1024 * 1024;
/// Less is free than what a busy hour writes.
const NOTHING: u64 = 64 * 1024 * 1024;
/// Certificates of ours, and of the listener where nobody renews it by itself: told as early as push
/// certificates are.
const SOON: Duration = Duration::from_secs(60 * 24 * 60 * 60);
/// Whoever renews a TLS certificate by itself has done so by then.
const TLS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Public authorities may issue for no longer (apple-protocol 11).
const MOST_DAYS: u64 = 398;

/// Whether there is room where the service writes.
pub(super) fn disk(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "disk";
    let folder: PathBuf = config.data_dir.components().collect();
    match statvfs(&folder) {
        Err(error) => findings.fault(
            CHECK,
            format!("{} cannot be looked at: {error}", folder.display()),
            "run this as the user that the service runs as",
        ),
        Ok(room) => {
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            let found = format!("{} MiB are free in {}", free >> 20, folder.display());
            let todo = "make room: a full disk stops whatever is to be written";
            if free < NOTHING {
                findings.fault(CHECK, found, todo);
            } else if free < LITTLE {
                findings.warning(CHECK, found, todo);
            } else {
                findings.ok(CHECK, found);
            }
        }
    }
}

/// Whether the service's own keys are there, closed to others, and good for long enough.
pub(super) fn keys(
    config: &Config,
    seal: Option<&Arc<MasterSeal>>,
    findings: &mut Findings,
    now: Timestamp,
) {
    const CHECK: &str = "keys";
    let Some(seal) = seal else {
        return findings.not_checked(CHECK, "there is no master key to open them with");
    };
    let folder: PathBuf = config.data_dir.join(KEYS).components().collect();
    let opened = FileKeeper::open(folder.clone(), Arc::clone(seal))
        .map_err(anyhow::Error::from)
        .and_then(|keeper| held(&keeper));
    let authorities = match opened {
        Ok(authorities) => authorities,
        Err(error) => {
            let todo = "set what it names right, or restore the folder from a backup; \
                        never make keys anew in its place";
            return findings.fault(CHECK, format!("{error:#}"), todo);
        }
    };
    findings.ok(CHECK, format!("all open, in {}", folder.display()));
    for (name, held) in authorities.newest() {
        let ends = held.certificate().not_after();
        let found = format!("until {ends}, {} days", days(now, ends));
        let needed = match name {
            // An identity does not outlive its issuer: those made from then on would be shorter.
            "device_ca" => config.enrollment.identity_lifetime.0,
            _ => SOON,
        };
        let todo = "`attestd keys replace` makes the one that follows (docs/operations.md)";
        if ends <= now {
            findings.fault(name, format!("ended {ends}"), todo);
        } else if ends.since(now) < needed {
            findings.warning(name, found, todo);
        } else {
            findings.ok(name, found);
        }
    }
}

/// Whether a Mac would connect to the public listener.
pub(super) fn tls(config: &Config, findings: &mut Findings, now: Timestamp) {
    const CHECK: &str = "tls";
    match as_a_mac_sees_it(config, now) {
        Ok(None) if config.public.behind_proxy => {
            findings.not_checked(CHECK, "TLS ends at the reverse proxy, which has the certificate");
        }
        Ok(None) => findings.warning(
            CHECK,
            "the public listener speaks plain HTTP, for trying things out: no Mac of others enrols",
            "public.tls_certificate and public.tls_key, or public.behind_proxy",
        ),
        Err(error) => findings.fault(
            CHECK,
            format!("no Mac connects: {error}"),
            "a certificate for the host of base_url, with every intermediate, from a public authority; \
             or public.tls_root for one of your own",
        ),
        Ok(Some(shown)) => {
            let left = days(now, shown.not_after);
            let found = format!("good for {}, until {}, {left} days", config.base_url, shown.not_after);
            if shown.days > MOST_DAYS && !shown.private_root {
                findings.warning(
                    CHECK,
                    format!("made for {} days; Macs take {MOST_DAYS} of a public authority", shown.days),
                    "a certificate for a shorter time",
                );
            } else if shown.not_after.since(now) < TLS_SOON {
                findings.warning(CHECK, found, "renew it, and restart the server");
            } else {
                findings.ok(CHECK, found);
            }
        }
    }
}

/// Whether tokens of the OpenID provider could be judged.
pub(super) async fn issuer(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "oidc";
    let Some(oidc) = &config.internal.oidc else {
        return;
    };
    let fetched = async {
        let outbound = Outbound::new()?;
        Ok::<_, anyhow::Error>(fetch(&outbound, &source(oidc)?).await?)
    };
    match fetched.await {
        Ok(fetched) => findings.ok(
            CHECK,
            format!("{} says {} keys", oidc.issuer, fetched.keys.count()),
        ),
        Err(error) => findings.fault(
            CHECK,
            format!("{error:#}"),
            "internal.oidc: issuer as the provider writes it, root for a certificate of your own authority, \
             allow_private for one that is inside",
        ),
    }
}

/// Whether pushes have a way to Apple.
pub(super) async fn apns(config: &Config, findings: &mut Findings) {
    const CHECK: &str = "apns";
    match reach_apns(config).await {
        Ok(Ok(())) => {
            let found = format!("{} answers, by TLS and HTTP/2", config.apns.url);
            findings.ok(CHECK, found);
        }
        Ok(Err(unreached)) => {
            let todo = unreached.remedy();
            findings.fault(CHECK, format!("{:#}", anyhow::Error::from(unreached)), todo);
        }
        Err(error) => findings.fault(CHECK, format!("{error:#}"), "apns.url and apns.root"),
    }
}
