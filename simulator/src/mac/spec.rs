//! What a virtual Mac is: its identity, the truth about its state, and how it differs from an
//! honest one.

use std::time::Duration;

use openssl::error::ErrorStack;

use super::identity_payload::IdentityKind;
use crate::acme::AcmeTiming;
use crate::apple::{AttestedState, BootPolicy, SecureBoot, version_at_least};
use crate::certs::Identity;
use crate::cms::SignatureStyle;
use crate::keys;
use crate::plist_xml::PlistStyle;
use crate::provider::Provider;

/// A Mac before anybody enrolled it.
#[derive(Debug, Clone)]
pub struct MacSpec {
    pub serial: String,
    /// The hardware UUID, which MDM calls UDID.
    pub udid: String,
    /// The attested identifier, `%08X-%016X` of chip and ECID.
    pub provisioning_udid: String,
    /// Such as `Mac16,11`.
    pub model: String,
    pub model_name: String,
    pub model_number: String,
    /// The board, such as `J773sAP`.
    pub software_update_device_id: String,
    pub device_name: String,
    pub os_version: String,
    pub build_version: String,
    pub sepos_version: String,
    pub llb_version: String,
    /// `false` for Intel Macs.
    pub apple_silicon: bool,
    /// Whether an Intel Mac has Apple's security chip, as all have that run macOS 26: it has a
    /// Secure Enclave then, and attests nothing.
    pub t2: bool,
    /// A guest, which reaches neither Secure Enclave nor attestation.
    pub virtual_machine: bool,
    /// The truth, which Apple attests.
    pub boot: BootPolicy,
    pub authenticated_root: bool,
    pub filevault: bool,
    pub recovery_lock: bool,
    pub firewall: bool,
    /// FDE_PersonalRecoveryKeyCMS: a secret servers must drop.
    pub recovery_key_cms: Option<Vec<u8>>,
    /// Bundle identifiers in the firewall's list: personal data servers must drop.
    pub firewall_applications: Vec<String>,
    pub reduced_security_form: ReducedSecurityForm,
    /// Whether replies repeat the RequestType; real ones differ (apple-protocol 3.2).
    pub names_request_type: bool,
    pub plist_style: PlistStyle,
    /// Of all messages; a signing time in it means "with one", the Mac writes its own.
    pub signature: SignatureStyle,
    /// How long an attestation takes: least and most.
    pub attestation_latency: (Duration, Duration),
    /// Whether the Mac can reach Apple; otherwise the attestation key is absent, and an ACME
    /// challenge is answered with an error and an empty chain.
    pub reaches_apple: bool,
    /// How long it waits for an ACME server.
    pub acme_timing: AcmeTiming,
    /// The identity it asks the server for; by default the server chooses.
    pub asks_for: Option<IdentityKind>,
    /// The provider software by whose key it asks for its profile; by default it asks without one.
    pub provider: Option<Box<Provider>>,
    /// Brings an identity of the world's former device CA in place of the profile's, with so many
    /// milliseconds of validity left: negative, and it has expired.
    pub former_identity: Option<i64>,
    /// Whether Apple's cached chain survives an enrollment that is renewed in place. What removes
    /// the enrollment empties the cache; of this case nothing is known (apple-protocol 5.3).
    pub keeps_attestation_on_renewal: bool,
    /// A second TokenUpdate for the installing user, where the server declares per-user connections.
    pub user_channel: bool,
    /// The installation ends after Authenticate was accepted, as if macOS had rolled it back: no
    /// TokenUpdate ever comes (apple-protocol 1.6).
    pub aborts_after_authenticate: bool,
    /// How far the Mac's clock is ahead, milliseconds.
    pub clock_skew_ms: i64,
    /// How long it waits before it tries again after a failed session.
    pub retry_delay: Duration,
    /// Accepts `http` URLs to this machine. Real Macs never do; for tests without TLS.
    pub allow_http_loopback: bool,
    pub lie: Option<Lie>,
}

