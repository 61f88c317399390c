//! Moments as text.

use time::OffsetDateTime;

/// A moment in milliseconds since 1970, for people.
pub(crate) fn moment_ms(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or_else(|_| ms.to_string(), moment)
}

/// As RFC 3339 writes it, in UTC and to the second.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(moment_ms(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment_ms(1_709_210_096_789), "2024-02-29T12:34:56Z");
        assert_eq!(moment_ms(u64::MAX), u64::MAX.to_string());
    }
}
