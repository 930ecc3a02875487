//! `attestd policy`.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::input::{lines, whole};
use super::store::with_desk;
use super::{Configured, output};
use crate::flows::check_policy::{Fleet, subject};
use crate::flows::name_mac::named;
use crate::ids::{DeviceId, SerialNumber};
use crate::posture::policy::{Policy, SHIPPED, shipped};
use crate::publication::forecast::{Change, Comparison, Explanation, Outlook, Subject, Summary};
use crate::publication::snapshot_v1::HeaderV1;
use crate::time::Timestamp;

/// The largest policy file read; a real one has 2 KiB.
const MAX_POLICY: usize = 64 * 1024;

/// The exit status of a check that finds a Mac for which something is lost.
const WORSE: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Check(Check),
    /// Write the fleet as a policy judges it to standard output, for `check` on another machine. It
    /// holds serial numbers.
    Snapshot {
        #[command(flatten)]
        configured: Configured,
    },
    /// List the policies that ship, and what each does not demand that the strict one does.
    List {
        #[arg(long)]
        json: bool,
    },
    /// Print a policy that ships, to make your own from.
    Show {
        #[arg(value_name = "NAME", value_parser = shipped_name)]
        name: &'static str,
    },
}

/// Say what a policy would make of the fleet, or of one Mac, and what would change against the policy
/// in force. Nothing is changed, and a server may run meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Where no provider session is known, the best that could be is assumed: one of the key that was proved
for the Mac last, in good order. `--against` a device id or a serial number also explains every demand
and every claim.

Exit status: 0 nothing gets worse; 3 something is lost for at least one Mac: a verdict, a trust level,
or that it may be routed to; 1 failed; 2 wrong arguments; 64 unusable configuration.")]
struct Check {
    /// A policy file, or the name of one that ships.
    #[arg(value_name = "FILE|NAME")]
    policy: PathBuf,
    /// `fleet`, a device id, a serial number, or a snapshot (a path; - is standard input).
    #[arg(long, value_name = "DEVICE|SERIAL|SNAPSHOT|fleet", value_parser = against)]
    against: Against,
    /// Of a snapshot: only this device id or serial number, explained.
    #[arg(long, value_name = "DEVICE|SERIAL")]
    device: Option<String>,
    /// Compare with this policy (a file or a name) in place of the one in force.
    #[arg(long, value_name = "FILE|NAME")]
    in_force: Option<PathBuf>,
    /// Judge at this time; otherwise now, a snapshot when it was made.
    #[arg(long, value_name = "RFC3339", value_parser = time)]
    at: Option<Timestamp>,
    /// Show every Mac, not only those for which something changes.
    #[arg(long)]
    all: bool,
    /// JSON lines: one object a Mac, then one with the totals. Of a single Mac: one object.
    #[arg(long)]
    json: bool,
    /// The configuration file; a snapshot needs none.
    #[arg(long, value_name = "FILE", env = "ATTESTD_CONFIG")]
    config: Option<PathBuf>,
    /// As for other commands.
    #[arg(long)]
    insecure_http: bool,
}

#[derive(Debug, Clone)]
enum Against {
    Fleet,
    Device(String),
    Snapshot(PathBuf),
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let outcome = match &arguments.what {
        What::Check(check) => match checked(check) {
            Ok(summary) if summary.worse > 0 => return ExitCode::from(WORSE),
            outcome => outcome.map(drop),
        },
        What::Snapshot { configured } => snapshot(configured),
        What::List { json } => list(*json),
        What::Show { name } => {
            output::line(name.trim_end());
            Ok(())
        }
    };
    output::exit("policy", outcome)
}

fn checked(check: &Check) -> anyhow::Result<Summary> {
    let policy = read_policy(&check.policy)?;
    let other = check.in_force.as_deref().map(read_policy).transpose()?;
    if let Against::Snapshot(path) = &check.against {
        return against_snapshot(check, path, policy, other);
    }
    if check.device.is_some() {
        bail!("--device is for a snapshot; name the Mac by --against");
    }
    let config = check.config.clone().context(
        "--config names the server whose Macs are looked at; a snapshot needs none: --against FILE",
    )?;
    let configured = Configured {
        config,
        insecure_http: check.insecure_http,
    };
    let mut summary = None;
    with_desk(&configured, async |desk| {
        let now = check.at.unwrap_or(desk.now);
        let in_force = other.unwrap_or_else(|| desk.policy.clone());
        let mut report = Report::new(check, &in_force, &policy, now);
        match &check.against {
            Against::Device(name) => {
                let device_id = named(&desk.store, name).await?;
                let found = subject(&desk.store, &device_id, now).await?;
                let found = found.with_context(|| format!("there is no device {device_id}"))?;
                report.explained(&found);
            }
            Against::Fleet | Against::Snapshot(_) => {
                let mut fleet = Fleet::of(&desk.store, now);
                while let Some(page) = fleet.next().await? {
                    page.iter().for_each(|subject| report.counted(subject));
                }
                report.totals();
            }
        }
        summary = Some(report.summary);
        Ok(())
    })?;
    summary.context("nothing was looked at")
}

