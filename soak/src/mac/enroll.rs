//! Enrolment in process: ticket, identity, Authenticate, TokenUpdate, by the flows alone.

use anyhow::{Context as _, bail, ensure};
use attestd::acme::{Method, Request, Route};
use attestd::enrollment::Protocol;
use attestd::enrollment::ticket::Bounds;
use attestd::flows::Context;
use attestd::flows::check_in::{Reply, check_in};
use attestd::flows::deliver_profile::deliver_profile;
use attestd::flows::identify::Proof;
use attestd::flows::issue_by_acme::{Asked, base, issue_by_acme};
use attestd::flows::read_posture::{Name, find};
use attestd::ids::SerialNumber;
use attestd_sim::acme::{AccountKey, AcmeSettings, ChallengeAnswer, Named, freshness};
use attestd_sim::certs::Identity;
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::mac::{EnrollmentProfile, IdentityPayload, messages};
use attestd_sim::{World, apple};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use plist::Dictionary;
use serde_json::{Value, json};

use super::{Line, Mac, Origin, account, signed, written};
use crate::house::BASE_URL;
use crate::time::{DAY, Ms, SECOND};

const RIGHTS: i64 = 1041;

impl Mac {
    /// Installs the profile, or installs it anew: with it went the cache of attestations.
    pub async fn enrol(&mut self, ctx: &Context, world: &World, now: Ms) -> anyhow::Result<()> {
        if let Some(line) = self.line.take()
            && self.chance.per_million(500_000)
        {
            // CheckOut is sent once, and may be lost (apple-protocol 2.5).
            let body = messages::check_out(&self.spec, &line.topic);
            told(ctx, &line.identity, body).await?;
            self.judge.left();
        }
        self.apple.reset();
        (self.minted, self.unsent, self.working) = (None, None, None);
        self.auto_poll = false;
        let identity = match self.origin {
            Origin::Attested => self.by_acme(ctx, world.apple(), now).await?,
            Origin::Adopted => {
                let key = generate(KeyKind::P256)?;
                let name = [(Nid::COMMONNAME, self.spec.serial.as_str())];
                let issuer = world.former_device_ca();
                issuer.client(&name, key, now - DAY, now + 400 * DAY)?
            }
        };
        let topic = world.topic().to_owned();
        told(
            ctx,
            &identity,
            messages::authenticate(&self.spec, &topic, RIGHTS),
        )
        .await?;
        let key = match (&self.software, self.origin) {
            (_, Origin::Adopted) => None,
            (Some(software), Origin::Attested) => Some(software.key()?.1),
            (None, Origin::Attested) => Some(0),
        };
        self.judge.begins(ends_at(&identity)?, key);
        if self.origin == Origin::Attested {
            self.judge.stated(now, self.is_secure(), leaf_end(now), now);
        }
        let idle = written(messages::idle(&self.spec))?;
        let idle_signature = signed(&identity, &idle)?;
        let serial = Name::Serial(SerialNumber::parse(&self.spec.serial)?);
        let found = find(ctx, &serial).await?;
        let found = found
            .first()
            .context("an enrollment of this serial number")?;
        let token = self.chance.bytes::<32>().to_vec();
        self.line = Some(Line {
            device_id: found.enrollment.device_id.clone(),
            inbox: world.apns().register(&token, &topic),
            magic: super::uuid_text(self.chance.bytes()),
            identity,
            topic,
            token,
            idle: (idle, idle_signature),
        });
        // With the profile came another push address.
        self.readdressed_at = Some(now);
        self.tell_address(ctx).await?;
        self.judge.joined();
        Ok(())
    }

    /// It has another push token, as after an update of macOS.
    pub async fn readdress(&mut self, ctx: &Context, world: &World, now: Ms) -> anyhow::Result<()> {
        let token = self.chance.bytes::<32>().to_vec();
        if let Some(line) = &mut self.line {
            world.apns().unregister(&line.token);
            line.inbox = world.apns().register(&token, &line.topic);
            line.token = token;
        }
        self.readdressed_at = Some(now);
        self.tell_address(ctx).await
    }

    async fn tell_address(&self, ctx: &Context) -> anyhow::Result<()> {
        let line = self.line.as_ref().context("a Mac without enrollment")?;
        let body = messages::token_update(&self.spec, &line.topic, &line.token, &line.magic);
        told(ctx, &line.identity, body).await
    }

    async fn by_acme(
        &mut self,
        ctx: &Context,
        apple: &apple::AttestationAuthority,
        now: Ms,
    ) -> anyhow::Result<Identity> {
        let owner = self.software.as_ref();
        let named = match owner {
            Some(software) => software.key()?.0,
            None => openssl::base64::encode_block(&self.chance.bytes::<64>()),
        };
        let delivered = deliver_profile(
            ctx,
            Bounds {
                serial: Some(SerialNumber::parse(&self.spec.serial)?),
                account: owner.map(|_| account(self.index)),
                se_public_key: Some(named),
                protocol: Protocol::Acme,
            },
            None,
        )
        .await?;
        let profile = EnrollmentProfile::read(&delivered.profile, false)?;
        let IdentityPayload::Acme(settings) = profile.identity else {
            bail!("the profile asks for another identity");
        };
        let key = generate(KeyKind::P256)?;
        let mut run = Run::begin(ctx, &settings).await?;
        let certificate = run
            .certificate(&settings, &key, |token| {
                let state = self.spec.attested_state();
                let statement = apple.attest(&state, &key, Some(&freshness(token)), now)?;
                Ok(ChallengeAnswer::Attested(statement))
            })
            .await?;
        Ok(Identity { key, certificate })
    }
}

