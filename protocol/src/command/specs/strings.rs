//! Strings.

use bytes::Bytes;

use super::super::decimal::Decimal;
use super::super::model::{GetExExpiry, Lcs, Set, SetCondition, SetExpiry, When};
use super::super::number::parse_i64;
use super::{
    Args, CommandError, ExpiryUnit, Flags, GROW, GROW_FAST, KEY_READ, KEY_READ_AND_UPDATED,
    KEY_TOUCHED, KEY_UPDATED, KEYS_READ, Keys, Parsed, READ, READ_FAST, Read, Spec, WRITE_FAST,
    Write, one_key, read, write,
};

const GROUP: &str = "string";

pub(super) const SPECS: &[Spec] = &[
    Spec::new("get", 2, |args| read(Read::Get { key: args.key()? }))
        .flags(READ_FAST)
        .keys(KEY_READ)
        .doc(GROUP, "1.0.0", "Answers the value of a key."),
    Spec::new("set", -3, parse_set)
        .flags(GROW)
        .keys(&[one_key(&["RW", "access", "update", "variable_flags"])])
        .doc(GROUP, "1.0.0", "Sets a key, under conditions and with an expiry where asked."),
    Spec::new("setnx", 3, |args| write(Write::SetNx { key: args.key()?, value: args.take()? }))
        .flags(GROW_FAST)
        .keys(&[one_key(&["OW", "insert"])])
        .doc(GROUP, "1.0.0", "Sets a key that doesn't exist."),
    Spec::new("setex", 4, |args| parse_set_ex(args, ExpiryUnit::SECONDS))
        .flags(GROW)
        .keys(&[one_key(&["OW", "update"])])
        .doc(GROUP, "2.0.0", "Sets a key with an expiry in seconds."),
    Spec::new("psetex", 4, |args| parse_set_ex(args, ExpiryUnit::MILLIS))
        .flags(GROW)
        .keys(&[one_key(&["OW", "update"])])
        .doc(GROUP, "2.6.0", "Sets a key with an expiry in milliseconds."),
    Spec::new("getset", 3, |args| {
        let set = Set::plain(args.key()?, args.take()?);
        write(Write::Set(Set { get: true, ..set }))
    })
    .flags(GROW_FAST)
    .keys(KEY_READ_AND_UPDATED)
    .doc(GROUP, "1.0.0", "Sets a key and answers its old value."),
    Spec::new("getdel", 2, |args| write(Write::GetDel { key: args.key()? }))
        .flags(WRITE_FAST)
        .keys(&[one_key(&["RW", "access", "delete"])])
        .doc(GROUP, "6.2.0", "Answers the value of a key and deletes it."),
    Spec::new("getex", -2, parse_get_ex).flags(WRITE_FAST).keys(KEY_READ_AND_UPDATED).doc(
        GROUP,
        "6.2.0",
        "Answers the value of a key and changes its expiry.",
    ),
    Spec::new("mget", -2, |args| read(Read::MGet { keys: args.keys()? }))
        .flags(READ_FAST)
        .keys(KEYS_READ)
        .doc(GROUP, "1.0.0", "Answers the values of several keys.")
        .tips(&["request_policy:multi_shard"]),
    Spec::new("mset", -3, |args| parse_m_set(args, false))
        .flags(GROW)
        .keys(PAIRS_SET)
        .doc(GROUP, "1.0.1", "Sets several keys at once.")
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"]),
    Spec::new("msetnx", -3, |args| parse_m_set(args, true))
        .flags(GROW)
        .keys(&[Keys::new(1, -1, 2, &["OW", "insert"])])
        .doc(GROUP, "1.0.1", "Sets several keys at once if none of them exists.")
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"]),
    Spec::new("append", 3, |args| write(Write::Append { key: args.key()?, value: args.take()? }))
        .flags(GROW_FAST)
        .keys(&[one_key(&["RW", "insert"])])
        .doc(GROUP, "2.0.0", "Appends to the value of a key."),
    Spec::new("strlen", 2, |args| read(Read::StrLen { key: args.key()? }))
        .flags(READ_FAST)
        .keys(KEY_TOUCHED)
        .doc(GROUP, "2.2.0", "Answers the length of a value."),
    Spec::new("getrange", 4, parse_get_range).flags(READ).keys(KEY_READ).doc(
        GROUP,
        "2.4.0",
        "Answers a part of a value.",
    ),
    Spec::new("substr", 4, parse_get_range).flags(READ).keys(KEY_READ).doc(
        GROUP,
        "1.0.0",
        "Answers a part of a value, as GETRANGE does.",
    ),
    Spec::new("setrange", 4, parse_set_range).flags(GROW).keys(KEY_UPDATED).doc(
        GROUP,
        "2.2.0",
        "Overwrites a part of a value.",
    ),
    Spec::new("incr", 2, |args| write(Write::IncrBy { key: args.key()?, delta: 1 }))
        .flags(GROW_FAST)
        .keys(KEY_READ_AND_UPDATED)
        .doc(GROUP, "1.0.0", "Adds one to an integer."),
    Spec::new("decr", 2, |args| write(Write::IncrBy { key: args.key()?, delta: -1 }))
        .flags(GROW_FAST)
        .keys(KEY_READ_AND_UPDATED)
        .doc(GROUP, "1.0.0", "Takes one from an integer."),
    Spec::new("incrby", 3, |args| {
        write(Write::IncrBy { key: args.key()?, delta: args.integer()? })
    })
    .flags(GROW_FAST)
    .keys(KEY_READ_AND_UPDATED)
    .doc(GROUP, "1.0.0", "Adds to an integer."),
    Spec::new("decrby", 3, parse_decr_by).flags(GROW_FAST).keys(KEY_READ_AND_UPDATED).doc(
        GROUP,
        "1.0.0",
        "Takes from an integer.",
    ),
    Spec::new("incrbyfloat", 3, parse_incr_by_float)
        .flags(GROW_FAST)
        .keys(KEY_READ_AND_UPDATED)
        .doc(GROUP, "2.6.0", "Adds to a decimal number."),
    Spec::new("delifeq", 3, |args| write(Write::DelIfEq { key: args.key()?, value: args.take()? }))
        .flags(WRITE_FAST)
        .keys(&[one_key(&["RM", "delete"])])
        .doc(GROUP, "0.1.0", "Deletes a key that holds this value."),
    Spec::new("lcs", -3, parse_lcs)
        .flags(Flags::READONLY)
        .keys(&[Keys::new(1, 2, 1, &["RO", "access"])])
        .doc(GROUP, "7.0.0", "Answers the longest common subsequence of two values."),
];

