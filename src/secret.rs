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

/// Keeps values that must be stored: sealed with it, opened only with it and in the same context.
pub trait Sealer: Send + Sync + std::fmt::Debug {
    /// Seals `plain` for the place named by `context` (such as `push_certificate.key`).
    fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8>;

    /// Opens what [`Sealer::seal`] made for the same context.
    ///
    /// # Errors
    /// [`Unsealable`] when it was sealed elsewhere, for another place, or was changed.
    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealable>;
}

/// A sealed value does not open. One answer for every cause, because the cause helps only whoever
/// tampers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the sealed value does not open: it was sealed under another master key, for another place, or was changed"
)]
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
