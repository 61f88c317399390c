//! Moments as text.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// A moment in milliseconds since 1970, for people.
pub(crate) fn moment_ms(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or_else(|_| ms.to_string(), moment)
}

/// A moment in seconds since 1970, for people.
pub(crate) fn moment_s(seconds: u64) -> String {
    moment_ms(seconds.saturating_mul(1_000))
}

/// As RFC 3339 writes it, in UTC and to the second.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}

/// A moment as [`moment`] writes it, in milliseconds since 1970.
pub(crate) fn parse_moment(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator: char| -> Option<[u32; 3]> {
        let parts: Option<Vec<u32>> = text.split(separator).map(|part| part.parse().ok()).collect();
        parts?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?);
    let [hour, minute, second] = [hour, minute, second].map(|part| u8::try_from(part).ok());
    let time = Time::from_hms(hour?, minute?, second?).ok()?;
    let seconds = PrimitiveDateTime::new(date.ok()?, time).assume_utc().unix_timestamp();
    u64::try_from(seconds).ok()?.checked_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(moment_ms(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment_ms(1_709_210_096_789), "2024-02-29T12:34:56Z");
        assert_eq!(moment_ms(u64::MAX), u64::MAX.to_string());
        for ms in [0, 1_709_210_096_000, 4_102_444_800_000] {
            assert_eq!(parse_moment(&moment_ms(ms)), Some(ms));
        }
        for wrong in ["2024-02-30T00:00:00Z", "2024-02-29", "2024-02-29T25:00:00Z", "2024-2-x", ""]
        {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }
}
