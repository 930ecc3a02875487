//! Installing and removing the enrollment profile (apple-protocol 1.6, 1.7, 2).

use std::sync::Arc;
use std::time::Duration;

use plist::{Dictionary, Value};
use serde_json::json;

use super::events::MacStep;
use super::identity_payload::IdentityKind;
use super::profile::check_url;
use super::replace::{Replacement, replacement};
use super::wire::{CHECK_IN, CONNECT, Reply, Wire};
use super::{Enrolled, EnrollmentProfile, Mac, MacError, Signing, messages};
use crate::certs::Identity;
use crate::{keys, plist_xml};

/// What enrollment profiles are served as (apple-protocol 1.1).
const PROFILE_TYPE: &str = "application/x-apple-aspen-config";
const TOKEN_UPDATE_TRIES: u32 = 3;

impl Mac {
    /// The whole way of a user: asks the server for a profile with this Mac's serial number and
    /// installs it.
    pub async fn enroll(&self, server_url: &str) -> Result<(), MacError> {
        let requested = self.request_profile(server_url).await;
        let profile = self.tell_failure(requested)?;
        let Some(left_ms) = self.spec().former_identity else {
            return self.install_profile(&profile).await;
        };
        let former = self.former_identity(left_ms).await;
        let former = self.tell_failure(former)?;
        self.install_profile_with(&profile, former).await
    }

    /// `POST {server}/v1/enroll`, or `/v2/enroll` by the provider's key: the profile's bytes. The request says what the Mac is, so that
    /// the server can choose its identity; one that knows only the serial number refuses that, and
    /// is asked once more in its own words.
    pub async fn request_profile(&self, server_url: &str) -> Result<Vec<u8>, MacError> {
        let wire = Wire::new(&self.inner.world.trusted(), &[], None)?;
        let spec = self.spec();
        let server = server_url.trim_end_matches('/');
        let (url, request) = match &spec.provider {
            None => (format!("{server}/v1/enroll"), self.enroll_request()),
            Some(provider) => (
                format!(
                    "{server}/v2/enroll?hardware={}&os_version={}",
                    spec.hardware(),
                    spec.os_version
                ),
                provider.enroll_request(server)?,
            ),
        };
        check_url(&url, spec.allow_http_loopback)?;
        let mut reply = wire.post_json(&url, &request).await?;
        if reply.status == 400 && spec.provider.is_none() {
            let historic = json!({ "serial_number": self.serial() });
            reply = wire.post_json(&url, &historic).await?;
        }
        if reply.status != 200 {
            return Err(MacError::Refused {
                step: "asking for a profile",
                reply: Box::new(reply),
            });
        }
        if !reply.content_type().starts_with(PROFILE_TYPE) {
            return Err(MacError::NotAProfile(reply.content_type().to_owned()));
        }
        Ok(reply.body.to_vec())
    }

    fn enroll_request(&self) -> serde_json::Value {
        let spec = self.spec();
        let mut request = json!({
            "serial_number": spec.serial,
            "os_version": spec.os_version,
            "hardware": spec.hardware(),
        });
        if let Some(kind) = spec.asks_for {
            request["identity"] = kind.name().into();
        }
        request
    }

    /// Installs a profile: identity, Authenticate, TokenUpdate. Nothing of it remains after a
    /// failure, and what was installed before stays.
    ///
    /// On an enrolled Mac the same identifiers make it a renewal: a new identity, and Authenticate
    /// and TokenUpdate again.
    pub async fn install_profile(&self, bytes: &[u8]) -> Result<(), MacError> {
        let installed = async {
            let profile = self.read_profile(bytes)?;
            self.make_room_for(&profile).await?;
            let identity = self.identity_for(&profile).await?;
            let kind = profile.identity.kind();
            self.install(profile, identity, kind).await
        };
        let result = installed.await;
        self.tell_failure(result)
    }

