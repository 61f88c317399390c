//! `quorate join`: makes a bare machine a node of a cluster.
//!
//! The folder holds all that a run has achieved, so that one that was cut off goes on: the key, which
//! never leaves it, the signed certificate, the configuration, and then the node's data.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use quorate_actors::replication::call_member;

use crate::admin::{JoinAnswer, JoinRequest};
use crate::config::{self, Source};
use crate::failure::Failure;
use crate::output::say;
use crate::pki;
use crate::token::Token;

/// How long members are called before this gives up.
const CALL_LIMIT: Duration = Duration::from_mins(2);

/// Between two attempts.
const CALL_PERIOD: Duration = Duration::from_secs(1);

/// Between two looks for a certificate that somebody signs elsewhere.
const SIGNED_PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The file that `quorate token create` wrote on a member
    #[arg(long)]
    token_file: PathBuf,
    /// host:port of any member's peer listener (UDP)
    #[arg(value_name = "HOST:PORT")]
    member: String,
    /// Folder for configuration, certificates and data
    #[arg(long, default_value = "quorate")]
    dir: PathBuf,
    /// host:port where other nodes reach this one
    #[arg(long, value_name = "HOST:PORT")]
    advertise_peer: String,
    /// host:port where clients reach it
    #[arg(long, value_name = "HOST:PORT")]
    advertise_client: String,
    /// Where it listens for other nodes; by default on all addresses, with the advertised port
    #[arg(long, value_name = "IP:PORT")]
    listen_peer: Option<SocketAddr>,
    /// Where it listens for clients; by default on 127.0.0.1, with the advertised port
    #[arg(long, value_name = "IP:PORT")]
    listen_client: Option<SocketAddr>,
    /// Where it listens for operators
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7421")]
    listen_admin: SocketAddr,
    /// Only write the files; a service manager starts the node
    #[arg(long)]
    no_start: bool,
    /// Accept a folder on tmpfs or overlay; for tests, as storage.allow_volatile
    #[arg(long)]
    allow_volatile: bool,
}

/// The files of a node, in its folder.
struct Files {
    dir: PathBuf,
}

impl Files {
    fn key(&self) -> PathBuf {
        self.dir.join("node.key")
    }

    fn request(&self) -> PathBuf {
        self.dir.join("node.csr")
    }

    fn certificate(&self) -> PathBuf {
        self.dir.join("node.crt")
    }

    fn authorities(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("quorate.toml")
    }
}

/// Joins, and becomes the node's process unless that is not wanted.
pub(crate) fn run(args: &JoinArgs) -> Result<(), Failure> {
    let files = Files { dir: args.dir.clone() };
    if files.config().exists() {
        say(format_args!("{} is there already: nothing to ask for", files.config().display()));
    } else {
        prepare(args, &files)?;
    }
    let source = Source::load(&files.config(), std::env::vars());
    let source = source.map_err(|errors| Failure::Usage(errors.to_string()))?;
    config::resolve_checked(&source).map_err(|errors| Failure::Failed(errors.to_string()))?;
    let config = files.config();
    if args.no_start {
        say(format_args!(
            "ready; start the node with:\n  quorate start --config {}",
            config.display()
        ));
        return Ok(());
    }
    say(
        "starting the node: it becomes a learner, fetches a snapshot and the log, and then votes; \
         `quorate status` shows how far it is",
    );
    let error = Command::new("/proc/self/exe")
        .arg0("quorate")
        .arg("start")
        .arg("--config")
        .arg(config)
        .exec();
    Err(Failure::failed("the node can't be started", error))
}

/// Everything up to the configuration, which is written last.
fn prepare(args: &JoinArgs, files: &Files) -> Result<(), Failure> {
    let token = Token::read(&args.token_file)?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now_s >= token.expires_at {
        return Err(Failure::Failed("the token has expired; make a new one".to_owned()));
    }
    let failed = |error: pki::PkiError| Failure::Failed(error.to_string());
    let request =
        pki::prepare_request(&files.key(), &files.request(), token.node, &token.cluster_name)
            .map_err(failed)?;
    let answer = ask(args, &token, &request)?;
    say(format_args!(
        "node-{} of cluster {}: the token is accepted",
        token.node, token.cluster_name
    ));
    pki::write(&files.authorities(), &answer.authorities, 0o644).map_err(failed)?;
    if let Some(certificate) = &answer.certificate {
        pki::write(&files.certificate(), certificate, 0o644).map_err(failed)?;
    } else {
        wait_for_certificate(files, &token);
    }
    pki::write(&files.config(), &config_text(args, &token, &answer)?, 0o600).map_err(failed)?;
    say(format_args!("wrote {}", files.config().display()));
    Ok(())
}

