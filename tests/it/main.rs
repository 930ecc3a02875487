//! The one integration binary.

mod contract;
mod harness;
mod vectors;
