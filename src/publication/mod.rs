//! Posture as others read it.

pub mod binding_v1;
pub mod bundle;
pub mod challenge_v1;
pub mod delivery;
pub mod device_v1;
pub mod ear;
#[cfg(test)]
mod ear_test;
pub mod event;
pub mod event_stream;
pub mod feed;
pub mod forecast;
#[cfg(test)]
mod forecast_test;
pub mod jwk;
pub mod jws;
pub mod keyring;
pub mod micromdm;
#[cfg(test)]
mod one_way_test;
pub mod packed;
pub mod posture_v1;
pub mod progress_v1;
pub mod release_v1;
pub mod reply;
pub mod shared_signals;
pub mod snapshot_v1;
pub mod story_v1;
pub mod subject;
pub mod trust_headers;
pub mod verification_v1;
pub mod webhook;
