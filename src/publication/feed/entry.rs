//! One provider in the feed, as JSON: what may change, and behind it what stays.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::openapi::schema::{AllOfBuilder, ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::judged::{Status, mac_of};
use super::{Disclosure, Judged, ProviderId, Terms};
use crate::attestation::freshness::{Minted, Scheme};
use crate::attestation::{Anchor, Evidence, Statement};
use crate::ids::{EvidenceId, ProvisioningUdid, SerialNumber, sha256};
use crate::posture::key_binding::{KeyBinding, same_key};
use crate::posture::policy::Policy;
use crate::posture::trust::Level;
use crate::posture::{Occasion, Verdict};
use crate::provider::SelfReport;
use crate::publication::binding_v1::Standing;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The length of nonces that are ours.
const NONCE: usize = 32;

/// Apple's chain as it is shown, with what its leaf says.
#[derive(Debug, Clone)]
pub struct Chain {
    pub evidence_id: EvidenceId,
    statement: Statement,
    not_before: Timestamp,
    scheme: &'static str,
    /// Leaf first: base64 of DER.
    certificates: Vec<String>,
}

/// A provider's blob with its signature, as they came.
#[derive(Debug, Clone)]
pub struct Signed {
    pub report: SelfReport,
    pub attestation_raw_b64: String,
    pub signature_b64: String,
}

/// One provider.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    pub provider_id: &'a ProviderId,
    pub standing: Standing<'a>,
    pub report: &'a SelfReport,
    /// The chain that [`Chain::wanted`] asks for, where it is kept.
    pub chain: Option<&'a Chain>,
}

impl Chain {
    /// Which of Apple's statements shows most of a session: the one that names its key, as long as it
    /// does; otherwise the last about its Mac.
    pub fn wanted(
        standing: &Standing<'_>,
        policy: &Policy,
        now: Timestamp,
    ) -> Option<(EvidenceId, Occasion)> {
        let posture = &mac_of(standing, policy)?.posture;
        let key = standing.session.key.text();
        let names = posture.named.as_ref().filter(|named| {
            same_key(&named.se_public_key, key)
                && posture.grade_key(key, policy, now).grade == KeyBinding::Bound
        });
        let named = names.map(|named| (named.evidence_id, named.occasion));
        let attested = posture.attested.as_ref();
        named.or(attested.map(|attested| (attested.evidence_id, attested.occasion)))
    }

    /// Reads a chain that was verified when it was received. `minted` is the nonce of ours that it was made
    /// for, where one is known. `None` when there is no leaf in it.
    pub fn read(
        evidence_id: EvidenceId,
        occasion: Occasion,
        evidence: &Evidence,
        se_public_key: &str,
        minted: Option<&Minted>,
    ) -> Option<Self> {
        let (statement, code) = evidence.unverified_statement(NONCE)?;
        let (not_before, _) = evidence.unverified_validity()?;
        let is_constant = code.as_deref() == Some(&sha256(se_public_key.as_bytes())[..]);
        let minted = minted.map_or(Scheme::TranscriptV1, |minted| minted.scheme);
        Some(Self {
            evidence_id,
            statement,
            not_before,
            scheme: match occasion {
                Occasion::Acme => "acme-token-v1",
                Occasion::Mda if is_constant => Scheme::LegacySeSha256.as_str(),
                Occasion::Mda => minted.as_str(),
            },
            certificates: evidence
                .certificates
                .iter()
                .map(|der| STANDARD.encode(der))
                .collect(),
        })
    }

    /// Without the certificates, which need not be kept twice.
    #[must_use]
    pub fn without_certificates(self) -> Self {
        Self {
            certificates: Vec::new(),
            ..self
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ProviderV1)]
struct Head<'a> {
    provider_id: &'a ProviderId,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<&'a SerialNumber>,
    trust_level: Level,
    status: Status,
    chip_name: &'a str,
    hardware_model: &'a str,
    /// Not known here. The historic coordinator wrote `null`, too.
    models: Option<()>,
    secure_enclave: bool,
    sip_enabled: bool,
    secure_boot_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticated_root_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_volume_hash: Option<&'a str>,
    se_public_key: &'a str,
    mdm_verified: bool,
    acme_verified: bool,
    mda_verified: bool,
    #[serde(flatten)]
    mda: Mda<'a>,
    app_attest_authorized: bool,
    verification: Verification,
    se_key_bound: KeyBinding,
    residence_proved: bool,
    posture_verdict: Verdict,
    reasons: &'a [Reason],
    usable_until: Option<Timestamp>,
    posture_observed_at: Option<Timestamp>,
    evidence_url: String,
}

