//! Who did it.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::ApiTokenId;

/// Who changed something, as the service knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The bearer of a token of the internal API.
    Token {
        id: ApiTokenId,
        /// To whom it was given, in the words of who made it.
        label: String,
    },
    /// A client of the internal API that is known by its certificate.
    Certificate {
        /// As the settings name it.
        name: String,
        /// What it is known by: a SPIFFE ID, or `sha256:` and the hash of its public key.
        id: String,
    },
    /// Somebody whom an OpenID provider vouches for.
    Oidc {
        issuer: String,
        /// `sub`: with the issuer, one person or program for ever.
        subject: String,
        /// As the provider calls them; may change hands.
        name: Option<String>,
    },
    /// Whoever ran a command beside the database.
    CommandLine {
        /// The unix user, or who became root by sudo.
        user: String,
    },
    /// The bearer of the key that registers releases.
    ReleaseKey,
    /// Nobody: the service by itself, or as its configuration says.
    Service,
}

impl Who {
    /// What tells one person from another, as far as that can be told: two tokens of one person are two.
    pub fn person(&self) -> String {
        match self {
            Self::Token { id, .. } => format!("token:{id}"),
            Self::Certificate { id, .. } => format!("certificate:{id}"),
            // No issuer has a space in it.
            Self::Oidc {
                issuer, subject, ..
            } => format!("oidc:{issuer} {subject}"),
            Self::CommandLine { user } => format!("user:{user}"),
            Self::ReleaseKey => "release key".to_owned(),
            Self::Service => "service".to_owned(),
        }
    }

    pub(super) fn members(&self) -> BTreeMap<&'static str, String> {
        let members = match self {
            Self::Token { id, label } => vec![
                ("kind", "token".to_owned()),
                ("id", id.to_string()),
                ("label", label.clone()),
            ],
            Self::Certificate { name, id } => vec![
                ("kind", "certificate".to_owned()),
                ("name", name.clone()),
                ("id", id.clone()),
            ],
            Self::Oidc {
                issuer,
                subject,
                name,
            } => {
                let name = name.iter().map(|name| ("name", name.clone()));
                [
                    ("kind", "oidc".to_owned()),
                    ("issuer", issuer.clone()),
                    ("subject", subject.clone()),
                ]
                .into_iter()
                .chain(name)
                .collect()
            }
            Self::CommandLine { user } => {
                vec![("kind", "command_line".to_owned()), ("user", user.clone())]
            }
            Self::ReleaseKey => vec![("kind", "release_key".to_owned())],
            Self::Service => vec![("kind", "service".to_owned())],
        };
        members.into_iter().collect()
    }

    pub(super) fn of(mut members: BTreeMap<String, String>) -> Option<Self> {
        let who = match members.remove("kind")?.as_str() {
            "token" => Self::Token {
                id: ApiTokenId::parse(&members.remove("id")?).ok()?,
                label: members.remove("label")?,
            },
            "certificate" => Self::Certificate {
                name: members.remove("name")?,
                id: members.remove("id")?,
            },
            "oidc" => Self::Oidc {
                issuer: members.remove("issuer")?,
                subject: members.remove("subject")?,
                name: members.remove("name"),
            },
            "command_line" => Self::CommandLine {
                user: members.remove("user")?,
            },
            "release_key" => Self::ReleaseKey,
            "service" => Self::Service,
            _ => return None,
        };
        members.is_empty().then_some(who)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { id, label } => write!(f, "{id} ({label})"),
            Self::Certificate { name, id } => write!(f, "{name} ({id})"),
            Self::Oidc {
                issuer,
                subject,
                name: Some(name),
            } => write!(f, "{name} ({subject} at {issuer})"),
            Self::Oidc {
                issuer, subject, ..
            } => write!(f, "{subject} at {issuer}"),
            Self::CommandLine { user } => write!(f, "command line ({user})"),
            Self::ReleaseKey => f.write_str("release key"),
            Self::Service => f.write_str("service"),
        }
    }
}
