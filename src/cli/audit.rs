//! `attestd audit`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::store::with_desk;
use super::{Configured, output};
use crate::audit::{Chain, Entry, Facts, Fault, Head, Link};
use crate::flows::read_audit::{self, MOST, page};

#[derive(Debug, Args)]
#[command(after_help = "\
Whoever can write to the database can write the chain anew: what shows that is a head that was kept
elsewhere. The server writes it to its log (`audit.head`), and `verify` prints it.
Exit status of verify: 0 whole; 1 not whole; 2 unreadable.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show who changed what, the latest last.
    List {
        #[command(flatten)]
        configured: Configured,
        /// Only what was done to this: a device id, a token id, the name of a webhook …
        #[arg(long)]
        subject: Option<String>,
        /// How many of the latest.
        #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u64).range(1..=1000))]
        last: u64,
        #[arg(long)]
        json: bool,
    },
    /// Write the entries, one JSON object a line; `verify --file` checks them anywhere.
    Export {
        #[command(flatten)]
        configured: Configured,
        /// Only those after this one.
        #[arg(long, value_name = "SEQ", default_value = "0", value_parser = clap::value_parser!(i64).range(0..))]
        after: i64,
    },
    /// Check that no entry was changed, left out, put in or cut off.
    Verify {
        #[command(flatten)]
        source: Source,
        /// A head that was kept elsewhere: the chain must still contain it.
        #[arg(long, value_name = "SEQ:HASH", value_parser = head)]
        head: Option<Head>,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Source {
    /// The configuration file that `attestd init` made.
    #[arg(
        long,
        value_name = "FILE",
        env = "ATTESTD_CONFIG",
        required_unless_present = "file"
    )]
    config: Option<PathBuf>,
    #[arg(long, hide = true)]
    insecure_http: bool,
    /// An export, in place of a database (- is standard input).
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The export begins after this entry, which was checked before.
    #[arg(long, value_name = "SEQ:HASH", requires = "file", value_parser = head)]
    after: Option<Head>,
}

const COMMAND: &str = "audit";
/// The chain could not be looked at.
const UNREADABLE: u8 = 2;
/// The longest line of an export: labels, notes and a list of Macs have some kilobytes.
const LONGEST_LINE: u64 = 256 * 1024;

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match &arguments.what {
        What::List {
            configured,
            subject,
            last,
            json,
        } => output::exit(COMMAND, list(configured, subject.as_deref(), *last, *json)),
        What::Export { configured, after } => output::exit(COMMAND, export(configured, *after)),
        What::Verify { source, head, json } => match verify(source, *head) {
            Ok(judged) => tell(&judged, *json),
            Err(error) => {
                output::fault(COMMAND, &error);
                ExitCode::from(UNREADABLE)
            }
        },
    }
}

fn list(
    configured: &Configured,
    subject: Option<&str>,
    last: u64,
    json: bool,
) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let tx = desk.store.read().await?;
        let mut links = tx.audit_before(None, subject, last).await?;
        links.reverse();
        if json {
            let lines: Vec<_> = links.iter().map(Link::line).collect();
            output::line(format!("{{\"entries\":[{}]}}", lines.join(",")));
            return Ok(());
        }
        let mut table = Table::new();
        table.set_header(["seq", "at", "who", "what", "subject", "change", "why"]);
        for link in &links {
            let Ok((seq, entry)) = Entry::read(&link.text) else {
                table.add_row([&link.seq.to_string(), "not readable: attestd audit verify"]);
                continue;
            };
            table.add_row([
                seq.to_string(),
                entry.at.to_string(),
                entry.who.to_string(),
                entry.what.to_string(),
                entry.subject.clone(),
                change(&entry.before, &entry.after),
                entry.why.clone(),
            ]);
        }
        output::line(table.to_string());
        Ok(())
    })
}

/// One line for each value: what it was, and what it is.
fn change(before: &Facts, after: &Facts) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let lines: Vec<_> = names
        .into_iter()
        .map(|name| match (before.get(name), after.get(name)) {
            (Some(was), Some(is)) => format!("{name}: {} -> {}", text(was), text(is)),
            (Some(was), None) => format!("{name}: {} ->", text(was)),
            (None, is) => format!("{name}: {}", is.map(text).unwrap_or_default()),
        })
        .collect();
    lines.join("\n")
}

fn export(configured: &Configured, after: i64) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let mut after = after;
        loop {
            let page = page(&desk.store, after, None, MOST).await?;
            for link in &page.links {
                output::line(link.line());
            }
            match page.links.last() {
                Some(last) if page.more => after = last.seq,
                _ => return Ok(()),
            }
        }
    })
}

fn verify(source: &Source, remembered: Option<Head>) -> anyhow::Result<Result<Head, Fault>> {
    match (&source.file, &source.config) {
        (Some(file), _) => {
            let chain = Chain::after(source.after.unwrap_or(Head::BEGINNING), remembered);
            in_file(file, chain)
        }
        (None, Some(config)) => {
            let configured = Configured {
                config: config.clone(),
                insecure_http: source.insecure_http,
            };
            with_desk(&configured, async |desk| {
                Ok(read_audit::check(&desk.store, remembered).await?)
            })
        }
        (None, None) => anyhow::bail!("give --config or --file"),
    }
}

fn in_file(path: &Path, mut chain: Chain) -> anyhow::Result<Result<Head, Fault>> {
    let opened: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?)
    };
    let mut reader = BufReader::new(opened);
    for number in 1_u64.. {
        let mut line = String::new();
        let read = reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_line(&mut line)
            .with_context(|| format!("line {number} cannot be read as text"))?;
        if read == 0 {
            break;
        }
        let link = Link::read(line.trim_end_matches(['\n', '\r']));
        let Ok(link) = link else {
            anyhow::bail!("line {number} is no line of an export");
        };
        if let Err(fault) = chain.follow(&link) {
            return Ok(Err(fault));
        }
    }
    Ok(chain.end())
}

fn tell(judged: &Result<Head, Fault>, as_json: bool) -> ExitCode {
    match judged {
        Ok(head) => {
            let object = json!({ "whole": true, "entries": head.seq, "head": head.to_string() });
            let lines = [
                format!("whole: {} entries", head.seq),
                format!("head {head}"),
                "# Keep the head elsewhere: verify --head finds what was cut off or written anew."
                    .to_owned(),
            ];
            output::result(as_json, &object, &lines);
            ExitCode::SUCCESS
        }
        Err(fault) => {
            let object = json!({
                "whole": false, "reason": fault.code(), "detail": fault.to_string(),
            });
            output::result(as_json, &object, &[format!("{}: {fault}", fault.code())]);
            ExitCode::FAILURE
        }
    }
}

fn head(text: &str) -> Result<Head, String> {
    Head::parse(text)
        .ok_or_else(|| "a head is SEQ:HASH, as `attestd audit verify` prints it".to_owned())
}
