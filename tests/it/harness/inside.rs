//! A look behind the wire: what the server keeps and counts.

use std::time::{Duration, Instant};

use attestd::enrollment::ticket::Bounds;
use attestd::ids::DeviceId;
use attestd::posture::Posture;
use attestd::store::{Evidence, NumberedEvent};
use attestd::verification::Verification;
use attestd::verification::agenda::Next;
use attestd_sim::Mac;

use super::scene::Scene;

/// How long a journey waits for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything a message about one Mac can change.
#[derive(Debug, PartialEq)]
pub struct Kept {
    pub posture: Option<Posture>,
    pub evidence: Vec<Evidence>,
    pub events: Vec<NumberedEvent>,
    pub verifications: Vec<Verification>,
}

impl Scene {
    /// The id under which the server knows a Mac.
    pub async fn device_id(&self, mac: &Mac) -> DeviceId {
        DeviceId::parse(&self.api.device_id(&mac.serial()).await).expect("a device id")
    }

    /// A profile as authenticated parties have one made: for an account, or for a Secure Enclave key.
    pub async fn deliver_within(&self, bounds: Bounds) -> Vec<u8> {
        let delivered = attestd::flows::deliver_profile::deliver_profile(self.ctx(), bounds, None);
        delivered.await.expect("a profile").profile
    }

    /// Everything kept of a Mac.
    pub async fn kept(&self, mac: &Mac) -> Kept {
        let device_id = self.device_id(mac).await;
        let store = &self.ctx().store;
        let tx = store.read().await.expect("a store");
        let events = store.events_after(0, 1000).await.expect("events");
        Kept {
            posture: tx.posture(&device_id).await.expect("a posture"),
            evidence: tx.evidence_of(&device_id, 100).await.expect("evidence"),
            events: events
                .into_iter()
                .filter(|event| event.device_id.as_ref() == Some(&device_id))
                .collect(),
            verifications: tx
                .verifications_of(&device_id, 100)
                .await
                .expect("verifications"),
        }
    }

    /// A counter from `/metrics`, summed over everything whose labels contain all of `labels`.
    pub async fn counted(&self, name: &str, labels: &[&str]) -> u64 {
        let text = self.api.get("/metrics").await.text().await.expect("text");
        text.lines()
            .filter(|line| line.starts_with(name))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// How often something was refused for this reason.
    pub async fn refused(&self, reason: &str) -> u64 {
        let label = format!("reason=\"{reason}\"");
        self.counted("attestd_refusals_total", &[&label]).await
    }

    /// What is next for a Mac.
    pub async fn next(&self, mac: &Mac) -> Next {
        let device_id = self.device_id(mac).await;
        let tx = self.ctx().store.read().await.expect("a store");
        let agenda = tx.agenda(&device_id).await.expect("an agenda");
        agenda.expect("a Mac").next(&self.ctx().settings.rules)
    }

    /// How long until something must be done about a Mac.
    pub async fn due_in(&self, mac: &Mac) -> Duration {
        let due_at = self.next(mac).await.due_at.expect("something is due");
        due_at.since(self.now())
    }

    /// Ends what is overdue and asks for those that owe an answer, as the worker does.
    pub async fn sweep(&self) {
        attestd::flows::sweep::run_once(self.ctx())
            .await
            .expect("sweeps");
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// When it never does.
pub async fn eventually<F>(what: &str, mut holds: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
