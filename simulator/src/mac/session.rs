//! A session on the command channel (apple-protocol 3.1 to 3.3), and the life between sessions.

use plist::Value;

use super::events::{Exchange, MacStep};
use super::execute::Command;
use super::wire::{CONNECT, Reply};
use super::{Enrolled, Lie, Loss, Mac, MacError, Unsent, messages};
use crate::certs::Identity;
use crate::keys::KeyKind;
use crate::plist_xml;

/// How many times in a row a failed session is tried again before the next push.
const SESSION_TRIES: u32 = 10;

/// How a session went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Replies that got their 2xx.
    pub answered: usize,
    /// The server removed this Mac.
    pub unenrolled: bool,
}

impl Mac {
    /// One session: first what was not yet acknowledged, or Idle; then command after command until
    /// an empty 200.
    pub async fn connect(&self) -> Result<Session, MacError> {
        let _one_at_a_time = self.inner.session.lock().await;
        let result = self.exchange().await;
        match &result {
            Ok(session) => self.tell(MacStep::SessionEnded {
                answered: session.answered,
            }),
            Err(error) => self.tell(MacStep::SessionFailed { why: error.chain() }),
        }
        result
    }

    async fn exchange(&self) -> Result<Session, MacError> {
        let enrolled = self.enrolled()?;
        let mut answered = 0;
        let mut last_was_not_now = false;
        let waiting = self.state().unsent.clone();
        let mut reply = match &waiting {
            Some(unsent) => self.send_result(&enrolled, unsent).await?,
            None => self.send_idle(&enrolled).await?,
        };
        answered += usize::from(waiting.is_some() && reply.is_success());
        loop {
            if let Some(why) = reply.unenrolls(&self.spec().os_version) {
                self.unenroll(why);
                return Ok(Session {
                    answered,
                    unenrolled: true,
                });
            }
            if !reply.is_success() {
                return Err(MacError::Refused {
                    step: "connect",
                    reply: Box::new(reply),
                });
            }
            if reply.body.is_empty() {
                // Polls by itself later only if NotNow was the last word (3.3).
                self.state().auto_poll = last_was_not_now;
                return Ok(Session {
                    answered,
                    unenrolled: false,
                });
            }
            let command = Command::read(&reply.body).ok_or(MacError::NotACommand)?;
            let unsent = self.carry_out(&enrolled, &command, &reply.body).await?;
            last_was_not_now = unsent.status == "NotNow";
            reply = self.send_result(&enrolled, &unsent).await?;
            answered += usize::from(reply.is_success());
        }
    }

    /// Executes a command and keeps its result until the server has it. NotNow is not kept.
    async fn carry_out(
        &self,
        enrolled: &Enrolled,
        command: &Command,
        received: &[u8],
    ) -> Result<Unsent, MacError> {
        let (kind, uuid) = (command.request_type.clone(), command.uuid.clone());
        self.tell(MacStep::Asked {
            request_type: kind.clone(),
            command_uuid: uuid.clone(),
        });
        let executed = self.execute(enrolled, command).await?;
        let spec = self.spec();
        let mut body = plist_xml::write(&Value::Dictionary(executed.reply), spec.plist_style)?;
        {
            let mut state = self.state();
            let first = state
                .first_results
                .entry(kind.clone())
                .or_insert_with(|| body.clone());
            if matches!(spec.lie, Some(Lie::ReplaysOldResult)) {
                body.clone_from(first);
            }
        }
        let signer = self.signer_of_replies(&enrolled.identity)?;
        let signature = self.sign_with(&signer, &body, enrolled.profile.mdm.sign_message)?;
        let unsent = Unsent {
            command_uuid: uuid.clone(),
            request_type: kind.clone(),
            status: executed.status,
            body,
            signature,
        };
        self.record().push(Exchange {
            at_ms: self.inner.world.clock().now_ms(),
            command_uuid: uuid,
            request_type: kind,
            command: received.to_vec(),
            nonce: command.nonce().map(<[u8]>::to_vec),
            attestation: executed.attestation,
            status: executed.status.to_owned(),
            reply: unsent.body.clone(),
            signature: unsent.signature.clone(),
            sends: 0,
            acknowledged: None,
        });
        if executed.status != "NotNow" {
            self.state().unsent = Some(unsent.clone());
        }
        Ok(unsent)
    }

