//! Reads a file and the environment into values by key, and refuses keys that don't exist.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Origin};
use super::keys::{self, KEYS, Key, Kind, SECTIONS};
use super::value::Value;

/// Variables that start like overrides but are not: the command line and the node itself read them.
const OTHER_VARIABLES: [&str; 7] = [
    "QUORATE_ADMIN",
    "QUORATE_CONFIG",
    "QUORATE_TARGET_DIR",
    "QUORATE_PYTHON",
    "QUORATE_BIN",
    "QUORATE_SNAPSHOT_INSTALL_MS",
    "QUORATE_PRETEND_CLUSTER_VERSION",
];

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What was set, and where.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The file.
    pub(crate) path: PathBuf,
    found: BTreeMap<&'static str, (Value, Origin)>,
}

impl Source {
    /// Reads the file, and lets the given variables override it.
    pub(crate) fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let refuse = |message: String| ConfigError {
            origin: Origin::File(path.to_owned()),
            key: String::new(),
            message,
        };
        let size = std::fs::metadata(path)
            .map_err(|error| refuse(format!("can't read it: {error}")))?
            .len();
        if size > FILE_BYTES_MAX {
            return Err(refuse(format!("{size} bytes is no configuration file")).into());
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| refuse(format!("can't read it: {error}")))?;
        Self::parse(path, &text, environment)
    }

    /// The same, with the file's text at hand.
    pub(crate) fn parse(
        path: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let mut source = Self { path: path.to_owned(), found: BTreeMap::new() };
        let mut errors = Vec::new();
        let line_of = |offset: usize| 1 + text[..offset].matches('\n').count();
        match DeTable::parse(text) {
            Ok(table) => {
                source.take_table(table.get_ref(), "", &line_of, &mut errors);
            }
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(span.start.min(text.len())));
                errors.push(ConfigError {
                    origin: Origin::Line(path.to_owned(), line),
                    key: String::new(),
                    message: format!("not TOML: {}", error.message()),
                });
            }
        }
        for (name, text) in environment {
            source.take_variable(&name, &text, &mut errors);
        }
        ConfigErrors::check(errors).map(|()| source)
    }

    /// The value of a key and where it was set.
    pub(crate) fn get(&self, path: &str) -> Option<&(Value, Origin)> {
        self.found.get(path)
    }

    /// Where a key was set, or the file where it wasn't.
    pub(crate) fn origin(&self, path: &str) -> Origin {
        self.found
            .get(path)
            .map_or_else(|| Origin::File(self.path.clone()), |(_, origin)| origin.clone())
    }

    fn take_table(
        &mut self,
        table: &DeTable<'_>,
        prefix: &str,
        line_of: &impl Fn(usize) -> usize,
        errors: &mut Vec<ConfigError>,
    ) {
        for (name, value) in table {
            let path = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let origin = Origin::Line(self.path.clone(), line_of(name.span().start));
            let is_section = KEYS
                .iter()
                .any(|key| key.section() == path || key.section().starts_with(&format!("{path}.")));
            if let (DeValue::Table(inner), true) = (value.get_ref(), is_section) {
                self.take_table(inner, &path, line_of, errors);
                continue;
            }
            let taken = match keys::find(&path) {
                Some(key) => Value::from_toml(value.get_ref()).map(|value| (key.path, value)),
                None => Err(unknown(&path)),
            };
            match taken {
                Ok((path, value)) => drop(self.found.insert(path, (value, origin))),
                Err(message) => errors.push(ConfigError { origin, key: path, message }),
            }
        }
    }

    fn take_variable(&mut self, name: &str, text: &str, errors: &mut Vec<ConfigError>) {
        if !name.starts_with("QUORATE_") || OTHER_VARIABLES.contains(&name) {
            return;
        }
        let origin = Origin::Environment(name.to_owned());
        let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
            let path = name["QUORATE_".len()..].to_ascii_lowercase().replace("__", ".");
            errors.push(ConfigError { origin, message: unknown(&path), key: path });
            return;
        };
        match from_variable(key, text) {
            Ok(value) => drop(self.found.insert(key.path, (value, origin))),
            Err(message) => {
                errors.push(ConfigError { origin, key: key.path.to_owned(), message });
            }
        }
    }
}

