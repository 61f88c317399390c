//! What an operator may set about RocksDB, and how it is applied.

use std::fmt;
use std::time::Duration;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// RocksDB's own default.
const LEVEL0_STOP_WRITES_TRIGGER: i32 = 36;

/// `[storage.rocksdb]`: the settings of KumoMTA's RocksDB spool, with its defaults. Where a field
/// is `None`, RocksDB's own default holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RocksOptions {
    /// Threads for background work in all; default: `max(1, cores / 2)`, so that compaction leaves
    /// room for consensus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub increase_parallelism: Option<i32>,
    /// Tune level compaction for this many bytes of memtables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimize_level_style_compaction: Option<usize>,
    /// Use universal compaction, tuned for this many bytes of memtables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimize_universal_style_compaction: Option<usize>,
    /// Check more while reading and refuse to open a damaged store.
    pub paranoid_checks: bool,
    /// How blocks are compressed.
    pub compression: Compression,
    /// Bytes read ahead by compaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction_readahead_size: Option<usize>,
    /// Let RocksDB choose the target sizes of levels.
    pub level_compaction_dynamic_level_bytes: bool,
    /// Files kept open at most; -1 = all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_files: Option<i32>,
    /// Bytes of one memtable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_buffer_size: Option<usize>,
    /// Files in level 0 at which writes stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level0_stop_writes_trigger: Option<i32>,
    /// What RocksDB writes to its own log.
    pub log_level: RocksLogLevel,
    /// Bytes of a huge page for memtables; 0 = none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memtable_huge_page_size: Option<usize>,
    /// How long RocksDB writes into one log file.
    #[serde(deserialize_with = "read_duration", serialize_with = "write_duration")]
    pub log_file_time_to_roll: Duration,
    /// How often files that are no longer needed are looked for.
    #[serde(deserialize_with = "read_duration", serialize_with = "write_duration")]
    pub obsolete_files_period: Duration,
    /// How many of RocksDB's log files are kept.
    pub keep_log_file_num: usize,
    /// Bytes of the cache for uncompressed blocks of data. Filters and indices of the open tables
    /// come on top: about two bytes for each stored key.
    pub block_cache_size: usize,
    /// Values of at least this many bytes go to blob files instead of being rewritten by every
    /// compaction; 0 = never.
    pub min_blob_size: u64,
}

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy.
    #[default]
    Snappy,
    /// zlib; not compiled in.
    Zlib,
    /// bzip2; not compiled in.
    Bz2,
    /// LZ4.
    Lz4,
    /// LZ4 HC.
    Lz4hc,
    /// Zstandard.
    Zstd,
}

/// What RocksDB writes to its own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RocksLogLevel {
    /// Everything.
    Debug,
    /// Flushes, compactions and all below.
    #[default]
    Info,
    /// What may need a look.
    Warn,
    /// What failed.
    Error,
    /// What RocksDB can't go on after.
    Fatal,
    /// The head of the log only.
    Header,
}

/// A setting that can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OptionsError {
    /// RocksDB was built without it.
    #[error(
        "storage.rocksdb.compression = \"{0}\" is not compiled into this binary; it has none, snappy, lz4, lz4hc and zstd"
    )]
    Compression(Compression),
    /// Outside of what makes sense.
    #[error("storage.rocksdb.{key} = {value} is out of range: {allowed}")]
    Range {
        /// Which setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// RocksDB refuses it.
    #[error("RocksDB refuses its options: {0}")]
    RocksDb(rocksdb::Error),
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            increase_parallelism: None,
            optimize_level_style_compaction: None,
            optimize_universal_style_compaction: None,
            paranoid_checks: false,
            compression: Compression::Snappy,
            compaction_readahead_size: None,
            level_compaction_dynamic_level_bytes: false,
            max_open_files: None,
            write_buffer_size: None,
            level0_stop_writes_trigger: None,
            log_level: RocksLogLevel::Info,
            memtable_huge_page_size: None,
            log_file_time_to_roll: Duration::from_hours(24),
            obsolete_files_period: Duration::from_hours(6),
            keep_log_file_num: 10,
            block_cache_size: 64 << 20,
            min_blob_size: 64 << 10,
        }
    }
}

