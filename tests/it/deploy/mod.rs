//! What ships: `deploy/` with the programs it is for, and what a shell knows of the commands.

mod commands;
mod proxies;
mod watching;