/// Asks until a member answers. What it refuses is final.
fn ask(args: &JoinArgs, token: &Token, request: &str) -> Result<JoinAnswer, Failure> {
    let fingerprints = token.fingerprints()?;
    let body = JoinRequest { secret: token.secret.clone(), request: request.to_owned() };
    let body = serde_json::to_vec(&body).map_err(|error| Failure::failed("the request", error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("a runtime", error))?;
    let deadline = Instant::now() + CALL_LIMIT;
    loop {
        let addresses = args.member.to_socket_addrs();
        let address = addresses.map(|mut all| all.next());
        let outcome = match address {
            Ok(Some(address)) => runtime
                .block_on(call_member(address, &token.cluster_name, &fingerprints, &body))
                .map_err(|error| error.to_string()),
            Ok(None) => Err(format!("{} has no address", args.member)),
            Err(error) => Err(format!("{}: {error}", args.member)),
        };
        let reason = match outcome.map(|bytes| serde_json::from_slice::<JoinAnswer>(&bytes)) {
            Ok(Ok(JoinAnswer { error: Some(error), .. })) if !is_passing(&error) => {
                return Err(Failure::Failed(format!("refused: {error}")));
            }
            Ok(Ok(JoinAnswer { error: Some(error), .. })) => error,
            Ok(Ok(answer)) if answer.node == token.node => return Ok(answer),
            Ok(Ok(answer)) => {
                let (found, expected) = (answer.node, token.node);
                let error = format!("the token is for node {expected}, the answer for {found}");
                return Err(Failure::Failed(error));
            }
            Ok(Err(error)) => format!("the answer can't be read: {error}"),
            Err(reason) => reason,
        };
        if Instant::now() >= deadline {
            return Err(Failure::Unreachable(reason));
        }
        say(format_args!("{reason}; trying again"));
        std::thread::sleep(CALL_PERIOD);
    }
}

/// What a cluster between two primaries says: it is worth asking again.
fn is_passing(error: &str) -> bool {
    let signs =
        ["try again", "not primary", "in doubt", "can't be asked", "handed over", "not in force"];
    signs.iter().any(|sign| error.contains(sign))
}

/// No member holds the authority's key: the request is signed where that is, and the certificate
/// brought here.
fn wait_for_certificate(files: &Files, token: &Token) {
    let (request, certificate) = (files.request(), files.certificate());
    if !certificate.exists() {
        say(format_args!(
            "no member has tls.ca_key. Sign {request} where the authority's key is:\n  quorate pki sign \
             --id {id} --cluster {cluster} --request {name} --output node.crt\nand put the certificate at \
             {certificate}; waiting for it",
            request = request.display(),
            id = token.node,
            cluster = token.cluster_name,
            name = "node.csr",
            certificate = certificate.display(),
        ));
    }
    while !certificate.exists() {
        std::thread::sleep(SIGNED_PERIOD);
    }
}

fn config_text(args: &JoinArgs, token: &Token, answer: &JoinAnswer) -> Result<String, Failure> {
    let port = |text: &str| text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let bad = |what: &str, text: &str| Failure::Usage(format!("{what}: {text:?} is not host:port"));
    let peer_port =
        port(&args.advertise_peer).ok_or_else(|| bad("--advertise-peer", &args.advertise_peer))?;
    let client_port = port(&args.advertise_client)
        .ok_or_else(|| bad("--advertise-client", &args.advertise_client))?;
    let listen_peer = args.listen_peer.unwrap_or(SocketAddr::from(([0, 0, 0, 0], peer_port)));
    let listen_client =
        args.listen_client.unwrap_or(SocketAddr::from(([127, 0, 0, 1], client_port)));
    let members: Vec<String> =
        answer.members.iter().map(|(node, address)| quoted(&format!("{node}@{address}"))).collect();
    Ok(format!(
        "# Node {node}, which joined cluster {cluster}. `quorate init` writes a file with all keys.\n\n\
         [node]\nid = {node}\ndata_dir = \"data\"\nadvertise_peer = {advertise_peer}\n\
         advertise_client = {advertise_client}\n\n\
         [cluster]\nname = {cluster}\njoin = [{members}]\n\n\
         [client]\nlisten = \"{listen_client}\"\n\n\
         [peer]\nlisten = \"{listen_peer}\"\n\n\
         [admin]\nlisten = \"{admin}\"\n\n\
         [tls]\nca = \"ca.crt\"\ncert = \"node.crt\"\nkey = \"node.key\"\n\n\
         [storage]\nallow_volatile = {volatile}\n",
        node = token.node,
        cluster = quoted(&token.cluster_name),
        advertise_peer = quoted(&args.advertise_peer),
        advertise_client = quoted(&args.advertise_client),
        members = members.join(", "),
        admin = args.listen_admin,
        volatile = args.allow_volatile,
    ))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