impl RocksOptions {
    /// Checks what can be checked without a store, so that a bad setting is named at start.
    pub fn check(&self) -> Result<(), OptionsError> {
        self.compression.compiled_in()?;
        let at_least_one = |key, value: Option<i32>| match value {
            Some(value) if value < 1 => {
                Err(OptionsError::Range { key, value: value.to_string(), allowed: "at least 1" })
            }
            Some(_) | None => Ok(()),
        };
        at_least_one("increase_parallelism", self.increase_parallelism)?;
        at_least_one("level0_stop_writes_trigger", self.level0_stop_writes_trigger)?;
        match self.write_buffer_size {
            Some(size) if size < 64 << 10 => Err(OptionsError::Range {
                key: "write_buffer_size",
                value: size.to_string(),
                allowed: "at least 65536",
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// RocksDB's options, and the block cache in them.
    pub(crate) fn to_rocksdb(&self) -> Result<(Options, Cache), OptionsError> {
        self.check()?;
        // First of all, because it starts from plain options. A background error must stay: state
        // that can't be written any more is rebuilt, not resumed behind the apply loop's back. And
        // what is flushed at an end is decided there, not by a destructor.
        let mut options = Options::default()
            .get_options_from_string("max_bgerror_resume_count=0;avoid_flush_during_shutdown=true")
            .map_err(OptionsError::RocksDb)?;
        options.create_if_missing(true);
        let jobs = self.increase_parallelism.unwrap_or_else(default_background_jobs);
        options.increase_parallelism(jobs);
        options.set_max_background_jobs(jobs);
        self.set_compaction(&mut options)?;
        if let Some(size) = self.write_buffer_size {
            options.set_write_buffer_size(size);
        }
        if let Some(size) = self.memtable_huge_page_size {
            options.set_memtable_huge_page_size(size);
        }
        if let Some(count) = self.max_open_files {
            options.set_max_open_files(count);
        }
        options.set_paranoid_checks(self.paranoid_checks);
        options.set_log_level(self.log_level.into());
        options.set_log_file_time_to_roll(self.log_file_time_to_roll.as_secs() as usize);
        options.set_keep_log_file_num(self.keep_log_file_num);
        options.set_delete_obsolete_files_period_micros(
            u64::try_from(self.obsolete_files_period.as_micros()).unwrap_or(u64::MAX),
        );
        // One thread writes; the machinery for several only costs.
        options.set_allow_concurrent_memtable_write(false);
        // Most writes of a growing store look for keys that aren't there.
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.05);
        let cache = self.set_tables(&mut options);
        Ok((options, cache))
    }

    fn set_compaction(&self, options: &mut Options) -> Result<(), OptionsError> {
        if let Some(bytes) = self.optimize_level_style_compaction {
            options.optimize_level_style_compaction(bytes);
        }
        if let Some(bytes) = self.optimize_universal_style_compaction {
            options.optimize_universal_style_compaction(bytes);
        }
        // After the two above, which choose compressions of their own.
        options.set_compression_per_level(&[]);
        options.set_compression_type(self.compression.compiled_in()?);
        options.set_level_compaction_dynamic_level_bytes(self.level_compaction_dynamic_level_bytes);
        if let Some(size) = self.compaction_readahead_size {
            options.set_compaction_readahead_size(size);
        }
        // RocksDB slows writers down, before it stops them, by making them wait inside. The apply
        // loop does not: its attempts are refused, and each of them counts against the rate as if
        // it had written. So being slowed down would mean being stopped, only earlier.
        let stop = self.level0_stop_writes_trigger.unwrap_or(LEVEL0_STOP_WRITES_TRIGGER);
        options.set_level_zero_stop_writes_trigger(stop);
        options.set_level_zero_slowdown_writes_trigger(stop);
        options.set_soft_pending_compaction_bytes_limit(0);
        if self.min_blob_size > 0 {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(self.min_blob_size);
            options.set_enable_blob_gc(true);
            options.set_blob_compression_type(self.compression.compiled_in()?);
        }
        Ok(())
    }

    fn set_tables(&self, options: &mut Options) -> Cache {
        let cache = Cache::new_lru_cache(self.block_cache_size);
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&cache);
        // 10 bits: one in a hundred absent keys costs a read.
        tables.set_bloom_filter(10.0, false);
        tables.set_whole_key_filtering(true);
        // Filters and indices stay in memory, about two bytes for each stored key, and not in the
        // cache: a table of a million small keys has a filter that no shard of the cache holds, and
        // every look-up would read it anew.
        tables.set_cache_index_and_filter_blocks(false);
        options.set_block_based_table_factory(&tables);
        cache
    }
}

impl Compression {
    fn compiled_in(self) -> Result<DBCompressionType, OptionsError> {
        match self {
            Self::None => Ok(DBCompressionType::None),
            Self::Snappy => Ok(DBCompressionType::Snappy),
            Self::Lz4 => Ok(DBCompressionType::Lz4),
            Self::Lz4hc => Ok(DBCompressionType::Lz4hc),
            Self::Zstd => Ok(DBCompressionType::Zstd),
            Self::Zlib | Self::Bz2 => Err(OptionsError::Compression(self)),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Zlib => "zlib",
            Self::Bz2 => "bz2",
            Self::Lz4 => "lz4",
            Self::Lz4hc => "lz4hc",
            Self::Zstd => "zstd",
        })
    }
}

impl From<RocksLogLevel> for LogLevel {
    fn from(level: RocksLogLevel) -> Self {
        match level {
            RocksLogLevel::Debug => Self::Debug,
            RocksLogLevel::Info => Self::Info,
            RocksLogLevel::Warn => Self::Warn,
            RocksLogLevel::Error => Self::Error,
            RocksLogLevel::Fatal => Self::Fatal,
            RocksLogLevel::Header => Self::Header,
        }
    }
}

/// Half of the cores: the other half serves clients and consensus.
fn default_background_jobs() -> i32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    i32::try_from(cores / 2).unwrap_or(i32::MAX).max(1)
}

