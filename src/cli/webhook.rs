//! `attestd webhook`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::input::text_of;
use super::store::with_desk;
use super::{Configured, output};
use crate::flows::webhook::{self, Report, Wanted};
use crate::ids::WebhookName;
use crate::publication::event;
use crate::publication::webhook::SigningSecret;
use crate::secret::Secret;

#[derive(Debug, Args)]
#[command(after_help = "\
Works beside a running server, which takes a change into account within a second. Messages have the form
of Standard Webhooks: check `webhook-signature` before believing one. See docs/api.md.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Have a receiver told of what happens from now on. The secret is shown once.
    Add {
        #[command(flatten)]
        configured: Configured,
        /// Your name for it: lower-case letters, digits and -._
        #[arg(value_parser = name)]
        name: WebhookName,
        /// Where messages are posted to: https://host[:port]/path
        url: String,
        /// Only these events, separated by commas; all when not given.
        #[arg(long, value_delimiter = ',', value_name = "NAME")]
        events: Option<Vec<String>>,
        /// The receiver may be on this machine or on a private network, and may speak plain http.
        #[arg(long)]
        allow_private: bool,
        /// Roots the receiver's certificate must lead to, instead of the public ones (PEM).
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        /// A secret that is in use already: a file with whsec_… (- is standard input).
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// List webhooks, how far each is, and what is wrong with it; without their secrets.
    List {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
    /// Tell a receiver nothing any more, and forget what was given up.
    Remove {
        #[command(flatten)]
        configured: Configured,
        #[arg(value_parser = name)]
        name: WebhookName,
    },
    /// Send again what was given up, or everything from an event on.
    Replay {
        #[command(flatten)]
        configured: Configured,
        #[arg(value_parser = name)]
        name: WebhookName,
        /// Everything that was given up, once more; it comes after what was delivered since.
        #[arg(long, conflicts_with = "from", required_unless_present = "from")]
        dead: bool,
        /// Everything from the event of this number on, in order.
        #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(1..))]
        from: Option<i64>,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Add {
            configured,
            name,
            url,
            events,
            allow_private,
            root,
            secret_file,
            json,
        } => {
            let wanted = Wanted {
                name: name.clone(),
                url: Secret::new(url.clone()),
                events: events.clone(),
                allow_private: *allow_private,
                root: root.as_deref().map(text_of).transpose()?,
                secret: secret_file.as_deref().map(secret_in).transpose()?,
            };
            add(configured, wanted, *json)
        }
        What::List { configured, json } => list(configured, *json),
        What::Remove { configured, name } => with_desk(configured, async |desk| {
            webhook::remove(&desk.store, name, &desk.who, desk.now).await??;
            output::line(format!("{name} is removed"));
            Ok(())
        }),
        What::Replay {
            configured,
            name,
            from,
            ..
        } => with_desk(configured, async |desk| {
            match from {
                None => {
                    let count =
                        webhook::replay_dead(&desk.store, name, &desk.who, desk.now).await??;
                    output::line(format!("{name}: {count} messages are sent again"));
                }
                Some(seq) => {
                    webhook::replay_from(&desk.store, name, *seq, &desk.who, desk.now).await??;
                    output::line(format!(
                        "{name}: everything from event {seq} on is sent again"
                    ));
                }
            }
            Ok(())
        }),
    }
}

fn add(configured: &Configured, wanted: Wanted, json: bool) -> anyhow::Result<()> {
    let is_given = wanted.secret.is_some();
    with_desk(configured, async |desk| {
        let entropy = desk.entropy.as_ref();
        let webhook = webhook::add(&desk.store, wanted, entropy, &desk.who, desk.now).await??;
        let secret = (!is_given).then(|| webhook.secret.text());
        let secret = secret.as_ref().map(Secret::expose);
        let object = json!({
            "webhook_id": webhook.webhook_id,
            "name": webhook.name,
            "events": webhook.events,
            "cursor": webhook.course.cursor,
            "secret": secret,
        });
        let mut lines: Vec<_> = secret.into_iter().cloned().collect();
        lines.push(format!(
            "# {} is told of what happens from now on",
            webhook.name
        ));
        if !is_given {
            lines.push("# Shown this once. The receiver checks signatures with it.".to_owned());
        }
        output::result(json, &object, &lines);
        Ok(())
    })
}

fn list(configured: &Configured, json: bool) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let reports = webhook::list(&desk.store).await?;
        if json {
            let list: Vec<_> = reports.iter().map(described).collect();
            output::line(json!({ "webhooks": list }).to_string());
            return Ok(());
        }
        let mut table = Table::new();
        table.set_header(["name", "url", "events", "behind", "given up", "fault"]);
        for report in &reports {
            let webhook = &report.webhook;
            let some = |events: &Vec<String>| format!("{} of {}", events.len(), event::ALL.len());
            table.add_row([
                webhook.name.to_string(),
                webhook.url.expose().clone(),
                webhook.events.as_ref().map_or("all".to_owned(), some),
                report.behind.to_string(),
                report.dead_letters.to_string(),
                webhook.course.fault.clone().unwrap_or_default(),
            ]);
        }
        output::line(table.to_string());
        Ok(())
    })
}

fn described(report: &Report) -> serde_json::Value {
    let webhook = &report.webhook;
    let course = &webhook.course;
    json!({
        "webhook_id": webhook.webhook_id,
        "name": webhook.name,
        "url": webhook.url.expose(),
        "events": webhook.events,
        "allow_private": webhook.allow_private,
        "created_at": webhook.created_at,
        "cursor": course.cursor,
        "behind": report.behind,
        "failures": course.failures,
        "fault": course.fault,
        "next_attempt_at": course.due_at(),
        "dead_letters": report.dead_letters,
    })
}

fn secret_in(path: &Path) -> anyhow::Result<SigningSecret> {
    let text = Secret::new(text_of(path)?);
    SigningSecret::parse(text.expose().trim())
        .with_context(|| format!("{} holds no secret", path.display()))
}

fn name(text: &str) -> Result<WebhookName, String> {
    WebhookName::parse(text).map_err(|error| error.to_string())
}
