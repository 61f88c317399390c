//! Keys of any type.

use super::super::model::{ExpireConditions, ObjectProperty, TtlForm, Walk};
use super::{
    ALWAYS, Args, CommandError, ExpiryUnit, GROW, KEY_READ, KEY_TOUCHED, KEY_UPDATED, KEYS_DELETED,
    KEYS_TOUCHED, Keys, Parsed, READ, READ_FAST, Read, Spec, WRITE, WRITE_FAST, Write, help,
    one_key, read, write,
};

const GROUP: &str = "generic";
const DATABASE: &str = "server";
const ADDED_UP: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];
const EVERYWHERE: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

const UNSTEADY: &[&str] = &["nondeterministic_output"];

pub(super) const SPECS: &[Spec] = &[
    Spec::new("del", -2, |args| write(Write::Del { keys: args.keys()? }))
        .flags(WRITE)
        .keys(KEYS_DELETED)
        .doc(GROUP, "1.0.0", "Deletes keys.")
        .tips(ADDED_UP),
    Spec::new("unlink", -2, |args| write(Write::Del { keys: args.keys()? }))
        .flags(WRITE_FAST)
        .keys(KEYS_DELETED)
        .doc(GROUP, "4.0.0", "Deletes keys, as DEL does.")
        .tips(ADDED_UP),
    Spec::new("exists", -2, |args| read(Read::Exists { keys: args.keys()? }))
        .flags(READ_FAST)
        .keys(KEYS_TOUCHED)
        .doc(GROUP, "1.0.0", "Counts which of the keys exist.")
        .tips(ADDED_UP),
    Spec::new("touch", -2, |args| read(Read::Exists { keys: args.keys()? }))
        .flags(READ_FAST)
        .keys(KEYS_TOUCHED)
        .doc(GROUP, "3.2.1", "Counts which of the keys exist, as EXISTS does.")
        .tips(ADDED_UP),
    Spec::new("type", 2, |args| read(Read::Type { key: args.key()? }))
        .flags(READ_FAST)
        .keys(KEY_TOUCHED)
        .doc(GROUP, "1.0.0", "Answers the type of a value."),
    Spec::new("expire", -3, |args| parse_expire(args, ExpiryUnit::SECONDS))
        .flags(WRITE_FAST)
        .keys(KEY_UPDATED)
        .doc(GROUP, "1.0.0", "Sets the expiry of a key, in seconds from now."),
    Spec::new("pexpire", -3, |args| parse_expire(args, ExpiryUnit::MILLIS))
        .flags(WRITE_FAST)
        .keys(KEY_UPDATED)
        .doc(GROUP, "2.6.0", "Sets the expiry of a key, in milliseconds from now."),
    Spec::new("expireat", -3, |args| parse_expire(args, ExpiryUnit::AT_SECONDS))
        .flags(WRITE_FAST)
        .keys(KEY_UPDATED)
        .doc(GROUP, "1.2.0", "Sets the expiry of a key, in seconds since 1970."),
    Spec::new("pexpireat", -3, |args| parse_expire(args, ExpiryUnit::AT_MILLIS))
        .flags(WRITE_FAST)
        .keys(KEY_UPDATED)
        .doc(GROUP, "2.6.0", "Sets the expiry of a key, in milliseconds since 1970."),
    Spec::new("ttl", 2, |args| parse_ttl(args, TtlForm::Seconds))
        .flags(READ_FAST)
        .keys(KEY_READ)
        .doc(GROUP, "1.0.0", "Answers in how many seconds a key expires.")
        .tips(&["nondeterministic_output"]),
    Spec::new("pttl", 2, |args| parse_ttl(args, TtlForm::Millis))
        .flags(READ_FAST)
        .keys(KEY_READ)
        .doc(GROUP, "2.6.0", "Answers in how many milliseconds a key expires.")
        .tips(&["nondeterministic_output"]),
    Spec::new("expiretime", 2, |args| parse_ttl(args, TtlForm::AtSeconds))
        .flags(READ_FAST)
        .keys(KEY_READ)
        .doc(GROUP, "7.0.0", "Answers when a key expires, in seconds since 1970."),
    Spec::new("pexpiretime", 2, |args| parse_ttl(args, TtlForm::AtMillis))
        .flags(READ_FAST)
        .keys(KEY_READ)
        .doc(GROUP, "7.0.0", "Answers when a key expires, in milliseconds since 1970."),
    Spec::new("persist", 2, |args| write(Write::Persist { key: args.key()? }))
        .flags(WRITE_FAST)
        .keys(KEY_UPDATED)
        .doc(GROUP, "2.2.0", "Removes the expiry of a key."),
    Spec::new("scan", -2, parse_scan)
        .flags(READ)
        .doc(GROUP, "2.8.0", "Walks over the keys, a few at a time.")
        .tips(&["nondeterministic_output", "request_policy:special"]),
    Spec::new("keys", 2, |args| walk(Walk::Keys { pattern: args.take()? }))
        .flags(READ)
        .doc(GROUP, "1.0.0", "Answers all keys that match a pattern.")
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"]),
    Spec::new("randomkey", 1, |_| walk(Walk::RandomKey))
        .flags(READ)
        .doc(GROUP, "1.0.0", "Answers some key.")
        .tips(&["request_policy:all_shards", "nondeterministic_output"]),
    Spec::new("dbsize", 1, |_| read(Read::DbSize))
        .flags(READ_FAST)
        .doc(DATABASE, "1.0.0", "Counts the keys.")
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"]),
    Spec::new("flushdb", -1, parse_flush)
        .flags(WRITE)
        .doc(DATABASE, "1.0.0", "Deletes all keys.")
        .tips(EVERYWHERE),
    Spec::new("flushall", -1, parse_flush)
        .flags(WRITE)
        .doc(DATABASE, "1.0.0", "Deletes all keys.")
        .tips(EVERYWHERE),
    Spec::new("rename", 3, |args| parse_rename(args, false))
        .flags(WRITE)
        .keys(&[one_key(&["RW", "access", "delete"]), Keys::new(2, 2, 1, &["OW", "update"])])
        .doc(GROUP, "1.0.0", "Renames a key and overwrites what has the new name."),
    Spec::new("renamenx", 3, |args| parse_rename(args, true))
        .flags(WRITE_FAST)
        .keys(&[one_key(&["RW", "access", "delete"]), Keys::new(2, 2, 1, &["OW", "insert"])])
        .doc(GROUP, "1.0.0", "Renames a key if nothing has the new name."),
    Spec::new("copy", -3, parse_copy)
        .flags(GROW)
        .keys(&[one_key(&["RO", "access"]), Keys::new(2, 2, 1, &["OW", "update"])])
        .doc(GROUP, "6.2.0", "Copies a value to another key."),
    Spec::container("object", OBJECT).doc(GROUP, "2.2.3", "Looks at how a value is stored."),
];

