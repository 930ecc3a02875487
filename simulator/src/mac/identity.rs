//! Getting the identity an enrollment profile asks for (apple-protocol 1.3, 1.4, 7, 8).

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;

use super::events::MacStep;
use super::identity_payload::{IdentityKind, IdentityPayload};
use super::wire::Wire;
use super::{Enrolled, EnrollmentProfile, Lie, Mac, MacError, ProfileError};
use crate::acme::{AcmeRun, AcmeSettings, ChallengeAnswer, KeyForm, freshness};
use crate::apple::{Chain, version_at_least};
use crate::certs::{self, Identity};
use crate::clock::DAY_MS;
use crate::csr::Subject;
use crate::keys::KeyKind;
use crate::scep::{ScepClient, ScepError, ScepSettings};

/// An ACME statement with the key it names.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    key: PKey<Private>,
    chain: Chain,
}

impl Mac {
    /// Only the identity, by SCEP or ACME as the profile says, used for nothing yet.
    pub async fn identity_for(&self, profile: &EnrollmentProfile) -> Result<Identity, MacError> {
        let wire = Wire::new(&self.inner.world.trusted(), &profile.roots, None)?;
        let (kind, identity) = match &profile.identity {
            IdentityPayload::Scep(settings) => {
                (IdentityKind::Scep, self.by_scep(&wire, settings).await?)
            }
            IdentityPayload::Acme(settings) => {
                (IdentityKind::Acme, self.by_acme(&wire, settings).await?)
            }
            IdentityPayload::Former => return Err(ProfileError::NoIdentity.into()),
        };
        self.tell_issued(&identity, Some(kind))?;
        Ok(identity)
    }

    pub(super) fn tell_issued(
        &self,
        identity: &Identity,
        kind: Option<IdentityKind>,
    ) -> Result<(), MacError> {
        self.tell(MacStep::IdentityIssued {
            certificate: certs::fingerprint(&identity.certificate)?,
            kind,
        });
        Ok(())
    }

    async fn by_scep(&self, wire: &Wire, settings: &ScepSettings) -> Result<Identity, MacError> {
        let key = self.new_key(KeyForm::Rsa(settings.key_size)).await?;
        let settings = ScepSettings {
            subject: self.expanded(&settings.subject),
            ..settings.clone()
        };
        let clock = self.clock();
        let client = ScepClient {
            http: wire.client(),
            settings: &settings,
            clock: &clock,
        };
        Ok(client.identity(key).await?)
    }

    async fn by_acme(&self, wire: &Wire, settings: &AcmeSettings) -> Result<Identity, MacError> {
        let spec = self.spec();
        let refused = |key, why| Err(ProfileError::NotOnThisMac { key, why }.into());
        if !version_at_least(&spec.os_version, 13, 1) {
            return refused("com.apple.security.acme", "it needs macOS 13.1");
        }
        if settings.hardware_bound && !spec.has_secure_enclave() {
            return refused("HardwareBound", "it needs a Secure Enclave and macOS 14");
        }
        let settings = AcmeSettings {
            subject: self.expanded(&settings.subject),
            ..settings.clone()
        };
        let old = match spec.lie {
            Some(Lie::ReplaysOldStatement) => self.state().first_statement.clone(),
            _ => None,
        };
        let mut key = match &old {
            Some(old) => old.key.clone(),
            None => self.new_key(settings.key).await?,
        };
        let mut run = AcmeRun::begin(
            wire.client(),
            &settings.directory_url,
            spec.acme_timing,
            spec.allow_http_loopback,
        )
        .await?;
        let order = run.new_order(&settings.client_identifier).await?;
        let challenge = run.authorization(&order).await?;
        let answer = match old {
            Some(old) => ChallengeAnswer::Attested(old.chain),
            // A T2 has a Secure Enclave and ignores Attest (apple-protocol 1.4).
            None if settings.attest && spec.apple_silicon => {
                self.statement(&key, &challenge.token).await?
            }
            None => ChallengeAnswer::Unattested,
        };
        run.respond(&challenge, &answer).await?;
        if matches!(spec.lie, Some(Lie::FinalizesWithAnotherKey)) {
            key = self.new_key(settings.key).await?;
        }
        run.finalize(&order, &settings.csr(&key)?).await?;
        let certificate_url = run.order(&order).await?;
        let certificate = run.certificate(&certificate_url, &key).await?;
        Ok(Identity { key, certificate })
    }