const PAIRS_SET: &[Keys] = &[Keys::new(1, -1, 2, &["OW", "update"])];

fn parse_set(args: &mut Args<'_>) -> Parsed {
    let (key, value) = (args.key()?, args.take()?);
    if args.left() == 0 {
        return write(Write::Set(Set::plain(key, value)));
    }
    let (mut condition, mut expiry) = (SetCondition::Always, ExpiryOption::None);
    let mut get = false;
    while args.left() > 0 {
        if args.take_word("NX") {
            set_condition(&mut condition, SetCondition::IfNone)?;
        } else if args.take_word("XX") {
            set_condition(&mut condition, SetCondition::IfSome)?;
        } else if args.take_word("IFEQ") {
            set_condition(&mut condition, SetCondition::IfEqual(args.take()?))?;
        } else if args.take_word("GET") {
            get = true;
        } else if args.take_word("KEEPTTL") {
            expiry.choose(ExpiryOption::Keep)?;
        } else {
            expiry.parse(args)?;
        }
    }
    let expiry = match expiry {
        ExpiryOption::Keep => SetExpiry::Keep,
        ExpiryOption::None | ExpiryOption::Remove => SetExpiry::None,
        ExpiryOption::At(unit, text) => SetExpiry::At(unit.positive(&text, "set")?),
    };
    write(Write::Set(Set { key, value, condition, expiry, get }))
}

fn set_condition(chosen: &mut SetCondition, new: SetCondition) -> Result<(), CommandError> {
    let same = std::mem::discriminant(chosen) == std::mem::discriminant(&new);
    if *chosen != SetCondition::Always && !same {
        return Err(CommandError::Syntax);
    }
    *chosen = new;
    Ok(())
}

/// The expiry among the options of `SET` and `GETEX`. Its number is looked at last.
#[derive(PartialEq, Eq)]
enum ExpiryOption {
    None,
    Keep,
    Remove,
    At(ExpiryUnit, Bytes),
}

