//! The outcome classes of a write, as a client can tell them apart.

use crate::resp::{ClientError, Value};

/// How a command ended for the client that sent it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The server confirmed it, with this reply.
    Done(Value),
    /// The server says that it did not happen and never will.
    Refused(String),
    /// The server says that it may have happened.
    InDoubt(String),
    /// No answer came: it may have happened.
    Lost(String),
}

/// First words of errors by which a node promises that a command had no effect.
const REFUSALS: &[&str] = &[
    "MOVED",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "UNHEALTHY",
    "DISKFULL",
    "OVERLOADED",
    "OOM",
    "TIMEOUT",
    "DRAINING",
    "READONLY",
    "NOAUTH",
    "NOPERM",
    "MASTERDOWN",
    "ERR",
    "WRONGTYPE",
    "EXECABORT",
    "NOPROTO",
    "WRONGPASS",
];

impl Outcome {
    /// The outcome of one command.
    ///
    /// # Panics
    ///
    /// On an error code that is in no class: a client could not know what it means.
    #[must_use]
    pub fn of(result: Result<Value, ClientError>) -> Self {
        match result {
            Ok(Value::Error(text)) => {
                let code = text.split(' ').next().unwrap_or_default();
                if code == "INDOUBT" {
                    Self::InDoubt(text)
                } else if REFUSALS.contains(&code) {
                    Self::Refused(text)
                } else {
                    panic!("error outside of every outcome class: {text}")
                }
            }
            Ok(value) => Self::Done(value),
            Err(error @ ClientError::Connect { .. }) => Self::Refused(error.to_string()),
            Err(error @ ClientError::Malformed(_)) => panic!("{error}"),
            Err(error @ (ClientError::Lost(_) | ClientError::Timeout(_))) => {
                Self::Lost(error.to_string())
            }
        }
    }

    /// Whether nobody can say if it happened.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::InDoubt(_) | Self::Lost(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_fall_into_their_classes() {
        let of = |text: &str| Outcome::of(Ok(Value::Error(text.into())));
        assert!(matches!(of("CLUSTERDOWN no primary"), Outcome::Refused(_)));
        assert!(matches!(of("INDOUBT epoch=1 seq=2 index=0 reason=deadline"), Outcome::InDoubt(_)));
        assert!(of("INDOUBT epoch=? seq=? index=? reason=link").is_unknown());
        assert!(!of("NOREPLICAS two of three needed").is_unknown());
        assert!(Outcome::of(Err(ClientError::Timeout(std::time::Duration::ZERO))).is_unknown());
        assert!(!Outcome::of(Ok(Value::Simple("OK".into()))).is_unknown());
    }

    #[test]
    #[should_panic(expected = "outside of every outcome class")]
    fn an_unknown_code_is_a_failure() {
        let _ = Outcome::of(Ok(Value::Error("SOMETHING new".into())));
    }
}
