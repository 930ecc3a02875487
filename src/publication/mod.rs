//! Posture as others read it.

pub mod binding_v1;
pub mod delivery;
pub mod event;
pub mod event_stream;
pub mod forecast;
#[cfg(test)]
mod forecast_test;
#[cfg(test)]
mod one_way_test;
pub mod posture_v1;
pub mod progress_v1;
pub mod release_v1;
pub mod snapshot_v1;
pub mod verification_v1;
pub mod webhook;
