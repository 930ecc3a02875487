//! Commands as a Mac reads them, and what it answers.

use anyhow::Context as _;
use attestd_sim::mac::{ATTESTATION, messages, query_responses, security_info};
use plist::{Dictionary, Value};

use super::{Mac, Minted, signed, written};
use crate::judge::{Question, State};
use crate::time::{DAY, Ms, SECOND};

/// The rights of the profile (apple-protocol 1.2).
const RIGHTS: i64 = 1041;
/// Stands in a prepared answer where the command's name goes.
const PLACE: &str = "00000000-0000-4000-8000-000000000000";

/// A command.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) uuid: String,
    pub(super) question: Question,
    pub(super) nonce: Option<Vec<u8>>,
    queries: Vec<String>,
}

/// What is said in reply, and what the judge is told when it arrives.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) uuid: String,
    pub(super) question: Question,
    pub(super) said: Said,
    pub(super) body: Vec<u8>,
    pub(super) signature: String,
}

/// The meaning of an answer.
#[derive(Debug, Clone)]
pub(super) enum Said {
    NotNow,
    State(State),
    Chain {
        nonce: Vec<u8>,
        secure: bool,
        ends_at: Ms,
    },
}

impl Asked {
    pub(super) fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let top: Value = plist::from_bytes(bytes)?;
        let read = || {
            let top = top.as_dictionary()?;
            let command = top.get("Command")?.as_dictionary()?;
            let question = match command.get("RequestType")?.as_string()? {
                "SecurityInfo" => Question::Report,
                "DeviceInformation" => Question::Chain,
                _ => return None,
            };
            let nonce = command.get("DeviceAttestationNonce");
            let queries = command.get("Queries").and_then(Value::as_array);
            let queries = queries.into_iter().flatten();
            Some(Self {
                uuid: top.get("CommandUUID")?.as_string()?.to_owned(),
                question,
                nonce: nonce.and_then(Value::as_data).map(<[u8]>::to_vec),
                queries: queries
                    .filter_map(|query| query.as_string().map(str::to_owned))
                    .collect(),
            })
        };
        read().context("a command nobody here sends")
    }
}

impl Mac {
    /// In Power Nap on battery (apple-protocol 3.3).
    pub(super) fn not_now(&self, asked: &Asked) -> anyhow::Result<Answer> {
        let body = messages::status_reply(&self.spec, &asked.uuid, "NotNow");
        self.answer(asked, Said::NotNow, written(body)?)
    }

    /// SecurityInfo, as the Mac is.
    pub(super) fn security_info(&mut self, asked: &Asked) -> anyhow::Result<Answer> {
        let text = match &self.report {
            Some(text) => text,
            None => {
                let info = Value::Dictionary(security_info(&self.spec));
                let body = self.done(PLACE, "SecurityInfo", info);
                self.report.insert(String::from_utf8(written(body)?)?)
            }
        };
        let body = text.replace(PLACE, &asked.uuid).into_bytes();
        let said = Said::State(State {
            secure: self.is_secure(),
            filevault: self.spec.filevault,
        });
        self.answer(asked, said, body)
    }

    /// DeviceInformation with what Apple says for this nonce: anew, or from the cache.
    pub(super) fn attestation(
        &mut self,
        asked: &Asked,
        authority: &attestd_sim::apple::AttestationAuthority,
        now: Ms,
    ) -> anyhow::Result<Answer> {
        let nonce = asked.nonce.as_deref();
        let state = self.spec.attested_state();
        let (chain, anew) = self.apple.attestation(authority, &state, nonce, now)?;
        if anew {
            // Dates in certificates are whole seconds.
            let ends_at = (now + 90 * DAY).div_euclid(SECOND) * SECOND;
            self.minted = Some(Minted {
                nonce: nonce.unwrap_or_default().to_vec(),
                secure: self.is_secure(),
                ends_at,
            });
        }
        let minted = self.minted.clone().context("a cache that is empty")?;
        let queries = asked.queries.iter().map(String::as_str);
        let mut responses = query_responses(&self.spec, queries, RIGHTS);
        let both = [chain.leaf, chain.intermediate].map(Value::Data);
        responses.insert(ATTESTATION.to_owned(), Value::Array(both.to_vec()));
        let body = self.done(&asked.uuid, "QueryResponses", Value::Dictionary(responses));
        let said = Said::Chain {
            nonce: minted.nonce,
            secure: minted.secure,
            ends_at: minted.ends_at,
        };
        self.answer(asked, said, written(body)?)
    }

    fn done(&self, uuid: &str, key: &str, value: Value) -> Dictionary {
        let mut body = messages::status_reply(&self.spec, uuid, "Acknowledged");
        body.insert(key.to_owned(), value);
        body
    }

    fn answer(&self, asked: &Asked, said: Said, body: Vec<u8>) -> anyhow::Result<Answer> {
        let line = self.line.as_ref().context("a Mac without enrollment")?;
        Ok(Answer {
            uuid: asked.uuid.clone(),
            question: asked.question,
            said,
            signature: signed(&line.identity, &body)?,
            body,
        })
    }
}
