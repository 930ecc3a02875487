//! What a run is, and what came of it.

use std::path::PathBuf;

use crate::checks::Fault;
use crate::mac::Mac;
use crate::record::{Ages, Hour};
use crate::time::Ms;

/// What a run is.
#[derive(Debug, Clone)]
pub struct Plan {
    pub macs: usize,
    pub days: Ms,
    pub seed: u64,
    /// How many times as much happens to a Mac as usual.
    pub eventful: u64,
    /// How many Macs have a provider's session.
    pub sessions: usize,
    /// From one sweep to the next.
    pub sweep: Ms,
    /// The address of an empty database.
    pub database: String,
    /// What the server is told: its policy, and how often it may wake a Mac within an hour. The
    /// judge is told neither.
    pub policy: String,
    pub pushes_an_hour: u32,
    /// Where the log goes, if anywhere.
    pub log: Option<PathBuf>,
    /// Rules whose breaches are counted only.
    pub without: Vec<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub macs: Vec<Mac>,
    pub hours: Vec<Hour>,
    pub ages: Ages,
    pub faults: Vec<Fault>,
    /// Breaches of rules that this run goes without.
    pub passed_over: u64,
    pub log_hash: String,
    pub log_lines: u64,
    pub restarts: u64,
    pub outages: u64,
    pub sweeps: u64,
    pub ended_at: Ms,
}

/// How far a run is.
#[derive(Debug)]
pub struct Progress {
    pub rounds: u64,
    pub hour: Hour,
}
