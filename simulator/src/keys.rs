//! Keys and random values of the simulated world, all from OpenSSL.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;

/// The kinds of key a Mac's identity can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyKind {
    /// What SCEP gives (apple-protocol 1.3).
    #[default]
    Rsa2048,
    P256,
    /// What an attested identity has (apple-protocol 1.4).
    P384,
}

impl KeyKind {
    /// The kind a key belongs to; RSA of another size counts as RSA, P-521 as P-384.
    pub fn of(key: &PKey<Private>) -> Self {
        match (key.id(), key.bits()) {
            (Id::EC, 256) => Self::P256,
            (Id::EC, _) => Self::P384,
            _ => Self::Rsa2048,
        }
    }
}

/// Makes a key. RSA takes some 50 to 500 ms; see [`KeyPool`].
pub fn generate(kind: KeyKind) -> Result<PKey<Private>, ErrorStack> {
    let curve = match kind {
        KeyKind::Rsa2048 => return PKey::from_rsa(Rsa::generate(2048)?),
        KeyKind::P256 => Nid::X9_62_PRIME256V1,
        KeyKind::P384 => Nid::SECP384R1,
    };
    PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(curve)?)?)
}

/// Unguessable bytes.
pub fn random<const N: usize>() -> Result<[u8; N], ErrorStack> {
    let mut bytes = [0; N];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(bytes)
}

/// A random UUID in upper case, as Apple's software writes them.
pub fn random_uuid() -> Result<String, ErrorStack> {
    Ok(uuid::Builder::from_random_bytes(random()?)
        .into_uuid()
        .to_string()
        .to_uppercase())
}

/// RSA keys made ahead of time and in parallel, so that a fleet need not wait for primes.
///
/// Every key is handed out once: no two Macs share one.
#[derive(Debug, Clone, Default)]
pub struct KeyPool {
    ready: Arc<Mutex<VecDeque<PKey<Private>>>>,
}

impl KeyPool {
    /// Adds `count` RSA-2048 keys, made on the blocking threads.
    pub async fn warm(&self, count: usize) -> Result<(), ErrorStack> {
        let mut makers = tokio::task::JoinSet::new();
        for _ in 0..count {
            makers.spawn_blocking(|| generate(KeyKind::Rsa2048));
        }
        while let Some(made) = makers.join_next().await {
            // A maker that was cancelled or panicked has made no key; the pool is merely smaller.
            if let Ok(key) = made {
                self.ready
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_back(key?);
            }
        }
        Ok(())
    }

    /// Adds a key made elsewhere, which nothing else in this world may use.
    pub fn add(&self, key: PKey<Private>) {
        self.ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(key);
    }

    /// A key nobody else has: from the pool, or made now.
    pub async fn take(&self, kind: KeyKind) -> Result<PKey<Private>, ErrorStack> {
        if kind == KeyKind::Rsa2048 {
            let ready = self
                .ready
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            if let Some(key) = ready {
                return Ok(key);
            }
        }
        match tokio::task::spawn_blocking(move || generate(kind)).await {
            Ok(made) => made,
            Err(_cancelled) => generate(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pool_hands_out_each_key_once() {
        let pool = KeyPool::default();
        pool.warm(1).await.unwrap();
        let first = pool.take(KeyKind::Rsa2048).await.unwrap();
        let second = pool.take(KeyKind::P256).await.unwrap();
        assert!(!first.public_eq(&second));
        assert!(pool.ready.lock().unwrap().is_empty());
    }

    #[test]
    fn uuids_are_upper_case_version_four() {
        let text = random_uuid().unwrap();
        assert_eq!((text.len(), text.as_bytes()[14]), (36, b'4'));
        assert_eq!(text, text.to_uppercase());
    }
}