fn against_snapshot(
    check: &Check,
    path: &Path,
    policy: Policy,
    other: Option<Policy>,
) -> anyhow::Result<Summary> {
    let mut lines = lines(path)?.lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let header = HeaderV1::parse(&first).with_context(|| {
        format!(
            "{} is no snapshot; `attestd policy snapshot` makes one",
            path.display()
        )
    })?;
    let in_force = match other {
        Some(other) => other,
        None => Policy::parse(&header.policy).context("the policy in the snapshot")?,
    };
    let now = check.at.unwrap_or(header.at);
    let mut report = Report::new(check, &in_force, &policy, now);
    for (line, number) in lines.zip(2..) {
        let line = line?;
        let subject: Subject = serde_json::from_str(&line)
            .with_context(|| format!("line {number} of {} is no Mac", path.display()))?;
        match &check.device {
            None => report.counted(&subject),
            Some(name) if is_called(&subject, name) => report.explained(&subject),
            Some(_) => {}
        }
    }
    match &check.device {
        None => report.totals(),
        Some(name) if report.summary.devices == 0 => bail!("{name} is not in the snapshot"),
        Some(_) => {}
    }
    Ok(report.summary)
}

fn is_called(subject: &Subject, name: &str) -> bool {
    let mac = &subject.mac;
    let serial = mac.serial.as_ref().map(SerialNumber::as_str);
    mac.device_id.as_str() == name || serial == Some(name)
}

/// What is told, as it is found: nothing is kept but the totals.
struct Report<'a> {
    check: &'a Check,
    in_force: &'a Policy,
    checked: &'a Policy,
    now: Timestamp,
    summary: Summary,
}

impl<'a> Report<'a> {
    fn new(check: &'a Check, in_force: &'a Policy, checked: &'a Policy, now: Timestamp) -> Self {
        Self {
            check,
            in_force,
            checked,
            now,
            summary: Summary::default(),
        }
    }

    fn compared(&mut self, subject: &Subject) -> Comparison {
        let compared = subject.compare(self.in_force, self.checked, self.now);
        self.summary.add(&compared);
        compared
    }

    /// One of many.
    fn counted(&mut self, subject: &Subject) {
        let compared = self.compared(subject);
        if !self.check.all && compared.change == Change::Same {
            return;
        }
        if self.check.json {
            output::line(json!(compared).to_string());
        } else {
            output::line(line_of(&compared));
        }
    }

    /// The one that was asked for.
    fn explained(&mut self, subject: &Subject) {
        let compared = self.compared(subject);
        let why = subject.explain(self.in_force, self.checked, self.now);
        if self.check.json {
            let mut object = self.policies();
            object["device"] = json!(compared);
            object["explanation"] = json!(why);
            output::line(object.to_string());
            return;
        }
        output::line(line_of(&compared));
        if compared.session_assumed {
            output::line(
                "No session is known: one in good order, of the key proved last, is assumed.",
            );
        }
        tell(&why);
    }

    fn policies(&self) -> Value {
        let of = |policy: &Policy| json!({ "policy_id": policy.id, "waives": policy.waives() });
        json!({
            "evaluated_at": self.now,
            "in_force": of(self.in_force),
            "checked": of(self.checked),
        })
    }

    fn totals(&self) {
        if self.check.json {
            let mut object = self.policies();
            object["summary"] = json!(self.summary);
            output::line(object.to_string());
            return;
        }
        let summary = &self.summary;
        output::line(format!(
            "{} instead of {}: {} Macs, {} worse, {} better, {} otherwise, {} the same",
            self.checked.id,
            self.in_force.id,
            summary.devices,
            summary.worse,
            summary.better,
            summary.otherwise,
            summary.same
        ));
        let mut table = Table::new();
        table.set_header(["", "in force", "checked"]);
        let groups = [
            ("verdict", &summary.verdicts),
            ("trust level", &summary.trust_levels),
            ("reason", &summary.reasons),
        ];
        for (group, counts) in groups {
            for (name, pair) in counts {
                let label = format!("{group} {name}");
                table.add_row([label, pair.in_force.to_string(), pair.checked.to_string()]);
            }
        }
        let routable = summary.routable;
        table.add_row([
            "routable".to_owned(),
            routable.in_force.to_string(),
            routable.checked.to_string(),
        ]);
        output::line(table.to_string());
        let waives = self.checked.waives();
        if !waives.is_empty() {
            output::line(format!("It does not demand: {}", waives.join(", ")));
        }
    }
}

