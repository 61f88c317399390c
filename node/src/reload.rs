//! New settings for a running node: the configuration is read again, and what may change without a
//! restart is taken over; all of it, or nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use quorate_actors::node::Reload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::Identity;
use crate::config::keys::Key;
use crate::config::{self, KEYS, Settings, Source};
use crate::failure::Failure;
use crate::http::AdminUrl;
use crate::logging::{Log, parse_filter};
use crate::output::{say, table};
use crate::pki;

/// The longest wait for an answer.
const ANSWER_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// What came of a changed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyOutcome {
    /// It holds from now on.
    Applied,
    /// It could have been, but nothing was.
    NotApplied,
    /// Only a restart takes it over; so nothing was.
    NeedsRestart,
}

/// One changed key, or one whose file has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct KeyResult {
    /// Its path.
    pub(crate) key: String,
    /// What came of it.
    pub(crate) result: KeyOutcome,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReloadReport {
    /// Whether the node runs with the configuration as it is now.
    pub(crate) applied: bool,
    /// Keys that have changed, in the order of the example.
    pub(crate) keys: Vec<KeyResult>,
    /// What is wrong with the configuration; then no key is listed.
    pub(crate) error: Option<String>,
}

/// Takes new settings over, one reload at a time.
pub(crate) struct Reloader {
    in_force: Mutex<(Source, Settings)>,
    log: Log,
    identity: Arc<ArcSwap<Identity>>,
    node: Reload,
}

impl Reloader {
    /// The node runs with these settings, which come from this source.
    pub(crate) fn new(
        in_force: (Source, Settings),
        log: Log,
        identity: Arc<ArcSwap<Identity>>,
        node: Reload,
    ) -> Self {
        Self { in_force: Mutex::new(in_force), log, identity, node }
    }

