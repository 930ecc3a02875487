//! Everything that happens under one ticket: one state, one way in.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;

use super::account::{Account, Status};
use super::attested::AttestedKey;
use super::json as strict;
use super::jws::{self, AccountKey, Jws, SignedBy};
use super::nonce::{self, NonceKey};
use super::order::{IDENTIFIER_TYPE, Order, State};
use super::refusal::Refusal;
use super::reply::Reply;
use super::route::Route;
use super::statement::{Challenge, StatementRefusal, is_attested, judge};
use super::token::TokenInputs;
use crate::attestation::Anchors;
use crate::entropy::Entropy;
use crate::ids::SerialNumber;
use crate::pki::{
    Certificate, CertificateRequest, KnownIntermediates, LegacyDigest, PublicKey, pem,
};
use crate::reason::Reason;
use crate::time::Timestamp;

/// A Mac needs one of each for every time its owner installs the profile.
const MAX_ACCOUNTS: usize = 8;
const MAX_ORDERS: usize = 8;

/// What eight runs of nine requests spend, and polling besides.
const MAX_SPENT: usize = 512;

/// RFC 8555 section 6.2.
const JOSE: &str = "application/jose+json";

/// What has happened under one ticket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    accounts: BTreeMap<u32, Account>,
    orders: BTreeMap<u32, Order>,
    /// Nonces that were used, and are young enough to be tried again.
    spent: Vec<String>,
}

/// What holds for one directory at one moment.
#[derive(Debug)]
pub struct Terms<'a> {
    /// The directory's own URL without a slash at its end: `https://host/acme/<secret>`.
    pub base: &'a str,
    /// The ClientIdentifier in the profile: the serial number of a ticket that is bound to one,
    /// [`super::identifier`] of the secret otherwise.
    pub identifier: &'a str,
    /// The serial number the ticket is bound to.
    pub serial: Option<&'a SerialNumber>,
    /// The Secure Enclave key the ticket names.
    pub se_public_key: Option<&'a str>,
    /// Whether the ticket may be redeemed now. When not, what is there can be read, and nothing
    /// begun or ended.
    pub open: Result<(), Reason>,
    /// When the ticket ends, and every order with it.
    pub expires_at: Timestamp,
    pub anchors: &'a Anchors,
    pub known: &'a KnownIntermediates,
    pub nonce_key: &'a NonceKey,
    pub now: Timestamp,
}

/// A signed request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub route: Route,
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the directory is another than before, and must be kept before anything is sent. A
    /// refused request changes it too when it spent a nonce.
    pub changed: bool,
    pub act: Act,
}

/// What the caller does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Send this.
    Answer(Reply),
    /// Keep the evidence with the directory, then send this.
    Attested(Box<AttestedKey>, Reply),
    /// Make a certificate; [`Directory::issued`] or [`Directory::not_issued`] gives the reply.
    Issue(Box<Issue>),
}

/// A certificate to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The number of the order.
    pub order: u32,
    /// The CSR, whose signature was verified. Nothing in it but the key was looked at, and nothing
    /// else of it may get into the certificate.
    pub csr: Vec<u8>,
    /// Whose key it is: the key in the CSR is [`AttestedKey::spki`].
    pub attested: AttestedKey,
}

/// A request whose signature was verified.
struct Signed {
    by: By,
    nonce: String,
    payload: Vec<u8>,
}

/// Who signed.
enum By {
    Key(AccountKey),
    Account(u32),
}

impl Directory {
    /// Takes a signed request.
    pub fn post(
        &mut self,
        request: &Request<'_>,
        terms: &Terms<'_>,
        entropy: &dyn Entropy,
    ) -> Outcome {
        let mut changed = false;
        let act = self.admit(request, terms).and_then(|signed| {
            self.spend(signed.nonce, terms)?;
            changed = true;
            self.act(request.route, signed.by, &signed.payload, terms, entropy)
        });
        Outcome {
            changed,
            act: act.unwrap_or_else(|refusal| Act::Answer(Reply::refusing(&refusal, terms.base))),
        }
    }

