//! What the tests stand on.

pub mod browser;
pub mod cert_rep;
pub mod collector;
pub mod coordinator;
pub mod database;
pub mod following;
pub mod ground;
pub mod inside;
pub mod internal_api;
pub mod issuer;
pub mod keys;
pub mod old_coordinator;
pub mod plane;
pub mod process;
pub mod provider;
pub mod public_side;
pub mod push_officer;
pub mod receiver;
pub mod reverse_proxy;
pub mod scene;
pub mod signals;
pub mod talk;
pub mod witness;
