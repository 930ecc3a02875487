//! `attestd receiver`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::input::text_of;
use super::store::with_desk;
use super::{Configured, output};
use crate::flows::receiver::{self, Report, Wanted};
use crate::ids::ReceiverName;
use crate::publication::shared_signals::access::Scope;
use crate::publication::shared_signals::stream::Delivery;

#[derive(Debug, Args)]
#[command(after_help = "\
Works beside a running server. A receiver gets tokens with its id and secret, and sets its stream up by
itself: see docs/api.md. Signals are shared where the configuration has shared_signals.url.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Let a receiver have a stream. Its secret is shown once; only its hash is kept.
    Add {
        #[command(flatten)]
        configured: Configured,
        /// Your name for it: lower-case letters, digits and -._
        #[arg(value_parser = name)]
        name: ReceiverName,
        /// Whom its tokens are for: its URL, or another name that only it has.
        #[arg(long, value_name = "URL")]
        audience: String,
        /// It may see its stream and take from it, and not change it.
        #[arg(long)]
        read_only: bool,
        /// It may be pushed to on this machine or on a private network, and by plain http.
        #[arg(long)]
        allow_private: bool,
        /// Roots its certificate must lead to, instead of the public ones (PEM).
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// List receivers, their streams, and how those go; without secrets.
    List {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
    /// End a receiver: its stream, what waits in it, and its tokens.
    Remove {
        #[command(flatten)]
        configured: Configured,
        #[arg(value_parser = name)]
        name: ReceiverName,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Add {
            configured,
            name,
            audience,
            read_only,
            allow_private,
            root,
            json,
        } => {
            let wanted = Wanted {
                name: name.clone(),
                audience: audience.clone(),
                scope: Scope {
                    read: true,
                    manage: !read_only,
                },
                allow_private: *allow_private,
                root: root.as_deref().map(text_of).transpose()?,
            };
            add(configured, wanted, *json)
        }
        What::List { configured, json } => list(configured, *json),
        What::Remove { configured, name } => with_desk(configured, async |desk| {
            receiver::remove(&desk.store, name, &desk.who, desk.now).await??;
            output::line(format!("{name} is removed"));
            Ok(())
        }),
    }
}

fn add(configured: &Configured, wanted: Wanted, json: bool) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let entropy = desk.entropy.as_ref();
        let (receiver, secret) =
            receiver::add(&desk.store, wanted, entropy, &desk.who, desk.now).await??;
        let endpoint = desk.signals_url.as_ref();
        let endpoint = endpoint.map(|url| format!("{url}/ssf/token"));
        let object = json!({
            "client_id": receiver.receiver_id,
            "client_secret": secret.expose(),
            "name": receiver.name,
            "audience": receiver.audience,
            "scope": receiver.scope.to_string(),
            "token_endpoint": endpoint,
        });
        let way = match endpoint {
            Some(endpoint) => format!("# Tokens are had at {endpoint}"),
            None => {
                "# No signals are shared yet: set shared_signals.url, and start the server anew"
                    .to_owned()
            }
        };
        let lines = [
            format!("client_id={}", receiver.receiver_id),
            format!("client_secret={}", secret.expose()),
            format!("# {}: the secret is shown this once", receiver.name),
            way,
        ];
        output::result(json, &object, &lines);
        Ok(())
    })
}

fn list(configured: &Configured, json: bool) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let reports = receiver::list(&desk.store).await?;
        if json {
            let list: Vec<_> = reports.iter().map(described).collect();
            output::line(json!({ "receivers": list }).to_string());
            return Ok(());
        }
        let mut table = Table::new();
        table.set_header(["name", "audience", "scope", "stream", "waiting", "fault"]);
        for report in &reports {
            let shown = described(report);
            let text = |pointer: &str| shown.pointer(pointer).and_then(Value::as_str);
            let stream = match (text("/stream/delivery"), text("/stream/status")) {
                (Some(delivery), Some(status)) => format!("{delivery}, {status}"),
                _ => "none".to_owned(),
            };
            table.add_row([
                report.receiver.name.to_string(),
                report.receiver.audience.clone(),
                report.receiver.scope.to_string(),
                stream,
                report.waiting.to_string(),
                text("/stream/fault").unwrap_or_default().to_owned(),
            ]);
        }
        output::line(table.to_string());
        Ok(())
    })
}

fn described(report: &Report) -> Value {
    let receiver = &report.receiver;
    let stream = report.stream.as_ref().map(|held| {
        let stream = &held.stream;
        let delivery = match stream.wishes.delivery {
            Delivery::Poll => "poll",
            Delivery::Push { .. } => "push",
        };
        json!({
            "stream_id": stream.stream_id,
            "delivery": delivery,
            "status": stream.status,
            "reason": stream.reason,
            "created_at": stream.created_at,
            "failures": held.course.failures,
            "fault": held.course.fault,
            "next_attempt_at": held.course.due_at(),
        })
    });
    json!({
        "client_id": receiver.receiver_id,
        "name": receiver.name,
        "audience": receiver.audience,
        "scope": receiver.scope.to_string(),
        "allow_private": receiver.allow_private,
        "created_at": receiver.created_at,
        "stream": stream,
        "waiting": report.waiting,
    })
}

fn name(text: &str) -> Result<ReceiverName, String> {
    ReceiverName::parse(text).map_err(|error| error.to_string())
}