/// A variable's text is the value itself for keys that take a string, else TOML.
fn from_variable(key: &Key, text: &str) -> Result<Value, String> {
    match key.kind {
        Kind::Text | Kind::Path | Kind::Address | Kind::HostPort | Kind::Duration | Kind::Bytes => {
            Ok(Value::Text(text.to_owned()))
        }
        Kind::Integer | Kind::Bool | Kind::List => {
            let value =
                DeValue::parse(text).map_err(|error| format!("not TOML: {}", error.message()))?;
            Value::from_toml(value.get_ref())
        }
    }
}

/// The complaint about a key that doesn't exist, with the nearest one that does.
fn unknown(path: &str) -> String {
    let keys = KEYS.iter().map(|key| {
        // A right name in a wrong section is a likely slip, too.
        let same_name = path.rsplit('.').next() == Some(key.name());
        (if same_name { 1 } else { strsim::damerau_levenshtein(path, key.path) }, key.path)
    });
    let sections =
        SECTIONS.iter().map(|(name, _)| (strsim::damerau_levenshtein(path, name), *name));
    let nearest = sections.chain(keys).min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, near)) if distance <= 1 + path.len() / 4 => {
            format!("unknown key; did you mean `{near}`?")
        }
        Some(_) | None => "unknown key (`quorate init` writes a file with all of them)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Source, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Source::parse(Path::new("q.toml"), text, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn every_complaint_names_file_line_and_key() {
        let text = "[node]\nid = 1\ndata_dri = \"/x\"\n\n[clinet]\nlisten = \"127.0.0.1:1\"\n";
        let error = parse(text, &[]).expect_err("two unknown keys");
        assert_eq!(
            error,
            "q.toml:3: node.data_dri: unknown key; did you mean `node.data_dir`?\n\
             q.toml:5: clinet: unknown key; did you mean `client`?"
        );
    }

    #[test]
    fn text_that_is_not_toml_names_its_line() {
        let error = parse("[node]\nid = \n", &[]).expect_err("no value");
        assert!(error.starts_with("q.toml:2: not TOML: "), "{error}");
    }

    #[test]
    fn a_right_name_in_a_wrong_section_is_recognised() {
        let error = parse("[client]\nheartbeat = \"50ms\"\n", &[]).expect_err("wrong section");
        assert!(error.ends_with("did you mean `cluster.heartbeat`?"), "{error}");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let source = parse(
            "[client]\nmaxclients = 5\n",
            &[("QUORATE_CLIENT__MAXCLIENTS", "7"), ("QUORATE_NODE__DATA_DIR", "/d"), ("HOME", "/")],
        )
        .expect("both exist");
        assert_eq!(source.get("client.maxclients").map(|(v, _)| v), Some(&Value::Integer(7)));
        assert_eq!(
            source.get("node.data_dir").map(|(v, _)| v),
            Some(&Value::Text("/d".to_owned()))
        );
    }

    #[test]
    fn an_unknown_variable_is_refused_by_name() {
        let error = parse("", &[("QUORATE_CLIENT__LISTNE", "x")]).expect_err("a slip");
        assert_eq!(
            error,
            "environment variable QUORATE_CLIENT__LISTNE: client.listne: unknown key; did you \
             mean `client.listen`?"
        );
    }

    #[test]
    fn values_of_no_key_s_kind_are_refused() {
        let error = parse("[node]\nid = 1.5\n", &[]).expect_err("a float");
        assert_eq!(error, "q.toml:2: node.id: no key takes a float");
    }
}
