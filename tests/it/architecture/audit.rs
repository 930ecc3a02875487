//! Whatever somebody orders is told to the audit log.

use attestd::audit::Verb;

use super::none_of;
use super::source::{SourceFile, sources};

/// Flows that write and tell the audit log nothing: nobody ordered what they write, but a Mac, its provider,
/// a coordinator in its daily work, a receiver about its own stream, or time.
const NOBODY_ORDERED: &[&str] = &[
    "append_to_log",
    "bind_provider",
    "challenge",
    "check_in",
    "deliver_webhooks",
    "draw_beacon",
    "follow_events",
    "identify",
    "issue_by_acme",
    "issue_by_scep",
    "judge_anew",
    "manage_stream",
    "poll_signals",
    "push_signals",
    "refuse",
    "relay_answer",
    "relay_command",
    "remove_old",
    "resume",
    "renew_by_scep",
    "service_secret",
    "sweep",
    "take_over",
    "tell_log",
    "tell_of_end",
    "transmit_signals",
    "verify_now",
    "watch_push_certificates",
    "watch_standstill",
    "witness_log",
];

fn flows() -> Vec<(String, SourceFile)> {
    let file = |file: SourceFile| {
        let name = file.path.strip_prefix("src/flows/")?.strip_suffix(".rs")?;
        Some((name.to_owned(), file))
    };
    sources("src").into_iter().filter_map(file).collect()
}

#[test]
fn every_flow_that_writes_tells_the_audit_log_or_is_ordered_by_nobody() {
    let mut faults = Vec::new();
    for (name, file) in flows() {
        let writes = file.code.contains("store.write()");
        let records = file.code.contains("tx.record(");
        let listed = NOBODY_ORDERED.contains(&name.as_str());
        match (writes, records, listed) {
            (true, false, false) => faults.push(format!(
                "{} writes: have it say who ordered that (tx.record), or list it here",
                file.path
            )),
            (_, true, true) => faults.push(format!("{} records, and is listed here", file.path)),
            (false, _, true) if name != "issue_by_acme" => {
                faults.push(format!("{} writes nothing, and is listed here", file.path));
            }
            _ => {}
        }
    }
    none_of("changes that nobody answers for", &faults);
}

#[test]
fn every_verb_of_the_audit_log_is_used() {
    let code: String = flows().into_iter().map(|(_, file)| file.code).collect();
    let unused: Vec<_> = Verb::ALL
        .iter()
        .filter(|verb| !code.contains(&format!("Verb::{verb:?}")))
        .map(|verb| format!("{verb} is recorded by no flow"))
        .collect();
    none_of("verbs of the audit log that nothing does", &unused);
}

#[test]
fn who_may_change_something_is_asked_who_they_are() {
    let mut faults = Vec::new();
    for file in sources("src/http") {
        for act in ["Administer", "Enrol", "ChangePushCertificates"] {
            let forgotten = format!("if let Err(refusal) = allowed(&ctx, &asker, Act::{act})");
            if file.code.contains(&forgotten) {
                faults.push(format!("{} forgets who may {act}", file.path));
            }
        }
    }
    none_of("requests whose sender is forgotten", &faults);
}