fn line_of(compared: &Comparison) -> String {
    let of = |outlook: &Outlook| {
        let reasons: Vec<_> = outlook.reasons.iter().map(|reason| reason.code()).collect();
        format!(
            "{}/{}{} [{}]",
            outlook.verdict.as_str(),
            outlook.trust_level.as_str(),
            if outlook.routable { "/routable" } else { "" },
            reasons.join(", ")
        )
    };
    let serial = compared
        .serial_number
        .as_ref()
        .map_or("-", SerialNumber::as_str);
    let change = match compared.change {
        Change::Worse => "worse",
        Change::Better => "better",
        Change::Otherwise => "otherwise",
        Change::Same => "same",
    };
    format!(
        "{change:<9} {} {serial}  {} -> {}",
        compared.device_id,
        of(&compared.in_force),
        of(&compared.checked)
    )
}

fn tell(why: &Explanation) {
    let mut table = Table::new();
    table.set_header(["demand", "in force", "checked"]);
    for demand in &why.demands {
        let answer = |answer: &crate::publication::forecast::Answer| {
            let reasons: Vec<_> = answer.reasons.iter().map(|reason| reason.code()).collect();
            let met = match answer.met {
                Some(true) => "met".to_owned(),
                Some(false) => format!("not met: {}", reasons.join(", ")),
                None => "not looked at".to_owned(),
            };
            match answer.demanded {
                true => met,
                false => format!("not demanded ({met})"),
            }
        };
        table.add_row([
            demand.demand.to_owned(),
            answer(&demand.in_force),
            answer(&demand.checked),
        ]);
    }
    output::line(table.to_string());
    let mut table = Table::new();
    table.set_header(["claim", "value", "source", "in force", "checked"]);
    for (name, claim) in &why.claims {
        let value = claim
            .value
            .as_ref()
            .map_or(Value::Null, |value| json!(value));
        let term = |term: &crate::publication::forecast::Term| {
            let age = json!(term.age).as_str().unwrap_or_default().to_owned();
            match term.expires_at {
                Some(until) => format!("{age} until {until}"),
                None => age,
            }
        };
        table.add_row([
            (*name).to_owned(),
            value.to_string(),
            claim.source.to_owned(),
            term(&claim.in_force),
            term(&claim.checked),
        ]);
    }
    output::line(table.to_string());
}

fn snapshot(configured: &Configured) -> anyhow::Result<()> {
    with_desk(configured, async |desk| {
        let header = HeaderV1::new(desk.base_url.clone(), desk.policy.text.clone(), desk.now);
        output::line(serde_json::to_string(&header)?);
        let mut fleet = Fleet::of(&desk.store, desk.now);
        while let Some(page) = fleet.next().await? {
            for subject in &page {
                output::line(serde_json::to_string(subject)?);
            }
        }
        Ok(())
    })
}

fn list(json: bool) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for (name, text) in SHIPPED {
        all.push((name, Policy::parse(text)?));
    }
    if json {
        let list: Vec<_> = all
            .iter()
            .map(|(name, policy)| {
                json!({ "name": name, "policy_id": policy.id, "waives": policy.waives() })
            })
            .collect();
        output::line(json!({ "policies": list }).to_string());
        return Ok(());
    }
    for (name, policy) in &all {
        let waives = match policy.waives() {
            none if none.is_empty() => "demands all there is to demand".to_owned(),
            some => format!("does not demand {}", some.join(", ")),
        };
        output::line(format!("{name:<16} {}  {waives}", policy.id));
    }
    Ok(())
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let text = match path.to_str().and_then(shipped) {
        Some(text) => text.to_owned(),
        None => String::from_utf8(whole(path, MAX_POLICY)?)
            .with_context(|| format!("{} is no text", path.display()))?,
    };
    Policy::parse(&text).with_context(|| format!("the policy {}", path.display()))
}

fn against(text: &str) -> Result<Against, String> {
    if text == "fleet" {
        return Ok(Against::Fleet);
    }
    let is_name = DeviceId::parse(text).is_ok() || SerialNumber::parse(text).is_ok();
    Ok(match is_name {
        true => Against::Device(text.to_owned()),
        false => Against::Snapshot(PathBuf::from(text)),
    })
}

fn shipped_name(name: &str) -> Result<&'static str, String> {
    shipped(name).ok_or_else(|| {
        let names: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
        format!("these ship: {}", names.join(", "))
    })
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}