    /// The reply to a request that [`Act::Issue`] came of, with the certificate that was made.
    pub fn issued(
        &mut self,
        number: u32,
        leaf: &Certificate<'_>,
        authority: &Certificate<'_>,
        terms: &Terms<'_>,
    ) -> Reply {
        self.conclude(number, terms, |order| match &order.state {
            State::Ready { attested } => {
                order.state = State::Valid {
                    validated_at: attested.verified_at,
                    chain: [pem::to_pem(leaf), pem::to_pem(authority)].concat(),
                };
                Ok(())
            }
            _ => Err(Refusal::NotReady(order.status(terms.now))),
        })
    }

    /// The reply to a request that [`Act::Issue`] came of, when there can be no certificate any
    /// more: the ticket was redeemed by somebody else in the meantime.
    pub fn not_issued(&mut self, number: u32, reason: Reason, terms: &Terms<'_>) -> Reply {
        let refusal = Refusal::Ticket(reason);
        self.conclude(number, terms, |order| {
            order.fail(&refusal);
            Err(refusal)
        })
    }

    fn conclude(
        &mut self,
        number: u32,
        terms: &Terms<'_>,
        end: impl FnOnce(&mut Order) -> Result<(), Refusal>,
    ) -> Reply {
        let order = self.orders.get_mut(&number).ok_or(Refusal::NotFound);
        let ended = order.and_then(|order| end(order).map(|()| &*order));
        match ended {
            Ok(order) => order_reply(200, number, order, terms),
            Err(refusal) => Reply::refusing(&refusal, terms.base),
        }
    }

    /// Everything that must hold before a request may change anything, the cheap part first.
    fn admit(&self, request: &Request<'_>, terms: &Terms<'_>) -> Result<Signed, Refusal> {
        // A media type is compared without regard to case, and may have parameters.
        let media_type = request.content_type.and_then(|text| text.split(';').next());
        if !media_type.is_some_and(|text| text.trim().eq_ignore_ascii_case(JOSE)) {
            return Err(Refusal::ContentType);
        }
        let jws = Jws::parse(request.body)?;
        if jws.url != request.route.url(terms.base) {
            return Err(Refusal::Url);
        }
        if !terms.nonce_key.knows(&jws.nonce, terms.base, terms.now)
            || self.spent.contains(&jws.nonce)
        {
            return Err(Refusal::Nonce);
        }
        let (by, key) = self.signer(request.route, &jws.by, terms)?;
        let nonce = jws.nonce.clone();
        Ok(Signed {
            payload: jws.verify(&key)?,
            nonce,
            by,
        })
    }

    /// RFC 8555 section 6.2: newAccount is signed by the key it names, all else by an account.
    fn signer(
        &self,
        route: Route,
        by: &SignedBy,
        terms: &Terms<'_>,
    ) -> Result<(By, AccountKey), Refusal> {
        match (route, by) {
            (Route::NewAccount, SignedBy::Key(key)) => Ok((By::Key(key.clone()), key.clone())),
            (Route::NewAccount, SignedBy::Account(_)) => {
                Err(Refusal::Malformed("newAccount is signed with jwk, not kid"))
            }
            (_, SignedBy::Key(_)) => Err(Refusal::Malformed("this is signed with kid, not jwk")),
            (_, SignedBy::Account(url)) => match Route::of_url(url, terms.base) {
                Some(Route::Account(number)) => {
                    let account = self.accounts.get(&number).ok_or(Refusal::NoAccount)?;
                    Ok((By::Account(number), account.key.clone()))
                }
                _ => Err(Refusal::Malformed("kid is no account of this directory")),
            },
        }
    }

    fn spend(&mut self, nonce: String, terms: &Terms<'_>) -> Result<(), Refusal> {
        self.spent
            .retain(|spent| nonce::must_be_remembered(spent, terms.now));
        if self.spent.len() >= MAX_SPENT {
            return Err(Refusal::Exhausted);
        }
        self.spent.push(nonce);
        Ok(())
    }

