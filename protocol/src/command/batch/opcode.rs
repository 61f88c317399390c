//! Numbers of units in the log. A number is never used again for something else.

pub(super) const SET: u8 = 1;
pub(super) const SET_WITH: u8 = 2;
pub(super) const SET_NX: u8 = 3;
pub(super) const M_SET: u8 = 4;
pub(super) const M_SET_NX: u8 = 5;
pub(super) const GET_DEL: u8 = 6;
pub(super) const GET_EX: u8 = 7;
pub(super) const APPEND: u8 = 8;
pub(super) const SET_RANGE: u8 = 9;
pub(super) const INCR_BY: u8 = 10;
pub(super) const INCR_BY_FLOAT: u8 = 11;
pub(super) const DEL: u8 = 12;
pub(super) const DEL_IF_EQ: u8 = 13;
pub(super) const EXPIRE: u8 = 14;
pub(super) const PERSIST: u8 = 15;
pub(super) const FLUSH_ALL: u8 = 16;
pub(super) const RENAME: u8 = 17;
pub(super) const RENAME_NX: u8 = 18;
pub(super) const COPY: u8 = 19;
pub(super) const COPY_REPLACE: u8 = 20;
pub(super) const SET_BIT: u8 = 21;
pub(super) const BIT_OP: u8 = 22;

pub(super) const GET: u8 = 64;
pub(super) const M_GET: u8 = 65;
pub(super) const STR_LEN: u8 = 66;
pub(super) const GET_RANGE: u8 = 67;
pub(super) const EXISTS: u8 = 68;
pub(super) const TYPE: u8 = 69;
pub(super) const TTL: u8 = 70;
pub(super) const OBJECT: u8 = 71;
pub(super) const MEMORY_USAGE: u8 = 72;
pub(super) const DB_SIZE: u8 = 73;
pub(super) const GET_BIT: u8 = 74;
pub(super) const BIT_COUNT: u8 = 75;
pub(super) const BIT_POS: u8 = 76;
pub(super) const LCS: u8 = 77;

pub(super) const EXEC: u8 = 128;
pub(super) const ONCE: u8 = 129;

/// Flags of `SET_WITH`: two bits of condition, three of expiry, and `GET`.
pub(super) mod set {
    pub(crate) const IF_NONE: u8 = 1;
    pub(crate) const IF_SOME: u8 = 2;
    pub(crate) const IF_EQUAL: u8 = 3;
    pub(crate) const CONDITION: u8 = 3;
    pub(crate) const KEEP: u8 = 1 << 2;
    pub(crate) const AFTER: u8 = 2 << 2;
    pub(crate) const AT: u8 = 3 << 2;
    pub(crate) const EXPIRY: u8 = 3 << 2;
    pub(crate) const GET: u8 = 1 << 4;
}

/// Kinds of a moment, as the byte in front of it.
pub(super) mod when {
    pub(crate) const KEEP: u8 = 0;
    pub(crate) const REMOVE: u8 = 1;
    pub(crate) const AFTER: u8 = 2;
    pub(crate) const AT: u8 = 3;
}
