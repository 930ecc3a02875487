//! JSON as the provider software writes it, in the two forms that it signs.

use std::collections::BTreeMap;

use serde_json::Value;

/// The blob: Swift's `JSONEncoder` with sorted keys writes no spaces, and `/` as `\/`.
pub(super) fn swift(members: &Value) -> String {
    write(members, &|a, b| a.as_bytes().cmp(b.as_bytes())).replace('/', "\\/")
}

/// The status: names by their UTF-8 bytes at every level, nothing absent or empty, `/` as it is, and
/// the two separators that end lines in other languages escaped.
pub(super) fn status(members: &Value) -> String {
    let text = write(&without_empty(members), &|a, b| {
        a.as_bytes().cmp(b.as_bytes())
    });
    text.replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// The status as a provider once signed it: sorted as people sort (upstream's bug 825).
pub(super) fn foundation(members: &Value) -> String {
    write(&without_empty(members), &|a, b| {
        a.to_lowercase().cmp(&b.to_lowercase())
    })
}

fn without_empty(members: &Value) -> Value {
    let Value::Object(members) = members else {
        return members.clone();
    };
    let kept = members.iter().filter(|(_, value)| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    });
    Value::Object(
        kept.map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

fn write(value: &Value, order: &dyn Fn(&str, &str) -> std::cmp::Ordering) -> String {
    let Value::Object(members) = value else {
        return value.to_string();
    };
    let distinct: BTreeMap<_, _> = members.iter().collect();
    let mut sorted: Vec<_> = distinct.into_iter().collect();
    sorted.sort_by(|(a, _), (b, _)| order(a, b));
    let written: Vec<_> = sorted
        .into_iter()
        .map(|(name, value)| {
            let name = Value::String(name.clone());
            format!("{name}:{}", write(value, order))
        })
        .collect();
    format!("{{{}}}", written.join(","))
}
