//! `attestd token`.

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::store::with_desk;
use super::{Configured, output};
use crate::flows::authorize::{Role, issue_token, revoke_token};
use crate::ids::ApiTokenId;
use crate::time::Span;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a token. It is shown once; only its hash is kept.
    Create {
        #[command(flatten)]
        configured: Configured,
        /// coordinator: reads devices and asks for verifications. operator: that and changes.
        /// auditor: reads devices and the audit log. viewer: reads the state of the service.
        /// push_cert_officer: changes push certificates, and nothing else.
        #[arg(long, value_parser = role)]
        role: Role,
        /// Who gets it, in your words.
        #[arg(long)]
        label: String,
        /// How long it is valid, such as 90d; for ever when not given.
        #[arg(long, value_parser = span)]
        valid_for: Option<Span>,
        #[arg(long)]
        json: bool,
    },
    /// List tokens, without their secrets, and when each was used last (written down once a minute).
    List {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
    /// End a token at once.
    Revoke {
        #[command(flatten)]
        configured: Configured,
        /// The id that `create` and `list` show.
        #[arg(value_name = "TOKEN_ID")]
        api_token_id: String,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Create {
            configured,
            role,
            label,
            valid_for,
            json,
        } => with_desk(configured, async |desk| {
            let expires_at = valid_for.map(|span| desk.now.plus(span.0));
            let entropy = desk.entropy.as_ref();
            let (token, secret) = issue_token(
                &desk.store,
                entropy,
                *role,
                label,
                expires_at,
                &desk.who,
                desk.now,
            )
            .await?;
            let object = json!({
                "token_id": token.api_token_id,
                "token": secret.expose(),
                "role": role,
                "label": label,
                "expires_at": expires_at,
            });
            let until = expires_at.map_or("for ever".to_owned(), |time| format!("until {time}"));
            output::result(
                *json,
                &object,
                &[
                    secret.expose().clone(),
                    format!(
                        "# {} for {label}, role {role}, valid {until}",
                        token.api_token_id
                    ),
                    "# Shown this once. Send it as: Authorization: Bearer TOKEN".to_owned(),
                ],
            );
            Ok(())
        }),
        What::List { configured, json } => with_desk(configured, async |desk| {
            let tokens = desk.store.read().await?.api_tokens().await?;
            if *json {
                let list: Vec<_> = tokens
                    .iter()
                    .map(|token| {
                        json!({
                            "token_id": token.api_token_id,
                            "role": token.role,
                            "label": token.label,
                            "created_at": token.created_at,
                            "expires_at": token.expires_at,
                            "revoked_at": token.revoked_at,
                            "last_used_at": token.last_used_at,
                        })
                    })
                    .collect();
                output::line(json!({ "tokens": list }).to_string());
                return Ok(());
            }
            let mut table = Table::new();
            table.set_header(["token", "role", "label", "valid", "last used"]);
            for token in tokens {
                let valid = match (token.revoked_at, token.expires_at) {
                    (Some(at), _) => format!("revoked {at}"),
                    (None, Some(at)) if at <= desk.now => format!("expired {at}"),
                    (None, Some(at)) => format!("until {at}"),
                    (None, None) => "for ever".to_owned(),
                };
                table.add_row([
                    token.api_token_id.to_string(),
                    token.role,
                    token.label,
                    valid,
                    token
                        .last_used_at
                        .map_or_else(|| "-".to_owned(), |at| at.to_string()),
                ]);
            }
            output::line(table.to_string());
            Ok(())
        }),
        What::Revoke {
            configured,
            api_token_id,
        } => with_desk(configured, async |desk| {
            let api_token_id = ApiTokenId::parse(api_token_id)?;
            if !revoke_token(&desk.store, &api_token_id, &desk.who, desk.now).await? {
                anyhow::bail!("there is no valid token {api_token_id}");
            }
            output::line(format!("{api_token_id} is revoked"));
            Ok(())
        }),
    }
}

fn role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| {
        let words: Vec<_> = Role::ALL.iter().map(|role| role.as_str()).collect();
        format!("a role is one of {}", words.join(", "))
    })
}

fn span(text: &str) -> Result<Span, String> {
    Span::parse(text).map_err(|error| error.to_string())
}
