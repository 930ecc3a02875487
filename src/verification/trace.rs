//! The names under which a round is followed through processes and minutes. They are computed from the
//! verification, so that nothing has to be kept or carried: whoever handles a part of it, on whichever
//! node, says the same.

use crate::ids::{VerificationId, sha256};
use crate::time::Timestamp;

/// A trace: one round, from whatever began it to its end (W3C Trace Context, `trace-id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span: one part of it (`parent-id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// Of a round.
    pub fn of(verification_id: &VerificationId) -> Self {
        Self(digest("trace", verification_id, ""))
    }
}

impl SpanId {
    /// Of the round itself: the parent of its parts.
    pub fn of_round(verification_id: &VerificationId) -> Self {
        Self(digest("round", verification_id, ""))
    }

    /// Of a part that began then; `which` tells those apart that begin at once.
    pub fn of_part(
        verification_id: &VerificationId,
        name: &str,
        which: &str,
        from: Timestamp,
    ) -> Self {
        let which = format!("{name} {which} {}", from.millis());
        Self(digest("part", verification_id, &which))
    }
}

/// The first bytes of a digest. All zero is no name of a trace; no digest begins so.
fn digest<const N: usize>(tag: &str, verification_id: &VerificationId, which: &str) -> [u8; N] {
    let text = format!("attestd {tag}\n{verification_id}\n{which}");
    let digest: [u8; 32] = sha256(text.as_bytes());
    std::array::from_fn(|index| digest.get(index).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_round_share_its_trace_and_nothing_else() {
        let [one, other] = ["B", "C"].map(|end| {
            let id = format!("ver_01J8ZQ4Z0000000000000000A{end}");
            VerificationId::parse(&id).expect("a name")
        });
        assert_eq!(TraceId::of(&one), TraceId::of(&one));
        assert_ne!(TraceId::of(&one), TraceId::of(&other));
        let at = Timestamp::from_seconds(1);
        let later = Timestamp::from_seconds(2);
        let ids = [
            SpanId::of_round(&one),
            SpanId::of_part(&one, "wake", "", at),
            SpanId::of_part(&one, "wake", "", later),
            SpanId::of_part(&one, "connect", "Idle", at),
            SpanId::of_part(&one, "connect", "NotNow", at),
            SpanId::of_round(&other),
        ];
        let different: std::collections::HashSet<_> = ids.into_iter().collect();
        assert_eq!(different.len(), ids.len());
    }
}