#[derive(Default, Serialize, utoipa::ToSchema)]
#[schema(as = AttestedFacts)]
struct Mda<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    mda_serial: Option<&'a SerialNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mda_udid: Option<&'a ProvisioningUdid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mda_os_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mda_sepos_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce_scheme: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mda_leaf_not_before: Option<Timestamp>,
}

/// How a provider was verified, in the words of the coordinator of September 2026. Its times are left
/// out: some readers take them for numbers and some for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = VerificationWays)]
pub struct Verification {
    app_attest: State,
    /// The way by MDM.
    legacy: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = VerificationWay)]
struct State {
    state: &'static str,
}

impl Listing<'_> {
    /// What time or news may change: an object without its closing brace.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn head(&self, judged: &Judged, terms: &Terms<'_>) -> serde_json::Result<Vec<u8>> {
        let report = self.report;
        let mac = mac_of(&self.standing, terms.policy);
        let is_full = terms.disclosure == Disclosure::Full;
        // What cannot be shown is not said to be verified.
        let shown = self.chain.filter(|_| judged.mda_verified);
        let mut head = serde_json::to_vec(&Head {
            provider_id: self.provider_id,
            serial_number: mac.filter(|_| is_full).and_then(|mac| mac.serial.as_ref()),
            trust_level: judged.level,
            status: judged.status,
            chip_name: &report.chip_name,
            hardware_model: &report.hardware_model,
            models: None,
            secure_enclave: report.secure_enclave_available,
            sip_enabled: judged.sip_enabled,
            secure_boot_enabled: judged.secure_boot_enabled,
            authenticated_root_enabled: report.authenticated_root_enabled,
            system_volume_hash: report.system_volume_hash.as_deref(),
            se_public_key: self.standing.session.key.text(),
            mdm_verified: judged.mdm_verified,
            acme_verified: judged.acme_verified,
            mda_verified: shown.is_some(),
            mda: shown.map_or_else(Mda::default, |chain| chain.facts(is_full)),
            app_attest_authorized: false,
            verification: Verification::of(judged),
            se_key_bound: judged.se_key_bound,
            residence_proved: false,
            posture_verdict: judged.verdict,
            reasons: &judged.reasons,
            usable_until: judged.usable_until,
            posture_observed_at: judged.observed_at,
            evidence_url: format!("{}/v1/evidence/{}", terms.server_id, self.provider_id),
        })?;
        head.pop();
        Ok(head)
    }
}

impl Chain {
    fn facts(&self, is_full: bool) -> Mda<'_> {
        let statement = &self.statement;
        Mda {
            mda_serial: statement.serial.as_ref().filter(|_| is_full),
            mda_udid: statement.provisioning_udid.as_ref().filter(|_| is_full),
            mda_os_version: statement.os_version.as_deref(),
            mda_sepos_version: statement.sepos_version.as_deref(),
            nonce_scheme: Some(self.scheme),
            mda_leaf_not_before: Some(self.not_before),
        }
    }
}

/// Members that go on an object, without its closing brace.
fn members(further: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut members = serde_json::to_vec(further)?;
    members.pop();
    if let Some(brace) = members.first_mut() {
        *brace = b',';
    }
    Ok(members)
}

impl Chain {
    /// What goes on a head that says `mda_verified`; nothing where serial numbers are not shown.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn members(&self, disclosure: Disclosure) -> serde_json::Result<Vec<u8>> {
        match disclosure {
            Disclosure::Redacted => Ok(Vec::new()),
            Disclosure::Full => members(&ShownChain {
                mda_cert_chain_b64: &self.certificates,
            }),
        }
    }
}

impl Signed {
    /// What goes on a head; nothing where serial numbers are not shown.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn members(&self, disclosure: Disclosure) -> serde_json::Result<Vec<u8>> {
        match disclosure {
            Disclosure::Redacted => Ok(Vec::new()),
            Disclosure::Full => members(&ShownBlob {
                attestation_raw_b64: &self.attestation_raw_b64,
                signature_b64: &self.signature_b64,
            }),
        }
    }
}

