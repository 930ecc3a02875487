//! Simulated time: milliseconds, as numbers, because the judge shares no rule of time with the
//! server.

/// Milliseconds since 1970, or between two moments.
pub type Ms = i64;

pub const SECOND: Ms = 1_000;
pub const MINUTE: Ms = 60 * SECOND;
pub const HOUR: Ms = 60 * MINUTE;
pub const DAY: Ms = 24 * HOUR;

/// When every run begins: 2026-12-01T00:00:00Z. Always the same, because names of Macs hold the time
/// they were made at, and the server spreads its questions by these names.
pub const START: Ms = 1_796_083_200_000;

/// What Macs and the service do is done at multiples of this, counted from the beginning: in a fleet of
/// two thousand much happens within it, and what happens at one moment shares commits, as it does at a
/// real server that is busy.
pub const BEAT: Ms = 20 * SECOND;

/// The beat at or after a moment.
pub fn beat(at: Ms) -> Ms {
    at + (START - at).rem_euclid(BEAT)
}

/// The whole second at or after a moment: providers tell time in whole seconds.
pub fn whole_second(at: Ms) -> Ms {
    at + (-at).rem_euclid(SECOND)
}

/// A moment as a reader wants it: days, hours, minutes and seconds since the beginning.
pub fn told(at: Ms) -> String {
    let since = at - START;
    format!(
        "day {} {:02}:{:02}:{:02}.{:03}",
        since.div_euclid(DAY),
        since.rem_euclid(DAY) / HOUR,
        since.rem_euclid(HOUR) / MINUTE,
        since.rem_euclid(MINUTE) / SECOND,
        since.rem_euclid(SECOND)
    )
}