    fn signer_of_replies(&self, own: &Identity) -> Result<Identity, MacError> {
        let spec = self.spec();
        let Some(Lie::SignsWithWrongIdentity(wanted)) = &spec.lie else {
            return Ok(own.clone());
        };
        let mut state = self.state();
        if let Some(impostor) = &state.impostor {
            return Ok(impostor.clone());
        }
        let impostor = match wanted {
            Some(identity) => Identity::clone(identity),
            // Its key is of the same kind as the real one: nothing else gives it away.
            None => {
                let kind = KeyKind::of(&own.key);
                Identity::from_foreign_ca(&spec.serial, kind, self.clock().now_ms())?
            }
        };
        Ok(state.impostor.insert(impostor).clone())
    }

    async fn send_idle(&self, enrolled: &Enrolled) -> Result<Reply, MacError> {
        let spec = self.spec().presented();
        let body = plist_xml::write(&Value::Dictionary(messages::idle(&spec)), spec.plist_style)?;
        let signature =
            self.sign_with(&enrolled.identity, &body, enrolled.profile.mdm.sign_message)?;
        enrolled
            .wire
            .put(
                &enrolled.profile.mdm.server_url,
                CONNECT,
                &body,
                signature.as_deref(),
            )
            .await
    }

    async fn send_result(&self, enrolled: &Enrolled, unsent: &Unsent) -> Result<Reply, MacError> {
        let loss = self.state().losses.pop_front();
        if loss == Some(Loss::BeforeSending) {
            return Err(MacError::Lost);
        }
        self.remember(&unsent.command_uuid, |exchange| exchange.sends += 1);
        let url = &enrolled.profile.mdm.server_url;
        let reply = enrolled
            .wire
            .put(url, CONNECT, &unsent.body, unsent.signature.as_deref())
            .await?;
        if loss == Some(Loss::AfterSending) {
            return Err(MacError::Lost);
        }
        if reply.is_success() {
            self.state().unsent = None;
            self.remember(&unsent.command_uuid, |exchange| {
                exchange.acknowledged = Some(reply.status)
            });
            self.tell(MacStep::Answered {
                request_type: unsent.request_type.clone(),
                command_uuid: unsent.command_uuid.clone(),
                status: unsent.status.to_owned(),
            });
        }
        Ok(reply)
    }

    fn remember(&self, command_uuid: &str, change: impl FnOnce(&mut Exchange)) {
        if let Some(exchange) = self
            .record()
            .iter_mut()
            .rev()
            .find(|one| one.command_uuid == command_uuid)
        {
            change(exchange);
        }
    }

    /// Sends the bytes of an earlier reply again, signature and all, as an eavesdropper would.
    pub async fn replay(&self, exchange: &Exchange) -> Result<Reply, MacError> {
        let enrolled = self.enrolled()?;
        let url = &enrolled.profile.mdm.server_url;
        enrolled
            .wire
            .put(url, CONNECT, &exchange.reply, exchange.signature.as_deref())
            .await
    }

    /// Lives on: waits for pushes and answers them until the returned guard is dropped.
    #[must_use = "the Mac stops living when this is dropped"]
    pub fn live(&self) -> Life {
        let mac = self.clone();
        Life {
            task: tokio::spawn(async move { mac.live_on().await }),
        }
    }

    async fn live_on(&self) {
        loop {
            let inbox = self
                .enrolled()
                .ok()
                .and_then(|enrolled| enrolled.inbox.clone());
            let pushed = match inbox {
                None => {
                    self.inner.poke.notified().await;
                    continue;
                }
                Some(inbox) => tokio::select! {
                    pushed = inbox.next() => pushed,
                    () = self.inner.poke.notified() => {
                        if self.take_auto_poll() {
                            self.connect_until_done().await;
                        }
                        continue;
                    }
                },
            };
            let Ok(enrolled) = self.enrolled() else {
                continue;
            };
            match pushed {
                Some(push) if push.magic == enrolled.magic => {
                    self.tell(MacStep::Pushed);
                    self.connect_until_done().await;
                }
                Some(_foreign) => self.tell(MacStep::PushIgnored),
                // The token ended: rotation or removal pokes when the new state stands.
                None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        }
    }

    async fn connect_until_done(&self) {
        for _ in 0..SESSION_TRIES {
            match self.connect().await {
                Ok(_) | Err(MacError::NotEnrolled) => return,
                Err(_told) => tokio::time::sleep(self.spec().retry_delay).await,
            }
        }
    }

    fn take_auto_poll(&self) -> bool {
        let mut state = self.state();
        !state.power_nap && std::mem::take(&mut state.auto_poll)
    }
}

/// Keeps a Mac alive; dropping it switches the Mac off.
#[derive(Debug)]
pub struct Life {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.task.abort();
    }
}
