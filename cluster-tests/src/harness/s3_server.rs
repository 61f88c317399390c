//! A real S3 protocol server, to archive to.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;

use super::files::{python, work_dir};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A moto process on loopback with one bucket, which lets only its own user in; killed when this is
/// dropped.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    address: SocketAddr,
    secret: String,
    dir: PathBuf,
    scheme: &'static str,
}

impl S3Server {
    /// The bucket that there is.
    pub const BUCKET: &str = "archive";

    /// Starts one, and waits until it serves.
    ///
    /// # Panics
    ///
    /// If Python or moto is missing, or it doesn't start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("http")
    }

    /// The same behind TLS, with a certificate of an authority that no machine knows.
    ///
    /// # Panics
    ///
    /// If Python or moto is missing, or it doesn't start.
    #[must_use]
    pub fn start_tls() -> Self {
        Self::start_with("https")
    }

    fn start_with(scheme: &'static str) -> Self {
        let dir = work_dir("s3");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/s3_server.py");
        let mut child = Command::new(python())
            .arg(script)
            .arg(Self::BUCKET)
            .args((scheme == "https").then_some(&dir))
            // It ends with this, also when the test is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start Python");
        let output = child.stdout.take().expect("its output is piped");
        let (told, first_line) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(output).read_line(&mut line);
            let _ = told.send(line);
        });
        let line = first_line.recv_timeout(START_LIMIT).expect("moto serves in time");
        let said: Json = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("moto doesn't start: {error}: {line:?}"));
        let text = |key: &str| said[key].as_str().expect("text").to_owned();
        let port = said["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        private(&dir.join("access"), &text("access"));
        private(&dir.join("secret"), &text("secret"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("a port")));
        Self { child, address, secret: text("secret"), dir, scheme }
    }

    /// Certificate of the authority that has signed the store's, and of another one; where it is behind
    /// TLS.
    #[must_use]
    pub fn authorities(&self) -> [PathBuf; 2] {
        ["ca.crt", "other.crt"].map(|name| self.dir.join(name))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What must be in no log.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Lines of an `[archive]` section, by which a node reaches the store at this address with this
    /// limit for a request.
    #[must_use]
    pub fn settings(&self, address: SocketAddr, timeout: &str) -> String {
        let (dir, scheme) = (self.dir.display(), self.scheme);
        let allowed = scheme == "http";
        format!(
            "s3_endpoint = \"{scheme}://{address}\"\ns3_allow_http = {allowed}\n\
             s3_timeout = \"{timeout}\"\n\
             s3_access_key_file = \"{dir}/access\"\ns3_secret_key_file = \"{dir}/secret\"\n"
        )
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn private(path: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options.create_new(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}
