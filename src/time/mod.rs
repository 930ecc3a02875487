//! Points in time and spans between them.
//!
//! A [`Timestamp`] is UTC milliseconds since 1970 in a signed 64-bit integer, in memory, in both
//! databases and nowhere else: on the wire it is RFC 3339. Nouns never ask what time it is; they
//! are told. The one place that asks is [`SystemClock`].

pub mod watch;

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// UTC milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(i64);

/// The text is not an RFC 3339 date-time within the years 1970 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as 2026-10-01T09:30:07Z")]
pub struct NotATime;

impl Timestamp {
    /// The last instant RFC 3339 can write.
    const MAX_MILLIS: i64 = 253_402_300_799_999;

    /// A time from milliseconds since 1970; values outside 1970 to 9999 are moved to the nearest end.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(0, Self::MAX_MILLIS))
    }

    /// A time from whole seconds since 1970, clamped like [`Timestamp::from_millis`].
    pub fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.0 / 1000
    }

    /// This time moved forward.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self::from_millis(
            self.0
                .saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// This time moved back.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self::from_millis(
            self.0
                .saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Whether it is still to come, by more than clocks may be apart: nothing can have happened then.
    pub fn is_to_come(self, now: Self) -> bool {
        self.since(now) > watch::CLOCKS_APART
    }

    /// Reads an RFC 3339 date-time.
    pub fn parse(text: &str) -> Result<Self, NotATime> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NotATime)?;
        let millis = parsed.unix_timestamp_nanos() / 1_000_000;
        let millis = i64::try_from(millis).map_err(|_| NotATime)?;
        if (0..=Self::MAX_MILLIS).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(NotATime)
        }
    }

    fn date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// RFC 3339 in UTC: seconds precision when whole, milliseconds otherwise.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.date_time().format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A span of time as configuration and policies write it: a whole number and one of `s`, `m`, `h`,
/// `d`; `0s` is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// The text is not a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a span of time such as 90s, 5m, 24h or 14d")]
pub struct NotASpan;

impl Span {
    /// So many days.
    pub const fn days(days: u64) -> Self {
        Self(Duration::from_secs(days * 24 * 60 * 60))
    }

    /// Reads `90s`, `5m`, `24h`, `14d`.
    pub fn parse(text: &str) -> Result<Self, NotASpan> {
        let unit = match text.as_bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 60 * 60,
            Some(b'd') => 24 * 60 * 60,
            _ => return Err(NotASpan),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotASpan);
        }
        let number: u64 = digits.parse().map_err(|_| NotASpan)?;
        // A thousand years is longer than anything meant here.
        match number.checked_mul(unit) {
            Some(seconds) if seconds <= 31_557_600_000 => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(NotASpan),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => f.write_str("0s"),
            _ if seconds.is_multiple_of(86_400) => write!(f, "{}d", seconds / 86_400),
            _ if seconds.is_multiple_of(3_600) => write!(f, "{}h", seconds / 3_600),
            _ if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{seconds}s"),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Where `now` comes from. Read once at the start of a flow and passed down.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// A clock that nobody sets: how long ago some beginning of its own was.
    fn steady(&self) -> Duration;
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn steady(&self) -> Duration {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        BEGINNING.get_or_init(Instant::now).elapsed()
    }
}

/// A clock that stands still until it is moved: tests and simulated years run on it.
#[derive(Debug)]
pub struct ManualClock {
    shown: AtomicI64,
    /// Milliseconds by which it was set without time passing.
    set_by: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn at(start: Timestamp) -> Self {
        Self {
            shown: AtomicI64::new(start.millis()),
            set_by: AtomicI64::new(0),
        }
    }

    /// Time passes.
    pub fn advance(&self, span: Duration) {
        self.shown.fetch_add(
            i64::try_from(span.as_millis()).unwrap_or(i64::MAX),
            Ordering::SeqCst,
        );
    }

    /// Time passes until it is this late.
    pub fn set(&self, now: Timestamp) {
        self.shown.store(now.millis(), Ordering::SeqCst);
    }

    /// Somebody sets the clock, in whatever direction, and no time passes.
    pub fn jump(&self, to: Timestamp) {
        let before = self.shown.swap(to.millis(), Ordering::SeqCst);
        self.set_by
            .fetch_add(to.millis() - before, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.shown.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Duration {
        let shown = self.shown.load(Ordering::SeqCst);
        let passed = shown.saturating_sub(self.set_by.load(Ordering::SeqCst));
        Duration::from_millis(u64::try_from(passed).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_rfc_3339() {
        let time = Timestamp::parse("2026-10-01T09:30:07Z").expect("valid");
        assert_eq!(time.millis(), 1_790_847_007_000);
        assert_eq!(time.to_string(), "2026-10-01T09:30:07Z");
        let offset = Timestamp::parse("2026-10-01T11:30:07+02:00").expect("valid");
        assert_eq!(offset, time);
        assert_eq!(
            Timestamp::from_millis(1_790_847_007_250).to_string(),
            "2026-10-01T09:30:07.25Z"
        );
    }

    #[test]
    fn refuses_what_is_not_a_time() {
        for text in [
            "",
            "2026-10-01",
            "yesterday",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(NotATime), "{text}");
        }
    }

    #[test]
    fn spans_are_read_and_written_in_the_largest_whole_unit() {
        for text in ["0s", "90s", "5m", "24m", "36h", "14d"] {
            assert_eq!(
                Span::parse(text).map(|span| span.to_string()).as_deref(),
                Ok(text)
            );
        }
        assert_eq!(Span::parse("24h"), Span::parse("1d"));
        for bad in [
            "",
            "d",
            "-1d",
            "+1d",
            "1w",
            "1 d",
            "1.5h",
            "99999999999999999999s",
        ] {
            assert_eq!(Span::parse(bad), Err(NotASpan), "{bad}");
        }
    }

    #[test]
    fn spans_never_overflow_or_go_negative() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end.plus(Duration::MAX), end);
        assert_eq!(
            Timestamp::from_millis(5)
                .minus(Duration::from_secs(1))
                .millis(),
            0
        );
        assert_eq!(Timestamp::from_millis(5).since(end), Duration::ZERO);
    }
}
