//! The commented example, and the effective settings, both from the list of keys.

use std::fmt::Write as _;

use super::keys::{Fallback, KEYS, Key, SECTIONS};
use super::source::Source;

/// Comments are broken before this column.
const COLUMNS: usize = 92;

/// A file with every key: keys that must be set are set, all others are comments that show the
/// default.
pub(crate) fn example() -> String {
    let mut text = String::from(
        "# Configuration of one Quorate node. Keys that are commented out show their default;\n\
         # `quorate config check --config FILE` checks a file, `quorate config show` prints what\n\
         # holds. An environment variable overrides a key: client.listen is set by\n\
         # QUORATE_CLIENT__LISTEN. Relative paths count from this file's folder. What is marked\n\
         # (reload) can change while the node runs, by `quorate config reload` or SIGHUP.\n",
    );
    for (section, about) in SECTIONS {
        let _ = write!(text, "\n{}[{section}]\n", comment(about));
        for key in KEYS.iter().filter(|key| key.section() == *section) {
            let mark = if key.is_reloadable() { " (reload)" } else { "" };
            let doc = comment(&format!("{}{mark}", key.doc));
            let _ = write!(text, "\n{doc}{}\n", setting(key));
        }
    }
    text
}

/// Every key that holds a value, with where it comes from. Secrets are not shown.
pub(crate) fn effective(source: &Source) -> String {
    let mut text = String::new();
    for (section, _) in SECTIONS {
        let _ = writeln!(text, "{}[{section}]", if text.is_empty() { "" } else { "\n" });
        for key in KEYS.iter().filter(|key| key.section() == *section) {
            let line = match (source.get(key.path), key.fallback) {
                (Some((_, origin)), _) if key.path == "client.requirepass" => {
                    format!("{} = \"…\"  # {origin}", key.name())
                }
                (Some((value, origin)), _) => {
                    format!("{} = {}  # {origin}", key.name(), value.to_toml())
                }
                (None, Fallback::Value(value)) => format!("{} = {value}  # default", key.name()),
                (None, Fallback::Required(_) | Fallback::Unset(_)) => {
                    format!("# {} is not set", key.name())
                }
            };
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn setting(key: &Key) -> String {
    match key.fallback {
        Fallback::Required(value) => format!("{} = {value}", key.name()),
        Fallback::Value(value) => format!("#{} = {value}", key.name()),
        Fallback::Unset(value) => format!("#{} = {value}  # not set by default", key.name()),
    }
}

fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > COLUMNS {
            lines.push_str(&line);
            lines.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}
