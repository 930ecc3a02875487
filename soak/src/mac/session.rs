//! A session on the command channel, message by message, in process.

use anyhow::Context as _;
use attestd::flows::Context;
use attestd::flows::connect::{Reply, connect};
use attestd::flows::identify::Proof;
use attestd_sim::World;

use super::answer::{Answer, Asked, Said};
use super::{Mac, Power};
use crate::checks::{self, Fault, Place};
use crate::judge::Question;
use crate::time::{MINUTE, Ms, SECOND, beat};

/// What a session, or a part of one, came to.
#[derive(Debug, Default)]
pub struct Came {
    /// It goes on at this time: an attestation is being made, or the line broke.
    pub goes_on_at: Option<(Ms, GoesOn)>,
    /// What was asked and said, for the log.
    pub words: Vec<&'static str>,
    pub faults: Vec<Fault>,
}

/// How a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoesOn {
    Attested,
    Again,
}

impl Mac {
    /// Opens a session: the result that was not acknowledged comes first, or Idle.
    pub async fn session(&mut self, server: Option<&Context>, now: Ms) -> anyhow::Result<Came> {
        let mut came = Came::default();
        if !matches!(self.power, Power::Awake | Power::Nap) || self.working.is_some() {
            return Ok(came);
        }
        let Some(server) = server else {
            return Ok(self.try_again(came, now));
        };
        match self.unsent.clone() {
            Some(answer) => self.send(server, answer, came, now).await,
            None => {
                let line = self.line.as_ref().context("a Mac without enrollment")?;
                let (body, signature) = line.idle.clone();
                came.words.push("idle");
                let reply = say(server, &body, &signature).await?;
                self.go_on(server, reply, came, now).await
            }
        }
    }

    /// Apple's statement is there: it is sent on, if the Mac still is what it was.
    pub async fn attested(
        &mut self,
        server: Option<&Context>,
        world: &World,
        now: Ms,
    ) -> anyhow::Result<Came> {
        let came = Came::default();
        let Some(asked) = self.working.take() else {
            return Ok(came);
        };
        let answer = self.attestation(&asked, world.apple(), now)?;
        self.unsent = Some(answer.clone());
        match server {
            Some(server) => self.send(server, answer, came, now).await,
            None => Ok(self.try_again(came, now)),
        }
    }

    async fn go_on(
        &mut self,
        server: &Context,
        reply: Reply,
        mut came: Came,
        now: Ms,
    ) -> anyhow::Result<Came> {
        let bytes = match reply {
            Reply::Done => return Ok(came),
            Reply::Refused(reason) => {
                came.faults.push(Fault {
                    rule: "heard",
                    mac: self.index,
                    at: now,
                    detail: format!("an honest Mac was refused: {}", reason.code()),
                });
                return Ok(came);
            }
            Reply::Command(bytes) => bytes,
        };
        let asked = self.handed_over(&bytes, &mut came, now)?;
        let answer = match (self.power, asked.question) {
            (Power::Nap, _) => self.not_now(&asked)?,
            (_, Question::Report) => self.security_info(&asked)?,
            (_, Question::Chain) => {
                // Apple takes 2 to 20 seconds (apple-protocol 12.8).
                let ready = beat(now + self.chance.between(2 * SECOND, 20 * SECOND));
                self.working = Some(asked);
                came.words.push("attesting");
                came.goes_on_at = Some((ready, GoesOn::Attested));
                return Ok(came);
            }
        };
        if !matches!(answer.said, Said::NotNow) {
            self.unsent = Some(answer.clone());
        }
        Box::pin(self.send(server, answer, came, now)).await
    }

    async fn send(
        &mut self,
        server: &Context,
        answer: Answer,
        mut came: Came,
        now: Ms,
    ) -> anyhow::Result<Came> {
        // A line that breaks before the server heard it, or before the Mac heard the server.
        if self.chance.per_million(4_000) {
            came.words.push("lost");
            return Ok(self.try_again(came, now));
        }
        let lost_after = self.chance.per_million(4_000);
        let reply = say(server, &answer.body, &answer.signature).await?;
        self.learn(&answer, now, &mut came);
        if lost_after {
            // The command in the reply was handed over all the same, and nobody has it.
            if let Reply::Command(bytes) = &reply {
                self.handed_over(bytes, &mut came, now)?;
            }
            came.words.push("lost the reply");
            return Ok(self.try_again(came, now));
        }
        self.unsent = None;
        self.auto_poll = matches!(answer.said, Said::NotNow) && reply == Reply::Done;
        self.go_on(server, reply, came, now).await
    }

    /// The server gave a command away, whether or not the Mac ever sees it.
    fn handed_over(&mut self, bytes: &[u8], came: &mut Came, now: Ms) -> anyhow::Result<Asked> {
        let asked = Asked::read(bytes)?;
        let place = Place {
            mac: self.index,
            at: now,
        };
        let in_vain =
            checks::apple_is_not_asked_in_vain(place, asked.question, self.judge.fresh_at());
        came.faults.extend(in_vain);
        let nonce = asked.nonce.as_deref();
        self.judge
            .handed_over(asked.question, &asked.uuid, nonce, now);
        self.tally.asked(asked.question);
        Ok(asked)
    }

    /// The answer reached the server.
    fn learn(&mut self, answer: &Answer, now: Ms, came: &mut Came) {
        let uuid = &answer.uuid;
        came.words.push(match &answer.said {
            Said::NotNow => {
                self.judge.put_off(answer.question, uuid);
                "not now"
            }
            Said::State(state) => {
                if self.judge.reported(uuid, *state, now) {
                    self.tally.rounds += 1;
                }
                "report"
            }
            Said::Chain {
                nonce,
                secure,
                ends_at,
            } => {
                if self.judge.attested(uuid, nonce, *secure, *ends_at, now) {
                    self.tally.rounds += 1;
                }
                "chain"
            }
        });
    }

    /// macOS tries again after a while.
    fn try_again(&mut self, mut came: Came, now: Ms) -> Came {
        let pause = self.chance.between(20 * SECOND, 10 * MINUTE);
        came.goes_on_at = Some((beat(now + pause), GoesOn::Again));
        came
    }
}

/// Says something, as http/mdm would hand it in.
async fn say(server: &Context, body: &[u8], signature: &str) -> anyhow::Result<Reply> {
    let proof = Proof {
        signature: Some(signature.as_bytes()),
        certificate: None,
    };
    Ok(connect(server, proof, body).await?)
}
