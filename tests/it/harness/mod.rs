//! What the tests stand on.

pub mod database;
pub mod internal_api;
pub mod scene;
