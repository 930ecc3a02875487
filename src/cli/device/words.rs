//! Times, reasons and names as people read them.

use std::time::Duration;

use serde::Serialize;

use crate::time::Timestamp;

/// How long ago, or in how long: two units at most.
pub(super) fn when(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", long(at.since(now)))
    } else {
        format!("{} ago", long(now.since(at)))
    }
}

/// A time and how far away it is.
pub(super) fn dated(at: Timestamp, now: Timestamp) -> String {
    format!("{at} ({})", when(at, now))
}

/// As [`dated`]; `-` for none.
pub(super) fn dated_if_any(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "-".to_owned(), |at| dated(at, now))
}

/// The word that a value is published as.
pub(super) fn word(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(serde_json::Value::Null) | Err(_) => "-".to_owned(),
        Ok(other) => other.to_string(),
    }
}

fn long(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if minutes == 0 {
        format!("{seconds} s")
    } else if hours == 0 {
        format!("{minutes} min")
    } else if days == 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if days < 10 {
        format!("{days} d {} h", hours % 24)
    } else {
        format!("{days} d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_by_its_distance() {
        let now = Timestamp::from_seconds(1_790_847_007);
        let distances = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
            (900_000, "10 d"),
        ];
        for (seconds, words) in distances {
            let span = Duration::from_secs(seconds);
            assert_eq!(when(now.minus(span), now), format!("{words} ago"));
            if seconds > 0 {
                assert_eq!(when(now.plus(span), now), format!("in {words}"));
            }
        }
    }
}
