//! Whether what was archived is also where an operator wants it before a backup is called good.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use quorate_protocol::cluster::MemberKind;
use quorate_protocol::types::Seq;

use crate::view::{Published, Role, View};

/// How long a run waits for it.
const LIMIT: Duration = Duration::from_secs(5);

/// How often it looks.
const POLL: Duration = Duration::from_millis(20);

/// Who must have the last archived entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// The archiving node, on disk.
    #[default]
    Local,
    /// So many voters, on disk. Only the primary knows.
    Voters(usize),
    /// Those that the policy asks for.
    Policy,
}

impl FromStr for Ack {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let parsed = match words[..] {
            ["local"] => Some(Self::Local),
            ["policy"] => Some(Self::Policy),
            ["ack_n", count] => count.parse().ok().filter(|count| *count > 0).map(Self::Voters),
            _ => None,
        };
        parsed.ok_or("local, policy, or ack_n N with N voters")
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Voters(count) => write!(f, "ack_n {count}"),
            Self::Policy => f.write_str("policy"),
        }
    }
}

impl Ack {
    /// Waits for it, within its limit. `go_on` ends the wait early.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn wait(
        self,
        published: &Published,
        seq: Seq,
        go_on: impl Fn() -> bool,
    ) -> Result<(), String> {
        let until = Instant::now() + LIMIT;
        // The cursors of others are published as they move, while someone looks.
        let _watch = published.watch_cursors();
        loop {
            let missing = match self.missing(published, seq) {
                Ok(None) => return Ok(()),
                Ok(Some(missing)) => missing,
                Err(unknown) => return Err(unknown),
            };
            if Instant::now() >= until || !go_on() {
                return Err(missing);
            }
            std::thread::sleep(POLL);
        }
    }

    /// What is missing yet; an error if this node can't know.
    fn missing(self, published: &Published, seq: Seq) -> Result<Option<String>, String> {
        let view = published.view();
        let missing = match self {
            Self::Local if view.persisted >= seq => None,
            Self::Local => Some("this node does not have it on disk yet".to_owned()),
            Self::Policy if published.acknowledgeable() >= seq => None,
            Self::Policy => Some("the policy is not met for it yet".to_owned()),
            Self::Voters(_) if view.role != Role::Primary => {
                return Err("only the primary knows what other nodes have on disk".to_owned());
            }
            Self::Voters(wanted) => {
                let found = voters_with(&view, seq);
                (found < wanted).then(|| format!("{found} of {wanted} voters have it on disk"))
            }
        };
        Ok(missing)
    }
}

fn voters_with(view: &View, seq: Seq) -> usize {
    let members = view.config.iter().flat_map(|config| &config.members);
    let has = |node| {
        let peer = view.peers.iter().find(|peer| peer.node == node);
        let persisted = if node == view.node { Some(view.persisted) } else { None };
        persisted.or(peer.map(|peer| peer.persisted)).is_some_and(|persisted| persisted >= seq)
    };
    members.filter(|member| member.kind == MemberKind::Voter && has(member.node)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_configuration() {
        for text in ["local", "policy", "ack_n 2"] {
            assert_eq!(text.parse::<Ack>().map(|ack| ack.to_string()), Ok(text.to_owned()));
        }
        for wrong in ["", "all", "ack_n", "ack_n 0", "ack_n x", "local 1"] {
            assert!(wrong.parse::<Ack>().is_err(), "{wrong}");
        }
    }
}