/// The encodings of SecureBoot.ReducedSecurity the sources report (apple-protocol 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReducedSecurityForm {
    #[default]
    Booleans,
    Strings,
    Names,
}

/// How a Mac deceives (apple-protocol 12.14).
#[derive(Debug, Clone)]
pub enum Lie {
    /// SIP is off and the boot policy permissive; SecurityInfo claims that all is well. Apple's
    /// leaf tells the truth.
    SipOffButClaimsOn,
    /// Answers attestation requests with a genuine chain of this other Mac for the same nonce.
    RelaysAnotherMac(Box<AttestedState>),
    /// Enrolls normally, then signs replies to commands with this identity; `None` invents a
    /// foreign authority's one.
    SignsWithWrongIdentity(Option<Box<Identity>>),
    /// Enrolls normally, then names this UDID in every message of the command channel, under its
    /// own signature.
    ClaimsAnotherUdid(String),
    /// Answers every attestation request with the first chain it ever got.
    ReplaysOldChain,
    /// Answers every command with the bytes of its first answer to such a command.
    ReplaysOldResult,
    /// Answers the ACME challenge with a genuine statement of this other Mac, for this token and
    /// over the key it goes on with: the serial number is all that is wrong.
    EnrollsWithAnothersStatement(Box<AttestedState>),
    /// Answers the ACME challenge with a statement made for another token.
    AttestsAnotherToken,
    /// Attests one key to the ACME server and asks for a certificate for another.
    FinalizesWithAnotherKey,
    /// Answers every ACME challenge with the first statement it ever made, and its key.
    ReplaysOldStatement,
}

impl MacSpec {
    /// A healthy Apple silicon Mac with unguessable identifiers.
    pub fn random() -> Result<Self, ErrorStack> {
        Self::with_serial(&random_serial("SIM")?)
    }

    /// A healthy Apple silicon Mac with this serial number.
    pub fn with_serial(serial: &str) -> Result<Self, ErrorStack> {
        let ecid = hex::encode_upper(keys::random::<8>()?);
        let zero_to_three = Duration::from_millis(3);
        Ok(Self {
            serial: serial.to_owned(),
            udid: keys::random_uuid()?,
            provisioning_udid: format!("00006040-{ecid}"),
            model: "Mac16,11".into(),
            model_name: "Mac mini".into(),
            model_number: "Z1JV0000".into(),
            software_update_device_id: "J773sAP".into(),
            device_name: "Sim Mac mini".into(),
            os_version: "26.6.2".into(),
            build_version: "25G83".into(),
            sepos_version: "26.6".into(),
            llb_version: "26.6".into(),
            apple_silicon: true,
            t2: true,
            virtual_machine: false,
            boot: BootPolicy::default(),
            authenticated_root: true,
            filevault: true,
            recovery_lock: false,
            firewall: true,
            recovery_key_cms: None,
            firewall_applications: Vec::new(),
            reduced_security_form: ReducedSecurityForm::default(),
            names_request_type: true,
            plist_style: PlistStyle::default(),
            signature: SignatureStyle::default(),
            attestation_latency: (Duration::ZERO, zero_to_three),
            reaches_apple: true,
            acme_timing: AcmeTiming::default(),
            asks_for: None,
            provider: None,
            former_identity: None,
            keeps_attestation_on_renewal: false,
            user_channel: false,
            aborts_after_authenticate: false,
            clock_skew_ms: 0,
            retry_delay: Duration::from_millis(200),
            allow_http_loopback: false,
            lie: None,
        })
    }

    /// The same Mac, deceiving.
    #[must_use]
    pub fn lying(mut self, lie: Lie) -> Self {
        if matches!(lie, Lie::SipOffButClaimsOn) {
            // SIP off on Apple silicon implies a permissive policy (apple-protocol 4).
            self.boot = BootPolicy {
                sip_enabled: false,
                secure_boot: SecureBoot::Permissive,
                third_party_kexts: false,
            };
            self.authenticated_root = false;
        }
        self.lie = Some(lie);
        self
    }

