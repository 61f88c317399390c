//! `clause ("&&" clause)*`, clause = `("persisted" | "in_memory") ">=" (count | "majority" | "all")`,
//! or the name of a preset.

use std::fmt;

use super::{Level, Policy, Threshold};

/// Why a policy's text is refused. Every message names the clause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum PolicyError {
    /// Nothing between two `&&`, or nothing at all.
    #[error("empty clause in policy `{policy}`")]
    EmptyClause {
        /// The whole text.
        policy: String,
    },
    /// Neither a preset nor `level>=threshold`.
    #[error(
        "clause `{clause}` is not `persisted>=N` or `in_memory>=N` (N: a count, `majority` or \
         `all`), nor is the policy one of local, memory, hybrid, majority, durably-replicated, all"
    )]
    Syntax {
        /// The clause as written.
        clause: String,
    },
    /// A count of zero promises nothing.
    #[error("clause `{clause}` asks for zero copies")]
    Zero {
        /// The clause as written.
        clause: String,
    },
    /// More copies than there are voters to hold them.
    #[error("clause `{clause}` asks for {copies} copies, but there are {voters} voters")]
    TooMany {
        /// The clause as written.
        clause: String,
        /// What it asks for.
        copies: usize,
        /// What there is.
        voters: usize,
    },
    /// A level may be named once.
    #[error("clause `{clause}` repeats a level that an earlier clause names")]
    Duplicate {
        /// The second clause of that level.
        clause: String,
    },
}

impl Policy {
    /// Reads a preset's name or a policy, and checks it against the number of voters.
    ///
    /// # Errors
    /// A text that is no policy, or one that these voters can never meet; the message names the
    /// clause.
    pub fn parse(text: &str, voters: usize) -> Result<Self, PolicyError> {
        let policy = match Self::preset(text.trim()) {
            Some(policy) => policy,
            None => Self::parse_clauses(text)?,
        };
        policy.check(voters)?;
        Ok(policy)
    }

    /// Whether so many voters can meet the policy.
    ///
    /// # Errors
    /// Names the first clause that they can't.
    pub fn check(&self, voters: usize) -> Result<(), PolicyError> {
        if self.clauses().next().is_none() {
            return Err(PolicyError::EmptyClause { policy: String::new() });
        }
        for (level, threshold) in self.clauses() {
            let copies = threshold.copies(voters);
            if copies > voters || copies == 0 {
                let clause = clause_text(level, threshold);
                return Err(PolicyError::TooMany { clause, copies, voters });
            }
        }
        Ok(())
    }

    /// The policy with this name.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "local" => Some(Self::LOCAL),
            "memory" => Some(Self::MEMORY),
            "hybrid" => Some(Self::HYBRID),
            "majority" | "durably-replicated" => Some(Self::MAJORITY),
            "all" => Some(Self::ALL),
            _ => None,
        }
    }

    /// The preset that is this policy.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        ["local", "memory", "hybrid", "majority", "all"]
            .into_iter()
            .find(|name| Self::preset(name) == Some(*self))
    }

    fn parse_clauses(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self { persisted: None, in_memory: None };
        for clause in text.split("&&").map(str::trim) {
            if clause.is_empty() {
                return Err(PolicyError::EmptyClause { policy: text.to_owned() });
            }
            let (level, threshold) = parse_clause(clause)?;
            let slot = match level {
                Level::Persisted => &mut policy.persisted,
                Level::InMemory => &mut policy.in_memory,
            };
            if slot.replace(threshold).is_some() {
                return Err(PolicyError::Duplicate { clause: clause.to_owned() });
            }
        }
        Ok(policy)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (level, threshold)) in self.clauses().enumerate() {
            if index > 0 {
                f.write_str(" && ")?;
            }
            f.write_str(&clause_text(level, threshold))?;
        }
        Ok(())
    }
}

pub(super) fn clause_text(level: Level, threshold: Threshold) -> String {
    match threshold {
        Threshold::Count(count) => format!("{}>={count}", level.name()),
        Threshold::Majority => format!("{}>=majority", level.name()),
        Threshold::All => format!("{}>=all", level.name()),
    }
}

fn parse_clause(clause: &str) -> Result<(Level, Threshold), PolicyError> {
    let syntax = || PolicyError::Syntax { clause: clause.to_owned() };
    let (level, threshold) = clause.split_once(">=").ok_or_else(syntax)?;
    let level = match level.trim() {
        "persisted" => Level::Persisted,
        "in_memory" => Level::InMemory,
        _ => return Err(syntax()),
    };
    let threshold = match threshold.trim() {
        "majority" => Threshold::Majority,
        "all" => Threshold::All,
        count => match count.parse::<u8>().map_err(|_| syntax())? {
            0 => {
                return Err(PolicyError::Zero { clause: clause.to_owned() });
            }
            count => Threshold::Count(count),
        },
    };
    Ok((level, threshold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_and_clauses_read_and_print() {
        for (text, printed) in [
            ("local", "persisted>=1"),
            ("memory", "in_memory>=2"),
            ("hybrid", "persisted>=1 && in_memory>=2"),
            ("majority", "persisted>=majority"),
            ("durably-replicated", "persisted>=majority"),
            ("all", "persisted>=all"),
            ("in_memory >= all&&persisted>= 2", "persisted>=2 && in_memory>=all"),
        ] {
            let policy = Policy::parse(text, 3).expect(text);
            assert_eq!(policy.to_string(), printed);
            assert_eq!(Policy::parse(printed, 3), Ok(policy));
        }
    }

    #[test]
    fn bad_policies_are_refused_by_the_name_of_the_clause() {
        for (text, voters, message) in [
            ("", 3, "empty clause in policy ``"),
            ("persisted>=1 &&", 3, "empty clause in policy `persisted>=1 &&`"),
            ("persisted>=0", 3, "clause `persisted>=0` asks for zero copies"),
            ("persisted>=4", 3, "clause `persisted>=4` asks for 4 copies, but there are 3 voters"),
            ("memory", 1, "clause `in_memory>=2` asks for 2 copies, but there are 1 voters"),
            (
                "persisted>=1 && persisted>=2",
                3,
                "clause `persisted>=2` repeats a level that an earlier clause names",
            ),
        ] {
            assert_eq!(Policy::parse(text, voters).unwrap_err().to_string(), message);
        }
        for text in ["persisted", "disk>=1", "persisted>1", "persisted>=999", "quorum"] {
            let error = Policy::parse(text, 3).unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }
}
