//! Commands that a connection answers by itself: parsed here, carried out by its owner.

use bytes::Bytes;

/// Commands about the connection, the node and the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Connection {
    /// `PING`
    Ping { message: Option<Bytes> },
    /// `ECHO`
    Echo { message: Bytes },
    /// `HELLO`
    Hello(Hello),
    /// `AUTH`; without a user it means `default`.
    Auth { user: Option<Bytes>, password: Bytes },
    /// `SELECT`
    Select { database: i64 },
    /// `QUIT`
    Quit,
    /// `RESET`
    Reset,
    /// `CLIENT …`
    Client(Client),
    /// `COMMAND …`: [`super::catalog::answer`] answers it.
    Command(CommandQuery),
    /// `INFO`: sections, lower case; none means the default set.
    Info { sections: Vec<String> },
    /// `CONFIG …`
    Config(Config),
    /// `ROLE`
    Role,
    /// `READONLY`
    ReadOnly,
    /// `READWRITE`
    ReadWrite,
    /// `ASKING`
    Asking,
    /// `TIME`
    Time,
    /// `CLUSTER …`, but for the slot walks, which are [`super::Walk`]s.
    Cluster(Cluster),
    /// `WAIT`; a timeout of 0 means the request's deadline.
    Wait { replicas: i64, timeout_ms: u64 },
    /// `WAITAOF`
    WaitAof { local: i64, replicas: i64, timeout_ms: u64 },
    /// `SESSION …`
    Session(Session),
    /// `QUORATE …`
    Quorate(Quorate),
    /// `SLOWLOG …`
    SlowLog(SlowLog),
    /// `LATENCY …`
    Latency(Latency),
    /// `MEMORY STATS|DOCTOR|PURGE|MALLOC-STATS`
    Memory(Memory),
    /// `MODULE LIST`
    ModuleList,
    /// `ACL …`
    Acl(Acl),
    /// `DEBUG SLEEP`, in milliseconds.
    DebugSleep { millis: u64 },
    /// `SHUTDOWN`
    Shutdown { save: Option<bool>, now: bool, force: bool, abort: bool },
    /// `SUBSCRIBE`
    Subscribe { channels: Vec<Bytes> },
    /// `PSUBSCRIBE`
    PSubscribe { patterns: Vec<Bytes> },
    /// `UNSUBSCRIBE`; none means all.
    Unsubscribe { channels: Vec<Bytes> },
    /// `PUNSUBSCRIBE`; none means all.
    PUnsubscribe { patterns: Vec<Bytes> },
    /// `SENTINEL …`: for the plain listener only.
    Sentinel(Sentinel),
    /// `<container> HELP`: [`super::catalog::help`] answers it.
    Help { container: &'static str },
}

/// `HELLO`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The protocol asked for; 2 or 3.
    pub version: Option<u8>,
    /// User and password.
    pub auth: Option<(Bytes, Bytes)>,
    /// The connection's name.
    pub name: Option<Bytes>,
}

/// `CLIENT …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Client {
    /// `CLIENT ID`
    Id,
    /// `CLIENT GETNAME`
    GetName,
    /// `CLIENT SETNAME`; empty removes the name.
    SetName { name: Bytes },
    /// `CLIENT SETINFO LIB-NAME|LIB-VER`
    SetInfo { attribute: ClientAttribute, value: Bytes },
    /// `CLIENT INFO`
    Info,
    /// `CLIENT LIST`
    List { kind: Option<ClientKind>, ids: Vec<u64> },
    /// `CLIENT KILL`
    Kill(ClientKill),
    /// `CLIENT NO-EVICT`
    NoEvict { on: bool },
    /// `CLIENT NO-TOUCH`
    NoTouch { on: bool },
    /// `CLIENT REPLY`
    Reply(ClientReply),
    /// `CLIENT PAUSE`
    Pause { timeout_ms: u64, writes_only: bool },
    /// `CLIENT UNPAUSE`
    Unpause,
    /// `CLIENT GETREDIR`
    GetRedir,
    /// `CLIENT TRACKING ON|OFF …`
    Tracking { on: bool },
    /// `CLIENT TRACKINGINFO`
    TrackingInfo,
    /// `CLIENT UNBLOCK`
    Unblock { id: u64, error: bool },
}

/// What `CLIENT SETINFO` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAttribute {
    /// `LIB-NAME`
    LibraryName,
    /// `LIB-VER`
    LibraryVersion,
}

/// What `CLIENT LIST` and `CLIENT KILL` filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Ordinary clients.
    Normal,
    /// Replicas of Redis's own protocol: never any.
    Replica,
    /// A primary of Redis's own protocol: never any.
    Master,
    /// Subscribers.
    PubSub,
}

/// `CLIENT KILL`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientKill {
    /// The old form: one address; answers `OK` or an error.
    Address(Bytes),
    /// Filters that must all match; answers a count.
    Filters(ClientFilters),
}

/// Filters of `CLIENT KILL`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilters {
    /// Connection id.
    pub id: Option<u64>,
    /// Kind of client.
    pub kind: Option<ClientKind>,
    /// Authenticated user.
    pub user: Option<Bytes>,
    /// `ip:port` of the client.
    pub address: Option<Bytes>,
    /// `ip:port` that it connected to.
    pub local_address: Option<Bytes>,
    /// Whether to spare the asking connection.
    pub skip_me: bool,
}

