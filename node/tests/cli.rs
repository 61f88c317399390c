//! The command line as scripts use it: outputs, files and exit codes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quorate-cli-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn quorate(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(dir).output().expect("the binary starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it exits by itself")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Certificates and a configuration for one node on free ports, with more lines at its end.
fn one_node(folder: &Folder, extra: &str) -> PathBuf {
    let dir = &folder.0;
    assert_eq!(code(&quorate(dir, &["pki", "ca", "--force", "--cluster", "one"])), 0);
    assert_eq!(
        code(&quorate(dir, &["pki", "node", "--force", "--cluster", "one", "--id", "1"])),
        0
    );
    let path = dir.join("quorate.toml");
    let text = format!(
        "[node]\nid = 1\ndata_dir = \"data\"\n\
         [cluster]\nname = \"one\"\ninitial_members = [\"1@127.0.0.1:1\"]\n\
         [peer]\nlisten = \"127.0.0.1:0\"\n\
         [tls]\nca = \"tls/ca.crt\"\ncert = \"tls/node-1.crt\"\nkey = \"tls/node-1.key\"\n\
         {extra}"
    );
    std::fs::write(&path, text).expect("written");
    path
}

#[test]
fn a_certificate_that_peers_would_refuse_is_a_wrong_configuration() {
    let folder = Folder::new("certificate");
    let path = one_node(&folder, "");
    let other = ["pki", "node", "--force", "--cluster", "other", "--id", "1"];
    assert_eq!(code(&quorate(&folder.0, &other)), 0);
    for verb in [&["config", "check"][..], &["start"][..]] {
        let asked = [verb, &["--config", path.to_str().expect("UTF-8")]].concat();
        let output = quorate(&folder.0, &asked);
        let said = err(&output);
        assert_eq!(code(&output), 2, "{said}");
        assert!(said.contains("tls.cert") && said.contains("quorate.toml:"), "{said}");
    }
}

#[test]
fn wrong_arguments_exit_with_2() {
    let folder = Folder::new("arguments");
    assert_eq!(code(&quorate(&folder.0, &[])), 2);
    assert_eq!(code(&quorate(&folder.0, &["fly"])), 2);
    assert_eq!(code(&quorate(&folder.0, &["dev", "--nodes", "10"])), 2);
    assert_eq!(code(&quorate(&folder.0, &["status", "--admin", "ftp://x"])), 2);
}

#[test]
fn every_verb_has_help() {
    let folder = Folder::new("help");
    for verb in [
        "dev",
        "start",
        "status",
        "drain",
        "drill",
        "shutdown",
        "journal",
        "init",
        "pki",
        "config",
        "completions",
    ] {
        let output = quorate(&folder.0, &[verb, "--help"]);
        assert_eq!(code(&output), 0, "{verb}");
        assert!(out(&output).contains("Usage:"), "{verb}");
    }
}

#[test]
fn init_writes_a_file_once() {
    let folder = Folder::new("init");
    assert_eq!(code(&quorate(&folder.0, &["init"])), 0);
    assert!(folder.0.join("quorate.toml").is_file());
    assert_eq!(code(&quorate(&folder.0, &["init"])), 2);
    assert_eq!(code(&quorate(&folder.0, &["init", "--force"])), 0);
    let output = quorate(&folder.0, &["init", "--output", "-"]);
    assert!(out(&output).contains("[storage.rocksdb]"));
}

#[test]
fn config_check_names_line_and_key_and_exits_with_2() {
    let folder = Folder::new("check");
    one_node(&folder, "[client]\nmaxclient = 5\n");
    let output = quorate(&folder.0, &["config", "check", "--config", "quorate.toml"]);
    assert_eq!(code(&output), 2);
    let expected =
        "quorate.toml:14: client.maxclient: unknown key; did you mean `client.maxclients`?";
    assert!(err(&output).contains(expected), "{}", err(&output));
    // Nothing is started with it either.
    let output = quorate(&folder.0, &["start", "--config", "quorate.toml"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains(expected), "{}", err(&output));

    one_node(&folder, "[client]\nmaxclients = 5\n# end\n");
    std::fs::remove_dir_all(folder.0.join("tls")).expect("removed");
    let output = quorate(&folder.0, &["config", "check", "--config", "quorate.toml"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("tls.key: can't read tls/node-1.key"), "{}", err(&output));
}

#[test]
fn config_show_hides_secrets() {
    let folder = Folder::new("show");
    one_node(&folder, "[client]\nrequirepass = \"hush\"\n");
    let output = quorate(&folder.0, &["config", "show", "--config", "quorate.toml"]);
    assert_eq!(code(&output), 0);
    let text = out(&output);
    assert!(!text.contains("hush"), "{text}");
    assert!(text.contains("heartbeat = \"50ms\"  # default"), "{text}");
    assert!(text.contains("id = 1  # quorate.toml:2"), "{text}");
}

#[test]
fn a_node_that_does_not_answer_exits_with_3() {
    let folder = Folder::new("unreachable");
    // A port that was free a moment ago.
    let port =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let url = format!("http://127.0.0.1:{port}");
    for arguments in [["status", "--admin", &url], ["shutdown", "--admin", &url]] {
        let output = quorate(&folder.0, &arguments);
        assert_eq!(code(&output), 3, "{}", err(&output));
        assert!(err(&output).contains("no answer from http://127.0.0.1:"), "{}", err(&output));
    }
}

#[test]
fn a_port_in_use_is_named() {
    let folder = Folder::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let extra = format!(
        "[admin]\nlisten = \"{address}\"\n[client]\nlisten = \"127.0.0.1:0\"\n\
         [storage]\nallow_volatile = true\n"
    );
    one_node(&folder, &extra);
    let output = quorate(&folder.0, &["start", "--config", "quorate.toml"]);
    assert_eq!(code(&output), 1);
    let expected = format!("admin.listen {address}: Address already in use");
    assert!(err(&output).contains(&expected), "{}", err(&output));
}

#[test]
fn a_journal_of_nothing_is_refused() {
    let folder = Folder::new("journal");
    let output = quorate(&folder.0, &["journal", "verify", "nowhere"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("nowhere"), "{}", err(&output));
}
