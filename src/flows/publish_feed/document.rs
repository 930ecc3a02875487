//! The feed ready to be sent: pieces, and what they are called together.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Failure;
use crate::ids::{SessionId, sha256};
use crate::publication::feed::{ProviderId, Terms, closing, opening};
use crate::publication::packed::{self, Packer, Piece};

/// A provider as it is shown.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub session_id: SessionId,
    pub piece: Piece,
    /// SHA-256 of its text.
    pub digest: [u8; 32],
}

/// Bytes to be sent one after the other, and the strong name of them.
#[derive(Debug, Clone)]
pub struct Part {
    pub pieces: Arc<[Bytes]>,
    pub length: u64,
    /// The entity tag, without quotation marks.
    pub tag: String,
}

/// The feed as it was at one time.
#[derive(Debug)]
pub struct Document {
    providers: BTreeMap<ProviderId, Provider>,
    closing: Bytes,
    plain: Part,
    packed: Part,
}

impl Part {
    fn new(pieces: Vec<Bytes>, tag: String) -> Self {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        Self {
            pieces: pieces.into(),
            length: u64::try_from(length).unwrap_or(u64::MAX),
            tag,
        }
    }
}

impl Document {
    /// The feed of these providers; `former` itself if nothing in it is other than it was.
    pub(super) fn new(
        providers: BTreeMap<ProviderId, Provider>,
        terms: &Terms<'_>,
        former: Option<&Arc<Self>>,
        packer: &mut Packer,
    ) -> Result<Arc<Self>, Failure> {
        let unwritten = Failure::Inconsistent("a feed that cannot be written");
        let is_empty = providers.is_empty();
        let Ok(closing) = closing(is_empty, terms) else {
            return Err(unwritten);
        };
        let mut named = Vec::with_capacity(providers.len() * 32 + closing.len());
        for provider in providers.values() {
            named.extend(provider.digest);
        }
        named.extend(&closing);
        let tag = hex::encode(&sha256(&named)[..16]);
        if let Some(same) = former.filter(|former| former.plain.tag == tag) {
            return Ok(Arc::clone(same));
        }
        let mut around = |text: &[u8]| packer.pack(text.to_vec());
        let (Some(before), Some(after), Some(comma)) =
            (around(opening(is_empty)), around(&closing), around(b","))
        else {
            return Err(unwritten);
        };
        let mut pieces = vec![&before];
        for (number, provider) in providers.values().enumerate() {
            if number > 0 {
                pieces.push(&comma);
            }
            pieces.push(&provider.piece);
        }
        pieces.push(&after);
        let plain = pieces.iter().map(|piece| piece.plain().clone()).collect();
        let mut packed = vec![packed::header()];
        packed.extend(pieces.iter().map(|piece| piece.packed().clone()));
        packed.push(packed::trailer(pieces.iter().copied()));
        Ok(Arc::new(Self {
            plain: Part::new(plain, tag.clone()),
            packed: Part::new(packed, format!("{tag}-gzip")),
            closing: closing.into(),
            providers,
        }))
    }

    /// The whole feed.
    pub fn plain(&self) -> &Part {
        &self.plain
    }

    /// The whole feed, compressed by gzip.
    pub fn packed(&self) -> &Part {
        &self.packed
    }

    /// The feed of one provider.
    pub fn about(&self, provider_id: &ProviderId) -> Option<Part> {
        let provider = self.providers.get(provider_id)?;
        let pieces = vec![
            Bytes::from_static(opening(false)),
            provider.piece.plain().clone(),
            self.closing.clone(),
        ];
        let tag = hex::encode(&sha256(&[&provider.digest[..], &self.closing].concat())[..16]);
        Some(Part::new(pieces, tag))
    }

    /// The session that is shown as this provider.
    pub fn session_of(&self, provider_id: &ProviderId) -> Option<&SessionId> {
        Some(&self.providers.get(provider_id)?.session_id)
    }
}
