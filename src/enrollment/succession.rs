//! What an Authenticate begins, when the serial number or the UDID it names is known here already.
//!
//! UDID and serial number are claims; only Apple proves a serial number. Once it did, the serial
//! number is *held*, by one enrollment and for ever by its device id. A newcomer for a held serial
//! number contends: it is heard on a channel of its own, and takes the place when Apple proves the
//! serial number there. At once it takes the place only when something nobody can copy speaks for
//! it: an identity Apple attested, a renewal the old identity signed, or a ticket of the same
//! account or for the same Secure Enclave key. A ticket that merely names the serial number does
//! not: the public endpoint gives one to anybody who can read.

use super::{Enrollment, Identity, IdentityKind, Ticket};
use crate::ids::{SerialNumber, Udid};
use crate::reason::Reason;
use crate::time::Timestamp;

/// What is known of whoever says Authenticate.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer<'a> {
    pub udid: &'a Udid,
    pub serial: Option<&'a SerialNumber>,
    pub identity: &'a Identity,
    /// The ticket the identity was issued for.
    pub ticket: Option<&'a Ticket>,
}

/// What stands here already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing<'a> {
    /// The enrollment the newcomer's identity is bound to.
    pub own: Option<&'a Enrollment>,
    /// The enrollment that stands under the newcomer's UDID.
    pub by_udid: Option<&'a Enrollment>,
    /// The enrollment that holds the newcomer's serial number.
    pub holder: Option<&'a Enrollment>,
    /// The ticket the holder came in by.
    pub holder_ticket: Option<&'a Ticket>,
}

/// What an accepted Authenticate begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession<'a> {
    /// A Mac seen for the first time.
    First,
    /// A known Mac enrols again: its history stays, and so do its negatives.
    Again(&'a Enrollment),
    /// It takes the place of an enrollment that never proved its serial number. The history stays;
    /// what that one brought against itself does not count against the newcomer.
    Displaces(&'a Enrollment),
    /// An enrollment of its own, beside the one it contends with.
    Contends(&'a Enrollment),
}

/// Decides what an Authenticate begins.
///
/// # Refusals
/// As [`Identity::usable`]; `identity_mismatch` when the identity speaks for another Mac, or spoke
/// for this one before another took its place; `serial_mismatch` when the identity, or what Apple
/// attested of this UDID, names another serial number.
pub fn succession<'a>(
    newcomer: Newcomer<'_>,
    standing: Standing<'a>,
    now: Timestamp,
) -> Result<Succession<'a>, Reason> {
    let Newcomer {
        serial, identity, ..
    } = newcomer;
    identity.usable(now)?;
    if identity.device_id.is_some() {
        return again(newcomer, standing);
    }
    if identity.serial.is_some() && identity.serial.as_ref() != serial {
        return Err(Reason::SerialMismatch);
    }
    if let Some(known) = standing.by_udid
        && known.holds_serial()
    {
        known.is_of(serial)?;
    }
    Ok(match (standing.holder, standing.by_udid) {
        (Some(holder), _) if newcomer.is_vouched(standing.holder_ticket) => {
            Succession::Again(holder)
        }
        (Some(holder), _) => Succession::Contends(holder),
        (None, Some(known)) => Succession::Displaces(known),
        (None, None) => Succession::First,
    })
}

/// The identity was bound before: to its own Mac it may speak again.
fn again<'a>(newcomer: Newcomer<'_>, standing: Standing<'a>) -> Result<Succession<'a>, Reason> {
    let own = standing.own.ok_or(Reason::IdentityMismatch)?;
    if !own.hears(newcomer.identity) || own.udid != *newcomer.udid {
        return Err(Reason::IdentityMismatch);
    }
    let issued_for = newcomer.identity.serial.is_some();
    if issued_for && newcomer.identity.serial.as_ref() != newcomer.serial {
        return Err(Reason::SerialMismatch);
    }
    if own.holds_serial() || own.contends_with.is_some() {
        own.is_of(newcomer.serial)?;
    }
    Ok(match standing.holder {
        // It was known under another serial number, or under none, and now names a held one.
        Some(holder) if holder.device_id != own.device_id && own.contends_with.is_none() => {
            Succession::Contends(holder)
        }
        _ => Succession::Again(own),
    })
}

impl Newcomer<'_> {
    /// Whether something that cannot be copied says that this is the Mac that holds the serial
    /// number.
    fn is_vouched(&self, holder_ticket: Option<&Ticket>) -> bool {
        if self.identity.proves_serial() {
            return true;
        }
        let (Some(own), Some(holder)) = (self.ticket, holder_ticket) else {
            return false;
        };
        // An absent account equals no account.
        let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
        same(&own.account, &holder.account) || same(&own.se_public_key, &holder.se_public_key)
    }
}

