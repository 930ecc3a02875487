//! The OpenID provider, as the settings name it.

use anyhow::Context as _;

use super::read;
use crate::config::{Config, Oidc};
use crate::flows::authorize::Role;
use crate::flows::follow_issuer::Source;
use crate::flows::identify_bearer::Issuer;
use crate::oidc::Expected;
use crate::outbound::{Reach, check_root};

/// The provider whose tokens let somebody in, if there is one.
pub(super) fn issuer(config: &Config) -> anyhow::Result<Option<Issuer>> {
    let Some(oidc) = &config.internal.oidc else {
        return Ok(None);
    };
    let roles = oidc.roles.iter().map(|(value, word)| {
        let role = Role::from_word(word).with_context(|| {
            let words: Vec<_> = Role::ALL.iter().map(|role| role.as_str()).collect();
            let words = words.join(", ");
            format!("internal.oidc: roles: {value:?}: a role is one of {words}")
        })?;
        Ok((value.clone(), role))
    });
    let roles = roles.collect::<anyhow::Result<_>>()?;
    let expected = Expected {
        issuer: oidc.issuer.clone(),
        audience: oidc.audience.clone(),
        role_claim: oidc.role_claim.clone(),
    };
    Ok(Some(Issuer::new(expected, roles, source(oidc)?)))
}

/// Where its keys are fetched.
///
/// # Errors
/// A file that cannot be read, or holds no root.
pub fn source(oidc: &Oidc) -> anyhow::Result<Source> {
    let root = oidc.root.as_deref().map(read).transpose()?;
    if let Some(root) = &root {
        check_root(root).context("internal.oidc: root")?;
    }
    Ok(Source {
        issuer: oidc.issuer.clone(),
        jwks_url: oidc.jwks_url.clone(),
        reach: Reach {
            allow_private: oidc.allow_private,
            root,
        },
    })
}