    fn act(
        &mut self,
        route: Route,
        by: By,
        payload: &[u8],
        terms: &Terms<'_>,
        entropy: &dyn Entropy,
    ) -> Result<Act, Refusal> {
        let account = match by {
            By::Key(key) => return self.new_account(key, payload, terms).map(Act::Answer),
            By::Account(number) => number,
        };
        if self.account(account)?.status == Status::Deactivated {
            return Err(Refusal::Deactivated);
        }
        let reply = match route {
            Route::NewAccount => return Err(Refusal::Malformed("newAccount is signed with jwk")),
            Route::Directory => {
                read_only(payload)?;
                Reply::directory(terms.base)
            }
            Route::NewNonce => {
                read_only(payload)?;
                Reply::empty(204, terms.base)
            }
            Route::NewOrder => self.new_order(account, payload, terms, entropy)?,
            Route::Account(number) | Route::Orders(number) if number != account => {
                return Err(Refusal::OtherAccount);
            }
            Route::Account(_) => self.account_request(account, payload, terms)?,
            Route::Orders(_) => {
                read_only(payload)?;
                self.orders_of(account, terms)
            }
            Route::Order(number) => {
                read_only(payload)?;
                order_reply(200, number, self.order(number, account)?, terms)
            }
            Route::Authorization(number) => {
                read_only(payload)?;
                let order = self.order(number, account)?;
                let view = order.authorization(number, terms.base, terms.now);
                Reply::json(200, &view, terms.base)
            }
            Route::Challenge(number) => return self.challenge(number, account, payload, terms),
            Route::Finalize(number) => return self.finalize(number, account, payload, terms),
            Route::Certificate(number) => {
                read_only(payload)?;
                match &self.order(number, account)?.state {
                    State::Valid { chain, .. } => Reply::chain(chain, terms.base),
                    _ => return Err(Refusal::NotFound),
                }
            }
        };
        Ok(Act::Answer(reply))
    }

    /// RFC 8555 section 7.3.
    fn new_account(
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

    fn account_request(
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
    fn orders_of(&self, account: u32, terms: &Terms<'_>) -> Reply {
        let orders: Vec<_> = self
            .orders
            .iter()
            .filter(|(_, order)| order.account == account && order.status(terms.now) != "invalid")
            .map(|(number, _)| Route::Order(*number).url(terms.base))
            .collect();
        Reply::json(200, &json!({ "orders": orders }), terms.base)
    }

    /// RFC 8555 section 7.4.
    fn new_order(
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
    fn challenge(
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
    fn finalize(
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

    fn account(&self, number: u32) -> Result<&Account, Refusal> {
        self.accounts.get(&number).ok_or(Refusal::NoAccount)
    }

    fn order(&self, number: u32, account: u32) -> Result<&Order, Refusal> {
        let order = self.orders.get(&number).ok_or(Refusal::NotFound)?;
        if order.account == account {
            Ok(order)
        } else {
            Err(Refusal::OtherAccount)
        }
    }

    fn order_mut(&mut self, number: u32, account: u32) -> Result<&mut Order, Refusal> {
        self.order(number, account)?;
        self.orders.get_mut(&number).ok_or(Refusal::NotFound)
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

fn order_reply(status: u16, number: u32, order: &Order, terms: &Terms<'_>) -> Reply {
    let view = order.view(number, terms.base, terms.now);
    Reply::json(status, &view, terms.base).at(Route::Order(number).url(terms.base))
}

/// RFC 8555 section 6.3: a POST-as-GET has an empty payload.
fn read_only(payload: &[u8]) -> Result<(), Refusal> {
    if payload.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Malformed(
            "the payload of this resource must be empty",
        ))
    }
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, Refusal> {
    strict::object(payload).map_err(|_| Refusal::Malformed("the payload is not one JSON object"))
}

/// Numbers are given once: nothing is ever taken out.
fn next<T>(numbered: &BTreeMap<u32, T>) -> u32 {
    numbered.keys().next_back().map_or(1, |last| last + 1)
}