/// `CLIENT REPLY`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientReply {
    /// Answer again.
    On,
    /// Answer nothing from here on.
    Off,
    /// Don't answer the next command.
    Skip,
}

/// `COMMAND …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum CommandQuery {
    /// `COMMAND`
    All,
    /// `COMMAND COUNT`
    Count,
    /// `COMMAND LIST`
    List { filter: Option<CommandFilter> },
    /// `COMMAND INFO`; none means all.
    Info { names: Vec<Bytes> },
    /// `COMMAND DOCS`; none means all.
    Docs { names: Vec<Bytes> },
    /// `COMMAND GETKEYS`: the keys, found already.
    GetKeys { keys: Vec<Bytes> },
    /// `COMMAND GETKEYSANDFLAGS`
    GetKeysAndFlags { keys: Vec<(Bytes, &'static [&'static str])> },
}

/// `COMMAND LIST FILTERBY`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFilter {
    /// By module: none match.
    Module(Bytes),
    /// By access category.
    AclCategory(Bytes),
    /// By glob pattern over the name.
    Pattern(Bytes),
}

/// `CONFIG …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Config {
    /// `CONFIG GET`: glob patterns.
    Get { patterns: Vec<Bytes> },
    /// `CONFIG SET`
    Set { pairs: Vec<(Bytes, Bytes)> },
    /// `CONFIG RESETSTAT`
    ResetStat,
    /// `CONFIG REWRITE`
    Rewrite,
}

/// `CLUSTER …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Cluster {
    /// `CLUSTER SLOTS`
    Slots,
    /// `CLUSTER SHARDS`
    Shards,
    /// `CLUSTER NODES`
    Nodes,
    /// `CLUSTER INFO`
    Info,
    /// `CLUSTER MYID`
    MyId,
    /// `CLUSTER MYSHARDID`
    MyShardId,
    /// `CLUSTER LINKS`
    Links,
    /// `CLUSTER KEYSLOT`: [`super::slot`] answers it.
    KeySlot { key: Bytes },
    /// `CLUSTER REPLICAS`, `CLUSTER SLAVES`
    Replicas { node: Bytes },
    /// `CLUSTER COUNT-FAILURE-REPORTS`
    CountFailureReports { node: Bytes },
}

/// `SESSION …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Session {
    /// `SESSION DEADLINE`; 0 removes it.
    Deadline { millis: u64 },
    /// `SESSION DURABILITY`: the text of a policy.
    Durability { policy: String },
    /// `SESSION READ`
    Read { level: ReadLevel, max_lag_ms: Option<u64> },
    /// `SESSION TOKEN`
    Token { token: Bytes },
}

/// Where reads of a session may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLevel {
    /// The primary, under its lease.
    Lease,
    /// The primary, after a round of heartbeats.
    Confirmed,
    /// Any node's own state.
    Local,
}

/// `QUORATE …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Quorate {
    /// `QUORATE STATUS`
    Status,
    /// `QUORATE POLICY`
    Policy,
    /// `QUORATE CURSORS`
    Cursors,
    /// `QUORATE LASTWRITE`
    LastWrite,
    /// `QUORATE OUTCOME epoch seq`
    Outcome { epoch: u64, seq: u64 },
    /// `QUORATE OUTCOME TOKEN t`
    OutcomeOfToken { token: Bytes },
}

/// `SLOWLOG …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum SlowLog {
    /// `SLOWLOG GET`; `None` means all.
    Get { count: Option<u64> },
    /// `SLOWLOG LEN`
    Len,
    /// `SLOWLOG RESET`
    Reset,
}

/// `LATENCY …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Latency {
    /// `LATENCY LATEST`
    Latest,
    /// `LATENCY HISTORY`
    History { event: Bytes },
    /// `LATENCY RESET`
    Reset { events: Vec<Bytes> },
    /// `LATENCY DOCTOR`
    Doctor,
    /// `LATENCY GRAPH`
    Graph { event: Bytes },
    /// `LATENCY HISTOGRAM`
    Histogram { commands: Vec<Bytes> },
}

/// `MEMORY …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// `MEMORY STATS`
    Stats,
    /// `MEMORY DOCTOR`
    Doctor,
    /// `MEMORY PURGE`
    Purge,
    /// `MEMORY MALLOC-STATS`
    MallocStats,
}

/// `ACL …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Acl {
    /// `ACL WHOAMI`
    WhoAmI,
    /// `ACL LIST`
    List,
    /// `ACL USERS`
    Users,
    /// `ACL CAT`: [`super::catalog::categories`] answers it.
    Cat { category: Option<Bytes> },
    /// `ACL GETUSER`
    GetUser { user: Bytes },
}

/// `SENTINEL …`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are the arguments of the command that the variant names")]
pub enum Sentinel {
    /// `SENTINEL GET-MASTER-ADDR-BY-NAME`
    GetMasterAddrByName { name: Bytes },
    /// `SENTINEL MASTERS`
    Masters,
    /// `SENTINEL MASTER`
    Master { name: Bytes },
    /// `SENTINEL REPLICAS`, `SENTINEL SLAVES`
    Replicas { name: Bytes },
    /// `SENTINEL SENTINELS`
    Sentinels { name: Bytes },
    /// `SENTINEL CKQUORUM`
    CkQuorum { name: Bytes },
    /// `SENTINEL MYID`
    MyId,
}