const SECOND_TOUCHED: &[Keys] = &[Keys::new(2, 2, 1, &["RO"])];

const OBJECT: &[Spec] = &[
    Spec::new("object|encoding", 3, |args| parse_object(args, ObjectProperty::Encoding))
        .flags(READ)
        .keys(SECOND_TOUCHED)
        .doc(GROUP, "2.2.3", "Answers the form in which Redis would store a value.")
        .tips(UNSTEADY),
    Spec::new("object|freq", 3, |args| parse_object(args, ObjectProperty::Frequency))
        .flags(READ)
        .keys(SECOND_TOUCHED)
        .doc(GROUP, "4.0.0", "Use counts are not kept.")
        .tips(UNSTEADY),
    Spec::new("object|help", 2, help).flags(ALWAYS).doc(GROUP, "6.2.0", "Lists the subcommands."),
    Spec::new("object|idletime", 3, |args| parse_object(args, ObjectProperty::IdleTime))
        .flags(READ)
        .keys(SECOND_TOUCHED)
        .doc(GROUP, "2.2.3", "Times of use are not kept: 0.")
        .tips(UNSTEADY),
    Spec::new("object|refcount", 3, |args| parse_object(args, ObjectProperty::RefCount))
        .flags(READ)
        .keys(SECOND_TOUCHED)
        .doc(GROUP, "2.2.3", "Values are not shared: 1.")
        .tips(UNSTEADY),
];

