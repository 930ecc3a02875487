//! `attestd`: proves, from the outside, what state a Mac is in.
//!
//! Three kinds of code, seen by folder. *Nouns* are pure: no async, no I/O, no clock, no
//! randomness. *Flows* are verbs, one file per thing the service does: load, decide, save, then
//! effect. *Shells* touch the world.
//!
//! ```text
//! main -> cli -> app                                     only app constructs shells
//!   web -> http, workers -> flows -> store, apns, keys, outbound
//! ---------------- below: no async, no I/O, no clock ----------------
//! publication -> verification -> posture -> attestation, mdm, provider
//! publication -> enrollment -> mdm        acme -> attestation        audit -> provider
//! backup                                 oidc
//! scep, ca, push, mdm, attestation, provider -> pki        (edges between nouns are transitive)
//! ids, json, time, network, entropy, secret, reason: open to all
//! ```
//!
//! `tests/it/architecture` holds this picture as data and fails on any other edge.

pub mod acme;
pub mod apns;
pub mod app;
pub mod attestation;
pub mod audit;
pub mod backup;
pub mod ca;
pub mod cli;
pub mod config;
pub mod enrollment;
pub mod entropy;
pub mod flows;
pub mod http;
pub mod ids;
pub mod json;
pub mod keys;
pub mod mdm;
pub mod network;
pub mod oidc;
pub mod outbound;
pub mod pki;
pub mod posture;
pub mod provider;
pub mod publication;
pub mod push;
pub mod reason;
pub mod scep;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod transparency;
pub mod verification;
pub mod web;
pub mod workers;
