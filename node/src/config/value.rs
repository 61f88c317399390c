//! Values of a configuration: what TOML has, and texts with a unit.

use std::time::Duration;

use toml::de::DeValue;

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// `"text"`
    Text(String),
    /// `42`
    Integer(i64),
    /// `true`
    Bool(bool),
    /// `["a", "b"]`
    List(Vec<String>),
}

impl Value {
    /// The value of a parsed file, where it is of a kind that any key takes.
    pub(crate) fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Ok(Self::Text(text.to_string())),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map(Self::Integer)
                .map_err(|_| format!("{} is too large", digits.as_str())),
            DeValue::Boolean(flag) => Ok(Self::Bool(*flag)),
            DeValue::Array(items) => items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Ok(text.to_string()),
                    other => Err(format!("expected a list of strings, found {}", kind(other))),
                })
                .collect::<Result<_, _>>()
                .map(Self::List),
            other @ (DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_)) => {
                Err(format!("no key takes {}", kind(other)))
            }
        }
    }

    /// How it reads in an error message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("the string {text:?}"),
            Self::Integer(number) => format!("the integer {number}"),
            Self::Bool(flag) => format!("the boolean {flag}"),
            Self::List(_) => "a list".to_owned(),
        }
    }

    /// How it reads in a file.
    pub(crate) fn to_toml(&self) -> String {
        match self {
            Self::Text(text) => toml::Value::String(text.clone()).to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::List(items) => {
                let items: Vec<String> =
                    items.iter().map(|item| Self::Text(item.clone()).to_toml()).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}

const DURATION_UNITS: [(&str, u64); 7] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

const BYTE_UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads `"50ms"`, `"30s"`, `"5min"`, `"1h"`, `"7d"`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    scaled(text, &DURATION_UNITS)
        .map(Duration::from_micros)
        .ok_or_else(|| format!("{text:?} is not a duration such as \"50ms\", \"30s\" or \"5min\""))
}

/// Reads `"64MiB"`, `"1GiB"`, `"512"`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    scaled(text, &BYTE_UNITS)
        .ok_or_else(|| format!("{text:?} is not a size such as \"64MiB\", \"1GiB\" or 4096"))
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim())?;
    digits.parse::<u64>().ok()?.checked_mul(*scale)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_known_units() {
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_duration(" 5 min "), Ok(Duration::from_secs(300)));
        assert!(parse_duration("50").is_err());
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("99999999999999d").is_err());
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert!(parse_bytes("64 megabytes").is_err());
        assert!(parse_bytes("").is_err());
    }
}