/// A check-in that must be taken.
async fn told(ctx: &Context, identity: &Identity, body: Dictionary) -> anyhow::Result<()> {
    let body = written(body)?;
    let signature = signed(identity, &body)?;
    let proof = Proof {
        signature: Some(signature.as_bytes()),
        certificate: None,
    };
    let reply = check_in(ctx, proof, &body).await?;
    ensure!(reply == Reply::Empty, "a check-in was answered {reply:?}");
    Ok(())
}

/// When a leaf of Apple's ends that is issued now.
fn leaf_end(now: Ms) -> Ms {
    (now + 90 * DAY).div_euclid(SECOND) * SECOND
}

fn ends_at(identity: &Identity) -> anyhow::Result<Ms> {
    let epoch = openssl::asn1::Asn1Time::from_unix(0)?;
    let left = epoch.diff(identity.certificate.not_after())?;
    Ok(Ms::from(left.days) * DAY + Ms::from(left.secs) * SECOND)
}

/// One run of Apple's ACME client, its requests handed to the flow as http/acme hands them.
struct Run<'a> {
    ctx: &'a Context,
    secret: String,
    base: String,
    account: AccountKey,
    kid: Option<String>,
    nonce: String,
}

impl<'a> Run<'a> {
    async fn begin(ctx: &'a Context, settings: &AcmeSettings) -> anyhow::Result<Self> {
        let secret = settings
            .directory_url
            .strip_prefix(&format!("{BASE_URL}/acme/"))
            .and_then(|rest| rest.strip_suffix("/directory"))
            .context("a directory at an unknown place")?
            .to_owned();
        let asked = Asked::Read(Method::Head, Route::NewNonce);
        let answer = issue_by_acme(ctx, &secret, asked).await?;
        Ok(Self {
            ctx,
            base: base(BASE_URL, &secret),
            secret,
            account: AccountKey::generate()?,
            kid: None,
            nonce: answer.nonce,
        })
    }

    async fn certificate(
        &mut self,
        settings: &AcmeSettings,
        key: &PKey<Private>,
        attest: impl FnOnce(&str) -> anyhow::Result<ChallengeAnswer>,
    ) -> anyhow::Result<X509> {
        let terms = json!({ "termsOfServiceAgreed": true });
        let (_, account) = self.post(Route::NewAccount, &terms.to_string()).await?;
        self.kid = account;
        let identifiers =
            json!([{ "type": "permanent-identifier", "value": settings.client_identifier }]);
        let wanted = json!({ "identifiers": identifiers });
        let (order, at) = self.post(Route::NewOrder, &wanted.to_string()).await?;
        let order_route = self.route(at.as_deref())?;
        let finalize = self.route(order["finalize"].as_str())?;
        let authorization = self.route(order["authorizations"][0].as_str())?;
        let (authorization, _) = self.post(authorization, "").await?;
        let challenge = &authorization["challenges"][0];
        let token = challenge["token"].as_str().context("a token")?;
        let answer = attest(token)?;
        let route = self.route(challenge["url"].as_str())?;
        self.post(route, &answer.payload()).await?;
        let csr = openssl::base64::encode_block(&settings.csr(key)?);
        let csr = csr.replace('+', "-").replace('/', "_").replace('=', "");
        self.post(finalize, &json!({ "csr": csr }).to_string())
            .await?;
        let (order, _) = self.post(order_route, "").await?;
        let route = self.route(order["certificate"].as_str())?;
        Ok(X509::from_pem(&self.exchange(route, "").await?.body)?)
    }

    fn route(&self, url: Option<&str>) -> anyhow::Result<Route> {
        url.and_then(|url| url.strip_prefix(&self.base)?.strip_prefix('/'))
            .and_then(Route::parse)
            .context("a URL of this directory")
    }

    async fn post(
        &mut self,
        route: Route,
        payload: &str,
    ) -> anyhow::Result<(Value, Option<String>)> {
        let reply = self.exchange(route, payload).await?;
        Ok((serde_json::from_slice(&reply.body)?, reply.location))
    }

    async fn exchange(
        &mut self,
        route: Route,
        payload: &str,
    ) -> anyhow::Result<attestd::acme::Reply> {
        let named = match &self.kid {
            Some(kid) => Named::Account(kid),
            None => Named::Key,
        };
        let url = route.url(&self.base);
        let body = self.account.sign(named, &self.nonce, &url, payload)?;
        let request = Request {
            route,
            content_type: Some("application/jose+json"),
            body: &body,
        };
        let answer = issue_by_acme(self.ctx, &self.secret, Asked::Post(request)).await?;
        self.nonce = answer.nonce;
        let text = String::from_utf8_lossy(&answer.reply.body);
        let fine = matches!(answer.reply.status, 200 | 201);
        ensure!(fine, "{route} was answered {}: {text}", answer.reply.status);
        Ok(answer.reply)
    }
}