impl Verification {
    /// As it was judged.
    pub fn of(judged: &Judged) -> Self {
        let is_revoked = judged.reasons.contains(&Reason::Revoked);
        let legacy = match (judged.status, judged.level) {
            _ if is_revoked => "revoked",
            (Status::Offline, _) => "offline",
            (Status::Online, Level::Hardware) => "verified",
            (Status::Online | Status::Untrusted, _) => "pending",
        };
        Self {
            app_attest: State {
                state: "unsupported",
            },
            legacy: State { state: legacy },
        }
    }

    /// Whether requests are authorized by what is known of the Mac.
    pub fn is_verified(&self) -> bool {
        self.legacy.state == "verified"
    }
}

/// Apple's chain, where it is shown.
#[derive(Serialize, utoipa::ToSchema)]
struct ShownChain<'a> {
    /// Leaf first, standard base64 of DER.
    #[schema(required = false)]
    mda_cert_chain_b64: &'a [String],
}

/// The blob of a provider, where it is shown.
#[derive(Serialize, utoipa::ToSchema)]
struct ShownBlob<'a> {
    #[schema(required = false)]
    attestation_raw_b64: &'a str,
    #[schema(required = false)]
    signature_b64: &'a str,
}

/// What holds for the whole feed.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = FeedTerms)]
struct Rest<'a> {
    apple_root_ca_url: &'a str,
    apple_enterprise_root_ca: &'a str,
    verification_instructions: &'a str,
    anchor: Anchor,
    disclosure: Disclosure,
    policy_id: &'a str,
    policy_waives: Vec<&'static str>,
}

/// The feed, which is written in pieces: the schema says how they fit together.
#[derive(Debug, Clone, Copy)]
pub struct FeedV1;

impl ToSchema for FeedV1 {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        let listed = AllOfBuilder::new()
            .description(Some("One provider of the feed."))
            .item(Ref::from_schema_name(Head::name()))
            .item(ShownBlob::schema())
            .item(ShownChain::schema());
        schemas.push(("ListedProviderV1".to_owned(), listed.into()));
        schemas.push((Head::name().into_owned(), Head::schema()));
        schemas.push((Rest::name().into_owned(), Rest::schema()));
        Head::schemas(schemas);
        Rest::schemas(schemas);
    }
}

impl PartialSchema for FeedV1 {
    fn schema() -> RefOr<Schema> {
        let list = ArrayBuilder::new().items(Ref::from_schema_name("ListedProviderV1"));
        let none = ObjectBuilder::new().schema_type(Type::Null);
        let providers = OneOfBuilder::new()
            .description(Some("`null` where there are none."))
            .item(none)
            .item(list);
        let members = ObjectBuilder::new()
            .property("providers", providers)
            .required("providers");
        AllOfBuilder::new()
            .description(Some("Every provider that is connected."))
            .item(members)
            .item(Ref::from_schema_name(Rest::name()))
            .into()
    }
}

/// What stands before the providers. The historic coordinator had `null` where there are none.
pub fn opening(is_empty: bool) -> &'static [u8] {
    match is_empty {
        true => b"{\"providers\":null",
        false => b"{\"providers\":[",
    }
}

/// What stands behind them.
///
/// # Errors
/// When it cannot be written.
pub fn closing(is_empty: bool, terms: &Terms<'_>) -> serde_json::Result<Vec<u8>> {
    let mut rest = members(&Rest {
        apple_root_ca_url: "https://www.apple.com/certificateauthority/",
        apple_enterprise_root_ca: match terms.anchor {
            Anchor::Apple => "Apple Enterprise Attestation Root CA",
            Anchor::Custom => "none: these Macs are simulated, and nothing here is Apple's word",
        },
        verification_instructions: INSTRUCTIONS,
        anchor: terms.anchor,
        disclosure: terms.disclosure,
        policy_id: &terms.policy.id,
        policy_waives: terms.policy.waives(),
    })?;
    if !is_empty {
        rest.insert(0, b']');
    }
    rest.push(b'}');
    Ok(rest)
}

const INSTRUCTIONS: &str = "Verify each mda_cert_chain_b64 (base64 of DER, leaf first) up to the Apple Enterprise \
Attestation Root CA, whose certificate Apple publishes under apple_root_ca_url. signature_b64 is ECDSA P-256 with SHA-256 \
of the key se_public_key (base64 of X||Y) over the bytes that attestation_raw_b64 decodes to. se_key_bound says whether \
the chain names that key; that the key lives in the Mac is proved by nothing (residence_proved). The rest is the word of \
this service: the signed evidence is at evidence_url.";
