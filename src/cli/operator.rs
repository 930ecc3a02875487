//! Who runs a command.

use std::fs::metadata;
use std::os::unix::fs::MetadataExt as _;

use crate::audit::Who;

/// The unix user of this process; of one that is root by sudo, who became root. That is what sudo says,
/// and root can say otherwise: whoever holds the master key and the database is believed.
pub(super) fn operator() -> Who {
    const ROOT: &str = "root";
    let user = whoami::username().unwrap_or_else(|_| match metadata("/proc/self") {
        Ok(process) => format!("uid {}", process.uid()),
        Err(_) => "unknown".to_owned(),
    });
    let became_root = std::env::var("SUDO_USER").ok();
    let became_root = became_root.filter(|name| user == ROOT && is_name(name));
    Who::CommandLine {
        user: became_root.unwrap_or(user),
    }
}

/// As POSIX has names of users.
fn is_name(text: &str) -> bool {
    let is_portable = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
    (1..=64).contains(&text.len()) && text.bytes().all(is_portable)
}
