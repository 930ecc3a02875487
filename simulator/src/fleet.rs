//! Many Macs at once.

use futures_util::StreamExt as _;
use openssl::error::ErrorStack;
use serde::Serialize;

use crate::mac::{IdentityKind, Lie, Life, Mac, MacKind, MacSpec};
use crate::world::World;

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetPlan {
    pub count: usize,
    /// The kinds of Mac, in turn; Apple silicon where none is named.
    pub kinds: Vec<MacKind>,
    /// The identity they ask the server for.
    pub asks_for: Option<IdentityKind>,
    /// How all of them deceive; `liars` replaces it where it applies.
    pub lie: Option<Lie>,
    /// Mixes in every kind of Mac a server must not trust.
    pub liars: bool,
    /// Attestations take 2 to 20 seconds, as Apple's do.
    pub real_latency: bool,
    pub allow_http_loopback: bool,
    /// How many enroll at the same time.
    pub at_once: usize,
}

impl Default for FleetPlan {
    fn default() -> Self {
        Self {
            count: 1,
            kinds: Vec::new(),
            asks_for: None,
            lie: None,
            liars: false,
            real_latency: false,
            allow_http_loopback: false,
            at_once: 8,
        }
    }
}

impl FleetPlan {
    /// The Macs. With liars, of each six in order: two honest, one with SIP off that denies it, one
    /// with Reduced Security that says so, one that relays another Mac, one that signs as another.
    pub fn specs(&self) -> Result<Vec<MacSpec>, ErrorStack> {
        (0..self.count).map(|index| self.spec(index)).collect()
    }

    fn spec(&self, index: usize) -> Result<MacSpec, ErrorStack> {
        let mut kinds = self.kinds.iter().cycle();
        let kind = kinds.nth(index % self.kinds.len().max(1));
        let mut spec = MacSpec::of_kind(kind.copied().unwrap_or_default())?;
        spec.asks_for = self.asks_for;
        if self.real_latency {
            spec = spec.with_real_latency();
        }
        spec.allow_http_loopback = self.allow_http_loopback;
        if let Some(lie) = &self.lie {
            spec = spec.lying(lie.clone());
        }
        if !self.liars {
            return Ok(spec);
        }
        Ok(match index % 6 {
            2 => spec.lying(Lie::SipOffButClaimsOn),
            3 => spec.with_reduced_security(),
            4 => spec.lying(Lie::RelaysAnotherMac(Box::new(
                MacSpec::random()?.attested_state(),
            ))),
            5 => spec.lying(Lie::SignsWithWrongIdentity(None)),
            _ => spec,
        })
    }
}

/// Macs that enrolled, or tried to; those that did live until this is dropped.
#[derive(Debug)]
pub struct Fleet {
    pub macs: Vec<Mac>,
    lives: Vec<Life>,
}

/// A fleet in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FleetSummary {
    pub macs: usize,
    pub enrolled: usize,
    /// Commands executed, and those whose reply the server acknowledged.
    pub asked: usize,
    pub acknowledged: usize,
}

impl Fleet {
    /// Enrolls all Macs of the plan at a server and lets them live. One that fails has said why as
    /// an event and stays in the list, dead.
    pub async fn enroll(
        world: &World,
        plan: &FleetPlan,
        server_url: &str,
    ) -> Result<Self, ErrorStack> {
        Self::enroll_all(world, plan.specs()?, plan.at_once, server_url).await
    }

    /// As [`Fleet::enroll`], with Macs of the caller's making.
    pub async fn enroll_all(
        world: &World,
        specs: Vec<MacSpec>,
        at_once: usize,
        server_url: &str,
    ) -> Result<Self, ErrorStack> {
        // Only SCEP needs RSA keys, which take long to make.
        let by_scep = |spec: &&MacSpec| {
            !spec.is_attestable()
                || spec.asks_for == Some(IdentityKind::Scep)
                || spec.former_identity.is_some()
        };
        let keys = specs.iter().filter(by_scep).count();
        world.keys().warm(keys.min(64)).await?;
        let macs: Vec<Mac> = specs
            .into_iter()
            .map(|spec| Mac::new(spec, world))
            .collect();
        let lives = futures_util::stream::iter(macs.clone())
            .map(|mac| async move { mac.enroll(server_url).await.ok().map(|()| mac.live()) })
            .buffer_unordered(at_once.max(1))
            .filter_map(std::future::ready)
            .collect()
            .await;
        Ok(Self { macs, lives })
    }

    /// How many were enrolled at the start.
    pub fn living(&self) -> usize {
        self.lives.len()
    }

    /// The fleet in numbers, as of now.
    pub fn summary(&self) -> FleetSummary {
        let exchanges: Vec<_> = self.macs.iter().flat_map(Mac::exchanges).collect();
        FleetSummary {
            macs: self.macs.len(),
            enrolled: self.macs.iter().filter(|mac| mac.is_enrolled()).count(),
            asked: exchanges.len(),
            acknowledged: exchanges
                .iter()
                .filter(|exchange| exchange.acknowledged.is_some())
                .count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::Rehearsal;
    use crate::world::WorldOptions;

    #[test]
    fn a_fleet_with_liars_has_every_kind_and_no_two_alike() {
        let plan = FleetPlan {
            count: 12,
            liars: true,
            ..FleetPlan::default()
        };
        let specs = plan.specs().unwrap();
        assert_eq!(specs.iter().filter(|spec| spec.lie.is_some()).count(), 6);
        let serials: std::collections::HashSet<_> =
            specs.iter().map(|spec| spec.serial.clone()).collect();
        assert_eq!(serials.len(), 12);
    }

    #[test]
    fn kinds_take_turns() {
        let plan = FleetPlan {
            count: 5,
            kinds: vec![MacKind::AppleSilicon, MacKind::Intel],
            asks_for: Some(IdentityKind::Acme),
            ..FleetPlan::default()
        };
        let specs = plan.specs().unwrap();
        let silicon: Vec<_> = specs.iter().map(|spec| spec.apple_silicon).collect();
        assert_eq!(silicon, [true, false, true, false, true]);
        assert!(specs.iter().all(|spec| spec.asks_for.is_some()));
    }

    #[tokio::test]
    async fn a_fleet_enrolls_lives_and_counts() {
        let world = World::start(WorldOptions::default()).await.unwrap();
        let server = Rehearsal::start(world.topic()).await;
        world.trust(&server.root_pem);
        let plan = FleetPlan {
            count: 3,
            liars: true,
            ..FleetPlan::default()
        };
        let fleet = Fleet::enroll(&world, &plan, &server.url).await.unwrap();
        server.ask("C1", "SecurityInfo");
        fleet.macs[0].connect().await.unwrap();
        let expected = FleetSummary {
            macs: 3,
            enrolled: 3,
            asked: 1,
            acknowledged: 1,
        };
        assert_eq!((fleet.living(), fleet.summary()), (3, expected));
    }
}
