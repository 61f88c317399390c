//! Settings that a running node takes over without a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, Opts};

use super::config::NodeConfig;
use super::error::StartError;
use super::wiring::Wiring;
use crate::archive::Archive;
use crate::client::ClientControl;
use crate::health::Health;
use crate::replication::{Replication, TlsError, TlsMaterial};
use crate::snapshot::SnapshotHandle;

/// Takes new settings over. Cheap to clone.
#[derive(Clone)]
pub struct Reload {
    clients: ClientControl,
    health: Arc<Health>,
    replication: Replication,
    snapshots: SnapshotHandle,
    archive: Archive,
    pub(super) certificates: Arc<Certificates>,
}

impl Wiring {
    /// What the settings are changed through, once everything runs that they concern.
    pub(super) fn reload(
        &self,
        tls: &TlsMaterial,
        replication: Replication,
        clients: ClientControl,
        (snapshots, archive): (SnapshotHandle, Archive),
    ) -> Result<Reload, StartError> {
        let certificates = Certificates::new(tls);
        self.metrics.register(CertificatesCollector::new(certificates.clone())?)?;
        let health = self.health.clone();
        Ok(Reload { clients, health, replication, snapshots, archive, certificates })
    }
}

impl Reload {
    /// Certificates, limits and deadlines of clients, thresholds of health, the rate of snapshots,
    /// and the archive but for its target, as this configuration has them; the rest of it is not
    /// looked at. Connections between nodes stay: certificates are for those to come.
    ///
    /// # Errors
    /// The certificates can't be used; nothing was changed.
    pub fn apply(&self, config: &NodeConfig) -> Result<(), TlsError> {
        let tls = config.check_tls()?;
        self.replication.reload(&tls)?;
        self.certificates.set(&tls);
        self.snapshots.configure(tls, config.peer.snapshot_bytes_per_second);
        self.clients.set_settings(config.client.clone());
        self.health.set_latch_options(config.health.latch);
        self.archive.configure(config.archive.clone());
        Ok(())
    }
}

/// Until when the certificates in use are valid.
#[derive(Debug)]
pub struct Certificates {
    /// Seconds since 1970.
    node: AtomicI64,
    authority: AtomicI64,
}

impl Certificates {
    fn new(tls: &TlsMaterial) -> Arc<Self> {
        let certificates = Self { node: AtomicI64::new(0), authority: AtomicI64::new(0) };
        certificates.set(tls);
        Arc::new(certificates)
    }

    fn set(&self, tls: &TlsMaterial) {
        self.node.store(tls.expires_at().unwrap_or_default(), Ordering::Relaxed);
        let authority = tls.authorities_expire_at().unwrap_or_default();
        self.authority.store(authority, Ordering::Relaxed);
    }

    /// When the node's own certificate expires, in seconds since 1970.
    #[must_use]
    pub fn node_expires_at(&self) -> i64 {
        self.node.load(Ordering::Relaxed)
    }

    /// When the first of the authorities' certificates does.
    #[must_use]
    pub fn authority_expires_at(&self) -> i64 {
        self.authority.load(Ordering::Relaxed)
    }

    /// Whole days until the first of them expires; negative once one has.
    #[must_use]
    pub fn days_left(&self) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs() as i64);
        let first = self.node_expires_at().min(self.authority_expires_at());
        (first - now).div_euclid(86_400)
    }
}

/// Reads them when it is scraped.
struct CertificatesCollector {
    certificates: Arc<Certificates>,
    expiry: GaugeVec,
    days: Gauge,
}

impl CertificatesCollector {
    fn new(certificates: Arc<Certificates>) -> Result<Box<Self>, prometheus::Error> {
        let help = "When it expires, in seconds since 1970; of several authorities, the first";
        let expiry = GaugeVec::new(
            Opts::new("quorate_certificate_expiry_timestamp_seconds", help),
            &["certificate"],
        )?;
        let help = "Whole days until the first certificate expires; negative once one has";
        let days = Gauge::new("quorate_certificate_days_left", help)?;
        Ok(Box::new(Self { certificates, expiry, days }))
    }
}

impl Collector for CertificatesCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.expiry.desc().into_iter().chain(self.days.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let certificates = &self.certificates;
        for (name, at) in [
            ("node", certificates.node_expires_at()),
            ("authority", certificates.authority_expires_at()),
        ] {
            self.expiry.with_label_values(&[name]).set(at as f64);
        }
        self.days.set(certificates.days_left() as f64);
        [self.expiry.collect(), self.days.collect()].concat()
    }
}
