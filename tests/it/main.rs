//! The one integration binary.

mod architecture;
mod contract;
mod flows;
mod harness;
mod vectors;
