//! The provider's software on a Mac, and the coordinator that carries its words: registered, asked
//! every five minutes while it runs, gone without a word, back under another process or another key.
//!
//! It runs for hours of the day, not all day: what a challenge costs is known (docs/performance.md), and
//! what can go wrong with one shows in hours as it does in days.

use anyhow::{Context as _, bail, ensure};
use attestd::flows::Context;
use attestd::flows::bind_provider::{Outcome as Bound, bind_provider, end};
use attestd::flows::challenge::{Answered, Issued, answer, expire_due, hand_over, issue};
use attestd::ids::{ChallengeId, SerialNumber, SessionId};
use attestd::provider::{Challenge, EncryptionKey, Registration, SePublicKey, Version};
use attestd::time::Timestamp;
use attestd_sim::{Clock, Provider, ProviderLie};

use super::{Mac, Origin, Power};
use crate::house::PROGRAM;
use crate::judge::Key;
use crate::liveness::{ANSWER_WITHIN, Outcome, Session};
use crate::time::{HOUR, MINUTE, Ms, SECOND};

/// From an answer to the next challenge (`interval` of strict.toml).
const EVERY: Ms = 5 * MINUTE;
/// For how long the coordinator holds a connection that broke.
const RESUMABLE: std::time::Duration = std::time::Duration::from_secs(90);

/// The software and its session.
#[derive(Debug)]
pub struct Software {
    pub session_id: SessionId,
    /// What may be said of it.
    pub judge: Session,
    provider: Provider,
    key: Key,
    candour: Candour,
    stage: Stage,
    /// What it registered with last.
    registered: Option<Registration>,
    /// When its owner stops it.
    runs_until: Ms,
    /// After that, when its owner starts it again.
    rests_until: Ms,
    /// How often the Mac had started when it began.
    starts: u32,
}

/// What the software says of a Mac whose SIP is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candour {
    /// The truth, and every start of the Mac is another process.
    Honest,
    /// Its blob, made once, is of better days; its answers tell the truth.
    Belated,
    /// Patched: nothing bad.
    Patched,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Off,
    /// A challenge is next.
    Ready,
    /// The connection broke; it may be back until then.
    Cut(Ms),
    /// A challenge of the server's is with it.
    Asked(ChallengeId, Challenge, Manner),
    /// A challenge of the coordinator's own is with it.
    Carried(Challenge, Manner),
}

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Well,
    ByAnotherKey,
    Late,
    Never,
}

/// What came of a step.
#[derive(Debug)]
pub struct Spoke {
    pub next_at: Ms,
    pub word: &'static str,
}

impl Software {
    pub fn new(index: usize, serial: &str, clock: &Clock) -> anyhow::Result<Self> {
        let mut provider = Provider::new(serial, clock)?;
        provider.truth.binary_hash = Some(PROGRAM.to_owned());
        Ok(Self {
            session_id: SessionId::parse(&format!("session-{index}"))?,
            judge: Session::default(),
            provider,
            key: 0,
            candour: Candour::Honest,
            stage: Stage::Off,
            registered: None,
            runs_until: 0,
            rests_until: 0,
            starts: 0,
        })
    }

    /// The key a ticket names, and which of them it is.
    pub fn key(&self) -> anyhow::Result<(String, Key)> {
        Ok((self.provider.public_key()?, self.key))
    }

    /// Whether it ever registered.
    pub fn is_known(&self) -> bool {
        self.registered.is_some()
    }

    fn registration(&self, account: String, serial: &str) -> anyhow::Result<Registration> {
        let (blob, signature) = self.provider.blob()?;
        let version = Version::parse(&self.provider.truth.provider_version);
        Ok(Registration {
            key: SePublicKey::parse(&self.provider.public_key()?)?,
            encryption_key: EncryptionKey::parse(self.provider.encryption_key())?,
            provider_version: Some(version?),
            account: Some(account),
            claimed_serial: Some(SerialNumber::parse(serial)?),
            blob: blob.into_bytes(),
            signature,
        })
    }

    /// The words of an answer to this challenge.
    fn answer(&mut self, challenge: &Challenge, manner: Manner) -> anyhow::Result<Vec<u8>> {
        self.provider.lie = (manner == Manner::ByAnotherKey).then_some(ProviderLie::OtherKey);
        let frame = self
            .provider
            .answer(challenge.nonce(), challenge.timestamp())?;
        self.provider.lie = None;
        Ok(serde_json::to_vec(&frame)?)
    }

    fn says(&mut self, secure: bool) {
        self.provider.truth.sip_enabled = secure;
        self.provider.truth.secure_boot_enabled = secure;
    }
}

/// Who a Mac is of; its ticket says so, and its sessions do.
pub fn account(index: usize) -> String {
    format!("owner-{index}")
}

impl Mac {
    /// The next thing that happens between its software and the coordinator.
    pub async fn speak(&mut self, server: Option<&Context>, now: Ms) -> anyhow::Result<Spoke> {
        let mut software = self.software.take().context("a Mac without software")?;
        let spoke = match server {
            Some(server) => self.go_on_with(&mut software, server, now).await,
            None => {
                // What was being said is lost.
                if !matches!(software.stage, Stage::Off | Stage::Cut(_)) {
                    software.stage = Stage::Ready;
                }
                Ok(Spoke {
                    next_at: now + MINUTE,
                    word: "nobody answers",
                })
            }
        };
        self.software = Some(software);
        spoke
    }

