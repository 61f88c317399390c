//! The table of commands: one [`Spec`] each, with what clients may ask about it and how it is
//! parsed. Everything that depends on a command's name is in its `Spec`.

use bytes::Bytes;

use super::args::Args;
use super::error::CommandError;
use super::model::Command;
use super::specs;

/// One command, or one subcommand of a container.
#[derive(Clone, Copy)]
pub struct Spec {
    /// Lower case; `container|subcommand` for a subcommand.
    pub name: &'static str,
    /// Number of arguments with the name; negative for "at least".
    pub arity: i32,
    /// Properties, as in `COMMAND INFO`.
    pub flags: Flags,
    /// Where its keys are: ranges of arguments that it treats alike.
    pub keys: &'static [Keys],
    /// What `COMMAND DOCS` calls its group.
    pub group: &'static str,
    /// The Redis version that had it first; for Quorate's own commands, Quorate's.
    pub since: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// For a container, its subcommands.
    pub subcommands: &'static [Spec],
    /// Hints for cluster clients.
    pub tips: &'static [&'static str],
    parse: ParseFn,
}

/// Arguments to command; called only if the arity fits.
pub(super) type ParseFn = fn(&mut Args<'_>) -> Result<Command, CommandError>;

/// Properties of a command: a set of the constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

/// A range of arguments that are keys, the command's name being argument 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first key.
    pub first: i32,
    /// The last key; negative counts from the end.
    pub last: i32,
    /// From one key to the next.
    pub step: i32,
    /// What the command does with them, in the words of Redis's key specifications.
    pub access: &'static [&'static str],
}

impl Flags {
    /// Changes the keyspace.
    pub const WRITE: Self = Self(1);
    /// Reads the keyspace.
    pub const READONLY: Self = Self(1 << 1);
    /// May need memory.
    pub const DENYOOM: Self = Self(1 << 2);
    /// For operators.
    pub const ADMIN: Self = Self(1 << 3);
    /// About publish and subscribe.
    pub const PUBSUB: Self = Self(1 << 4);
    /// Not for scripts.
    pub const NOSCRIPT: Self = Self(1 << 5);
    /// Works while the node isn't ready.
    pub const LOADING: Self = Self(1 << 6);
    /// Works without a primary.
    pub const STALE: Self = Self(1 << 7);
    /// Takes constant time.
    pub const FAST: Self = Self(1 << 8);
    /// Works before authentication.
    pub const NO_AUTH: Self = Self(1 << 9);
    /// Works while a script runs.
    pub const ALLOW_BUSY: Self = Self(1 << 10);
    /// Not in the slow log.
    pub const SKIP_SLOWLOG: Self = Self(1 << 11);
    /// Not between `MULTI` and `EXEC`.
    pub const NO_MULTI: Self = Self(1 << 12);
    /// Nothing special.
    pub const NONE: Self = Self(0);

    const NAMES: [(Self, &'static str); 13] = [
        (Self::WRITE, "write"),
        (Self::READONLY, "readonly"),
        (Self::DENYOOM, "denyoom"),
        (Self::ADMIN, "admin"),
        (Self::PUBSUB, "pubsub"),
        (Self::NOSCRIPT, "noscript"),
        (Self::LOADING, "loading"),
        (Self::STALE, "stale"),
        (Self::SKIP_SLOWLOG, "skip_slowlog"),
        (Self::FAST, "fast"),
        (Self::NO_AUTH, "no_auth"),
        (Self::NO_MULTI, "no_multi"),
        (Self::ALLOW_BUSY, "allow_busy"),
    ];

    /// This set and the other.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Names of what is set, in Redis's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |&(flag, _)| self.has(flag)).map(|(_, name)| name)
    }
}

impl Keys {
    pub(super) const fn new(
        first: i32,
        last: i32,
        step: i32,
        access: &'static [&'static str],
    ) -> Self {
        Self { first, last, step, access }
    }

    /// Indexes of the keys in an argument list of this length, its name included.
    pub fn indexes(self, count: usize) -> impl Iterator<Item = usize> {
        let last =
            if self.last < 0 { count as i64 + i64::from(self.last) } else { self.last.into() };
        let last = last.min(count as i64 - 1);
        let step = usize::try_from(self.step).unwrap_or(1).max(1);
        (i64::from(self.first)..=last).step_by(step).filter_map(|index| usize::try_from(index).ok())
    }
}

impl Spec {
    pub(super) const fn new(name: &'static str, arity: i32, parse: ParseFn) -> Self {
        Self {
            name,
            arity,
            flags: Flags::NONE,
            keys: &[],
            group: "",
            since: "",
            summary: "",
            subcommands: &[],
            tips: &[],
            parse,
        }
    }