    /// As [`Mac::install_profile`] with an identity from elsewhere: adopted fleets, EC keys, and
    /// identities somebody stole.
    pub async fn install_profile_with(
        &self,
        bytes: &[u8],
        identity: Identity,
    ) -> Result<(), MacError> {
        let installed = async {
            let profile = self.read_profile(bytes)?;
            self.make_room_for(&profile).await?;
            self.install(profile, identity, None).await
        };
        let result = installed.await;
        self.tell_failure(result)
    }

    /// Reads a profile as this Mac would.
    pub fn read_profile(&self, bytes: &[u8]) -> Result<EnrollmentProfile, MacError> {
        let profile = EnrollmentProfile::read(bytes, self.spec().allow_http_loopback)?;
        self.tell(MacStep::ProfileReceived {
            signed: profile.signed,
        });
        Ok(profile)
    }

    /// Compares with what is installed, and removes that where the new profile does.
    async fn make_room_for(&self, profile: &EnrollmentProfile) -> Result<(), MacError> {
        if let Ok(installed) = self.enrolled()
            && replacement(&installed.profile, profile)? == Replacement::Removes
        {
            self.remove_profile().await?;
        }
        Ok(())
    }

    async fn install(
        &self,
        profile: EnrollmentProfile,
        identity: Identity,
        identity_kind: Option<IdentityKind>,
    ) -> Result<(), MacError> {
        let spec = self.spec();
        let world = &self.inner.world;
        let wire = Wire::new(&world.trusted(), &profile.roots, Some(&identity))?;
        let mut enrolled = Enrolled {
            profile,
            identity,
            identity_kind,
            wire,
            token: keys::random::<32>()?.to_vec(),
            magic: keys::random_uuid()?,
            inbox: None,
        };
        let mdm = enrolled.profile.mdm.clone();
        let accepted = |step, reply: Reply| {
            if reply.is_success() {
                Ok(())
            } else {
                Err(MacError::Refused {
                    step,
                    reply: Box::new(reply),
                })
            }
        };
        let authenticate = messages::authenticate(&spec, &mdm.topic, mdm.access_rights);
        accepted(
            "Authenticate",
            self.check_in_as(&enrolled, &authenticate).await?,
        )?;
        self.tell(MacStep::Authenticated);
        if spec.aborts_after_authenticate {
            return Err(MacError::RolledBack);
        }
        if mdm.declares("com.apple.mdm.bootstraptoken") {
            // Arrives before TokenUpdate; that it fails does not end the installation (1.6).
            let escrow = messages::set_bootstrap_token(&spec, &keys::random::<64>()?);
            if let Err(error) = self.check_in_as(&enrolled, &escrow).await {
                tracing::info!(%error, "the bootstrap token was not escrowed");
            }
        }
        enrolled.inbox = Some(world.apns().register(&enrolled.token, &mdm.topic));
        let update = messages::token_update(&spec, &mdm.topic, &enrolled.token, &enrolled.magic);
        if let Err(error) = self.send_token_update(&enrolled, &update).await {
            world.apns().unregister(&enrolled.token);
            return Err(error);
        }
        if spec.user_channel && mdm.declares("com.apple.mdm.per-user-connections") {
            let (token, magic, user) = (
                keys::random::<32>()?,
                keys::random_uuid()?,
                keys::random_uuid()?,
            );
            let update = messages::user_token_update(&spec, &mdm.topic, &token, &magic, &user);
            self.send_token_update(&enrolled, &update).await?;
        }
        self.become_enrolled(enrolled);
        self.tell(MacStep::Enrolled);
        Ok(())
    }

