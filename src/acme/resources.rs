//! What each resource does with a request whose signer is known.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::account::{Account, Status};
use super::attested::AttestedKey;
use super::directory::{Act, Directory, Issue, Terms, order_reply};
use super::jws::{self, AccountKey};
use super::order::{IDENTIFIER_TYPE, Order, State};
use super::refusal::Refusal;
use super::reply::Reply;
use super::route::Route;
use super::statement::{Challenge, StatementRefusal, is_attested, judge};
use super::token::TokenInputs;
use crate::entropy::Entropy;
use crate::json as strict;
use crate::pki::{CertificateRequest, LegacyDigest, PublicKey};

/// A Mac needs one of each for every time its owner installs the profile.
const MAX_ACCOUNTS: usize = 8;
const MAX_ORDERS: usize = 8;

impl Directory {
    /// RFC 8555 section 7.3.
    pub(super) fn new_account(
        &mut self,
        key: AccountKey,
        payload: &[u8],
        terms: &Terms<'_>,
    ) -> Result<Reply, Refusal> {
        let wish = object(payload)?;
        let existing = self.accounts.iter().find(|(_, account)| account.key == key);
        let (status, number) = match existing {
            Some((_, account)) if account.status == Status::Deactivated => {
                return Err(Refusal::Deactivated);
            }
            Some((number, _)) => (200, *number),
            None if wish.get("onlyReturnExisting") == Some(&Value::Bool(true)) => {
                return Err(Refusal::NoAccount);
            }
            None => {
                terms.open.map_err(Refusal::Ticket)?;
                if self.accounts.len() >= MAX_ACCOUNTS {
                    return Err(Refusal::Exhausted);
                }
                let number = next(&self.accounts);
                self.accounts.insert(number, Account::new(key, &wish)?);
                (201, number)
            }
        };
        let view = self.account(number)?.view(number, terms.base);
        Ok(Reply::json(status, &view, terms.base).at(Route::Account(number).url(terms.base)))
    }

    pub(super) fn account_request(
        &mut self,
        number: u32,
        payload: &[u8],
        terms: &Terms<'_>,
    ) -> Result<Reply, Refusal> {
        if !payload.is_empty() {
            let wish = object(payload)?;
            let account = self.accounts.get_mut(&number).ok_or(Refusal::NoAccount)?;
            account.update(&wish)?;
            if account.status == Status::Deactivated {
                // RFC 8555 section 7.3.6: what is pending is cancelled.
                for order in self.orders.values_mut() {
                    if order.account == number && order.is_open() {
                        order.fail(&Refusal::Deactivated);
                    }
                }
            }
        }
        let view = self.account(number)?.view(number, terms.base);
        Ok(Reply::json(200, &view, terms.base))
    }

    /// RFC 8555 section 7.1.2.1.
    pub(super) fn orders_of(&self, account: u32, terms: &Terms<'_>) -> Reply {
        let orders: Vec<_> = self
            .orders
            .iter()
            .filter(|(_, order)| order.account == account && order.status(terms.now) != "invalid")
            .map(|(number, _)| Route::Order(*number).url(terms.base))
            .collect();
        Reply::json(200, &json!({ "orders": orders }), terms.base)
    }

    /// RFC 8555 section 7.4.
    pub(super) fn new_order(
        &mut self,
        account: u32,
        payload: &[u8],
        terms: &Terms<'_>,
        entropy: &dyn Entropy,
    ) -> Result<Reply, Refusal> {
        let wish = object(payload)?;
        terms.open.map_err(Refusal::Ticket)?;
        if wish.contains_key("notBefore") || wish.contains_key("notAfter") {
            return Err(Refusal::Validity);
        }
        is_wanted(&wish, terms.identifier)?;
        if self.orders.len() >= MAX_ORDERS {
            return Err(Refusal::Exhausted);
        }
        let number = next(&self.orders);
        let inputs = TokenInputs::draw(terms.se_public_key, entropy);
        let order = Order::new(
            account,
            terms.identifier,
            inputs,
            terms.now,
            terms.expires_at,
        );
        let reply = order_reply(201, number, &order, terms);
        self.orders.insert(number, order);
        Ok(reply)
    }

