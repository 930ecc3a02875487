//! Releases as others read them: the public list of all that were ever blessed, and the one form of
//! a release that the coordinator's clients have always known (coordinator-and-standards A.12).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::provider::release::Standing;
use crate::provider::{BinaryHash, Platform, Release, Version};
use crate::time::Timestamp;

/// `GET /v1/releases`: every release there ever was, withdrawn ones among them, so that nobody is
/// blessed unseen.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ReleasesV1<'a> {
    /// The first registered first.
    pub releases: Vec<ListedV1<'a>>,
}

/// One of them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ListedReleaseV1)]
pub struct ListedV1<'a> {
    pub binary_hash: BinaryHash,
    pub platform: &'a Platform,
    pub version: &'a Version,
    pub standing: Standing,
    pub registered_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub revocation_reason: Option<&'a str>,
    #[serde(flatten)]
    pub parts: PartsV1<'a>,
}

/// The other hashes of a release, where its registration named them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ReleasePartsV1)]
pub struct PartsV1<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_hash: Option<BinaryHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metallib_hash: Option<BinaryHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python_hash: Option<BinaryHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_hash: Option<BinaryHash>,
    /// `name=sha256,…`, as it is registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_hashes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<&'a str>,
}

/// A release as `GET /v1/releases/latest` and the answer to a registration have it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ReleaseV1<'a> {
    pub version: &'a Version,
    pub platform: &'a Platform,
    pub binary_hash: BinaryHash,
    #[serde(flatten)]
    pub parts: PartsV1<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changelog: Option<&'a str>,
    pub active: bool,
    pub created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_reason: Option<&'a str>,
}

impl<'a> ReleasesV1<'a> {
    /// The list.
    pub fn new(releases: &'a [Release]) -> Self {
        Self {
            releases: releases.iter().map(ListedV1::new).collect(),
        }
    }
}

impl<'a> ListedV1<'a> {
    fn new(release: &'a Release) -> Self {
        let revoked = release.revoked.as_ref();
        Self {
            binary_hash: release.binary_hash,
            platform: &release.platform,
            version: &release.version,
            standing: release.standing(),
            registered_at: release.registered_at,
            revoked_at: revoked.map(|revoked| revoked.at),
            revocation_reason: revoked.map(|revoked| revoked.reason.as_str()),
            parts: PartsV1::new(release),
        }
    }
}

impl<'a> PartsV1<'a> {
    fn new(release: &'a Release) -> Self {
        let details = &release.details;
        Self {
            backend: details.backend.as_deref(),
            bundle_hash: details.bundle_hash,
            metallib_hash: details.metallib_hash,
            python_hash: details.python_hash,
            runtime_hash: details.runtime_hash,
            template_hashes: templates(&details.template_hashes),
            url: details.url.as_deref(),
        }
    }
}

fn templates(hashes: &BTreeMap<String, BinaryHash>) -> Option<String> {
    let entries: Vec<_> = hashes
        .iter()
        .map(|(name, hash)| format!("{name}={hash}"))
        .collect();
    (!entries.is_empty()).then(|| entries.join(","))
}

impl<'a> ReleaseV1<'a> {
    /// The historic form.
    pub fn new(release: &'a Release) -> Self {
        let revoked = release.revoked.as_ref();
        Self {
            version: &release.version,
            platform: &release.platform,
            binary_hash: release.binary_hash,
            parts: PartsV1::new(release),
            changelog: release.details.changelog.as_deref(),
            active: revoked.is_none(),
            created_at: release.registered_at,
            revoked_at: revoked.map(|revoked| revoked.at),
            revocation_reason: revoked.map(|revoked| revoked.reason.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::provider::release::Registration;

    fn release(body: &serde_json::Value) -> Release {
        let registration = Registration::parse(body.to_string().as_bytes()).expect("well formed");
        let registered = registration.register(None, Timestamp::from_seconds(1_790_847_007));
        registered.expect("is possible").expect("is new")
    }

    #[test]
    fn what_was_registered_is_told_in_the_form_it_came_in() {
        let (a, b) = ("ab".repeat(32), "cd".repeat(32));
        let body = json!({
            "version": "0.8.16", "platform": "macos-arm64", "backend": "mlx-swift", "binary_hash": a,
            "bundle_hash": b, "metallib_hash": b, "template_hashes": format!("chat={a},code={b}"),
            "url": "https://releases.example.org/v0.8.16.tar.gz", "changelog": "Faster.",
        });
        let release = release(&body);
        let told = serde_json::to_value(ReleaseV1::new(&release)).expect("JSON");
        for (name, value) in body.as_object().expect("an object") {
            assert_eq!(&told[name], value, "{name}");
        }
        assert_eq!(told["active"], true);
        assert_eq!(told["created_at"], release.registered_at.to_string());
        assert!(told.get("python_hash").is_none() && told.get("revoked_at").is_none());
    }

    #[test]
    fn a_withdrawn_release_stays_in_the_list() {
        let mut release = release(&json!({ "version": "1.0.0", "binary_hash": "ab".repeat(32) }));
        let at = Timestamp::from_seconds(1_790_850_000);
        release.revoke("leaks prompts", at).expect("a reason");
        let list = serde_json::to_value(ReleasesV1::new(&[release])).expect("JSON");
        let listed = &list["releases"][0];
        assert_eq!(listed["standing"], "revoked");
        assert_eq!(listed["revoked_at"], at.to_string());
        assert_eq!(listed["revocation_reason"], "leaks prompts");
    }
}
