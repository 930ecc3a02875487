//! Witnesses of the log (C2SP `tlog-witness`, `tlog-cosignature`): whoever is shown each head with the proof
//! that it grew out of the last, and signs that it saw it. A log that shows different people different things
//! finds none that signs both.
//!
//! Here is what is said to one, and what its answers mean; nothing that it answers is believed unread.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Hash;
use super::checkpoint::number;
use super::note::{Note, VerifierKey};
use crate::time::Timestamp;

/// What a witness's URL is followed by.
pub const ADD_CHECKPOINT: &str = "/add-checkpoint";
/// How far ahead a witness's clock may be, in seconds: a minute.
const SKEW: i64 = 60;

/// A head that a witness is asked to sign.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// A signed note.
    pub head: &'a str,
    pub size: u64,
    /// How large the log was when it signed last, as far as is known here.
    pub old: u64,
}

/// What a witness answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Cosigned(Cosignature),
    /// It signed last when the log was as large as that: it wants the proof from there.
    Knows(u64),
}

/// A witness saw a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// A signature line of a note, with its newline.
    pub line: String,
    /// When it signed, by its own clock, in seconds since 1970.
    pub time: i64,
}

/// An answer that is none, or that must not be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it does not know the log")]
    UnknownLog,
    #[error("it does not know the key of the log")]
    UnknownKey,
    #[error("it does not take the proof that the log only grew")]
    Inconsistent,
    #[error("it saw another log of the same name and size")]
    OtherTree,
    #[error("it saw a longer log of the same name")]
    KnowsMore,
    #[error("what it signed does not verify")]
    Unsigned,
    #[error("it signed at a time that is still to come")]
    Ahead,
    #[error("its answer is none")]
    Malformed,
}

impl Fault {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownLog => "unknown_log",
            Self::UnknownKey => "unknown_key",
            Self::Inconsistent => "inconsistent",
            Self::OtherTree => "other_tree",
            Self::KnowsMore => "knows_more",
            Self::Unsigned => "unsigned",
            Self::Ahead => "ahead",
            Self::Malformed => "malformed",
        }
    }
}

impl Asked<'_> {
    /// The body of `add-checkpoint`, with the proof that the log grew out of what it was.
    pub fn body(&self, proof: &[Hash]) -> String {
        let mut body = format!("old {}\n", self.old);
        for hash in proof {
            body.push_str(&STANDARD.encode(hash));
            body.push('\n');
        }
        body.push('\n');
        body.push_str(self.head);
        body
    }

    /// What an answer to it means.
    ///
    /// # Errors
    /// [`Fault`]: it says nothing, or nothing that is so.
    pub fn read(
        &self,
        (status, body): (u16, &[u8]),
        key: &VerifierKey<'_>,
        now: Timestamp,
    ) -> Result<Answer, Fault> {
        let body = || std::str::from_utf8(body).map_err(|_| Fault::Malformed);
        match status {
            200 => self.cosigned(body()?, key, now).map(Answer::Cosigned),
            409 => {
                let known = body()?.strip_suffix('\n').and_then(number);
                match known.ok_or(Fault::Malformed)? {
                    known if known > self.size => Err(Fault::KnowsMore),
                    // It was told this very size, and so takes the tree of it for another.
                    known if known == self.old => Err(Fault::OtherTree),
                    known => Ok(Answer::Knows(known)),
                }
            }
            403 => Err(Fault::UnknownKey),
            404 => Err(Fault::UnknownLog),
            422 => Err(Fault::Inconsistent),
            _ => Err(Fault::Malformed),
        }
    }

    fn cosigned(
        &self,
        lines: &str,
        key: &VerifierKey<'_>,
        now: Timestamp,
    ) -> Result<Cosignature, Fault> {
        let signed = format!("{}{lines}", self.head);
        let note = Note::read(&signed).map_err(|_| Fault::Malformed)?;
        if note.is_signed_by(key) != Some(true) {
            return Err(Fault::Unsigned);
        }
        let signature = note.signature_of(key).ok_or(Fault::Unsigned)?;
        // Behind the id of the key (`tlog-cosignature`).
        let time = signature.get(4..).and_then(<[u8]>::first_chunk::<8>);
        let time = time.and_then(|time| i64::try_from(u64::from_be_bytes(*time)).ok());
        let time = time.ok_or(Fault::Unsigned)?;
        if time > now.millis().div_euclid(1000) + SKEW {
            return Err(Fault::Ahead);
        }
        Ok(Cosignature {
            line: format!("\u{2014} {} {}\n", key.name, STANDARD.encode(signature)),
            time,
        })
    }
}

