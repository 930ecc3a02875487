//! Outside world.

pub mod apns;
pub mod apple;
pub mod certs;
pub mod clock;
pub mod cms;
pub mod der;
pub mod keys;
pub mod mac;
pub mod plist_xml;
pub mod scep;
pub mod tls;
pub mod world;