    async fn go_on_with(
        &mut self,
        software: &mut Software,
        server: &Context,
        now: Ms,
    ) -> anyhow::Result<Spoke> {
        let is_up = self.power == Power::Awake;
        let then = |word, next_at| Ok(Spoke { next_at, word });
        match std::mem::replace(&mut software.stage, Stage::Ready) {
            // It is started with the Mac, and by its owner.
            Stage::Off
                if !is_up
                    || self.line.is_none()
                    || (now < software.rests_until && software.starts == self.starts) =>
            {
                software.stage = Stage::Off;
                then("off", now + self.seconds(5 * MINUTE, 15 * MINUTE))
            }
            Stage::Off => {
                software.candour = match self.chance.between(0, 20) {
                    0..10 => Candour::Honest,
                    10..15 => Candour::Belated,
                    _ => Candour::Patched,
                };
                software.runs_until = now + self.chance.between(40 * MINUTE, 3 * HOUR);
                self.another_process(software, server, now).await?;
                then("begins", now + SECOND)
            }
            Stage::Cut(until) if now < until && is_up => {
                let same = software.registered.clone().context("a registration")?;
                self.register(software, server, same).await?;
                software.judge.resumes();
                then("resumes", now + SECOND)
            }
            Stage::Cut(_) => {
                software.stage = Stage::Off;
                then("is gone", now + MINUTE)
            }
            Stage::Asked(id, challenge, manner) => {
                self.answers(software, server, (&id, &challenge, manner), now)
                    .await
            }
            Stage::Carried(challenge, manner) => {
                self.is_carried(software, server, (&challenge, manner), now)
                    .await
            }
            Stage::Ready => self.is_ready(software, server, now).await,
        }
    }

    async fn is_ready(
        &mut self,
        software: &mut Software,
        server: &Context,
        now: Ms,
    ) -> anyhow::Result<Spoke> {
        let is_up = self.power == Power::Awake;
        let then = |word, next_at| Ok(Spoke { next_at, word });
        if now >= software.runs_until || (!is_up && self.chance.per_million(300_000)) {
            self.ends(software, server).await?;
            let often = Ms::try_from(self.eventful.clamp(4, 16) / 4)?;
            let pause = self.chance.between(6 * HOUR, 30 * HOUR);
            software.rests_until = now + pause / often;
            return then("ends", now + self.seconds(5 * MINUTE, 15 * MINUTE));
        }
        if is_up && software.starts != self.starts && software.candour == Candour::Honest {
            self.another_process(software, server, now).await?;
            return then("another process", now + SECOND);
        }
        // A key is made anew some ten times less often than a process.
        let rotates = self.chance.per_million(500 * self.eventful);
        match self.chance.between(0, 200) {
            _ if is_up && rotates => {
                software.provider.rotate_key()?;
                software.key += 1;
                self.another_process(software, server, now).await?;
                return then("another key", now + SECOND);
            }
            0..3 if is_up => {
                let cut = end(server, &software.session_id, Some(RESUMABLE)).await?;
                ensure!(cut, "a session that lives has ended");
                software.judge.ends();
                let until = now + 90 * SECOND;
                software.stage = Stage::Cut(until);
                return then("is cut off", now + self.seconds(5 * SECOND, 80 * SECOND));
            }
            3..5 if is_up => {
                self.another_process(software, server, now).await?;
                return then("another process", now + SECOND);
            }
            _ => {}
        }
        let manner = match self.chance.between(0, 100) {
            _ if !is_up => Manner::Never,
            0..2 => Manner::Never,
            2..4 => Manner::Late,
            4..6 => Manner::ByAnotherKey,
            _ => Manner::Well,
        };
        let soon = match manner {
            Manner::Well | Manner::ByAnotherKey => self.seconds(SECOND, 20 * SECOND),
            Manner::Late => self.seconds(31 * SECOND, 50 * SECOND),
            // The first moment at which nobody waits any more.
            Manner::Never => ANSWER_WITHIN + 1,
        };
        if self.chance.per_million(300_000) {
            let nonce = openssl::base64::encode_block(&self.chance.bytes::<32>());
            let challenge = Challenge::retell(&nonce, &software.provider.now())?;
            software.stage = Stage::Carried(challenge, manner);
        } else {
            match issue(server, &software.session_id).await? {
                Issued::Challenge(issued, _) => {
                    software.judge.asked(now);
                    software.stage = Stage::Asked(issued.challenge_id, issued.challenge, manner);
                }
                Issued::Outstanding(_) => return then("is being asked", now + ANSWER_WITHIN),
                Issued::BindingNotFound => bail!("a session that lives is not there"),
            }
        }
        then("is asked", now + soon)
    }

