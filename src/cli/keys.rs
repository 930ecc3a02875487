//! `attestd keys`.

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use super::store::{Desk, with_desk};
use super::{Configured, output};
use crate::app::KEYS;
use crate::config::Config;
use crate::flows::replace_authority::{Maker, replace, tell};
use crate::flows::rotate_result_key::{rotate, withdraw};
use crate::keys::{FileKeeper, KeyError, KeyKeeper as _, KeyName, KeyRole};
use crate::publication::jwk::Algorithm;
use crate::publication::keyring::ResultKey;
use crate::time::{Span, Timestamp};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

const REPLACE: &str = "\
The new key stands in the folder of keys beside the present one (device-ca.2.key and .pem) and takes over by
the date of its certificate. Servers read the folder when they start: copy the new files to every node and
restart each before that date. Identities that were issued stay good for as long as they last: which
certificate speaks for a Mac is recorded, whoever issued it.
Replace the device CA when less is left of it than enrollment.identity_lifetime, or when its key may be in
other hands: whoever has it can make certificates, and no Mac of yours is spoken for by any of them.";

#[derive(Debug, Subcommand)]
enum What {
    /// List the keys that results and shared signals are signed by, former ones among them, and those of
    /// the service's own authority on this node.
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
    /// Make the key that follows the device CA, the registration authority or the profile signer. No Mac
    /// enrols anew: each goes on with the identity it has.
    #[command(after_help = REPLACE)]
    Replace {
        #[command(flatten)]
        configured: Configured,
        /// device-ca (the two others follow with it), registration-authority or profile-signer.
        #[arg(value_name = "ROLE", value_parser = role)]
        role: KeyRole,
        /// After how long it takes over: give it to every node until then.
        #[arg(long = "in", value_name = "SPAN", default_value = "1d", value_parser = span)]
        delay: Span,
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
            let authorities = authorities(configured, desk)?;
            if *json {
                let list: Vec<_> = keys.iter().map(|key| describe(key, desk.now)).collect();
                let authorities: Vec<_> = authorities.iter().map(Authority::describe).collect();
                output::line(json!({ "keys": list, "authorities": authorities }).to_string());
                return Ok(());
            }
            let mut table = Table::new();
            table.set_header(["key", "algorithm", "state"]);
            for key in &keys {
                let alg = key.jwk.alg.as_str();
                table.add_row([key.jwk.kid.as_str(), alg, &state(key, desk.now)]);
            }
            output::line(table.to_string());
            let mut table = Table::new();
            table.set_header(["authority", "from", "until", "state"]);
            for one in &authorities {
                table.add_row([
                    one.key.to_string(),
                    one.not_before.to_string(),
                    one.not_after.to_string(),
                    one.state.to_owned(),
                ]);
            }
            output::line(table.to_string());
            Ok(())
        }),
        What::Replace {
            configured,
            role,
            delay,
            json,
        } => with_desk(configured, async |desk| {
            let from = desk.now.plus(delay.0);
            let config = Config::load(&configured.config, configured.insecure_http)?;
            let keeper = FileKeeper::open(config.data_dir.join(KEYS), desk.sealer.clone())?;
            let maker = Maker {
                keeper: &keeper,
                organization: &config.enrollment.organization,
                entropy: desk.entropy.as_ref(),
                now: desk.now,
            };
            let made = replace(&maker, *role, from)?;
            let names: Vec<_> = made.iter().map(ToString::to_string).collect();
            let mut tx = desk.store.write().await?;
            tell(&mut tx, &desk.who, &made, from, desk.now);
            tx.commit().await?;
            let object = json!({ "made": names, "in_force_from": from });
            let lines = [
                format!("{} made, in force from {from}.", names.join(", ")),
                "Until then: copy the new files of the folder of keys to every other node, and restart each server."
                    .to_owned(),
                "What was issued stays good; former keys stay where they are.".to_owned(),
            ];
            output::result(*json, &object, &lines);
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

/// A key of the service's own authority.
struct Authority {
    key: KeyName,
    not_before: Timestamp,
    not_after: Timestamp,
    state: &'static str,
}

impl Authority {
    fn describe(&self) -> Value {
        json!({
            "key": self.key.to_string(), "not_before": self.not_before, "not_after": self.not_after,
            "state": self.state,
        })
    }
}

fn authorities(configured: &Configured, desk: &Desk) -> anyhow::Result<Vec<Authority>> {
    let config = Config::load(&configured.config, configured.insecure_http)?;
    let keeper = FileKeeper::open(config.data_dir.join(KEYS), desk.sealer.clone())?;
    let mut all = Vec::new();
    for role in KeyRole::ALL {
        let mut in_force = false;
        for key in keeper.keys(role)?.into_iter().rev() {
            let chain = match keeper.certificates(key) {
                Ok(chain) => chain,
                // Its making was interrupted.
                Err(KeyError::Absent { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(leaf) = chain.first() else { continue };
            let (not_before, not_after) = (
                leaf.certificate().not_before(),
                leaf.certificate().not_after(),
            );
            let state = match (not_before > desk.now, in_force) {
                (true, _) => "to come",
                (false, false) => "in force",
                (false, true) => "former",
            };
            in_force |= state == "in force";
            all.push(Authority {
                key,
                not_before,
                not_after,
                state,
            });
        }
    }
    Ok(all)
}

fn role(name: &str) -> Result<KeyRole, String> {
    KeyRole::from_name(name).ok_or_else(|| {
        let names = KeyRole::ALL.map(KeyRole::name);
        format!("a role is one of {}", names.join(", "))
    })
}

fn span(text: &str) -> Result<Span, String> {
    Span::parse(text).map_err(|error| error.to_string())
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
