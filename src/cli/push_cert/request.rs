//! A push certificate is asked for, and a customer's request signed.

use std::path::Path;

use anyhow::Context as _;

use super::super::input::whole;
use super::super::store::with_desk;
use super::super::{Configured, output};
use crate::flows::read_push_certificates::requested;
use crate::flows::request_push_certificate::request;
use crate::keys::KeyPair;
use crate::pki::{OwnedCertificate, read_certificates, read_request};
use crate::push::key::read_private_key;
use crate::push::vendor::VendorChain;
use crate::time::{Clock as _, SystemClock};

const MAX_FILE: usize = 256 * 1024;

/// Makes a key here and prints the request for it.
pub(super) fn make(
    configured: &Configured,
    common_name: &str,
    apple_account: Option<String>,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let entropy = desk.entropy.as_ref();
        let made = request(
            &desk.store,
            entropy,
            common_name,
            apple_account,
            &desk.who,
            desk.now,
        )
        .await?;
        let made = requested(made);
        let object = serde_json::to_value(&made)?;
        output::result(json, &object, &[made.csr.trim_end().to_owned()]);
        Ok(())
    })
}

/// The files of a vendor and of its customer.
pub(super) struct VendorFiles<'a> {
    pub(super) csr: &'a Path,
    pub(super) certificate: &'a Path,
    pub(super) key: &'a Path,
    pub(super) chain: &'a Path,
}

/// Prints what the customer uploads. Needs no server and no database.
pub(super) fn vendor_sign(files: &VendorFiles<'_>) -> anyhow::Result<()> {
    let csr = read_request(&whole(files.csr, MAX_FILE)?)
        .with_context(|| format!("{} holds no certificate request", files.csr.display()))?;
    let key = read_private_key(&whole(files.key, MAX_FILE)?)?;
    let key = KeyPair::read(key).context("the vendor's key cannot be used")?;
    let vendor = certificates(files.certificate)?;
    let above = certificates(files.chain)?;
    let chain = VendorChain::check(&vendor, &above, &key, SystemClock.now())?;
    output::line(chain.sign(&csr, &key)?);
    Ok(())
}

fn certificates(path: &Path) -> anyhow::Result<Vec<OwnedCertificate>> {
    read_certificates(&whole(path, MAX_FILE)?)
        .with_context(|| format!("{} holds no certificate that can be read", path.display()))
}
