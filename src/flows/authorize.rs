//! Who may use the internal API: bearers of tokens of our own and clients with certificates that the settings
//! name, each by one role; and whom an OpenID provider vouches for, by what it says they are.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::identify_bearer::{Judged, Vouched, identify};
use super::{Context, Failure};
use crate::audit::{Entry, Verb, Who, Words};
use crate::entropy::{Entropy, draw};
use crate::ids::{ApiTokenId, SecretHash};
use crate::oidc;
use crate::pki::ClientCertificate;
use crate::secret::Secret;
use crate::store::{ApiToken, Store, StoreError};
use crate::time::Timestamp;

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads, asks for verifications, and tells of provider sessions.
    Coordinator,
    /// Everything a coordinator and a viewer may, and changes.
    Operator,
    /// Reads everything, the audit log included.
    Auditor,
    /// Reads state without what identifies a Mac's owner.
    Viewer,
    /// Changes push certificates, and nothing else: whoever holds the fleet's yearly renewal need not hold the fleet.
    PushCertOfficer,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Read a Mac's posture, enrollment or attempts.
    ReadDevices,
    /// Ask a Mac for fresh evidence.
    Verify,
    /// Register and end provider sessions, and challenge them.
    Bind,
    /// Read the state of the service.
    ReadStatus,
    /// Read who changed what.
    ReadAudit,
    /// Have a profile made for somebody.
    Enrol,
    /// Change what is believed of a Mac, who speaks for it, or what may run there.
    Administer,
    /// Read which push certificates there are.
    ReadPushCertificates,
    /// Ask for push certificates, and decide which one Macs are pushed with.
    ChangePushCertificates,
}

/// Whether a caller may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Allowed(Caller),
    /// No token, or none that is valid.
    Unauthorized,
    /// A certificate of an authority that is trusted, and of nobody who is known, or not valid now.
    UnknownCertificate,
    /// A token of the OpenID provider, whose keys are not known now.
    Undecided,
    /// Somebody of another role.
    Forbidden,
}

/// What somebody shows to be known by.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    Nothing,
    Token(&'a str),
    /// Its chain, and that the client has its key, the TLS handshake has shown.
    Certificate(&'a ClientCertificate),
}

/// A client that is known by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub name: String,
    pub role: Role,
    /// A SPIFFE ID, or `sha256:` and the hash of its public key.
    pub id: String,
}

/// Everybody who is known by a certificate.
#[derive(Debug, Default)]
pub struct Clients {
    by_spiffe_id: HashMap<String, Arc<Client>>,
    by_key: HashMap<[u8; 32], Arc<Client>>,
}

impl Clients {
    /// Adds one that is known by its SPIFFE ID.
    pub fn add_spiffe_id(&mut self, name: &str, role: Role, id: &str) {
        let client = Arc::new(Client {
            name: name.to_owned(),
            role,
            id: id.to_owned(),
        });
        self.by_spiffe_id.insert(id.to_owned(), client);
    }

    /// Adds one that is known by the SHA-256 of its public key.
    pub fn add_key(&mut self, name: &str, role: Role, key: [u8; 32]) {
        let client = Arc::new(Client {
            name: name.to_owned(),
            role,
            id: format!("sha256:{}", hex::encode(key)),
        });
        self.by_key.insert(key, client);
    }

    fn known(&self, certificate: &ClientCertificate) -> Option<&Arc<Client>> {
        let by_key = self.by_key.get(&certificate.key);
        by_key.or_else(|| self.by_spiffe_id.get(certificate.spiffe_id()?))
    }
}

/// Somebody who may do what they want to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    Token(Arc<ApiToken>),
    Client(Arc<Client>),
    Vouched(Arc<Vouched>),
}

impl Caller {
    /// Who it is, for the audit log.
    pub fn who(&self) -> Who {
        match self {
            Self::Token(token) => Who::Token {
                id: token.api_token_id.clone(),
                label: token.label.clone(),
            },
            Self::Client(client) => Who::Certificate {
                name: client.name.clone(),
                id: client.id.clone(),
            },
            Self::Vouched(vouched) => vouched.who(),
        }
    }
}