/// Reads a duration: a whole number with `ms`, `s`, `m`, `h` or `d`, or of seconds without a unit.
fn read_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Text {
        Seconds(u64),
        WithUnit(String),
    }
    match Text::deserialize(deserializer)? {
        Text::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
        Text::WithUnit(text) => parse_duration(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "`{text}` is no duration: write a whole number with ms, s, m, h or d"
            ))
        }),
    }
}

fn write_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}ms", duration.as_millis()))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let ms = match text[digits..].trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RocksOptions, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn what_is_not_set_has_the_documented_default() {
        let options = parse("").unwrap();
        assert_eq!(options, RocksOptions::default());
        assert_eq!(options.compression, Compression::Snappy);
        assert_eq!(options.log_file_time_to_roll, Duration::from_hours(24));
        assert_eq!(options.obsolete_files_period, Duration::from_hours(6));
        assert!(!options.paranoid_checks && !options.level_compaction_dynamic_level_bytes);
        let shown = toml::to_string(&options).unwrap();
        assert_eq!(parse(&shown).unwrap(), options);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = parse("write_bufer_size = 1").unwrap_err().to_string();
        assert!(error.contains("write_bufer_size"), "{error}");
    }

    #[test]
    fn a_compression_that_is_not_compiled_in_is_refused_by_name() {
        for name in ["zlib", "bz2"] {
            let options = parse(&format!("compression = \"{name}\"")).unwrap();
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(parse("compression = \"lzma\"").is_err());
    }

    #[test]
    fn durations_have_units() {
        let options =
            parse("obsolete_files_period = \"90 m\"\nlog_file_time_to_roll = 60").unwrap();
        assert_eq!(options.obsolete_files_period, Duration::from_mins(90));
        assert_eq!(options.log_file_time_to_roll, Duration::from_mins(1));
        let error = parse("obsolete_files_period = \"6 fortnights\"").unwrap_err().to_string();
        assert!(error.contains("6 fortnights"), "{error}");
        assert_eq!(parse_duration("99999999999999999999d"), None);
        assert_eq!(parse_duration("9999999999999999999d"), None);
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let options = RocksOptions { write_buffer_size: Some(1), ..RocksOptions::default() };
        assert!(options.check().unwrap_err().to_string().contains("write_buffer_size"));
        let options = RocksOptions { increase_parallelism: Some(0), ..RocksOptions::default() };
        assert!(options.check().unwrap_err().to_string().contains("increase_parallelism"));
    }

    #[test]
    fn every_setting_reaches_rocksdb() {
        let text = "increase_parallelism = 2\noptimize_level_style_compaction = 67108864\n\
                    paranoid_checks = true\ncompression = \"zstd\"\n\
                    compaction_readahead_size = 1048576\nmax_open_files = 100\n\
                    write_buffer_size = 1048576\nlevel0_stop_writes_trigger = 20\n\
                    log_level = \"warn\"\nmemtable_huge_page_size = 0\nblock_cache_size = 1048576";
        parse(text).unwrap().to_rocksdb().unwrap();
        parse("optimize_universal_style_compaction = 1048576").unwrap().to_rocksdb().unwrap();
    }
}
