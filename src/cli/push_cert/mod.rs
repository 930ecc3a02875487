//! `attestd push-cert`.

mod canary;
mod request;
mod rotate;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Configured;
use crate::ids::{PushCertificateId, PushProposalId, PushRequestId, Topic};
use crate::push::words::{common_name as name, note};

#[derive(Debug, Args)]
#[command(after_help = "\
Works beside running servers, which take a change into account within seconds. Every year:
  attestd push-cert request --config attestd.toml > push.csr      # signed by a vendor, then uploaded
  attestd push-cert install --config attestd.toml --certificate FILE
  attestd push-cert canary ID --config attestd.toml --device SERIAL
  attestd push-cert activate ID --config attestd.toml
Renew under the same Apple Account, with \"Renew\" on the same row: with another topic every Mac would
have to enrol again by hand.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Ask for a push certificate: makes a key, keeps it sealed here, and prints the request for it
    /// (PKCS #10). A vendor signs it (`vendor-sign`), and Apple's portal takes that.
    Request {
        #[command(flatten)]
        configured: Configured,
        /// The name in the request, for people: the certificate will have names of Apple's.
        #[arg(long, value_name = "NAME", default_value = "attestd", value_parser = name)]
        common_name: String,
        /// The Apple Account it will be made under; kept with the certificate.
        #[arg(long, value_name = "ACCOUNT", value_parser = note)]
        apple_account: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// For MDM vendors: sign a customer's request. Prints what the customer uploads at
    /// identity.apple.com/pushcert. Needs no server.
    VendorSign {
        /// The customer's request (PKCS #10), PEM or DER.
        #[arg(long, value_name = "FILE")]
        csr: PathBuf,
        /// Your certificate of the type "MDM CSR", PEM or DER.
        #[arg(long, value_name = "FILE")]
        vendor_certificate: PathBuf,
        /// Its private key, PEM, not encrypted.
        #[arg(long, value_name = "FILE")]
        vendor_key: PathBuf,
        /// Apple's intermediate (Worldwide Developer Relations) and root, in this order, PEM.
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
    },
    /// Keep a push certificate from identity.apple.com/pushcert. The first one is in use at once; a
    /// renewal is staged until you activate it. Another topic than that of the Macs is refused.
    #[command(alias = "import")]
    Install {
        #[command(flatten)]
        configured: Configured,
        /// The certificate, PEM or DER; or certificate and key together, PEM or PKCS #12.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// Its private key, PEM, not encrypted; kept sealed from then on. Not needed for one that was
        /// requested here.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The password of a PKCS #12 file: a file with it in its first line (- is standard input).
        #[arg(long, value_name = "FILE", conflicts_with = "key")]
        password_file: Option<PathBuf>,
        /// The Apple Account it is renewed under; shown wherever it matters.
        #[arg(long, value_name = "ACCOUNT", value_parser = note)]
        apple_account: Option<String>,
        /// It is the first certificate of another topic, for Macs that are still to enrol.
        #[arg(long)]
        new_fleet: bool,
        #[arg(long)]
        json: bool,
    },
    /// Have some Macs pushed with a staged certificate, and wait until they have connected. The
    /// running server pushes; all other Macs are pushed as before.
    Canary {
        #[command(flatten)]
        configured: Configured,
        #[arg(value_name = "ID", value_parser = id)]
        push_certificate_id: PushCertificateId,
        /// Macs that are awake: serial numbers, or device ids (dev_…).
        #[arg(long = "device", value_name = "SERIAL|DEVICE", num_args = 1.., required = true)]
        devices: Vec<String>,
        /// How long to wait, in seconds. Who comes later is noted, too; see `show`.
        #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
        wait: Duration,
        #[arg(long)]
        json: bool,
    },
    /// Have all Macs of its topic pushed with a certificate, on every server, within seconds; where the settings ask
    /// for two persons, once another has confirmed it.
    Activate {
        #[command(flatten)]
        configured: Configured,
        #[arg(value_name = "ID", value_parser = id)]
        push_certificate_id: PushCertificateId,
        /// Do so although not all Macs that try it have come, for this reason.
        #[arg(long, value_name = "REASON", value_parser = note)]
        without_canary: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Have the certificate back that was in use before, while it is valid. The present one is staged.
    Rollback {
        #[command(flatten)]
        configured: Configured,
        /// Of which topic, where there are several.
        #[arg(long, value_parser = topic)]
        topic: Option<Topic>,
        #[arg(long)]
        json: bool,
    },
    /// Do what another person proposed, where the settings ask for two (`push_certificates.activation`). Whoever
    /// proposed it cannot: here a person is the unix user (of root by sudo, who became root), there a token.
    Confirm {
        #[command(flatten)]
        configured: Configured,
        /// As `list` shows it (ppr_…).
        #[arg(value_name = "PROPOSAL", value_parser = proposal)]
        push_proposal_id: PushProposalId,
        #[arg(long)]
        json: bool,
    },
    /// Take a proposal away, your own or another's: nobody can confirm it any more.
    Withdraw {
        #[command(flatten)]
        configured: Configured,
        #[arg(value_name = "PROPOSAL", value_parser = proposal)]
        push_proposal_id: PushProposalId,
        #[arg(long)]
        json: bool,
    },
    /// Throw away a staged certificate, or a request that nothing came of, with its key: what Apple issued for
    /// that key is of no use afterwards. Neither the certificate in use nor the one before it can be thrown away.
    Discard {
        #[command(flatten)]
        configured: Configured,
        /// As `list` shows them: psh_… is a certificate, psr_… a request.
        #[arg(value_name = "ID", value_parser = unwanted)]
        unwanted: rotate::Unwanted,
        /// Why, in your words; it stands in the audit log.
        #[arg(long, value_name = "REASON", value_parser = note)]
        reason: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// List the push certificates, where each is in its life, and how long it lasts.
    #[command(alias = "status")]
    List {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
    /// Show one push certificate and the Macs that try it.
    Show {
        #[command(flatten)]
        configured: Configured,
        #[arg(value_name = "ID", value_parser = id)]
        push_certificate_id: PushCertificateId,
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Request {
            configured,
            common_name,
            apple_account,
            json,
        } => request::make(configured, common_name, apple_account.clone(), *json),
        What::VendorSign {
            csr,
            vendor_certificate: certificate,
            vendor_key: key,
            chain,
        } => request::vendor_sign(&request::VendorFiles {
            csr,
            certificate,
            key,
            chain,
        }),
        What::Install {
            configured,
            certificate,
            key,
            password_file,
            apple_account,
            new_fleet,
            json,
        } => {
            let files = rotate::Files {
                certificate,
                key: key.as_deref(),
                password: password_file.as_deref(),
            };
            let said = (apple_account.clone(), *new_fleet);
            rotate::install(configured, files, said, *json)
        }
        What::Canary {
            configured,
            push_certificate_id,
            devices,
            wait,
            json,
        } => canary::run(configured, push_certificate_id, devices, *wait, *json),
        What::Activate {
            configured,
            push_certificate_id,
            without_canary,
            json,
        } => rotate::activate(
            configured,
            push_certificate_id,
            without_canary.as_deref(),
            *json,
        ),
        What::Rollback {
            configured,
            topic,
            json,
        } => rotate::roll_back(configured, topic.as_ref(), *json),
        What::Confirm {
            configured,
            push_proposal_id,
            json,
        } => rotate::confirm(configured, push_proposal_id, *json),
        What::Withdraw {
            configured,
            push_proposal_id,
            json,
        } => rotate::withdraw(configured, push_proposal_id, *json),
        What::Discard {
            configured,
            unwanted,
            reason,
            json,
        } => rotate::discard(
            configured,
            unwanted,
            reason.as_deref().unwrap_or_default(),
            *json,
        ),
        What::List { configured, json } => show::list(configured, *json),
        What::Show {
            configured,
            push_certificate_id,
            json,
        } => show::show(configured, push_certificate_id, *json),
    }
}

fn proposal(text: &str) -> Result<PushProposalId, String> {
    PushProposalId::parse(text).map_err(|error| error.to_string())
}

fn unwanted(text: &str) -> Result<rotate::Unwanted, String> {
    if let Ok(id) = PushRequestId::parse(text) {
        return Ok(rotate::Unwanted::Request(id));
    }
    id(text).map(rotate::Unwanted::Certificate)
}

fn id(text: &str) -> Result<PushCertificateId, String> {
    PushCertificateId::parse(text).map_err(|error| error.to_string())
}

fn topic(text: &str) -> Result<Topic, String> {
    Topic::parse(text).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u32 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    Ok(Duration::from_secs(seconds.into()))
}