impl Identity {
    /// Whether Apple vouched, when it was issued, that its key is in the Mac with its serial number.
    pub fn proves_serial(&self) -> bool {
        self.kind == IdentityKind::AcmeAttested && self.serial.is_some()
    }
}

impl Enrollment {
    /// Whether Apple evidence for its serial number exists.
    pub fn holds_serial(&self) -> bool {
        self.serial_held_since().is_some()
    }

    /// Since when it does: from the proof on, although what follows from it is written a moment later.
    pub fn serial_held_since(&self) -> Option<Timestamp> {
        match &self.contends_with {
            Some(_) => None,
            None => self.held_since.or(self.proved_at),
        }
    }

    /// Whether this identity speaks for the Mac: the current one, or one issued to renew it.
    pub fn hears(&self, identity: &Identity) -> bool {
        identity.device_id.as_ref() == Some(&self.device_id)
            && (identity.certificate == self.identity || identity.renews == Some(self.identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::Protocol;
    use crate::enrollment::ticket::Bounds;
    use crate::enrollment::{Authenticated, Hardware};
    use crate::entropy::SeededEntropy;
    use crate::ids::{CertificateHash, DeviceId, Topic};

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_790_847_007)
    }

    fn serial(number: u32) -> SerialNumber {
        SerialNumber::parse(&format!("SIMTEST{number:05}")).expect("well formed")
    }

    fn udid(number: u32) -> Udid {
        Udid::parse(&format!("5B0C1D2E-7F3A-5C41-9A6D-{number:012X}")).expect("well formed")
    }

    fn identity(name: &str, kind: IdentityKind, bound_to: Option<u32>) -> Identity {
        Identity {
            certificate: CertificateHash::of(name.as_bytes()),
            der: name.as_bytes().to_vec(),
            kind,
            ticket_id: None,
            serial: bound_to.map(serial),
            device_id: None,
            issued_at: now(),
            not_before: now(),
            not_after: now().plus(std::time::Duration::from_secs(1_000)),
            revoked_at: None,
            transaction_id: None,
            renews: None,
        }
    }

    fn ticket(account: Option<&str>, se_public_key: Option<&str>) -> Ticket {
        let bounds = Bounds {
            serial: Some(serial(1)),
            account: account.map(str::to_owned),
            se_public_key: se_public_key.map(str::to_owned),
            protocol: Protocol::Scep,
        };
        Ticket::issue(bounds, now(), &SeededEntropy::new(3)).0
    }

    /// The Mac with UDID and serial number 1, enrolled with the identity `old`.
    fn known(proved: bool) -> Enrollment {
        let by = Authenticated {
            serial: Some(serial(1)),
            identity: CertificateHash::of(b"old"),
            ticket_id: None,
            topic: Topic::parse("com.apple.mgmt.External.0f0e0d0c").expect("well formed"),
            hardware: Hardware::default(),
        };
        let device_id = DeviceId::new(now(), &SeededEntropy::new(1));
        Enrollment {
            held_since: proved.then(now),
            ..Enrollment::begin(device_id, udid(1), &by, now())
        }
    }

    fn decide<'a>(
        identity: &Identity,
        (udid, serial): (&Udid, Option<&SerialNumber>),
        ticket: Option<&Ticket>,
        known: &'a Enrollment,
        known_ticket: Option<&'a Ticket>,
    ) -> Result<Succession<'a>, Reason> {
        let newcomer = Newcomer {
            udid,
            serial,
            identity,
            ticket,
        };
        let holds = known.holds_serial() && known.serial.as_ref() == serial;
        let standing = Standing {
            own: identity.device_id.as_ref().map(|_| known),
            by_udid: (known.udid == *udid).then_some(known),
            holder: holds.then_some(known),
            holder_ticket: known_ticket,
        };
        succession(newcomer, standing, now())
    }

    #[test]
    fn a_newcomer_for_a_held_serial_contends_whatever_its_ticket_says_of_the_serial() {
        let holder = known(true);
        for bound_to in [None, Some(1)] {
            let newcomer = identity("new", IdentityKind::Scep, bound_to);
            for udid in [udid(1), udid(2)] {
                let found = decide(&newcomer, (&udid, Some(&serial(1))), None, &holder, None);
                assert_eq!(found, Ok(Succession::Contends(&holder)));
            }
        }
    }

    #[test]
    fn what_nobody_can_copy_takes_the_place_at_once() {
        let (holder, who) = (known(true), (&udid(2), Some(&serial(1))));
        let attested = identity("new", IdentityKind::AcmeAttested, Some(1));
        let found = decide(&attested, who, None, &holder, None);
        assert_eq!(found, Ok(Succession::Again(&holder)));
        // Attested, but of what is not known.
        let blank = identity("new", IdentityKind::AcmeAttested, None);
        let found = decide(&blank, who, None, &holder, None);
        assert_eq!(found, Ok(Succession::Contends(&holder)));

        let newcomer = identity("new", IdentityKind::Scep, None);
        let cases = [
            (ticket(Some("a"), None), ticket(Some("a"), None), true),
            (ticket(None, Some("k")), ticket(None, Some("k")), true),
            (ticket(Some("a"), None), ticket(Some("b"), None), false),
            (ticket(None, None), ticket(None, None), false),
            (ticket(None, Some("k")), ticket(Some("k"), None), false),
        ];
        for (own, holders, vouched) in &cases {
            let found = decide(&newcomer, who, Some(own), &holder, Some(holders));
            let expected = if *vouched {
                Succession::Again(&holder)
            } else {
                Succession::Contends(&holder)
            };
            assert_eq!(found, Ok(expected), "{own:?} {holders:?}");
        }
    }

    #[test]
    fn a_proof_outlasts_an_authenticate_that_comes_before_it_is_settled() {
        let proved = Enrollment {
            proved_at: Some(now()),
            ..known(false)
        };
        let by = Authenticated {
            serial: Some(serial(1)),
            identity: CertificateHash::of(b"new"),
            ticket_id: None,
            topic: proved.topic.clone(),
            hardware: Hardware::default(),
        };
        let again = proved.clone().authenticated(udid(1), &by, now());
        assert_eq!((again.held_since, again.proved_at), (Some(now()), None));
        let contender = Enrollment {
            contends_with: Some(proved.device_id.clone()),
            ..proved.clone()
        };
        assert_eq!(contender.serial_held_since(), None);
        assert_eq!(
            contender
                .clone()
                .authenticated(udid(1), &by, now())
                .held_since,
            None
        );
        assert_eq!(proved.taken_over_by(&contender).held_since, Some(now()));
    }

    #[test]
    fn a_claim_alone_holds_nothing() {
        let claimed = known(false);
        let newcomer = identity("new", IdentityKind::Scep, None);
        let same = decide(
            &newcomer,
            (&udid(1), Some(&serial(1))),
            None,
            &claimed,
            None,
        );
        assert_eq!(same, Ok(Succession::Displaces(&claimed)));
        let other = decide(
            &newcomer,
            (&udid(1), Some(&serial(2))),
            None,
            &claimed,
            None,
        );
        assert_eq!(other, Ok(Succession::Displaces(&claimed)));
        let elsewhere = decide(
            &newcomer,
            (&udid(2), Some(&serial(1))),
            None,
            &claimed,
            None,
        );
        assert_eq!(elsewhere, Ok(Succession::First));
    }

    #[test]
    fn a_udid_whose_serial_apple_proved_has_no_other() {
        let holder = known(true);
        let newcomer = identity("new", IdentityKind::Scep, None);
        for claimed in [None, Some(&serial(2))] {
            let found = decide(&newcomer, (&udid(1), claimed), None, &holder, None);
            assert_eq!(found, Err(Reason::SerialMismatch));
        }
        let bound = identity("new", IdentityKind::Scep, Some(2));
        let found = decide(&bound, (&udid(3), Some(&serial(1))), None, &holder, None);
        assert_eq!(found, Err(Reason::SerialMismatch));
    }

    #[test]
    fn a_bound_identity_speaks_for_its_own_mac_until_another_took_its_place() {
        let holder = known(true);
        let bound = |name, renews: Option<&str>| Identity {
            device_id: Some(holder.device_id.clone()),
            renews: renews.map(|name| CertificateHash::of(name.as_bytes())),
            ..identity(name, IdentityKind::Scep, None)
        };
        let own = (&udid(1), Some(&serial(1)));
        let current = decide(&bound("old", None), own, None, &holder, None);
        assert_eq!(current, Ok(Succession::Again(&holder)));
        let renewed = decide(&bound("next", Some("old")), own, None, &holder, None);
        assert_eq!(renewed, Ok(Succession::Again(&holder)));
        for (identity, who) in [
            (bound("former", None), own),
            (bound("late", Some("former")), own),
            (bound("old", None), (&udid(2), Some(&serial(1)))),
        ] {
            let found = decide(&identity, who, None, &holder, None);
            assert_eq!(found, Err(Reason::IdentityMismatch), "{identity:?}");
        }
        let renamed = (&udid(1), Some(&serial(2)));
        let found = decide(&bound("old", None), renamed, None, &holder, None);
        assert_eq!(found, Err(Reason::SerialMismatch));
    }
}
