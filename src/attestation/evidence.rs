//! A chain as received, and the one way in which it becomes believed.

use super::anchor::{Anchor, Anchors};
use super::statement::{self, Statement};
use crate::ids::EvidenceId;
use crate::pki::{
    Certificate, ChainRefusal, ChainShape, KnownIntermediates, PkiError, verify_chain,
};
use crate::reason::Reason;
use crate::time::Timestamp;

/// Largest certificate that is looked at; Apple's leaf has 839 bytes.
const MAX_CERTIFICATE: usize = 8 * 1024;

/// A chain as received: DER certificates, leaf first. Apple's devices send leaf and intermediate,
/// without the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub certificates: Vec<Vec<u8>>,
}

/// What Apple vouches for. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEvidence {
    statement: Statement,
    freshness_code: Option<Vec<u8>>,
    key: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
    anchor: Anchor,
}

/// Why a chain is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither leaf and intermediate, nor these two and the pinned root.
    #[error("the chain must be a leaf and one intermediate, but {0} certificates came")]
    Length(usize),
    #[error("certificate {0} of the chain cannot be read: {1}")]
    Undecodable(usize, PkiError),
    #[error("{0}")]
    Chain(#[from] ChainRefusal),
}

impl Refusal {
    /// The stable code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Length(_) | Self::Undecodable(..) => Reason::ChainInvalid,
            Self::Chain(refusal) => refusal.reason(),
        }
    }
}

impl Evidence {
    /// The name of these bytes: SHA-256 over the certificates, each prefixed with its length as
    /// 4 bytes, big endian.
    pub fn id(&self) -> EvidenceId {
        let mut bytes = Vec::new();
        for certificate in &self.certificates {
            let length = u32::try_from(certificate.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(certificate);
        }
        EvidenceId::of(&bytes)
    }

    /// What the leaf says, without any reason to believe it; for showing beside a refusal. The
    /// freshness code is as [`VerifiedEvidence::freshness_code`] gives it for this length.
    pub fn unverified_statement(&self, length: usize) -> Option<(Statement, Option<Vec<u8>>)> {
        let leaf = Certificate::parse(self.certificates.first()?).ok()?;
        let code = statement::freshness_code(&leaf)
            .map(|code| statement::unwrap_octet_string(&code, length).to_vec());
        Some((Statement::read(&leaf), code))
    }

    /// The leaf's validity, without any reason to believe it.
    pub fn unverified_validity(&self) -> Option<(Timestamp, Timestamp)> {
        let leaf = Certificate::parse(self.certificates.first()?).ok()?;
        Some((leaf.not_before(), leaf.not_after()))
    }
}

/// Verifies a chain at a time and reads what Apple states.
///
/// Exactly two certificates, leaf first; a third is dropped when it is a pinned root itself. Fresh
/// evidence is verified at the time it is received, archived evidence at the time it was.
///
/// # Refusals
/// Another number of certificates; one that cannot be read, has trailing bytes or repeats an
/// extension; a chain that does not lead to a root in force by the rules of [`verify_chain`].
pub fn verify(
    evidence: &Evidence,
    anchors: &Anchors,
    known: &KnownIntermediates,
    now: Timestamp,
) -> Result<VerifiedEvidence, Refusal> {
    let (leaf_der, intermediate_der) = match evidence.certificates.as_slice() {
        [leaf, intermediate] => (leaf, intermediate),
        [leaf, intermediate, root]
            if anchors
                .trust
                .certificates()
                .any(|anchor| anchor.as_der() == root.as_slice()) =>
        {
            (leaf, intermediate)
        }
        other => return Err(Refusal::Length(other.len())),
    };
    let leaf = read(leaf_der, 0)?;
    let intermediate = read(intermediate_der, 1)?;
    let chain = verify_chain(
        &leaf,
        &[intermediate],
        &anchors.trust,
        now,
        ChainShape::OneIntermediate,
        known,
    )?;
    let leaf = chain.leaf();
    Ok(VerifiedEvidence {
        statement: Statement::read(&leaf),
        freshness_code: statement::freshness_code(&leaf),
        key: leaf.spki().to_vec(),
        not_before: leaf.not_before(),
        not_after: leaf.not_after(),
        anchor: anchors.kind(),
    })
}

fn read(der: &[u8], index: usize) -> Result<Certificate<'_>, Refusal> {
    if der.len() > MAX_CERTIFICATE {
        return Err(Refusal::Undecodable(
            index,
            PkiError::TooLarge(MAX_CERTIFICATE),
        ));
    }
    Certificate::parse(der).map_err(|fault| Refusal::Undecodable(index, fault))
}

impl VerifiedEvidence {
    /// What Apple states.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The freshness code, to be compared with a nonce of `length` bytes.
    ///
    /// Apple writes the nonce raw. Only a code of another length that is exactly one DER OCTET
    /// STRING is unwrapped: 32 random bytes may begin with anything, `04 1e` included.
    pub fn freshness_code(&self, length: usize) -> Option<&[u8]> {
        self.freshness_code
            .as_deref()
            .map(|code| statement::unwrap_octet_string(code, length))
    }