fn walk(walk: Walk) -> Parsed {
    read(Read::Walk(walk))
}

fn parse_object(args: &mut Args<'_>, property: ObjectProperty) -> Parsed {
    read(Read::Object { key: args.key()?, property })
}

fn parse_ttl(args: &mut Args<'_>, form: TtlForm) -> Parsed {
    read(Read::Ttl { key: args.key()?, form })
}

fn parse_expire(args: &mut Args<'_>, unit: ExpiryUnit) -> Parsed {
    let (key, number) = (args.key()?, args.take()?);
    let mut condition = ExpireConditions::default();
    while args.left() > 0 {
        if args.take_word("NX") {
            condition.nx = true;
        } else if args.take_word("XX") {
            condition.xx = true;
        } else if args.take_word("GT") {
            condition.gt = true;
        } else if args.take_word("LT") {
            condition.lt = true;
        } else {
            let option = super::super::error::printable(&args.take()?);
            return Err(CommandError::Text(format!("ERR Unsupported option {option}")));
        }
    }
    if condition.nx && (condition.xx || condition.gt || condition.lt) {
        return Err(CommandError::Other(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if condition.gt && condition.lt {
        return Err(CommandError::Other(
            "ERR GT and LT options at the same time are not compatible",
        ));
    }
    let number = super::parse_i64(&number).ok_or(CommandError::NotAnInteger)?;
    let name = args.spec().name;
    let when = unit.when(number).ok_or(CommandError::InvalidExpireTime { name })?;
    write(Write::Expire { key, when, condition })
}

fn parse_scan(args: &mut Args<'_>) -> Parsed {
    let cursor = std::str::from_utf8(&args.take()?)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(CommandError::Other("ERR invalid cursor"))?;
    let (mut pattern, mut count, mut strings) = (None, 10, true);
    while args.left() > 0 {
        if args.take_word("COUNT") {
            count = u64::try_from(args.integer()?)
                .ok()
                .filter(|&count| count > 0)
                .ok_or(CommandError::Syntax)?;
        } else if args.take_word("MATCH") {
            pattern = Some(args.take()?);
        } else if args.take_word("TYPE") {
            strings = args.take()?.eq_ignore_ascii_case(b"string");
        } else {
            return Err(CommandError::Syntax);
        }
    }
    walk(Walk::Scan { cursor, pattern, count, strings })
}

fn parse_flush(args: &mut Args<'_>) -> Parsed {
    if args.left() > 0 && !args.take_word("SYNC") && !args.take_word("ASYNC") {
        return Err(CommandError::Syntax);
    }
    args.end()?;
    write(Write::FlushAll)
}

fn parse_rename(args: &mut Args<'_>, only_if_none: bool) -> Parsed {
    write(Write::Rename { from: args.key()?, to: args.key()?, only_if_none })
}

fn parse_copy(args: &mut Args<'_>) -> Parsed {
    let (from, to) = (args.key()?, args.key()?);
    let mut replace = false;
    while args.left() > 0 {
        if args.take_word("REPLACE") {
            replace = true;
        } else if args.take_word("DB") {
            if args.integer()? != 0 {
                return Err(CommandError::Other("ERR DB index is out of range"));
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if from == to {
        return Err(CommandError::Other("ERR source and destination objects are the same"));
    }
    write(Write::Copy { from, to, replace })
}