    async fn answers(
        &mut self,
        software: &mut Software,
        server: &Context,
        (id, challenge, manner): (&ChallengeId, &Challenge, Manner),
        now: Ms,
    ) -> anyhow::Result<Spoke> {
        if manner == Manner::Never {
            expire_due(server).await?;
            return self.after(software, server, Outcome::Missed, now).await;
        }
        let (words, outcome) = self.words(software, challenge, manner)?;
        let answered = answer(server, id, &words).await?;
        ensure!(
            matches!(answered, Answered::Concluded(..)),
            "an answer led to {answered:?}"
        );
        let counted = software.judge.answered(outcome, now);
        let outcome = if counted { outcome } else { Outcome::Missed };
        self.after(software, server, outcome, now).await
    }

    async fn is_carried(
        &mut self,
        software: &mut Software,
        server: &Context,
        (challenge, manner): (&Challenge, Manner),
        now: Ms,
    ) -> anyhow::Result<Spoke> {
        let (words, said) = self.words(software, challenge, manner)?;
        let (words, outcome) = match manner {
            Manner::Never => (None, Outcome::Missed),
            Manner::Late => (Some(words), Outcome::Missed),
            Manner::Well | Manner::ByAnotherKey => (Some(words), said),
        };
        let answered = hand_over(
            server,
            &software.session_id,
            challenge.clone(),
            words.as_deref(),
            Timestamp::from_millis(now),
        )
        .await?;
        ensure!(
            matches!(answered, Answered::Concluded(..)),
            "an exchange led to {answered:?}"
        );
        let issued_at = challenge.issued_at().millis();
        software.judge.handed_over(outcome, issued_at, now);
        self.after(software, server, outcome, now).await
    }

    /// What it says, and what that is worth.
    fn words(
        &self,
        software: &mut Software,
        challenge: &Challenge,
        manner: Manner,
    ) -> anyhow::Result<(Vec<u8>, Outcome)> {
        let secure = self.is_secure() || software.candour == Candour::Patched;
        software.says(secure);
        let outcome = match manner {
            Manner::ByAnotherKey => Outcome::Forged,
            _ if secure => Outcome::Good,
            _ => Outcome::Admitted,
        };
        Ok((software.answer(challenge, manner)?, outcome))
    }

    /// When the next challenge is due.
    async fn after(
        &mut self,
        software: &mut Software,
        server: &Context,
        outcome: Outcome,
        now: Ms,
    ) -> anyhow::Result<Spoke> {
        self.tally.challenges += 1;
        let nervous = self.chance.per_million(30_000);
        let whole = crate::time::whole_second(now);
        let (word, next_at) = match outcome {
            Outcome::Good if nervous => ("good", whole + 40 * SECOND),
            Outcome::Good => ("good", whole + EVERY),
            Outcome::Admitted => ("admits", whole + EVERY),
            Outcome::Forged => ("forged", whole + ANSWER_WITHIN),
            Outcome::Missed if software.judge.is_silent(now) => {
                self.ends(software, server).await?;
                ("given up", whole + self.seconds(10 * MINUTE, 40 * MINUTE))
            }
            Outcome::Missed => ("missed", whole + SECOND),
        };
        if outcome == Outcome::Admitted && self.judge.is_proved(software.key) {
            self.judge.told_bad(now);
        }
        Ok(Spoke { next_at, word })
    }

    async fn ends(&mut self, software: &mut Software, server: &Context) -> anyhow::Result<()> {
        end(server, &software.session_id, None).await?;
        software.judge.ends();
        software.stage = Stage::Off;
        Ok(())
    }

    /// Another process registers itself, with a blob of now; one in twenty is of a program that was
    /// never released.
    async fn another_process(
        &mut self,
        software: &mut Software,
        server: &Context,
        now: Ms,
    ) -> anyhow::Result<()> {
        software.provider.restart()?;
        software.starts = self.starts;
        let secure = self.is_secure() || software.candour != Candour::Honest;
        software.says(secure);
        let released = !self.chance.per_million(50_000);
        let program = if released {
            PROGRAM.to_owned()
        } else {
            "b2".repeat(32)
        };
        software.provider.truth.binary_hash = Some(program);
        software.provider.truth.os_version =
            format!("Version {} (Build 25E253)", self.spec.os_version);
        let registration = software.registration(account(self.index), &self.spec.serial)?;
        self.register(software, server, registration).await?;
        software.judge = Session::begins(software.key, !secure, released);
        if self.origin == Origin::Attested && !self.judge.names(software.key) {
            self.judge.proves(software.key);
        }
        if !secure && self.judge.is_proved(software.key) {
            self.judge.told_bad(now);
        }
        Ok(())
    }

    async fn register(
        &mut self,
        software: &mut Software,
        server: &Context,
        registration: Registration,
    ) -> anyhow::Result<()> {
        software.registered = Some(registration.clone());
        let bound = bind_provider(server, &software.session_id, registration).await?;
        ensure!(matches!(bound, Bound::Bound(_)), "a session was refused");
        Ok(())
    }

    fn seconds(&mut self, from: Ms, to: Ms) -> Ms {
        crate::time::whole_second(self.chance.between(from, to))
    }
}