    /// The key in the leaf, as a DER SubjectPublicKeyInfo, of whatever kind it is. In an ACME
    /// statement it is the key of the identity to be; in a DeviceInformation reply it is the
    /// operating system's own, and nothing we receive is signed by it.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The leaf's notBefore. Apple sets it a day before the moment of issue: no measure of age.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The leaf's notAfter.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whose root it rests on.
    pub fn anchor(&self) -> Anchor {
        self.anchor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::read_certificates;

    fn der(name: &str) -> Vec<u8> {
        let path = format!(
            "{}/tests/fixtures/mda/sim-mda-{name}.pem",
            env!("CARGO_MANIFEST_DIR")
        );
        let file = std::fs::read(path).expect("fixture");
        read_certificates(&file).expect("PEM")[0].as_der().to_vec()
    }

    fn chain(names: &[&str]) -> Evidence {
        Evidence {
            certificates: names.iter().map(|name| der(name)).collect(),
        }
    }

    fn judged(evidence: &Evidence) -> Result<VerifiedEvidence, Refusal> {
        let root = include_bytes!("../../tests/fixtures/mda/sim-mda-root.pem");
        let anchors = Anchors::custom(root).expect("an authority");
        let now = Timestamp::parse("2026-10-01T09:31:00Z").expect("valid");
        verify(evidence, &anchors, &KnownIntermediates::default(), now)
    }

    #[test]
    fn a_genuine_chain_says_what_its_leaf_states() {
        let verified = judged(&chain(&["leaf-good", "subca1"])).expect("genuine");
        let statement = verified.statement();
        assert_eq!(
            statement.serial.as_ref().map(|serial| serial.as_str()),
            Some("SIMQ4T2W7P")
        );
        assert_eq!(
            (statement.sip_enabled, statement.third_party_kexts),
            (Some(true), Some(false))
        );
        assert!(!statement.contradicts_full_security());
        assert_eq!(verified.freshness_code(32).map(<[u8]>::len), Some(32));
        assert_eq!(verified.anchor(), Anchor::Custom);
        let off = judged(&chain(&["leaf-sip-disabled", "subca1"])).expect("genuine");
        assert!(off.statement().contradicts_full_security());
    }

    #[test]
    fn a_chain_has_two_certificates_or_the_pinned_root_besides() {
        assert!(judged(&chain(&["leaf-good", "subca1", "root"])).is_ok());
        for (names, length) in [
            (&[][..], 0),
            (&["leaf-good"], 1),
            (&["leaf-good", "subca1", "subca1"], 3),
            (&["leaf-good", "subca1", "root", "root"], 4),
        ] {
            let refusal = judged(&chain(names)).expect_err("refused");
            assert_eq!(refusal, Refusal::Length(length));
            assert_eq!(refusal.reason(), Reason::ChainInvalid);
        }
    }

    #[test]
    fn every_entry_must_be_one_certificate_and_no_more() {
        let mut trailing = chain(&["leaf-good", "subca1"]);
        trailing.certificates[1].push(0);
        assert!(matches!(judged(&trailing), Err(Refusal::Undecodable(1, _))));
        let mut large = chain(&["leaf-good", "subca1"]);
        large.certificates[0] = vec![0x30; MAX_CERTIFICATE + 1];
        assert_eq!(
            judged(&large),
            Err(Refusal::Undecodable(0, PkiError::TooLarge(MAX_CERTIFICATE)))
        );
        assert!(large.unverified_statement(32).is_none());
    }

    #[test]
    fn the_name_of_a_chain_depends_on_every_boundary() {
        let one = Evidence {
            certificates: vec![vec![1, 2], vec![3]],
        };
        let other = Evidence {
            certificates: vec![vec![1], vec![2, 3]],
        };
        assert_ne!(one.id(), other.id());
        assert_eq!(one.id(), EvidenceId::of(&[0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 3]));
    }

    #[test]
    fn what_is_refused_can_still_be_shown() {
        let evidence = chain(&["leaf-expired", "subca1"]);
        assert!(matches!(
            judged(&evidence),
            Err(Refusal::Chain(ChainRefusal::Expired(_)))
        ));
        let (statement, code) = evidence.unverified_statement(32).expect("readable");
        assert!(statement.serial.is_some() && code.is_some_and(|code| code.len() == 32));
        let wrapped = chain(&["leaf-freshness-octet-string-wrapped"]);
        let code = |length| {
            wrapped
                .unverified_statement(length)
                .and_then(|(_, code)| code)
        };
        assert_eq!(code(32).map(|code| code.len()), Some(32));
        assert_eq!(code(34).map(|code| code.len()), Some(34));
    }
}