    /// A command that only exists with a subcommand.
    pub(super) const fn container(name: &'static str, subcommands: &'static [Self]) -> Self {
        let container = Self::new(name, -2, |_| Err(CommandError::Syntax));
        Self { subcommands, ..container }
    }

    pub(super) const fn flags(self, flags: Flags) -> Self {
        Self { flags, ..self }
    }

    pub(super) const fn keys(self, keys: &'static [Keys]) -> Self {
        Self { keys, ..self }
    }

    pub(super) const fn doc(
        self,
        group: &'static str,
        since: &'static str,
        summary: &'static str,
    ) -> Self {
        Self { group, since, summary, ..self }
    }

    pub(super) const fn tips(self, tips: &'static [&'static str]) -> Self {
        Self { tips, ..self }
    }

    pub(super) const fn subcommands(self, subcommands: &'static [Self]) -> Self {
        Self { subcommands, ..self }
    }

    /// Whether so many arguments, the name included, are allowed.
    #[must_use]
    pub fn accepts(&self, count: usize) -> bool {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let arity = i64::from(self.arity);
        if arity >= 0 { count == arity } else { count >= -arity }
    }

    /// Whether it is a subcommand, so that its arguments begin after two names.
    #[must_use]
    pub fn is_subcommand(&self) -> bool {
        self.name.contains('|')
    }
}

/// The command with this name, in any case.
#[must_use]
pub fn find(name: &[u8]) -> Option<&'static Spec> {
    let mut bucket = hash(name) as usize % BUCKETS;
    loop {
        match INDEX[bucket] {
            EMPTY => return None,
            at => {
                let spec = all_at(at);
                if spec.name.as_bytes().eq_ignore_ascii_case(name) {
                    return Some(spec);
                }
            }
        }
        bucket = (bucket + 1) % BUCKETS;
    }
}

/// The subcommand of this container with this name, in any case.
pub(super) fn find_subcommand(container: &Spec, name: &[u8]) -> Option<&'static Spec> {
    container.subcommands.iter().find(|spec| {
        spec.name.split_once('|').is_some_and(|(_, sub)| sub.as_bytes().eq_ignore_ascii_case(name))
    })
}

/// All commands, without subcommands.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    specs::GROUPS.iter().flat_map(|group| group.iter())
}

/// Parses one command; its arguments are moved out of `argv`.
///
/// # Errors
/// In Redis's words, and in the order in which Redis finds them: unknown command or subcommand,
/// number of arguments, then the arguments from left to right. An empty `argv` is a syntax error.
pub fn parse(argv: &mut [Bytes]) -> Result<Command, CommandError> {
    let Some(name) = argv.first() else { return Err(CommandError::Syntax) };
    let Some(mut spec) = find(name) else {
        return Err(CommandError::unknown_command(argv));
    };
    if let (false, Some(name)) = (spec.subcommands.is_empty(), argv.get(1)) {
        spec = find_subcommand(spec, name)
            .ok_or_else(|| CommandError::unknown_subcommand(spec.name, name))?;
    }
    if !spec.accepts(argv.len()) {
        return Err(CommandError::WrongArity { name: spec.name.to_owned() });
    }
    let skip = if spec.is_subcommand() { 2 } else { 1 };
    (spec.parse)(&mut Args::new(spec, argv, skip))
}

// An open-addressed table over the names, built when compiling: one probe for most commands,
// at any case of letters, without allocation.
const BUCKETS: usize = 512;
const EMPTY: u16 = u16::MAX;
static INDEX: [u16; BUCKETS] = index();

const fn index() -> [u16; BUCKETS] {
    let mut table = [EMPTY; BUCKETS];
    let mut group = 0;
    while group < specs::GROUPS.len() {
        let mut at = 0;
        while at < specs::GROUPS[group].len() {
            let mut bucket = hash(specs::GROUPS[group][at].name.as_bytes()) as usize % BUCKETS;
            while table[bucket] != EMPTY {
                bucket = (bucket + 1) % BUCKETS;
            }
            table[bucket] = (group as u16) << 8 | at as u16;
            at += 1;
        }
        group += 1;
    }
    table
}

fn all_at(at: u16) -> &'static Spec {
    &specs::GROUPS[usize::from(at >> 8)][usize::from(at & 0xff)]
}

/// FNV-1a over the lower-case name; long names can't be commands, so only a prefix counts.
const fn hash(name: &[u8]) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() && at < 24 {
        hash = (hash ^ name[at].to_ascii_lowercase() as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}
