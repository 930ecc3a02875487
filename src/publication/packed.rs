//! Text in pieces, each compressed once, that are joined without compressing anything again.
//!
//! A piece is compressed by itself and ends on a byte (RFC 1951: an empty stored block), so that the
//! pieces of a document stand one after the other in one gzip member (RFC 1952). What changes in a
//! document of thousands of pieces costs what the changed pieces cost.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// RFC 1952 section 2.3.1: gzip by deflate, without name or time, of an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// RFC 1951 section 3.2.3: a last block, with fixed codes, in which nothing is.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// A piece of text, and what it is compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    plain: Bytes,
    packed: Bytes,
}

/// Compresses pieces, one after the other: what it needs for that is kept from one to the next.
#[derive(Debug)]
pub struct Packer(Compress);

impl Default for Packer {
    fn default() -> Self {
        Self(Compress::new(Compression::default(), false))
    }
}

impl Packer {
    /// Compresses a piece. `None` if that cannot be done, which no text brings about.
    pub fn pack(&mut self, mut plain: Vec<u8>) -> Option<Piece> {
        let mut packed = self.deflated(&plain)?;
        // Both are kept for long.
        packed.shrink_to_fit();
        plain.shrink_to_fit();
        Some(Piece {
            packed: packed.into(),
            plain: plain.into(),
        })
    }

    fn deflated(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let state = &mut self.0;
        state.reset();
        let mut packed = Vec::with_capacity(plain.len() + 64);
        loop {
            let taken = usize::try_from(state.total_in()).ok()?;
            let before = packed.len();
            let status = state
                .compress_vec(&plain[taken..], &mut packed, FlushCompress::Sync)
                .ok()?;
            let has_room = packed.len() < packed.capacity();
            // Room that is left over shows that everything was written.
            if usize::try_from(state.total_in()).ok()? == plain.len() && has_room {
                return Some(packed);
            }
            if status == Status::BufError && packed.len() == before && has_room {
                return None;
            }
            packed.reserve(plain.len() + 64);
        }
    }
}

impl Piece {
    /// The text.
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// Of the compressed document, this piece.
    pub fn packed(&self) -> &Bytes {
        &self.packed
    }
}

/// What stands before the compressed pieces of a document.
pub fn header() -> Bytes {
    Bytes::from_static(&HEADER)
}

/// What stands after them.
pub fn trailer<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> Bytes {
    let mut sum = Crc::new();
    for piece in pieces {
        sum.update(&piece.plain);
    }
    let mut trailer = LAST_BLOCK.to_vec();
    trailer.extend(sum.sum().to_le_bytes());
    trailer.extend(sum.amount().to_le_bytes());
    trailer.into()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn joined(pieces: &[Piece]) -> Vec<u8> {
        let packed = pieces.iter().map(|piece| piece.packed.clone());
        let parts = std::iter::once(header())
            .chain(packed)
            .chain([trailer(pieces)]);
        parts.collect::<Vec<_>>().concat()
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_are_one_document(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3_000), 0..6),
        ) {
            let mut packer = Packer::default();
            let pieces: Vec<_> = texts.iter().map(|text| packer.pack(text.clone()).expect("packed")).collect();
            let mut plain = Vec::new();
            GzDecoder::new(&joined(&pieces)[..]).read_to_end(&mut plain).expect("gzip");
            prop_assert_eq!(plain, texts.concat());
        }
    }

    #[test]
    fn gzip_itself_reads_it() {
        let text = "{\"sip_enabled\":true},".repeat(500);
        let mut packer = Packer::default();
        let piece = packer.pack(text.clone().into_bytes()).expect("packed");
        assert!(piece.packed.len() < text.len() / 10);
        let pieces = [
            piece.clone(),
            packer.pack(Vec::new()).expect("packed"),
            piece,
        ];
        let mut gzip = Command::new("gzip")
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gzip runs");
        let mut to = gzip.stdin.take().expect("its input");
        to.write_all(&joined(&pieces)).expect("written");
        drop(to);
        let read = gzip.wait_with_output().expect("ends");
        assert!(read.status.success());
        assert_eq!(
            String::from_utf8(read.stdout).expect("text"),
            text.repeat(2)
        );
    }
}
