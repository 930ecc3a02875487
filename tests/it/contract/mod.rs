//! What a shell promises, proved on everything it can stand on.

mod store;
