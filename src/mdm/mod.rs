//! Apple's MDM protocol on the wire: bytes to types and back, and nothing else.

pub mod security_info;
