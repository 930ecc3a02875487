//! Accounts of one directory. Apple's client makes a new one on every run.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::jws::AccountKey;
use super::refusal::Refusal;
use super::route::Route;

/// More contacts, or longer ones, are nobody's.
const MAX_CONTACTS: usize = 4;
const MAX_CONTACT: usize = 254;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) key: AccountKey,
    pub(super) status: Status,
    contact: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Status {
    Valid,
    Deactivated,
}

impl Account {
    /// An account as newAccount asks for it. `termsOfServiceAgreed` has nothing to agree to, and
    /// what is not known is passed over (RFC 8555 section 7.3).
    pub(super) fn new(key: AccountKey, wish: &Map<String, Value>) -> Result<Self, Refusal> {
        Ok(Self {
            key,
            status: Status::Valid,
            contact: contact(wish)?.unwrap_or_default(),
        })
    }

    /// RFC 8555 sections 7.3.2 and 7.3.6: contacts may change, and the account may end.
    pub(super) fn update(&mut self, wish: &Map<String, Value>) -> Result<(), Refusal> {
        let contact = contact(wish)?;
        if wish.get("status").and_then(Value::as_str) == Some("deactivated") {
            self.status = Status::Deactivated;
        }
        if let Some(contact) = contact {
            self.contact = contact;
        }
        Ok(())
    }

    /// RFC 8555 section 7.1.2. `orders` is not optional for Apple's client (apple-protocol 7.1).
    pub(super) fn view(&self, number: u32, base: &str) -> Value {
        let mut view = json!({
            "status": self.status,
            "orders": Route::Orders(number).url(base),
        });
        if !self.contact.is_empty() {
            view["contact"] = json!(self.contact);
        }
        view
    }
}

/// RFC 8555 section 7.3: a contact is checked as far as the RFC says how.
fn contact(wish: &Map<String, Value>) -> Result<Option<Vec<String>>, Refusal> {
    let contacts = match wish.get("contact") {
        None => return Ok(None),
        Some(Value::Array(contacts)) if contacts.len() <= MAX_CONTACTS => contacts,
        Some(_) => return Err(Refusal::Contact),
    };
    let one = |contact: &Value| {
        let text = contact.as_str().ok_or(Refusal::Contact)?;
        let address = text.strip_prefix("mailto:").ok_or(Refusal::ContactScheme)?;
        let is_one = address.len() <= MAX_CONTACT
            && address.contains('@')
            && address
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'?' && b != b',');
        if is_one {
            Ok(text.to_owned())
        } else {
            Err(Refusal::Contact)
        }
    };
    contacts.iter().map(one).collect::<Result<_, _>>().map(Some)
}