    /// RFC 8555 section 7.5.1. An answer decides: there is no second try with the same challenge.
    pub(super) fn challenge(
        &mut self,
        number: u32,
        account: u32,
        payload: &[u8],
        terms: &Terms<'_>,
    ) -> Result<Act, Refusal> {
        let order = self.order_mut(number, account)?;
        let answer = if payload.is_empty() {
            None
        } else {
            Some(object(payload)?)
        };
        let judged = match answer {
            Some(answer) if order.status(terms.now) == "pending" => {
                terms.open.map_err(Refusal::Ticket)?;
                Some(judged(&answer, order, terms))
            }
            // Asked how it stands, or answered again.
            _ => None,
        };
        let up = Route::Authorization(number).url(terms.base);
        match judged {
            Some(Err(refusal)) => {
                let refusal = Refusal::Statement(refusal);
                order.fail(&refusal);
                Ok(Act::Answer(Reply::refusing(&refusal, terms.base).below(up)))
            }
            Some(Ok(attested)) => {
                let attested = Box::new(attested);
                order.state = State::Ready {
                    attested: attested.clone(),
                };
                let view = order.challenge(number, terms.base, terms.now);
                Ok(Act::Attested(
                    attested,
                    Reply::json(200, &view, terms.base).below(up),
                ))
            }
            None => {
                let view = order.challenge(number, terms.base, terms.now);
                Ok(Act::Answer(Reply::json(200, &view, terms.base).below(up)))
            }
        }
    }

    /// RFC 8555 section 7.4. A CSR that is refused leaves the order ready for another.
    pub(super) fn finalize(
        &mut self,
        number: u32,
        account: u32,
        payload: &[u8],
        terms: &Terms<'_>,
    ) -> Result<Act, Refusal> {
        let order = self.order(number, account)?;
        let attested = match &order.state {
            State::Ready { attested } if !order.has_expired(terms.now) => attested,
            _ => return Err(Refusal::NotReady(order.status(terms.now))),
        };
        terms.open.map_err(Refusal::Ticket)?;
        let wish = object(payload)?;
        let csr = wish.get("csr").and_then(Value::as_str);
        let csr = jws::decode(csr.ok_or(Refusal::Member("csr"))?, "csr")?;
        let request =
            CertificateRequest::parse(&csr, LegacyDigest::Refused).map_err(Refusal::Csr)?;
        let key = PublicKey::parse(&attested.spki).map_err(Refusal::Csr)?;
        if !is_attested(&request.public_key(), &key) {
            return Err(Refusal::OtherKey);
        }
        Ok(Act::Issue(Box::new(Issue {
            order: number,
            attested: (**attested).clone(),
            csr,
        })))
    }
}

/// Judges an answer. `error`, and an answer without attObj, is how Apple's client says that it got
/// no attestation (apple-protocol 7.1).
fn judged(
    answer: &Map<String, Value>,
    order: &Order,
    terms: &Terms<'_>,
) -> Result<AttestedKey, StatementRefusal> {
    let object = match (answer.get("attObj"), answer.get("error")) {
        (_, Some(_)) | (None, None) => return Err(StatementRefusal::Missing),
        (Some(Value::String(text)), None) => URL_SAFE_NO_PAD.decode(text).ok(),
        (Some(_), None) => None,
    };
    let challenge = Challenge {
        token: &order.token,
        inputs: &order.inputs,
        minted_at: order.created_at,
        serial: terms.serial,
    };
    judge(
        &object.ok_or(StatementRefusal::Encoding)?,
        &challenge,
        terms.anchors,
        terms.known,
        terms.now,
    )
}

/// Whether the identifiers of a newOrder are the one that may be asked for.
fn is_wanted(wish: &Map<String, Value>, expected: &str) -> Result<(), Refusal> {
    let identifiers = match wish.get("identifiers") {
        Some(Value::Array(identifiers)) if !identifiers.is_empty() => identifiers,
        _ => {
            return Err(Refusal::Malformed(
                "identifiers must be an array with an element",
            ));
        }
    };
    for identifier in identifiers {
        let text = |name: &str| identifier.get(name).and_then(Value::as_str);
        let (Some(kind), Some(value)) = (text("type"), text("value")) else {
            return Err(Refusal::Malformed("an identifier has a type and a value"));
        };
        if kind != IDENTIFIER_TYPE {
            return Err(Refusal::IdentifierType);
        }
        // The one-time code of an unbound ticket is a secret.
        if !bool::from(value.as_bytes().ct_eq(expected.as_bytes())) {
            return Err(Refusal::Identifier);
        }
    }
    if identifiers.len() > 1 {
        return Err(Refusal::Identifier);
    }
    Ok(())
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, Refusal> {
    strict::object(payload).map_err(|_| Refusal::Malformed("the payload is not one JSON object"))
}

/// Numbers are given once: nothing is ever taken out.
fn next<T>(numbered: &BTreeMap<u32, T>) -> u32 {
    numbered.keys().next_back().map_or(1, |last| last + 1)
}
