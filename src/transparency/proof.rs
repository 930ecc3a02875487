//! That an entry is in the log, in one text (C2SP `tlog-proof`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{hash, number};
use super::{Hash, Malformed};

const FORM: &str = "c2sp.org/tlog-proof@v1";
/// The largest proof that is read: 64 hashes, a checkpoint, some witnesses.
const MAX_PROOF: usize = 64 * 1024;

/// A proof, with the head it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof<'a> {
    pub index: u64,
    pub hashes: Vec<Hash>,
    /// A signed note.
    pub checkpoint: &'a str,
}

impl<'a> Proof<'a> {
    /// Reads one.
    pub fn read(text: &'a str) -> Result<Self, Malformed> {
        const MALFORMED: Malformed = Malformed("the proof is no c2sp.org/tlog-proof@v1");
        if text.len() > MAX_PROOF {
            return Err(MALFORMED);
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(MALFORMED)?;
        let mut lines = head.lines();
        if lines.next() != Some(FORM) {
            return Err(MALFORMED);
        }
        let mut lines = lines.skip_while(|line| line.starts_with("extra "));
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(number).ok_or(MALFORMED)?;
        let hashes = lines.map(hash).collect::<Option<_>>().ok_or(MALFORMED)?;
        Ok(Self {
            index,
            hashes,
            checkpoint,
        })
    }
}

impl std::fmt::Display for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{FORM}\nindex {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", STANDARD.encode(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixture_is_read_and_written_again() {
        let text = include_str!("../../tests/fixtures/transparency/posture.tlog-proof");
        let proof = Proof::read(text).expect("a proof");
        assert_eq!((proof.index, proof.hashes.len()), (5, 3));
        assert_eq!(proof.to_string(), text);
    }
}
