//! Who watches the transparency log.

use anyhow::Context as _;

use super::read;
use crate::config::Config;
use crate::flows::witness_log::{self, Witness, Witnesses};
use crate::outbound::{Reach, Target, check_root};

/// Who watches the transparency log.
///
/// # Errors
/// A file that cannot be read; an address or a key that is none.
pub fn witnesses(config: &Config) -> anyhow::Result<Witnesses> {
    let settings = &config.transparency;
    let each = settings.witnesses.iter().map(|witness| {
        let root = witness.root.as_deref().map(read).transpose()?;
        if let Some(root) = &root {
            check_root(root).context("transparency.witnesses: root")?;
        }
        let url = witness_log::address(&witness.url);
        let target =
            Target::parse(&url, witness.allow_private).context("transparency.witnesses: url")?;
        let reach = Reach {
            allow_private: witness.allow_private,
            root,
        };
        Witness::new(witness.vkey.clone(), target, reach).context("transparency.witnesses: vkey")
    });
    let each = each.collect::<anyhow::Result<_>>()?;
    Ok(Witnesses::new(each, settings.witness_quorum.get()))
}