    /// Apple's statement over `key` for this token, or why there is none.
    async fn statement(
        &self,
        key: &PKey<Private>,
        token: &str,
    ) -> Result<ChallengeAnswer, MacError> {
        let spec = self.spec();
        tokio::time::sleep(self.attestation_delay()).await;
        if !spec.can_be_attested() {
            return Ok(ChallengeAnswer::Failed(
                "The device could not be attested.".into(),
            ));
        }
        let state = match &spec.lie {
            Some(Lie::EnrollsWithAnothersStatement(other)) => (**other).clone(),
            _ => spec.attested_state(),
        };
        let freshness = match spec.lie {
            Some(Lie::AttestsAnotherToken) => freshness(&format!("not {token}")),
            _ => freshness(token),
        };
        let now = self.inner.world.clock().now_ms();
        let apple = self.inner.world.apple();
        let chain = apple.attest(&state, key, Some(&freshness), now)?;
        self.state()
            .first_statement
            .get_or_insert_with(|| Statement {
                key: key.clone(),
                chain: chain.clone(),
            });
        Ok(ChallengeAnswer::Attested(chain))
    }

    /// A new key: of the pool where it is RSA-2048, which takes long to make.
    async fn new_key(&self, form: KeyForm) -> Result<PKey<Private>, MacError> {
        let curve = match form {
            KeyForm::Rsa(2048) => {
                return Ok(self.inner.world.keys().take(KeyKind::Rsa2048).await?);
            }
            KeyForm::Rsa(bits) => {
                let made =
                    tokio::task::spawn_blocking(move || PKey::from_rsa(Rsa::generate(bits)?));
                return Ok(made.await.map_err(|_| MacError::Cancelled)??);
            }
            KeyForm::Ec(256) => Nid::X9_62_PRIME256V1,
            KeyForm::Ec(384) => Nid::SECP384R1,
            KeyForm::Ec(521) => Nid::SECP521R1,
            // TLS has no place for the client certificates of smaller curves (RFC 8446 4.2.3).
            KeyForm::Ec(_) => {
                return Err(ProfileError::NotOnThisMac {
                    key: "KeySize",
                    why: "no TLS client certificate can have such a key",
                }
                .into());
            }
        };
        let group = EcGroup::from_curve_name(curve)?;
        Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
    }

    fn expanded(&self, subject: &Subject) -> Subject {
        let spec = self.spec();
        let pair = |(name, value): &(String, String)| (name.clone(), spec.expanded(value));
        subject
            .iter()
            .map(|set| set.iter().map(pair).collect())
            .collect()
    }

    /// An identity such as a former server's CA gave it a year before the end of its validity.
    pub(super) async fn former_identity(&self, left_ms: i64) -> Result<Identity, MacError> {
        let world = &self.inner.world;
        let not_after = self.clock().now_ms() + left_ms;
        let key = world.keys().take(KeyKind::Rsa2048).await?;
        let name = [(Nid::COMMONNAME, self.serial())];
        let subject = [(name[0].0, name[0].1.as_str())];
        let issuer = world.former_device_ca();
        let identity = issuer.client(&subject, key, not_after - 365 * DAY_MS, not_after)?;
        self.tell_issued(&identity, None)?;
        Ok(identity)
    }

    /// Renews the identity by SCEP alone: a RenewalReq for a new key, signed by the old identity.
    /// No message follows; the next one simply carries the new certificate (apple-protocol 1.7).
    pub async fn renew_by_scep(&self) -> Result<(), MacError> {
        let _no_session = self.inner.session.lock().await;
        let former = self.enrolled()?;
        let settings = former.profile.identity.scep();
        let settings = settings.ok_or(ProfileError::NoIdentity)?;
        let renewed = self.renewed(&former, settings).await?;
        let world = &self.inner.world;
        let enrolled = Enrolled {
            wire: Wire::new(&world.trusted(), &former.profile.roots, Some(&renewed))?,
            identity: renewed,
            ..Enrolled::clone(&former)
        };
        self.state().enrolled = Some(std::sync::Arc::new(enrolled));
        Ok(())
    }

    async fn renewed(
        &self,
        former: &Enrolled,
        settings: &ScepSettings,
    ) -> Result<Identity, MacError> {
        // The reply is encrypted for the key that signed the request.
        if former.identity.key.id() != Id::RSA {
            return Err(ScepError::RenewedNotRsa.into());
        }
        let key = self.new_key(KeyForm::Rsa(settings.key_size)).await?;
        let settings = ScepSettings {
            subject: self.expanded(&settings.subject),
            // It was for one use; the old identity's signature stands in its place.
            challenge: None,
            ..settings.clone()
        };
        let clock = self.clock();
        let client = ScepClient {
            http: former.wire.client(),
            settings: &settings,
            clock: &clock,
        };
        if !client.offers_renewal().await? {
            return Err(ScepError::NoRenewal.into());
        }
        let identity = client.renew(&former.identity, key).await?;
        self.tell_issued(&identity, Some(IdentityKind::Scep))?;
        Ok(identity)
    }
}
