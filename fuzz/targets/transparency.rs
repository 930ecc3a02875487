//! Heads, proofs, keys and tiles of a transparency log as they come from anybody: what is read is written as it
//! was, and what is not is refused.

#![no_main]

use attestd::transparency::note::{Kind, Note, VerifierKey};
use attestd::transparency::{Checkpoint, Proof, Tile, tile};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some(entries) = tile::entries(input) {
        let framed: Option<Vec<_>> = entries.iter().map(|entry| tile::framed(entry)).collect();
        assert_eq!(framed.map(|framed| framed.concat()).as_deref(), Some(input));
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(tile) = Tile::parse(text) {
        assert_eq!(tile.path(), text);
    }
    let _ = VerifierKey::read(text, Kind::Log);
    let _ = VerifierKey::read(text, Kind::Witness);
    if let Ok(note) = Note::read(text) {
        let _ = Checkpoint::read(&note);
    }
    if let Ok(proof) = Proof::read(text) {
        let written = proof.to_string();
        assert_eq!(Proof::read(&written), Ok(proof));
    }
});
