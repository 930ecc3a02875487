//! Who is known on the internal listener by a certificate.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Internal, Unusable};
use crate::pki::is_spiffe_id;

/// A client with a certificate of one of `internal.client_roots`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Who it is, in your words; stands in the audit log.
    pub name: String,
    /// `viewer`, `auditor`, `coordinator`, `operator` or `push_cert_officer`.
    pub role: String,
    /// The only URI in the certificate: `spiffe://trust-domain/path`. Or a key:
    pub spiffe_id: Option<String>,
    /// SHA-256 of the certificate's SubjectPublicKeyInfo, in hexadecimal.
    pub public_key_sha256: Option<String>,
}

impl Client {
    /// The hash of the pinned key, if that is what it is known by.
    pub fn key(&self) -> Option<[u8; 32]> {
        hex::decode(self.public_key_sha256.as_ref()?)
            .ok()?
            .try_into()
            .ok()
    }
}

impl Internal {
    pub(super) fn check_clients(&self) -> Result<(), Unusable> {
        if self.clients.is_empty() && self.client_roots.is_empty() {
            return Ok(());
        }
        if self.tls_certificate.is_none() {
            return Err(Unusable::ClientsWithoutTls);
        }
        if self.client_roots.is_empty() {
            return Err(Unusable::Clients(
                "name their authorities in internal.client_roots".to_owned(),
            ));
        }
        if self.clients.is_empty() {
            return Err(Unusable::Clients(
                "internal.client_roots lets nobody in by itself: say in [[internal.clients]] who may do what"
                    .to_owned(),
            ));
        }
        let (mut names, mut known) = (BTreeSet::new(), BTreeSet::new());
        for client in &self.clients {
            let unusable =
                |what: &str| Err(Unusable::Clients(format!("{:?}: {what}", client.name)));
            let is_name = |name: &str| {
                (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control)
            };
            if !is_name(&client.name) {
                return unusable(
                    "a name has 1 to 100 characters, none of them a control character",
                );
            }
            if !names.insert(&client.name) {
                return unusable("two have this name");
            }
            let by = match (&client.spiffe_id, &client.public_key_sha256) {
                (Some(id), None) if is_spiffe_id(id) => id.clone(),
                (Some(_), None) => {
                    return unusable("spiffe_id must be spiffe://trust-domain/path");
                }
                (None, Some(_)) => match client.key() {
                    Some(key) => hex::encode(key),
                    None => {
                        return unusable(
                            "public_key_sha256 must be 64 hexadecimal digits: openssl x509 -pubkey -noout \
                             -in CERT.pem | openssl pkey -pubin -outform der | sha256sum",
                        );
                    }
                },
                _ => return unusable("give spiffe_id or public_key_sha256"),
            };
            if !known.insert(by) {
                return unusable("another is known by the same");
            }
        }
        Ok(())
    }
}
