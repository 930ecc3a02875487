//! Everything that happens under one ticket: one state, one way in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::account::{Account, Status};
use super::attested::AttestedKey;
use super::jws::{AccountKey, Jws, SignedBy};
use super::nonce::{self, NonceKey};
use super::order::{Order, State};
use super::refusal::Refusal;
use super::reply::Reply;
use super::route::Route;
use super::spent::{Memory, Use};
use crate::attestation::Anchors;
use crate::entropy::Entropy;
use crate::ids::SerialNumber;
use crate::pki::{Certificate, KnownIntermediates, pem};
use crate::reason::Reason;
use crate::time::Timestamp;

/// What eight runs of nine requests spend, and polling besides.
const MAX_SPENT: usize = 512;

/// RFC 8555 section 6.2.
const JOSE: &str = "application/jose+json";

/// What has happened under one ticket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    pub(super) accounts: BTreeMap<u32, Account>,
    pub(super) orders: BTreeMap<u32, Order>,
    /// Nonces that were used by requests that may have changed something, and where memory cannot
    /// tell by any other; those that are young enough to be tried again.
    spent: Vec<String>,
}

/// What holds for one directory at one moment. `Debug` does not show the secret in its URL.
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

/// A signed request. Its header repeats the URL, so `Debug` shows the route only.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub route: Route,
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the directory is another than before, and must be kept before anything is sent. A
    /// refused request changes it too when it spent a nonce here.
    pub changed: bool,
    /// Whether it was signed by whom it names, under a nonce that was good.
    pub admitted: bool,
    pub act: Act,
}

/// What the caller does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Send this.
    Answer(Reply),
    /// Keep the directory, which holds the evidence until the certificate is issued; then send this.
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
pub(super) struct Signed {
    pub(super) by: By,
    nonce: String,
    pub(super) payload: Vec<u8>,
}

impl Signed {
    /// RFC 8555 section 6.3: a POST-as-GET is told by its empty payload. Whatever else comes with
    /// an empty payload is refused, and changes nothing either.
    fn wanted(&self) -> Use {
        match self.by {
            By::Account(_) if self.payload.is_empty() => Use::Read,
            By::Account(_) | By::Key(_) => Use::Change,
        }
    }
}

/// Who signed.
pub(super) enum By {
    Key(AccountKey),
    Account(u32),
}

impl fmt::Debug for Terms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("serial", &self.serial)
            .field("open", &self.open)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// Takes a signed request.
    pub fn post(
        &mut self,
        request: &Request<'_>,
        terms: &Terms<'_>,
        entropy: &dyn Entropy,
    ) -> Outcome {
        let (mut changed, mut admitted) = (false, false);
        let act = self.admit(request, terms).and_then(|signed| {
            changed = self.spend(&signed, terms)?;
            admitted = true;
            self.act(request.route, signed.by, &signed.payload, terms, entropy)
        });
        Outcome {
            changed,
            admitted,
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
        let jws = Self::read(request, terms)?;
        if !terms.nonce_key.knows(&jws.nonce, terms.base, terms.now)
            || self.spent.contains(&jws.nonce)
        {
            return Err(Refusal::Nonce);
        }
        self.verify(request.route, jws, terms)
    }

    /// The form of a request, and that it is meant for where it came.
    pub(super) fn read(request: &Request<'_>, terms: &Terms<'_>) -> Result<Jws, Refusal> {
        // A media type is compared without regard to case, and may have parameters.
        let media_type = request.content_type.and_then(|text| text.split(';').next());
        if !media_type.is_some_and(|text| text.trim().eq_ignore_ascii_case(JOSE)) {
            return Err(Refusal::ContentType);
        }
        let jws = Jws::parse(request.body)?;
        if jws.url != request.route.url(terms.base) {
            return Err(Refusal::Url);
        }
        Ok(jws)
    }

    pub(super) fn verify(
        &self,
        route: Route,
        jws: Jws,
        terms: &Terms<'_>,
    ) -> Result<Signed, Refusal> {
        let (by, key) = self.signer(route, &jws.by, terms)?;
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

    /// Uses the nonce of a request up. Returns whether that is to be kept here.
    fn spend(&mut self, signed: &Signed, terms: &Terms<'_>) -> Result<bool, Refusal> {
        let wanted = signed.wanted();
        match (
            terms.nonce_key.spend(&signed.nonce, wanted, terms.now),
            wanted,
        ) {
            (Memory::UsedBefore, _) => return Err(Refusal::Nonce),
            (Memory::Remembers, Use::Read) => return Ok(false),
            (Memory::Remembers, Use::Change) | (Memory::CannotTell, _) => {}
        }
        self.spent
            .retain(|spent| nonce::must_be_remembered(spent, terms.now));
        if self.spent.len() >= MAX_SPENT {
            return Err(Refusal::Exhausted);
        }
        self.spent.push(signed.nonce.clone());
        Ok(true)
    }

    pub(super) fn act(
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

    pub(super) fn account(&self, number: u32) -> Result<&Account, Refusal> {
        self.accounts.get(&number).ok_or(Refusal::NoAccount)
    }

    pub(super) fn order(&self, number: u32, account: u32) -> Result<&Order, Refusal> {
        let order = self.orders.get(&number).ok_or(Refusal::NotFound)?;
        if order.account == account {
            Ok(order)
        } else {
            Err(Refusal::OtherAccount)
        }
    }

    pub(super) fn order_mut(&mut self, number: u32, account: u32) -> Result<&mut Order, Refusal> {
        self.order(number, account)?;
        self.orders.get_mut(&number).ok_or(Refusal::NotFound)
    }
}

pub(super) fn order_reply(status: u16, number: u32, order: &Order, terms: &Terms<'_>) -> Reply {
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
