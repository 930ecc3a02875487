//! The provider software of each Mac, with its session at the reference coordinator.

use anyhow::{Context as _, Result};
use attestd_sim::coordinator::Coordinator;
use attestd_sim::provider::Provider;
use comfy_table::{Table as Grid, presets};
use serde_json::{Value, json};

use super::Character;

/// The provider software of one Mac, as the coordinator knows it.
#[derive(Debug)]
pub(crate) struct Session {
    serial: String,
    character: Character,
    id: String,
    provider: Provider,
    /// What the server says of it.
    binding: Value,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Sessions(Vec<Session>);

impl Session {
    pub(crate) fn new(serial: &str, character: Character, provider: Provider) -> Self {
        Self {
            serial: serial.to_owned(),
            character,
            id: format!("demo-{serial}"),
            provider,
            binding: Value::Null,
        }
    }

    async fn open(&mut self, coordinator: &Coordinator) -> Result<()> {
        let provider = self.provider.clone();
        self.binding = coordinator.connect(&self.id, provider, None).await?;
        Ok(())
    }

    fn is_routable(&self) -> bool {
        self.binding["routable"] == json!(true)
    }

    /// Only an honest Mac is routed to, and it has the highest level.
    fn is_right(&self) -> bool {
        let honest = self.character == Character::Honest;
        let is_hardware = self.binding["trust_level"] == json!("hardware");
        self.is_routable() == honest && is_hardware == honest
    }

    fn reasons(&self) -> String {
        let reasons = self.binding["reasons"].as_array().into_iter().flatten();
        reasons
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn cells(&self) -> [String; 6] {
        let word = |name: &str| self.binding[name].as_str().unwrap_or_default().to_owned();
        [
            self.serial.clone(),
            self.character.label().to_owned(),
            word("trust_level"),
            word("se_key_bound"),
            if self.is_routable() { "yes" } else { "no" }.to_owned(),
            self.reasons(),
        ]
    }

    fn summary(&self) -> Value {
        json!({
            "serial_number": self.serial,
            "character": self.character.label(),
            "session": self.id,
            "trust_level": self.binding["trust_level"],
            "se_key_bound": self.binding["se_key_bound"],
            "routable": self.binding["routable"],
            "routable_until": self.binding["routable_until"],
            "reasons": self.binding["reasons"],
        })
    }
}

impl Sessions {
    /// Registers every session and challenges it once.
    pub(crate) async fn open(
        coordinator: &Coordinator,
        mut sessions: Vec<Session>,
    ) -> Result<Self> {
        for session in &mut sessions {
            session.open(coordinator).await?;
        }
        Ok(Self(sessions))
    }

    pub(crate) fn are_right(&self) -> bool {
        self.0.iter().all(Session::is_right)
    }

    /// SIP goes off on one honest Mac, as its provider says when it is challenged next. Returns what
    /// the server says of it then, and whether that, and nobody else, is not routed to any more.
    pub(crate) async fn switch_sip_off(
        &mut self,
        coordinator: &Coordinator,
    ) -> Result<(Value, bool)> {
        let honest = |session: &&mut Session| session.character == Character::Honest;
        let one = self.0.iter_mut().find(honest).context("no honest Mac")?;
        coordinator.change(&one.id, |provider| provider.truth.sip_enabled = false)?;
        one.binding = coordinator.challenge(&one.id).await?;
        let left = !one.is_routable() && one.binding["reasons"][0] == json!("sip_disabled");
        let (serial, summary) = (one.serial.clone(), one.summary());
        let stays = self.0.iter().all(|other| {
            let now = coordinator.binding(&other.id).unwrap_or_default();
            other.serial == serial || now["routable"] == other.binding["routable"]
        });
        Ok((summary, left && stays))
    }

    pub(crate) fn grid(&self) -> String {
        let mut grid = Grid::new();
        grid.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "serial number",
            "Mac",
            "trust level",
            "key",
            "routable",
            "reasons",
        ]);
        for session in &self.0 {
            grid.add_row(session.cells());
        }
        grid.to_string()
    }

    pub(crate) fn summary(&self) -> Vec<Value> {
        self.0.iter().map(Session::summary).collect()
    }
}
