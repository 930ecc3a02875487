//! The one integration binary.

mod architecture;
mod contract;
#[macro_use]
mod flows;
mod conformance;
mod harness;
mod vectors;
mod web;
