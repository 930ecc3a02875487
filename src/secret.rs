//! Values that must never be printed.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret: no `Display`, a `Debug` that hides it, comparison in constant time, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes a value out of sight.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Looks at the value; the name makes every use easy to find.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().ct_eq(other.0.as_ref()).into()
    }
}

impl<T: Zeroize + AsRef<[u8]>> Eq for Secret<T> {}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Encrypts values that are stored: private keys, push addresses, bootstrap tokens.
pub trait Sealer: Send + Sync + fmt::Debug {
    /// Encrypts and authenticates `plain`. `context` names the place it is stored in and is
    /// authenticated with it, so that a sealed value cannot be moved to another place.
    fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8>;

    /// The value sealed under this `context`.
    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealable>;
}

/// Not sealed by this key, not for this place, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value does not open with the key in use")]
pub struct Unsealable;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new(String::from("canary-4711"));
        assert_eq!(format!("{secret:?}"), "[secret]");
    }

    #[test]
    fn equal_only_when_every_byte_is() {
        assert_eq!(Secret::new(vec![1, 2]), Secret::new(vec![1, 2]));
        assert_ne!(Secret::new(vec![1, 2]), Secret::new(vec![1, 3]));
        assert_ne!(Secret::new(vec![1, 2]), Secret::new(vec![1, 2, 3]));
    }
}