impl ExpiryOption {
    /// `EX`, `PX`, `EXAT` or `PXAT`, and its number.
    fn parse(&mut self, args: &mut Args<'_>) -> Result<(), CommandError> {
        let unit = [
            ("EX", ExpiryUnit::SECONDS),
            ("PX", ExpiryUnit::MILLIS),
            ("EXAT", ExpiryUnit::AT_SECONDS),
            ("PXAT", ExpiryUnit::AT_MILLIS),
        ]
        .into_iter()
        .find_map(|(word, unit)| args.take_word(word).then_some(unit))
        .ok_or(CommandError::Syntax)?;
        let number = args.take()?;
        self.choose(Self::At(unit, number))
    }

    /// One kind of expiry excludes all others; the last one of a kind counts.
    fn choose(&mut self, new: Self) -> Result<(), CommandError> {
        let allowed = match (&*self, &new) {
            (Self::None, _) | (Self::Keep, Self::Keep) | (Self::Remove, Self::Remove) => true,
            (Self::At(old, _), Self::At(new, _)) => old == new,
            (Self::At(..) | Self::Keep | Self::Remove, _) => false,
        };
        if !allowed {
            return Err(CommandError::Syntax);
        }
        *self = new;
        Ok(())
    }
}

fn parse_set_ex(args: &mut Args<'_>, unit: ExpiryUnit) -> Parsed {
    let (key, number, value) = (args.key()?, args.take()?, args.take()?);
    let when: When = unit.positive(&number, args.spec().name)?;
    write(Write::Set(Set { expiry: SetExpiry::At(when), ..Set::plain(key, value) }))
}

fn parse_get_ex(args: &mut Args<'_>) -> Parsed {
    let key = args.key()?;
    let mut expiry = ExpiryOption::None;
    while args.left() > 0 {
        if args.take_word("PERSIST") {
            expiry.choose(ExpiryOption::Remove)?;
        } else {
            expiry.parse(args)?;
        }
    }
    let expiry = match expiry {
        ExpiryOption::None | ExpiryOption::Keep => GetExExpiry::Keep,
        ExpiryOption::Remove => GetExExpiry::Remove,
        ExpiryOption::At(unit, text) => GetExExpiry::At(unit.positive(&text, "getex")?),
    };
    write(Write::GetEx { key, expiry })
}

fn parse_m_set(args: &mut Args<'_>, only_if_none: bool) -> Parsed {
    if args.left() % 2 == 1 {
        return Err(CommandError::WrongArity { name: args.spec().name.to_owned() });
    }
    let mut pairs = Vec::with_capacity(args.left() / 2);
    while args.left() > 0 {
        pairs.push((args.key()?, args.take()?));
    }
    write(Write::MSet { pairs, only_if_none })
}

fn parse_get_range(args: &mut Args<'_>) -> Parsed {
    read(Read::GetRange { key: args.key()?, start: args.integer()?, end: args.integer()? })
}

fn parse_set_range(args: &mut Args<'_>) -> Parsed {
    let (key, offset, value) = (args.key()?, args.integer()?, args.take()?);
    let offset =
        u64::try_from(offset).map_err(|_| CommandError::Other("ERR offset is out of range"))?;
    write(Write::SetRange { key, offset, value })
}

fn parse_decr_by(args: &mut Args<'_>) -> Parsed {
    let (key, number) = (args.key()?, args.integer()?);
    let delta = number.checked_neg().ok_or(CommandError::Other("ERR decrement would overflow"))?;
    write(Write::IncrBy { key, delta })
}

fn parse_incr_by_float(args: &mut Args<'_>) -> Parsed {
    let (key, delta) = (args.key()?, args.take()?);
    if Decimal::parse(&delta).is_none() && !Decimal::is_infinity(&delta) {
        return Err(CommandError::NotAFloat);
    }
    write(Write::IncrByFloat { key, delta })
}

fn parse_lcs(args: &mut Args<'_>) -> Parsed {
    let (first, second) = (args.key()?, args.key()?);
    let mut lcs =
        Lcs { first, second, len: false, idx: false, min_match_len: 0, with_match_len: false };
    while args.left() > 0 {
        if args.take_word("IDX") {
            lcs.idx = true;
        } else if args.take_word("LEN") {
            lcs.len = true;
        } else if args.take_word("WITHMATCHLEN") {
            lcs.with_match_len = true;
        } else if args.take_word("MINMATCHLEN") {
            let number = parse_i64(&args.take()?).ok_or(CommandError::NotAnInteger)?;
            lcs.min_match_len = number.max(0);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if lcs.idx && lcs.len {
        return Err(CommandError::Other(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    read(Read::Lcs(lcs))
}
