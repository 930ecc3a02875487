//! The head of the log (C2SP `tlog-checkpoint`): which log, how many entries, which root.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{Note, NoteSigner};
use super::{Hash, Malformed};

/// A head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

impl Checkpoint {
    /// Reads the text of a note. Lines after the third are extensions, and not looked at.
    pub fn read(note: &Note<'_>) -> Result<Self, Malformed> {
        const FORM: Malformed = Malformed("no checkpoint");
        let mut lines = note.text.lines();
        let origin = lines.next().filter(|line| !line.is_empty());
        let size = lines.next().and_then(number);
        let root = lines.next().and_then(hash);
        Ok(Self {
            origin: origin.ok_or(FORM)?.to_owned(),
            size: size.ok_or(FORM)?,
            root: root.ok_or(FORM)?,
        })
    }

    /// The note, signed by the log.
    pub fn sign(&self, signer: &NoteSigner) -> String {
        let root = STANDARD.encode(self.root);
        signer.sign(&format!("{}\n{}\n{root}\n", self.origin, self.size))
    }
}

/// A decimal number in its only form.
pub(super) fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

pub(super) fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