/// How many of these witnesses cosigned a head, each counted once by its name. `None`: something in the name of
/// one does not verify, and the note is to be refused whole (`signed-note`).
pub fn count(note: &Note<'_>, witnesses: &[VerifierKey<'_>]) -> Option<usize> {
    let mut seen = Vec::new();
    for key in witnesses {
        if note.is_signed_by(key)? {
            seen.push(key.name);
        }
    }
    seen.sort_unstable();
    seen.dedup();
    Some(seen.len())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::ids::sha256;
    use crate::transparency::note::Kind;

    const HEAD: &str = "log.example/l\n7\nXzN1YOMs5etTrxDbUKMNmPoPOvCBmViPEgXx07Q0kJc=\n\n\u{2014} log.example/l AAAA\n";
    const TIME: i64 = 1_790_000_000;

    /// A witness: its key, and what it signs at a time.
    fn witness(name: &str, seed: u8) -> (String, impl Fn(i64, &str) -> String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
        let key = [&[4], pair.public_key().as_ref()].concat();
        let id = sha256(&[name.as_bytes(), b"\n", &key].concat())[..4].to_vec();
        let vkey = format!("{name}+{}+{}", hex::encode(&id), STANDARD.encode(&key));
        let name = name.to_owned();
        let sign = move |time: i64, text: &str| {
            let message = format!("cosignature/v1\ntime {time}\n{text}");
            let signed = pair.sign(message.as_bytes());
            let signature = [&id[..], &time.to_be_bytes(), signed.as_ref()].concat();
            format!("\u{2014} {name} {}\n", STANDARD.encode(signature))
        };
        (vkey, sign)
    }

    fn text() -> &'static str {
        &HEAD[..HEAD.find("\n\n").expect("a note") + 1]
    }

    #[test]
    fn a_question_has_the_form_of_the_protocol() {
        let asked = Asked {
            head: HEAD,
            size: 7,
            old: 3,
        };
        let zeros = STANDARD.encode([0; 32]);
        let expected = format!("old 3\n{zeros}\n{zeros}\n\n{HEAD}");
        assert_eq!(asked.body(&[[0; 32], [0; 32]]), expected);
        let first = Asked { old: 0, ..asked };
        assert_eq!(first.body(&[]), format!("old 0\n\n{HEAD}"));
    }

    #[test]
    fn what_a_witness_answers_is_believed_only_if_it_is_so() {
        let (vkey, sign) = witness("w.example", 1);
        let (_, liar) = witness("w.example", 2);
        let (_, stranger) = witness("x.example", 3);
        let key = VerifierKey::read(&vkey, Kind::Witness).expect("a key");
        let now = Timestamp::from_millis(TIME * 1000);
        let asked = Asked {
            head: HEAD,
            size: 7,
            old: 3,
        };
        let read = |status, body: &str| asked.read((status, body.as_bytes()), &key, now);
        let cosigned = |line: String, time| Ok(Answer::Cosigned(Cosignature { line, time }));

        let good = sign(TIME, text());
        assert_eq!(read(200, &good), cosigned(good.clone(), TIME));
        // Whoever else signed is nobody's business here.
        let beside = format!("{}{good}", stranger(TIME, text()));
        assert_eq!(read(200, &beside), cosigned(good.clone(), TIME));
        let ahead = sign(TIME + 61, text());
        for (body, fault) in [
            ("", Fault::Unsigned),
            ("\u{2014} w.example", Fault::Malformed),
            (good.trim_end(), Fault::Malformed),
            (&liar(TIME, text()), Fault::Unsigned),
            (&stranger(TIME, text()), Fault::Unsigned),
            (&sign(TIME, "another head\n"), Fault::Unsigned),
            // One that is right makes up for none that is wrong.
            (&format!("{good}{}", sign(TIME, "x\n")), Fault::Unsigned),
            (&ahead, Fault::Ahead),
        ] {
            assert_eq!(read(200, body), Err(fault), "{body:?}");
        }

        assert_eq!(read(409, "5\n"), Ok(Answer::Knows(5)));
        assert_eq!(read(409, "7\n"), Ok(Answer::Knows(7)));
        assert_eq!(read(409, "0\n"), Ok(Answer::Knows(0)));
        for (status, body, fault) in [
            (409, "8\n", Fault::KnowsMore),
            (409, "3\n", Fault::OtherTree),
            (409, "5", Fault::Malformed),
            (409, "05\n", Fault::Malformed),
            (409, "", Fault::Malformed),
            (403, "", Fault::UnknownKey),
            (404, "", Fault::UnknownLog),
            (422, "", Fault::Inconsistent),
            (500, "", Fault::Malformed),
            (302, "", Fault::Malformed),
        ] {
            assert_eq!(read(status, body), Err(fault), "{status} {body:?}");
        }
    }

    #[test]
    fn witnesses_are_counted_by_their_names() {
        let (one, sign_one) = witness("w.example", 1);
        let (again, sign_again) = witness("w.example", 2);
        let (other, _) = witness("x.example", 3);
        let keys = [&one, &again, &other].map(|key| VerifierKey::read(key, Kind::Witness));
        let keys = keys.map(|key| key.expect("a key"));
        let counted = |lines: &str| {
            let note = format!("{HEAD}{lines}");
            count(&Note::read(&note).expect("a note"), &keys)
        };
        assert_eq!(counted(""), Some(0));
        let both = format!("{}{}", sign_one(TIME, text()), sign_again(TIME, text()));
        assert_eq!(counted(&both), Some(1), "two keys of one name");
        assert_eq!(counted(&sign_one(TIME, "another\n")), None);
    }
}