    /// This Mac is enrolled already, by a server that another takes the place of: it has a profile,
    /// an identity and an address, and says nothing by itself. Returns token and magic.
    pub fn enrolled_before(
        &self,
        profile: &[u8],
        identity: Identity,
    ) -> Result<(Vec<u8>, String), MacError> {
        let profile = self.read_profile(profile)?;
        let world = &self.inner.world;
        let wire = Wire::new(&world.trusted(), &profile.roots, Some(&identity))?;
        let (token, magic) = (keys::random::<32>()?.to_vec(), keys::random_uuid()?);
        let inbox = world.apns().register(&token, &profile.mdm.topic);
        self.become_enrolled(Enrolled {
            profile,
            identity,
            wire,
            token: token.clone(),
            magic: magic.clone(),
            identity_kind: None,
            inbox: Some(inbox),
        });
        Ok((token, magic))
    }

    fn become_enrolled(&self, enrolled: Enrolled) {
        let former = {
            let keeps = self.spec().keeps_attestation_on_renewal;
            let mut state = self.state();
            // A new enrollment has no attested key and no cached chain (5.3).
            if state.enrolled.is_none() || !keeps {
                state.attestation.reset();
            }
            state.unsent = None;
            state.auto_poll = false;
            state.enrolled.replace(Arc::new(enrolled))
        };
        if let Some(former) = former {
            self.inner.world.apns().unregister(&former.token);
        }
        self.inner.poke.notify_one();
    }

