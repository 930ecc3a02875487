//! The chain of entries, and whether it is whole.

use std::fmt;

use super::entry::Entry;
use crate::ids::sha256;

/// What is hashed before each entry, so that no hash of anything else is one of an entry.
const DOMAIN: &[u8] = b"attestd audit entry v1\n";
/// What the first entry follows.
const NOTHING: [u8; 32] = [0; 32];

/// The end of a chain at some time: what somebody must remember elsewhere to notice when what is behind
/// is written anew, or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last entry; 0 where there is none.
    pub seq: i64,
    pub hash: [u8; 32],
}

/// An entry as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub seq: i64,
    /// As [`Entry::encode`] writes it.
    pub text: String,
    /// SHA-256 over a fixed text, the hash before, and `text`.
    pub hash: [u8; 32],
}

/// Why a chain is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the chain does not begin with entry 1, but with {0}")]
    WrongBeginning(i64),
    #[error(
        "after entry {after} comes {found}: what was between is gone, or the order was changed"
    )]
    Gap { after: i64, found: i64 },
    #[error("entry {0} is not what was hashed: it, its hash, or an entry before it was changed")]
    Changed(i64),
    #[error("entry {0} is not in the form entries are written in")]
    Unreadable(i64),
    #[error("the chain ends with entry {last}, but {remembered} was there: its end was cut off")]
    Truncated { last: i64, remembered: i64 },
    #[error("entry {0} has another hash than is remembered: the chain was written anew")]
    OtherHistory(i64),
}

impl Head {
    /// Where a chain begins.
    pub const BEGINNING: Self = Self {
        seq: 0,
        hash: NOTHING,
    };

    /// Reads `SEQ:HASH`, as [`Head`] is shown.
    pub fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.split_once(':')?;
        let head = Self {
            seq: seq.parse().ok().filter(|seq| *seq >= 0)?,
            hash: hex::decode(hash).ok()?.try_into().ok()?,
        };
        (head.to_string() == text).then_some(head)
    }

    /// The link that follows.
    #[must_use]
    pub fn then(self, entry: &Entry) -> Link {
        let seq = self.seq + 1;
        let text = entry.encode(seq);
        let hash = linked(&self.hash, &text);
        Link { seq, text, hash }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex::encode(self.hash))
    }
}

impl Link {
    /// The end of the chain, where this is the last link.
    pub fn head(&self) -> Head {
        Head {
            seq: self.seq,
            hash: self.hash,
        }
    }
}

fn linked(previous: &[u8; 32], text: &str) -> [u8; 32] {
    sha256(&[DOMAIN, previous, text.as_bytes()].concat())
}

impl Fault {
    /// The stable word for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::WrongBeginning(_) => "wrong_beginning",
            Self::Gap { .. } => "gap",
            Self::Changed(_) => "entry_changed",
            Self::Unreadable(_) => "entry_unreadable",
            Self::Truncated { .. } => "truncated",
            Self::OtherHistory(_) => "other_history",
        }
    }
}

/// A chain that is looked at link by link, in its order.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    last: Head,
    remembered: Option<Head>,
}

impl Chain {
    /// From the first entry on.
    pub fn from_the_beginning(remembered: Option<Head>) -> Self {
        Self::after(Head::BEGINNING, remembered)
    }

    /// From the entry after one whose hash is known.
    pub fn after(known: Head, remembered: Option<Head>) -> Self {
        Self {
            last: known,
            remembered,
        }
    }

    /// Looks at the next link.
    ///
    /// # Errors
    /// Where the chain is not whole.
    pub fn follow(&mut self, link: &Link) -> Result<Entry, Fault> {
        if link.seq != self.last.seq + 1 {
            return Err(match self.last.seq {
                0 => Fault::WrongBeginning(link.seq),
                after => Fault::Gap {
                    after,
                    found: link.seq,
                },
            });
        }
        if linked(&self.last.hash, &link.text) != link.hash {
            return Err(Fault::Changed(link.seq));
        }
        let entry = match Entry::read(&link.text) {
            Ok((seq, entry)) if seq == link.seq => entry,
            _ => return Err(Fault::Unreadable(link.seq)),
        };
        if let Some(remembered) = self.remembered
            && remembered.seq == link.seq
            && remembered.hash != link.hash
        {
            return Err(Fault::OtherHistory(link.seq));
        }
        self.last = link.head();
        Ok(entry)
    }

