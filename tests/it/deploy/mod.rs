//! What ships in `deploy/`, with the programs it is for.

mod proxies;
mod watching;
