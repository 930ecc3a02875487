//! Certificates issued by a real server process on SQLite: its CPU for a whole issuance, while
//! the issued ones grow.

use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::mac::{EnrollmentProfile, IdentityKind};
use attestd_sim::{Mac, MacSpec, World, WorldOptions};
use futures_util::StreamExt as _;

use super::primitives::Yardstick;
use super::report::Report;
use super::server::{Server, per};

/// Issuances that are measured.
const MEASURED: usize = 200;
/// Issuances before the first that are measured, so that a server that has just started is not.
const FIRST: usize = 20;
/// Issuances at the same time, which share commits; and what one costs that comes alone.
const AT_ONCE: usize = 64;
/// Distinct RSA keys, whose making is the client's cost.
const KEYS: usize = 8;

/// A Mac that holds a profile whose ticket nobody has used.
struct Holder {
    mac: Mac,
    profile: EnrollmentProfile,
}

/// What is issued, and what it may cost.
#[derive(Debug)]
pub struct Issuance {
    /// Its name on the command line.
    pub part: &'static str,
    kind: IdentityKind,
    name: &'static str,
    goal: f64,
}

pub const ACME: Issuance = Issuance {
    part: "acme",
    kind: IdentityKind::Acme,
    name: "ACME issuance, nine requests, new account",
    goal: 160.0,
};

pub const SCEP: Issuance = Issuance {
    part: "scep",
    kind: IdentityKind::Scep,
    name: "SCEP issuance, three requests",
    goal: 83.0,
};

impl Issuance {
    /// On a server of its own: only certificates of the protocol that is measured grow.
    pub async fn run(&self, report: &mut Report, Yardstick(r): Yardstick, between: usize) {
        let Self { kind, name, .. } = *self;
        let world = World::start(WorldOptions::default())
            .await
            .expect("a world");
        let home = tempfile::tempdir().expect("a folder");
        let server = Server::start(&world, home.path());
        server.ready().await;
        let office = Office {
            world: &world,
            server: &server,
            kind,
        };
        eprintln!("{name} …");
        office.issue(FIRST, 1).await;
        let few = office.issue(MEASURED, AT_ONCE).await;
        office.issue(between, AT_ONCE).await;
        let many = office.issue(MEASURED, AT_ONCE).await;
        let alone = office.issue(MEASURED, 1).await;
        for (cost, when) in [
            (few, "among the first".to_owned()),
            (many, format!("after {between} more")),
            (alone, "the same, one at a time".to_owned()),
        ] {
            let line = format!("{name}, {when}, SQLite");
            report.held(&line, cost, r, "R", self.goal);
        }
    }
}

struct Office<'a> {
    world: &'a World,
    server: &'a Server,
    kind: IdentityKind,
}

impl Office<'_> {
    /// What an issuance costs the server, of `count`: from a profile to a certificate.
    async fn issue(&self, count: usize, at_once: usize) -> f64 {
        let holders = self.hand_out_profiles(count).await;
        self.server.settle().await;
        let issued = futures_util::stream::iter(&holders).for_each_concurrent(
            at_once,
            |Holder { mac, profile }| async move {
                let identity = mac.identity_for(profile).await;
                identity.expect("a certificate");
            },
        );
        per(self.server.cost(issued).await.0, count)
    }

    async fn hand_out_profiles(&self, count: usize) -> Vec<Holder> {
        let keys: Vec<_> = (0..KEYS)
            .map(|_| generate(KeyKind::Rsa2048).expect("a key"))
            .collect();
        let holders = futures_util::stream::iter(0..count).map(|index| {
            self.world.keys().add(keys[index % KEYS].clone());
            let mut spec = MacSpec::random().expect("a Mac");
            spec.allow_http_loopback = true;
            spec.asks_for = Some(self.kind);
            let mac = Mac::new(spec, self.world);
            async move {
                let profile = mac.request_profile(&self.server.base_url).await;
                let profile = mac.read_profile(&profile.expect("a profile"));
                let profile = profile.expect("a profile for Macs");
                assert_eq!(profile.identity.kind(), Some(self.kind));
                Holder { mac, profile }
            }
        });
        holders.buffer_unordered(AT_ONCE).collect().await
    }
}
