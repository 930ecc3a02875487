//! The schema history of `attestd`, one for SQLite and PostgreSQL.
//!
//! Ids and words are text, times are UTC milliseconds in 64-bit integers, hashes and sealed values
//! are bytes, bodies are JSON in text: nothing here depends on the kind of database. A step that
//! was released is never edited; the next change is the next step.

pub use sea_orm_migration::{MigrationTrait, MigratorTrait};

mod m0001_enrollment;
mod m0002_verification;
mod m0003_posture;
mod m0004_operation;
mod m0005_identity_rules;
mod m0006_acme;
mod m0007_scep_transactions;
mod m0008_provider_sessions;
mod m0009_agendas;
mod m0010_releases;
mod m0011_verdict_ends;
mod m0012_attempts_of_a_mac;
mod m0013_webhooks;
mod m0014_statements_by_evidence;
mod m0015_signed_results;
mod m0016_shared_signals;
mod m0017_relayed_commands;
mod m0018_transparency_log;
mod m0019_log_witnesses;
mod m0020_push_certificate_life;
mod m0021_audit;
mod m0022_steps_first_done;
mod m0023_push_proposals;
mod m0024_token_use;
mod m0025_asked_verifications;
mod m0026_attempts_by_id;

/// The history.
#[derive(Debug)]
pub struct Migrator;

#[sea_orm_migration::async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_enrollment::Migration),
            Box::new(m0002_verification::Migration),
            Box::new(m0003_posture::Migration),
            Box::new(m0004_operation::Migration),
            Box::new(m0005_identity_rules::Migration),
            Box::new(m0006_acme::Migration),
            Box::new(m0007_scep_transactions::Migration),
            Box::new(m0008_provider_sessions::Migration),
            Box::new(m0009_agendas::Migration),
            Box::new(m0010_releases::Migration),
            Box::new(m0011_verdict_ends::Migration),
            Box::new(m0012_attempts_of_a_mac::Migration),
            Box::new(m0013_webhooks::Migration),
            Box::new(m0014_statements_by_evidence::Migration),
            Box::new(m0015_signed_results::Migration),
            Box::new(m0016_shared_signals::Migration),
            Box::new(m0017_relayed_commands::Migration),
            Box::new(m0018_transparency_log::Migration),
            Box::new(m0019_log_witnesses::Migration),
            Box::new(m0020_push_certificate_life::Migration),
            Box::new(m0021_audit::Migration),
            Box::new(m0022_steps_first_done::Migration),
            Box::new(m0023_push_proposals::Migration),
            Box::new(m0024_token_use::Migration),
            Box::new(m0025_asked_verifications::Migration),
            Box::new(m0026_attempts_by_id::Migration),
        ]
    }
}
