//! What is shared with receivers of OpenID Shared Signals.

use serde::{Deserialize, Serialize};

use super::Unusable;
use super::url::check_base_url;

/// Changes of compliance for receivers of OpenID Shared Signals.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedSignals {
    /// The URL that receivers reach the internal listener by, `https://host[:port]`, no path: their streams
    /// are under it. Absent: no signals are shared.
    pub url: Option<String>,
    /// The name of this fleet, for receivers that know several.
    pub tenant: Option<String>,
}

impl SharedSignals {
    pub(super) fn check(&self, insecure_http: bool) -> Result<(), Unusable> {
        match (&self.url, &self.tenant) {
            (None, Some(_)) => return Err(Unusable::TenantOfNobody),
            (Some(url), _) if check_base_url(url, insecure_http).is_err() => {
                return Err(Unusable::SignalsUrl(url.clone()));
            }
            _ => {}
        }
        let is_fine = |tenant: &String| {
            (1..=100).contains(&tenant.len()) && tenant.bytes().all(|b| b.is_ascii_graphic())
        };
        match &self.tenant {
            Some(tenant) if !is_fine(tenant) => Err(Unusable::Tenant(tenant.clone())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_told_an_address_that_they_reach_safely() {
        let checked = |url: Option<&str>, tenant: Option<&str>| {
            let settings = SharedSignals {
                url: url.map(str::to_owned),
                tenant: tenant.map(str::to_owned),
            };
            settings
                .check(false)
                .map_err(|unusable| unusable.to_string())
        };
        let fine = Some("https://inside.example.org:8444");
        assert_eq!(checked(None, None), Ok(()));
        assert_eq!(checked(fine, Some("darkbloom-prod")), Ok(()));
        for (url, tenant, says) in [
            (
                Some("http://inside.example.org"),
                None,
                "shared_signals.url",
            ),
            (Some("https://inside.example.org/ssf"), None, "without path"),
            (None, Some("fleet"), "set shared_signals.url"),
            (fine, Some("two words"), "shared_signals.tenant"),
            (fine, Some(""), "shared_signals.tenant"),
        ] {
            let refusal = checked(url, tenant).expect_err(says);
            assert!(refusal.contains(says), "{refusal} / {says}");
        }
    }
}
