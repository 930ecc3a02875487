//! The one integration binary.

mod architecture;
mod contract;
#[macro_use]
mod flows;
mod attacks;
mod conformance;
mod deploy;
mod harness;
mod hostility;
mod vectors;
mod web;