    async fn send_token_update(
        &self,
        enrolled: &Enrolled,
        update: &Dictionary,
    ) -> Result<(), MacError> {
        let mut tries = 1;
        loop {
            let outcome = self.check_in_as(enrolled, update).await;
            let error = match outcome {
                Ok(reply) if reply.is_success() => return Ok(()),
                Ok(reply) => MacError::Refused {
                    step: "TokenUpdate",
                    reply: Box::new(reply),
                },
                Err(error) => error,
            };
            if tries == TOKEN_UPDATE_TRIES {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(self.spec().retry_delay).await;
        }
    }

    /// APNs gives the Mac a new token: TokenUpdate, and the old token dies.
    pub async fn rotate_token(&self) -> Result<(), MacError> {
        let former = self.enrolled()?;
        let mut enrolled = Enrolled::clone(&former);
        enrolled.token = keys::random::<32>()?.to_vec();
        let topic = enrolled.profile.mdm.topic.clone();
        enrolled.inbox = Some(self.inner.world.apns().register(&enrolled.token, &topic));
        let update = messages::token_update(&self.spec(), &topic, &enrolled.token, &enrolled.magic);
        self.state().enrolled = Some(Arc::new(enrolled.clone()));
        self.inner.world.apns().unregister(&former.token);
        self.inner.poke.notify_one();
        let sent = self.send_token_update(&enrolled, &update).await;
        let answer = sent.as_ref().err().and_then(MacError::reply);
        if let Some(why) = answer.and_then(|reply| reply.unenrolls(&self.spec().os_version)) {
            self.unenroll(why);
        }
        sent
    }

    /// The same TokenUpdate once more: duplicates are normal (apple-protocol 1.6, 12.3).
    pub async fn repeat_token_update(&self) -> Result<(), MacError> {
        let enrolled = self.enrolled()?;
        let topic = &enrolled.profile.mdm.topic;
        let update = messages::token_update(&self.spec(), topic, &enrolled.token, &enrolled.magic);
        self.send_token_update(&enrolled, &update).await
    }

    /// The user removes the profile: one CheckOut where the profile asks for it, then silence.
    pub async fn remove_profile(&self) -> Result<Option<Reply>, MacError> {
        let enrolled = self.enrolled()?;
        let mdm = &enrolled.profile.mdm;
        let mut answer = None;
        if mdm.check_out_when_removed {
            let body = messages::check_out(&self.spec(), &mdm.topic);
            // One attempt, best effort (2.5).
            answer = self.check_in_as(&enrolled, &body).await.ok();
        }
        self.unenroll("the user removed the profile");
        Ok(answer)
    }

    /// Drops the enrollment and everything that hangs on it.
    pub(super) fn unenroll(&self, why: &str) {
        let former = {
            let mut state = self.state();
            state.attestation.reset();
            state.unsent = None;
            state.auto_poll = false;
            state.enrolled.take()
        };
        if let Some(former) = former {
            self.inner.world.apns().unregister(&former.token);
            self.tell(MacStep::Unenrolled {
                why: why.to_owned(),
            });
        }
        self.inner.poke.notify_one();
    }

    async fn check_in_as(&self, enrolled: &Enrolled, body: &Dictionary) -> Result<Reply, MacError> {
        let body = plist_xml::write(&Value::Dictionary(body.clone()), self.spec().plist_style)?;
        let signature =
            self.sign_with(&enrolled.identity, &body, enrolled.profile.mdm.sign_message)?;
        enrolled
            .wire
            .put(
                &enrolled.profile.mdm.check_in_url,
                CHECK_IN,
                &body,
                signature.as_deref(),
            )
            .await
    }

    fn tell_failure<T>(&self, result: Result<T, MacError>) -> Result<T, MacError> {
        if let Err(error) = &result {
            self.tell(MacStep::EnrollmentFailed { why: error.chain() });
        }
        result
    }

    /// Sends any check-in: hostile, repeated, or out of order.
    pub async fn check_in(
        &self,
        body: &Dictionary,
        signing: Signing<'_>,
    ) -> Result<Reply, MacError> {
        let bytes = plist_xml::write(&Value::Dictionary(body.clone()), self.spec().plist_style)?;
        let url = self.enrolled()?.profile.mdm.check_in_url.clone();
        self.signed_put(&url, CHECK_IN, &bytes, signing).await
    }

    /// Sends any message of the command channel.
    pub async fn connect_with(
        &self,
        body: &Dictionary,
        signing: Signing<'_>,
    ) -> Result<Reply, MacError> {
        let bytes = plist_xml::write(&Value::Dictionary(body.clone()), self.spec().plist_style)?;
        let url = self.enrolled()?.profile.mdm.server_url.clone();
        self.signed_put(&url, CONNECT, &bytes, signing).await
    }

    /// Sends any bytes to any URL as this Mac.
    pub async fn signed_put(
        &self,
        url: &str,
        content_type: &str,
        body: &[u8],
        signing: Signing<'_>,
    ) -> Result<Reply, MacError> {
        let (wire, identity) = match self.enrolled() {
            Ok(enrolled) => (enrolled.wire.clone(), Some(enrolled.identity.clone())),
            Err(_not_enrolled) => (Wire::new(&self.inner.world.trusted(), &[], None)?, None),
        };
        let signature = match signing {
            Signing::Own => match &identity {
                None => return Err(MacError::NotEnrolled),
                Some(identity) => self.sign_with(identity, body, true)?,
            },
            Signing::By(identity) => self.sign_with(identity, body, true)?,
            Signing::ByInStyle(identity, style) => {
                Some(crate::cms::mdm_signature(identity, body, style)?)
            }
            Signing::Header(header) => Some(header.to_owned()),
            Signing::Unsigned => None,
        };
        wire.put(url, content_type, body, signature.as_deref())
            .await
    }

    /// This Mac's signature over `body` in its style, where messages are signed.
    pub(super) fn sign_with(
        &self,
        identity: &Identity,
        body: &[u8],
        sign_message: bool,
    ) -> Result<Option<String>, MacError> {
        if !sign_message {
            return Ok(None);
        }
        let mut style = self.spec().signature;
        // The time in the style only says that there is one; a Mac writes its own.
        style.signing_time = style.signing_time.map(|_| self.clock().now_seconds());
        Ok(Some(crate::cms::mdm_signature(identity, body, &style)?))
    }

    /// How long a random attestation of this Mac takes.
    pub(super) fn attestation_delay(&self) -> Duration {
        let (least, most) = self.spec().attestation_latency;
        let draw = keys::random::<1>().map_or(0, |bytes| bytes[0]);
        least + most.saturating_sub(least).mul_f64(f64::from(draw) / 255.0)
    }
}