    /// Reduced Security with third-party kernel extensions, honestly reported: common on real Macs.
    #[must_use]
    pub fn with_reduced_security(mut self) -> Self {
        self.boot = BootPolicy {
            sip_enabled: true,
            secure_boot: SecureBoot::Reduced,
            third_party_kexts: true,
        };
        self
    }

    /// SIP off, honestly reported.
    #[must_use]
    pub fn with_sip_off(mut self) -> Self {
        self.boot = BootPolicy {
            sip_enabled: false,
            secure_boot: SecureBoot::Permissive,
            third_party_kexts: false,
        };
        self
    }

    /// The latency of Apple's real servers, 2 to 20 seconds (apple-protocol 12.8).
    #[must_use]
    pub fn with_real_latency(mut self) -> Self {
        self.attestation_latency = (Duration::from_secs(2), Duration::from_secs(20));
        self
    }

    /// What Apple knows of it.
    pub fn attested_state(&self) -> AttestedState {
        AttestedState {
            serial: self.serial.clone(),
            provisioning_udid: self.provisioning_udid.clone(),
            software_update_device_id: self.software_update_device_id.clone(),
            os_version: self.os_version.clone(),
            sepos_version: self.sepos_version.clone(),
            llb_version: self.llb_version.clone(),
            boot: self.boot,
        }
    }

    /// Managed Device Attestation needs Apple silicon, macOS 14 and a way to Apple.
    pub fn can_be_attested(&self) -> bool {
        self.is_attestable() && self.reaches_apple
    }

    /// Whether Apple would attest it, were it reached.
    pub fn is_attestable(&self) -> bool {
        self.apple_silicon && self.has_secure_enclave()
    }

    /// Whether a payload's HardwareBound can be true on it (apple-protocol 1.4).
    pub fn has_secure_enclave(&self) -> bool {
        (self.apple_silicon || self.t2)
            && !self.virtual_machine
            && version_at_least(&self.os_version, 14, 0)
    }

    /// The word of the enrollment request for what it runs on.
    pub fn hardware(&self) -> &'static str {
        match (self.virtual_machine, self.apple_silicon) {
            (true, _) => "virtual_machine",
            (false, true) => "apple_silicon",
            (false, false) => "intel",
        }
    }

    /// A payload's text with the variables macOS expands (apple-protocol 1.4); others stay as
    /// they are.
    pub(super) fn expanded(&self, text: &str) -> String {
        text.replace("%SerialNumber%", &self.serial)
            .replace("%HardwareUUID%", &self.udid)
            .replace("%ComputerName%", &self.device_name)
    }

    /// The Mac as it presents itself on the command channel: with another's UDID in
    /// [`Lie::ClaimsAnotherUdid`].
    pub(super) fn presented(mut self) -> Self {
        if let Some(Lie::ClaimsAnotherUdid(udid)) = &self.lie {
            self.udid.clone_from(udid);
        }
        self
    }

    /// What SecurityInfo claims of the boot: the truth, except in [`Lie::SipOffButClaimsOn`].
    pub(super) fn claimed_boot(&self) -> BootPolicy {
        match self.lie {
            Some(Lie::SipOffButClaimsOn) => BootPolicy::default(),
            _ => self.boot,
        }
    }
}

/// A prefix and seven random letters and digits.
pub(super) fn random_serial(prefix: &str) -> Result<String, ErrorStack> {
    let letters = b"0123456789CDFGHJKLMNPQRTVWXY";
    let tail: String = keys::random::<7>()?
        .iter()
        .filter_map(|byte| letters.get(usize::from(*byte) % letters.len()))
        .map(|letter| char::from(*letter))
        .collect();
    Ok(format!("{prefix}{tail}"))
}