    /// How long a stop may take now.
    pub(crate) fn shutdown_deadline(&self) -> std::time::Duration {
        self.in_force.lock().1.node.timers.shutdown_deadline
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Settings {
        self.in_force.lock().1.clone()
    }

    /// Puts this certificate in the place of the node's present one, in PEM, and in force. Reads and
    /// writes disks.
    ///
    /// # Errors
    /// It would not do, or can't be written; or what other files hold by now can't be taken over.
    /// Where somebody has replaced the node's certificate or key since they were read, nothing is
    /// written: it would not fit the new key, and the node could not start again.
    pub(crate) fn renew_certificate(&self, pem: &str) -> Result<(), Failure> {
        let mut in_force = self.in_force.lock();
        let found = config::resolve_checked(&in_force.0);
        let found = found.map_err(|errors| Failure::Usage(errors.to_string()))?.node.tls;
        let known = &in_force.1.node.tls;
        if (&found.cert_pem, &found.key_pem) != (&known.cert_pem, &known.key_pem) {
            let reason = "tls.cert or tls.key were replaced since they were read: reload them";
            return Err(Failure::Failed(reason.to_owned()));
        }
        let mut settings = in_force.1.clone();
        settings.node.tls.cert_pem = pem.as_bytes().to_vec();
        settings.node.check_tls().map_err(|error| Failure::failed("tls.cert", error))?;
        pki::write(&settings.cert_file, pem, 0o644)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let source = in_force.0.clone();
        let report = self.take_over(&mut in_force, source)?;
        if report.applied {
            Ok(())
        } else {
            Err(Failure::Failed("other settings have changed that need a restart".to_owned()))
        }
    }

    /// Has the log tell what this filter lets through, until the next reload.
    ///
    /// # Errors
    /// It is no filter, or the log's file can't be opened.
    pub(crate) fn set_log_filter(&self, filter: &str) -> Result<(), Failure> {
        let filter = parse_filter(filter).map_err(Failure::Usage)?;
        self.log.renew(self.in_force.lock().1.log.file.as_deref(), filter)
    }

    /// Reads file and environment again, and takes over what has changed. Reads disks.
    pub(crate) fn reload(&self) -> ReloadReport {
        let report = self.try_reload().unwrap_or_else(|failure| ReloadReport {
            applied: false,
            keys: Vec::new(),
            error: Some(failure.to_string()),
        });
        let changed: Vec<&str> = report.keys.iter().map(|key| key.key.as_str()).collect();
        if report.applied {
            tracing::info!(?changed, "configuration reloaded");
        } else {
            let error = report.error.as_deref();
            tracing::error!(?changed, error, "the configuration was not reloaded: nothing changed");
        }
        report
    }

    fn try_reload(&self) -> Result<ReloadReport, Failure> {
        let mut in_force = self.in_force.lock();
        let source = Source::load(&in_force.0.path, std::env::vars());
        let source = source.map_err(|errors| Failure::Usage(errors.to_string()))?;
        self.take_over(&mut in_force, source)
    }

    /// Takes over what the source and its files say by now.
    fn take_over(
        &self,
        in_force: &mut (Source, Settings),
        source: Source,
    ) -> Result<ReloadReport, Failure> {
        let (old_source, old) = &*in_force;
        let settings = config::resolve_checked(&source);
        let mut settings = settings.map_err(|errors| Failure::Usage(errors.to_string()))?;
        // A flag of the command line may have set it.
        settings.node.allow_volatile |= old.node.allow_volatile;
        let changed = changed_keys((old_source, old), (&source, &settings));
        let applied = changed.iter().all(|key| key.is_reloadable());
        if applied {
            let filter = parse_filter(&settings.log.filter).map_err(Failure::Usage)?;
            let identity = settings.identity();
            let identity = identity.map_err(|error| Failure::failed("tls.ca_key", error))?;
            self.log.renew(settings.log.file.as_deref(), filter)?;
            let taken = self.node.apply(&settings.node);
            taken.map_err(|error| Failure::failed("tls", error))?;
            self.identity.store(Arc::new(identity));
            *in_force = (source, settings);
        }
        let result = |key: &Key| match (applied, key.is_reloadable()) {
            (true, _) => KeyOutcome::Applied,
            (false, true) => KeyOutcome::NotApplied,
            (false, false) => KeyOutcome::NeedsRestart,
        };
        let keys = changed
            .into_iter()
            .map(|key| KeyResult { key: key.path.to_owned(), result: result(key) });
        Ok(ReloadReport { applied, keys: keys.collect(), error: None })
    }
}

/// Keys that are set otherwise than before, and those whose files hold something else.
fn changed_keys(
    (old_source, old): (&Source, &Settings),
    (source, settings): (&Source, &Settings),
) -> Vec<&'static Key> {
    let value = |source: &Source, key| source.get(key).map(|(value, _)| value.clone());
    let file_changed = |key| match key {
        "tls.ca" => old.node.tls.ca_pem != settings.node.tls.ca_pem,
        "tls.cert" => old.node.tls.cert_pem != settings.node.tls.cert_pem,
        "tls.key" => old.node.tls.key_pem != settings.node.tls.key_pem,
        "tls.ca_key" => old.ca_key != settings.ca_key,
        "client.requirepass_file" => {
            let is_set = source.get(key).is_some();
            is_set && old.node.client.requirepass != settings.node.client.requirepass
        }
        "archive.s3_access_key_file" => {
            let access = |settings: &Settings| Some(settings.node.archive.s3.keys.clone()?.0);
            access(old) != access(settings)
        }
        "archive.s3_secret_key_file" => {
            let secret = |settings: &Settings| Some(settings.node.archive.s3.keys.clone()?.1);
            secret(old) != secret(settings)
        }
        "archive.s3_ca" => old.node.archive.s3.ca != settings.node.archive.s3.ca,
        _ => false,
    };
    let changed = |key: &&'static Key| {
        value(old_source, key.path) != value(source, key.path) || file_changed(key.path)
    };
    KEYS.iter().filter(changed).collect()
}

/// `quorate config reload`: has a node read its configuration again.
pub(crate) fn ask(admin: &AdminUrl, as_json: bool) -> Result<(), Failure> {
    let answer = admin.post("/admin/reload", "{}", ANSWER_LIMIT)?;
    let report: ReloadReport = match answer.status {
        // Its body tells of each key, too.
        409 => serde_json::from_str(&answer.body)
            .map_err(|error| Failure::failed(format_args!("the answer of {admin}"), error))?,
        _ => answer.parsed(admin)?,
    };
    if as_json {
        say(serde_json::json!(report));
    } else {
        say(render(&report).trim_end());
    }
    match (report.applied, report.error) {
        (true, _) => Ok(()),
        (false, Some(error)) => Err(Failure::Failed(error)),
        (false, None) => Err(Failure::Failed(
            "nothing was changed: some of the changed keys need a restart".to_owned(),
        )),
    }
}

fn render(report: &ReloadReport) -> String {
    if report.keys.is_empty() {
        return if report.applied { "nothing has changed" } else { "" }.to_owned();
    }
    let word = |result| match result {
        KeyOutcome::Applied => "applied",
        KeyOutcome::NotApplied => "not applied",
        KeyOutcome::NeedsRestart => "needs a restart",
    };
    let mut rows = vec![vec!["KEY".to_owned(), "RESULT".to_owned()]];
    rows.extend(report.keys.iter().map(|key| vec![key.key.clone(), word(key.result).to_owned()]));
    table(&rows)
}
