//! The one integration binary.

mod contract;
mod flows;
mod harness;
