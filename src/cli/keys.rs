//! `attestd keys`.

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::store::with_desk;
use super::{Configured, output};
use crate::flows::rotate_result_key::{rotate, withdraw};
use crate::publication::jwk::Algorithm;
use crate::publication::keyring::ResultKey;
use crate::time::Timestamp;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the keys that results and shared signals are signed by, former ones among them.
    List {
        #[command(flatten)]
        configured: Configured,
        #[arg(long)]
        json: bool,
    },
    /// Make the next key. It is published at once and signs an hour later, when everybody has it; the
    /// present one signs until then and stays published as long as what it signed is good.
    Rotate {
        #[command(flatten)]
        configured: Configured,
        /// ES256: the key of results; RS256: the key of shared signals.
        #[arg(long, value_name = "ALGORITHM", default_value = "ES256", value_parser = algorithm)]
        alg: Algorithm,
        #[arg(long)]
        json: bool,
    },
    /// Withdraw a key that may be in other hands: nothing signed by it counts any more, whenever it is
    /// dated. Where no other signs, a new key does at once. Running servers follow within seconds.
    Withdraw {
        #[command(flatten)]
        configured: Configured,
        /// The key id that `list` shows.
        // One in 64 begins with a hyphen (base64url).
        #[arg(value_name = "KID", allow_hyphen_values = true)]
        kid: String,
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::List { configured, json } => with_desk(configured, async |desk| {
            let keys = desk.store.read().await?.result_keys().await?;
            if *json {
                let list: Vec<_> = keys.iter().map(|key| describe(key, desk.now)).collect();
                output::line(json!({ "keys": list }).to_string());
                return Ok(());
            }
            let mut table = Table::new();
            table.set_header(["key", "algorithm", "state"]);
            for key in &keys {
                let alg = key.jwk.alg.as_str();
                table.add_row([key.jwk.kid.as_str(), alg, &state(key, desk.now)]);
            }
            output::line(table.to_string());
            Ok(())
        }),
        What::Rotate {
            configured,
            alg,
            json,
        } => with_desk(configured, async |desk| {
            let key = rotate(&desk.store, *alg, &desk.who, desk.now).await??;
            let lines = [
                format!(
                    "{} is published now and signs from {}.",
                    key.jwk.kid, key.signs_from
                ),
                "Nothing else is to be done. `attestd keys list` shows them all.".to_owned(),
            ];
            output::result(*json, &describe(&key, desk.now), &lines);
            Ok(())
        }),
        What::Withdraw {
            configured,
            kid,
            json,
        } => with_desk(configured, async |desk| {
            let made = withdraw(&desk.store, kid, &desk.who, desk.now).await??;
            let mut lines = vec![format!("{kid} is withdrawn: nothing signed by it counts.")];
            lines.extend(made.iter().map(|key| {
                format!(
                    "{} signs from now on; others know it within minutes.",
                    key.jwk.kid
                )
            }));
            let object = json!({
                "withdrawn": kid,
                "made": made.as_ref().map(|key| describe(key, desk.now)),
            });
            output::result(*json, &object, &lines);
            Ok(())
        }),
    }
}

fn algorithm(word: &str) -> Result<Algorithm, String> {
    Algorithm::from_word(word).ok_or_else(|| "an algorithm is ES256 or RS256".to_owned())
}

fn describe(key: &ResultKey, now: Timestamp) -> Value {
    json!({
        "kid": key.jwk.kid,
        "alg": key.jwk.alg,
        "made_at": key.made_at,
        "signs_from": key.signs_from,
        "signs_until": key.signs_until,
        "withdrawn_at": key.withdrawn_at,
        "signs": key.signs(now),
    })
}

fn state(key: &ResultKey, now: Timestamp) -> String {
    match (key.withdrawn_at, key.signs_until) {
        (Some(at), _) => format!("withdrawn {at}"),
        (None, _) if key.signs_from.is_to_come(now) => format!("signs from {}", key.signs_from),
        (None, Some(until)) if until <= now => format!("signed until {until}"),
        (None, Some(until)) => format!("signs until {until}"),
        (None, None) => "signs".to_owned(),
    }
}
