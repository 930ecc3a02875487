//! `attestd device list`.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use comfy_table::Table;
use serde_json::json;

use super::super::store::with_desk;
use super::super::{Configured, output};
use super::words::{when, word};
use super::{by, time};
use crate::enrollment::State;
use crate::flows::list_devices::{Listed, list_devices};
use crate::ids::DeviceId;
use crate::posture::Verdict;
use crate::store::Sieve;
use crate::time::Timestamp;

/// List Macs with what is believed of each now, page by page, in the order in which they came.
#[derive(Debug, Args)]
#[command(after_help = "\
Works beside a running server. A verdict is judged at the moment of the question, so --verdict looks at
every Mac until the page is full. What the last line names is given to --after for the next page.")]
pub(super) struct List {
    #[command(flatten)]
    configured: Configured,
    /// Only Macs of this verdict.
    #[arg(long, value_name = "VERDICT", value_parser = verdicts())]
    verdict: Option<Verdict>,
    /// Only Macs in this state; without it, all but those that became another.
    #[arg(long, value_name = "STATE", value_parser = states())]
    state: Option<State>,
    /// Only Macs whose serial number begins so.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    serial: Option<String>,
    /// How many.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    /// Only those after this Mac.
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    after: Option<DeviceId>,
    /// Judge at this time instead of now.
    #[arg(long, value_name = "RFC3339", value_parser = time)]
    at: Option<Timestamp>,
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let sieve = Sieve {
            states: Some(match self.state {
                Some(state) => vec![state],
                None => vec![State::Pending, State::Enrolled, State::CheckedOut],
            }),
            serial_prefix: self.serial.clone(),
        };
        let page = with_desk(&self.configured, async |desk| {
            let by = by(desk, self.at);
            let (after, limit) = (self.after.as_ref(), usize::from(self.limit));
            let page = list_devices(&by, &sieve, self.verdict, after, limit).await?;
            Ok((page, by.now))
        });
        let (page, now) = page?;
        if self.json {
            let lines: Vec<_> = page.devices.iter().map(|mac| mac.publish(now)).collect();
            output::line(json!({ "devices": lines, "next": page.next }).to_string());
            return Ok(());
        }
        if page.devices.is_empty() {
            output::line("no Mac is so");
            return Ok(());
        }
        output::line(table(&page.devices, now).to_string());
        if let Some(next) = page.next {
            output::line(format!("more: --after {next}"));
        }
        Ok(())
    }
}

fn table(devices: &[Listed], now: Timestamp) -> Table {
    let mut table = Table::new();
    table.set_header([
        "device",
        "serial",
        "state",
        "verdict",
        "level",
        "good until",
        "seen",
        "why",
    ]);
    for mac in devices {
        let enrollment = &mac.enrollment;
        let when = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| when(at, now));
        let state = match &enrollment.contends_with {
            Some(_) if enrollment.state != State::Superseded => "contends",
            _ => enrollment.state.as_str(),
        };
        table.add_row([
            enrollment.device_id.to_string(),
            word(&enrollment.serial),
            state.to_owned(),
            mac.posture.verdict.as_str().to_owned(),
            mac.posture.trust_level.as_str().to_owned(),
            when(mac.posture.usable_until),
            when(mac.last_seen),
            word(mac.posture.reasons.first()),
        ]);
    }
    table
}

fn verdicts() -> impl TypedValueParser<Value = Verdict> {
    const ALL: [Verdict; 4] = [
        Verdict::Affirming,
        Verdict::Warning,
        Verdict::Contraindicated,
        Verdict::Unknown,
    ];
    PossibleValuesParser::new(ALL.map(Verdict::as_str)).try_map(|text| {
        let found = ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or("there is no such verdict")
    })
}

fn states() -> impl TypedValueParser<Value = State> {
    const ALL: [State; 4] = [
        State::Pending,
        State::Enrolled,
        State::CheckedOut,
        State::Superseded,
    ];
    PossibleValuesParser::new(ALL.map(State::as_str))
        .try_map(|text| State::from_word(&text).ok_or("there is no such state"))
}

fn device(text: &str) -> Result<DeviceId, String> {
    DeviceId::parse(text).map_err(|error| error.to_string())
}

/// The beginning of a serial number; small letters are meant as large ones.
fn prefix(text: &str) -> Result<String, String> {
    let is_part = |octet: u8| octet.is_ascii_alphanumeric();
    if (1..=14).contains(&text.len()) && text.bytes().all(is_part) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err("1 to 14 letters and digits begin a serial number".to_owned())
    }
}
