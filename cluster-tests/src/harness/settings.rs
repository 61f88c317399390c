//! A node's configuration file.

use std::fs;
use std::path::PathBuf;

use super::ports::Ports;

/// What a test wants one node to be.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Its number, from 1.
    pub id: u64,
    /// Holds its data, configuration and log.
    pub dir: PathBuf,
    /// Where it listens.
    pub ports: Ports,
    /// Holds `ca.crt`, `node-<id>.crt` and `node-<id>.key`.
    pub certificates: PathBuf,
    /// The durability policy of the first boot.
    pub policy: String,
    /// All initial members, or those that a node which joins calls: number and address of the peer
    /// listener.
    pub members: Vec<(u64, String)>,
    /// Whether it joins a formed cluster.
    pub joins: bool,
    /// Further lines for the end of the file.
    pub extra: String,
    /// Further variables in the process's environment.
    pub environment: Vec<(String, String)>,
}

impl NodeSettings {
    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("quorate.toml")
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Writes the configuration file.
    ///
    /// # Panics
    ///
    /// If it can't be written.
    pub fn write(&self) {
        fs::create_dir_all(&self.dir).expect("make the node's directory");
        fs::write(self.config_file(), self.to_toml()).expect("write the configuration");
    }

    /// The text of the configuration file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let Self { id, ports, certificates, policy, members, joins, extra, .. } = self;
        let list = if *joins { "join" } else { "initial_members" };
        let members: Vec<String> =
            members.iter().map(|(id, peer)| format!("\"{id}@{peer}\"")).collect();
        format!(
            "[node]\nid = {id}\ndata_dir = \"{data_dir}\"\n\n\
             [cluster]\nname = \"test\"\npolicy = \"{policy}\"\n\
             {list} = [{members}]\n\n\
             [client]\nlisten = \"{client}\"\nlisten_plain = \"{plain}\"\n\n\
             [peer]\nlisten = \"{peer}\"\n\n\
             [admin]\nlisten = \"{admin}\"\n\n\
             [tls]\nca = \"{pki}/ca.crt\"\ncert = \"{pki}/node-{id}.crt\"\n\
             key = \"{pki}/node-{id}.key\"\n\n{extra}",
            data_dir = self.data_dir().display(),
            members = members.join(", "),
            client = ports.client,
            plain = ports.plain,
            peer = ports.peer,
            admin = ports.admin,
            pki = certificates.display(),
        )
    }
}