    /// The end, where nothing follows.
    ///
    /// # Errors
    /// What is remembered was not reached.
    pub fn end(self) -> Result<Head, Fault> {
        match self.remembered {
            Some(remembered) if remembered.seq > self.last.seq => Err(Fault::Truncated {
                last: self.last.seq,
                remembered: remembered.seq,
            }),
            _ => Ok(self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Verb, Who, Words};
    use super::*;
    use crate::time::Timestamp;

    fn entry(subject: &'static str) -> Entry {
        let now = Timestamp::from_millis(1_789_905_600_000);
        Entry::new(&Who::Service, Verb::PolicyUse, subject, now).why(Words("configured"))
    }

    fn links(subjects: &[&'static str]) -> Vec<Link> {
        let mut head = Head::BEGINNING;
        let link = |subject: &&'static str| {
            let link = head.then(&entry(subject));
            head = link.head();
            link
        };
        subjects.iter().map(link).collect()
    }

    fn judged(links: &[Link], remembered: Option<Head>) -> Result<Head, Fault> {
        let mut chain = Chain::from_the_beginning(remembered);
        for link in links {
            chain.follow(link)?;
        }
        chain.end()
    }

    /// Anybody can compute it: the second entry's hash, by `sha256sum`.
    #[test]
    fn a_hash_is_over_the_domain_the_hash_before_and_the_text() {
        let links = links(&["a", "b"]);
        let mut octets = b"attestd audit entry v1\n".to_vec();
        octets.extend(links[0].hash);
        octets.extend(links[1].text.bytes());
        assert_eq!(links[1].hash, sha256(&octets));
    }

    #[test]
    fn a_chain_that_was_left_alone_is_whole() {
        let links = links(&["a", "b", "c"]);
        let head = links[2].head();
        assert_eq!(judged(&links, None), Ok(head));
        for remembered in &links {
            assert_eq!(judged(&links, Some(remembered.head())), Ok(head));
        }
        assert_eq!(judged(&[], None), Ok(Head::BEGINNING));
        let mut rest = Chain::after(links[0].head(), None);
        assert!(rest.follow(&links[1]).is_ok() && rest.follow(&links[2]).is_ok());
        assert_eq!(rest.end(), Ok(head));
    }

    #[test]
    fn whatever_was_done_to_a_chain_is_told() {
        let whole = links(&["a", "b", "c"]);
        let head = whole[2].head();
        let gap = [whole[0].clone(), whole[2].clone()];
        let (after, found) = (1, 3);
        assert_eq!(judged(&gap, None), Err(Fault::Gap { after, found }));
        assert_eq!(judged(&whole[1..], None), Err(Fault::WrongBeginning(2)));

        let mut changed = whole.clone();
        changed[1].text = changed[1].text.replace("configured", "accident");
        assert_eq!(judged(&changed, None), Err(Fault::Changed(2)));
        let mut other_hash = whole.clone();
        other_hash[1].hash[0] ^= 1;
        assert_eq!(judged(&other_hash, None), Err(Fault::Changed(2)));

        let (last, remembered) = (2, 3);
        let cut = judged(&whole[..2], Some(head));
        assert_eq!(cut, Err(Fault::Truncated { last, remembered }));
        assert_eq!(judged(&whole[..2], None), Ok(whole[1].head()));
        assert_eq!(
            judged(&[], Some(head)).map_err(Fault::code),
            Err("truncated")
        );

        // Hashed anew by whoever can: only what was remembered elsewhere tells.
        let anew = links(&["a", "x", "c"]);
        assert_eq!(judged(&anew, None), Ok(anew[2].head()));
        assert_eq!(judged(&anew, Some(head)), Err(Fault::OtherHistory(3)));
    }

    #[test]
    fn an_entry_that_was_hashed_in_another_form_is_none() {
        let text = entry("a").encode(1).replace("\"v\":1", "\"v\":1 ");
        let hash = linked(&NOTHING, &text);
        let spaced = Link { seq: 1, text, hash };
        assert_eq!(judged(&[spaced], None), Err(Fault::Unreadable(1)));
        let text = entry("a").encode(2);
        let hash = linked(&NOTHING, &text);
        let misnumbered = Link { seq: 1, text, hash };
        assert_eq!(judged(&[misnumbered], None), Err(Fault::Unreadable(1)));
    }

    #[test]
    fn no_single_changed_byte_of_an_entry_passes() {
        let whole = links(&["a", "b"]);
        for position in 0..whole[0].text.len() {
            let mut changed = whole.clone();
            let mut octets = changed[0].text.clone().into_bytes();
            octets[position] ^= 1;
            let Ok(text) = String::from_utf8(octets) else {
                continue;
            };
            changed[0].text = text;
            assert_eq!(judged(&changed, None), Err(Fault::Changed(1)));
        }
    }

    #[test]
    fn a_head_is_read_as_it_is_shown() {
        let head = links(&["a"])[0].head();
        assert_eq!(Head::parse(&head.to_string()), Some(head));
        let hash = hex::encode(head.hash);
        for other in [
            "",
            "1",
            "1:",
            &format!("-1:{hash}"),
            &format!("+1:{hash}"),
            &format!("01:{hash}"),
            &format!("1:{}", hash.to_uppercase()),
            &format!("1:{hash}00"),
        ] {
            assert_eq!(Head::parse(other), None, "{other}");
        }
    }
}
