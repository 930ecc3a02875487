//! What is known of each Mac so far, as a table that fills.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Result;
use attestd_sim::{IdentityKind, MacEvent, MacStep};
use comfy_table::{Table as Grid, presets};
use serde_json::{Value, json};

use super::Character;

/// One Mac.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) serial: String,
    character: Character,
    profile: Mark,
    identity: Option<IdentityKind>,
    authenticated: Mark,
    enrolled: Mark,
    pushed: Mark,
    security_info: Mark,
    attestation: Mark,
    /// How far the server trusts what the Mac says of itself, where it tells.
    channel: Option<String>,
    verdict: String,
    reasons: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Open,
    Done,
    Failed,
}

impl Mark {
    fn text(self) -> &'static str {
        match self {
            Self::Open => "·",
            Self::Done => "ok",
            Self::Failed => "no",
        }
    }
}

impl Row {
    pub(crate) fn new(serial: &str, character: Character) -> Self {
        Self {
            serial: serial.to_owned(),
            character,
            profile: Mark::Open,
            identity: None,
            authenticated: Mark::Open,
            enrolled: Mark::Open,
            pushed: Mark::Open,
            security_info: Mark::Open,
            attestation: Mark::Open,
            channel: None,
            verdict: String::new(),
            reasons: Vec::new(),
        }
    }

    fn happened(&mut self, step: &MacStep) {
        match step {
            MacStep::ProfileReceived { .. } => self.profile = Mark::Done,
            MacStep::IdentityIssued { kind, .. } => self.identity = *kind,
            MacStep::Authenticated => self.authenticated = Mark::Done,
            MacStep::Enrolled => self.enrolled = Mark::Done,
            MacStep::Pushed => self.pushed = Mark::Done,
            MacStep::Answered { request_type, .. } if request_type == "SecurityInfo" => {
                self.security_info = Mark::Done;
            }
            MacStep::Answered { .. } => self.attestation = Mark::Done,
            MacStep::SessionFailed { .. } if self.security_info == Mark::Open => {
                self.security_info = Mark::Failed;
            }
            MacStep::EnrollmentFailed { .. } => self.enrolled = Mark::Failed,
            _ => {}
        }
    }

    /// Takes what the server says of this Mac.
    pub(crate) fn judged(&mut self, posture: &Value) {
        self.channel = posture["channel"].as_str().map(str::to_owned);
        self.verdict = posture["verdict"].as_str().unwrap_or_default().to_owned();
        self.reasons = posture["reasons"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|reason| reason.as_str().map(str::to_owned))
            .collect();
    }

    fn is_satisfied(&self) -> bool {
        self.character.is_satisfied(&self.verdict, &self.reasons)
    }
}

/// All Macs.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Row>,
    visible: bool,
    live: bool,
    /// What stands on the terminal.
    shown: String,
}

impl Table {
    pub(crate) fn new(rows: Vec<Row>, visible: bool) -> Self {
        Self {
            rows,
            visible,
            live: std::io::stdout().is_terminal(),
            shown: String::new(),
        }
    }

    pub(crate) fn happened(&mut self, event: &MacEvent) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.serial == event.serial) {
            row.happened(&event.step);
        }
    }

    pub(crate) fn rows(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    pub(crate) fn unsettled(&mut self) -> impl Iterator<Item = &mut Row> {
        self.rows.iter_mut().filter(|row| !row.is_satisfied())
    }

    pub(crate) fn is_satisfied(&self) -> bool {
        self.rows.iter().all(Row::is_satisfied)
    }

    /// Whether every Mac has told of all its steps, or of the one that failed.
    pub(crate) fn is_told(&self) -> bool {
        self.rows.iter().all(|row| {
            let last = if row.security_info == Mark::Failed {
                row.security_info
            } else {
                row.attestation
            };
            row.enrolled == Mark::Failed || (row.pushed == Mark::Done && last != Mark::Open)
        })
    }

    /// A Mac to show more of.
    pub(crate) fn example(&self) -> &str {
        self.rows.first().map_or("", |row| &row.serial)
    }

    pub(crate) fn summary(&self) -> Vec<Value> {
        let row = |row: &Row| {
            let (verdict, reason) = row.character.deserves();
            json!({
                "serial_number": row.serial,
                "character": row.character.label(),
                "identity": row.identity,
                "channel": row.channel,
                "verdict": row.verdict,
                "reasons": row.reasons,
                "deserves": { "verdict": verdict, "first_reason": reason },
                "satisfied": row.is_satisfied(),
            })
        };
        self.rows.iter().map(row).collect()
    }

    /// Draws the table over the former one on a terminal; elsewhere each time something changed.
    pub(crate) fn show(&mut self) -> Result<()> {
        if !self.visible {
            return Ok(());
        }
        let text = self.text();
        if text == self.shown {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        if self.live {
            let lines = self.shown.lines().count();
            if lines > 0 {
                write!(out, "\x1b[{lines}A\x1b[J")?;
            }
            writeln!(out, "{text}")?;
        } else if self.shown.is_empty() {
            // No terminal: the beginning and the end are enough.
            writeln!(out, "{text}")?;
        }
        out.flush()?;
        self.shown = text;
        Ok(())
    }

    /// Draws the table as it ended.
    pub(crate) fn show_last(&mut self) -> Result<()> {
        if self.live || !self.visible {
            return self.show();
        }
        writeln!(std::io::stdout().lock(), "{}", self.text())?;
        Ok(())
    }

    fn text(&self) -> String {
        let mut grid = Grid::new();
        grid.load_style(presets::UTF8_FULL_CONDENSED);
        grid.set_header([
            "Mac",
            "is",
            "profile",
            "identity",
            "authenticated",
            "enrolled",
            "pushed",
            "SecurityInfo",
            "attestation",
            "channel",
            "verdict",
            "reasons",
        ]);
        for row in &self.rows {
            let settled = if row.is_satisfied() { "" } else { " …" };
            grid.add_row([
                row.serial.clone(),
                row.character.label().to_owned(),
                row.profile.text().to_owned(),
                row.identity.map_or("·", IdentityKind::name).to_owned(),
                row.authenticated.text().to_owned(),
                row.enrolled.text().to_owned(),
                row.pushed.text().to_owned(),
                row.security_info.text().to_owned(),
                row.attestation.text().to_owned(),
                row.channel.clone().unwrap_or_default(),
                format!("{}{settled}", row.verdict),
                row.reasons.join("\n"),
            ]);
        }
        grid.to_string()
    }
}