impl Act {
    /// The roles that allow it.
    pub fn roles(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| role.allows(self))
    }
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [
        Self::Coordinator,
        Self::Operator,
        Self::Auditor,
        Self::Viewer,
        Self::PushCertOfficer,
    ];

    /// The stored word; also what the command line takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
            Self::PushCertOfficer => "push_cert_officer",
        }
    }

    /// The role with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// Whether the role allows the act.
    pub fn allows(self, act: Act) -> bool {
        match act {
            Act::ReadStatus => true,
            Act::ReadDevices => matches!(self, Self::Coordinator | Self::Operator | Self::Auditor),
            Act::Verify | Act::Bind | Act::Enrol => {
                matches!(self, Self::Coordinator | Self::Operator)
            }
            Act::ReadAudit => matches!(self, Self::Operator | Self::Auditor),
            Act::Administer => self == Self::Operator,
            Act::ReadPushCertificates => self != Self::Coordinator,
            Act::ChangePushCertificates => self == Self::PushCertOfficer,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether somebody may do `act`. A token that another process withdrew is good for up to three seconds more;
/// whatever is not good is looked up each time. A certificate is judged by its dates each time: its connection
/// may be older.
pub async fn authorize(ctx: &Context, shown: Shown<'_>, act: Act) -> Result<Standing, Failure> {
    let now = ctx.clock.now();
    let token = match shown {
        Shown::Nothing => return Ok(Standing::Unauthorized),
        Shown::Token(token) => token,
        Shown::Certificate(certificate) => {
            let client = ctx.settings.clients.known(certificate);
            return Ok(match client.filter(|_| certificate.is_valid_at(now)) {
                None => Standing::UnknownCertificate,
                Some(client) if client.role.allows(act) => {
                    Standing::Allowed(Caller::Client(Arc::clone(client)))
                }
                Some(_) => Standing::Forbidden,
            });
        }
    };
    if let Some(issuer) = &ctx.settings.issuer
        && oidc::has_form(token)
    {
        return Ok(match identify(ctx, issuer, token).await {
            Judged::Vouched(vouched) if vouched.allows(act) => {
                Standing::Allowed(Caller::Vouched(vouched))
            }
            Judged::Vouched(_) => Standing::Forbidden,
            Judged::Refused(_) => Standing::Unauthorized,
            Judged::Undecided => Standing::Undecided,
        });
    }
    // The look-up is by hash: its time says nothing about the secret.
    let secret = SecretHash::of(token.as_bytes());
    let Some(token) = ctx.store.api_token(secret, now).await? else {
        return Ok(Standing::Unauthorized);
    };
    let role = Role::from_word(&token.role);
    Ok(match role {
        _ if !token.is_good_at(now) => Standing::Unauthorized,
        Some(role) if role.allows(act) => Standing::Allowed(Caller::Token(token)),
        _ => Standing::Forbidden,
    })
}

/// Makes a token. The secret is returned once and not kept.
pub async fn issue_token(
    store: &Store,
    entropy: &dyn Entropy,
    role: Role,
    label: &str,
    expires_at: Option<Timestamp>,
    who: &Who,
    now: Timestamp,
) -> Result<(ApiToken, Secret<String>), StoreError> {
    let secret = Secret::new(format!(
        "att_{}",
        URL_SAFE_NO_PAD.encode(draw::<32>(entropy))
    ));
    let token = ApiToken {
        api_token_id: ApiTokenId::new(now, entropy),
        secret: SecretHash::of(secret.expose().as_bytes()),
        role: role.as_str().to_owned(),
        label: label.to_owned(),
        created_at: now,
        expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    let mut tx = store.write().await?;
    tx.insert_api_token(&token).await?;
    let made = Entry::new(who, Verb::TokenCreate, &token.api_token_id, now)
        .after("role", role.as_str())
        .after("label", Words(label))
        .after("expires_at", expires_at);
    tx.record(made);
    tx.commit().await?;
    Ok((token, secret))
}

/// Ends a token at once. False when it was ended before, or there is none.
pub async fn revoke_token(
    store: &Store,
    id: &ApiTokenId,
    who: &Who,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut tx = store.write().await?;
    if !tx.revoke_api_token(id, now).await? {
        return Ok(false);
    }
    tx.record(Entry::new(who, Verb::TokenRevoke, id, now).after("revoked_at", now));
    tx.commit().await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_allow_what_their_names_say() {
        assert!(Role::Coordinator.allows(Act::Verify) && Role::Coordinator.allows(Act::Bind));
        assert!(!Role::Auditor.allows(Act::Bind) && !Role::Viewer.allows(Act::Bind));
        assert!(!Role::Auditor.allows(Act::Verify) && Role::Auditor.allows(Act::ReadDevices));
        assert!(!Role::Viewer.allows(Act::ReadDevices) && Role::Viewer.allows(Act::ReadStatus));
        assert!(Role::Coordinator.allows(Act::Enrol) && !Role::Auditor.allows(Act::Enrol));
        for role in Role::ALL {
            assert_eq!(role.allows(Act::Administer), role == Role::Operator);
            assert_eq!(Role::from_word(role.as_str()), Some(role));
            let reads = matches!(role, Role::Operator | Role::Auditor);
            assert_eq!(role.allows(Act::ReadAudit), reads);
            let officer = role == Role::PushCertOfficer;
            assert_eq!(role.allows(Act::ChangePushCertificates), officer);
            assert_eq!(
                role.allows(Act::ReadPushCertificates),
                role != Role::Coordinator
            );
        }
        let of_officer = [
            Act::ReadStatus,
            Act::ReadPushCertificates,
            Act::ChangePushCertificates,
        ];
        for act in [
            Act::ReadDevices,
            Act::Verify,
            Act::Bind,
            Act::ReadStatus,
            Act::ReadAudit,
            Act::Enrol,
            Act::Administer,
            Act::ReadPushCertificates,
            Act::ChangePushCertificates,
        ] {
            assert_eq!(
                Role::PushCertOfficer.allows(act),
                of_officer.contains(&act),
                "{act:?}"
            );
        }
    }
}
