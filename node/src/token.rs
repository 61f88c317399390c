//! `quorate token`: invitations for nodes that join.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::TokensOrder;
use crate::config::parse_duration;
use crate::failure::Failure;
use crate::hex;
use crate::http::AdminUrl;
use crate::moment::moment_s;
use crate::output::{say, table};

/// The longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The format of a token file.
const FORMAT: u32 = 1;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Invite one node: write a token file, which works once, for `quorate join`
    Create {
        /// The node's number; by default the next that was never used
        #[arg(long)]
        id: Option<u64>,
        /// How long it holds
        #[arg(long, default_value = "1h")]
        ttl: String,
        /// Where to write it; others must not read it
        #[arg(long, default_value = "join.token")]
        output: PathBuf,
    },
    /// List open invitations; their secrets are not known to the cluster
    List,
    /// Take an invitation back
    Revoke {
        /// The node that it is for
        #[arg(long)]
        id: u64,
    },
}

/// What a token file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    format: u32,
    /// Name of the cluster.
    pub(crate) cluster_name: String,
    /// Its id.
    pub(crate) cluster_id: String,
    /// The number of the node that it is for.
    pub(crate) node: u64,
    /// BLAKE3 of the authorities' certificates, in hex.
    pub(crate) authorities: Vec<String>,
    /// 32 random bytes in hex.
    pub(crate) secret: String,
    /// Seconds since 1970.
    pub(crate) expires_at: u64,
}

impl Token {
    /// Reads a token file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bad = |error: &dyn std::fmt::Display| {
            Failure::Usage(format!("token file {}: {error}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| bad(&error))?;
        let token: Self = serde_json::from_str(&text).map_err(|error| bad(&error))?;
        if token.format != FORMAT {
            return Err(bad(&format!("format {} is not known, only {FORMAT}", token.format)));
        }
        Ok(token)
    }

    /// The authorities' fingerprints as bytes.
    pub(crate) fn fingerprints(&self) -> Result<Vec<[u8; 32]>, Failure> {
        let all: Option<Vec<_>> = self.authorities.iter().map(|text| hex::decode(text)).collect();
        all.filter(|all| !all.is_empty())
            .ok_or_else(|| Failure::Usage("the token's fingerprints can't be read".to_owned()))
    }
}

/// Does what was asked.
pub(crate) fn run(admin: &AdminUrl, verb: &TokenVerb, as_json: bool) -> Result<(), Failure> {
    match verb {
        TokenVerb::Create { id, ttl, output } => create(admin, *id, ttl, output, as_json),
        TokenVerb::List => list(admin, as_json),
        TokenVerb::Revoke { id } => {
            let answer = post(admin, &TokensOrder::Revoke { node: *id })?;
            if as_json {
                say(answer);
            } else {
                say(format_args!("the token for node-{id} is revoked"));
            }
            Ok(())
        }
    }
}

fn post(admin: &AdminUrl, order: &TokensOrder) -> Result<Value, Failure> {
    let body = serde_json::to_string(order).map_err(|error| Failure::failed("the order", error))?;
    admin.post("/admin/tokens", &body, ANSWER_LIMIT)?.json(admin)
}

fn create(
    admin: &AdminUrl,
    node: Option<u64>,
    ttl: &str,
    output: &Path,
    as_json: bool,
) -> Result<(), Failure> {
    let ttl = parse_duration(ttl).map_err(|error| Failure::Usage(format!("--ttl: {error}")))?;
    let secret = random()?;
    // The file first: a token whose secret is lost would only be in the way.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output)
        .map_err(|error| Failure::failed(output.display(), error))?;
    let hash = hex::encode(blake3::hash(&secret).as_bytes());
    let order = TokensOrder::Create { hash, node, ttl_seconds: ttl.as_secs() };
    let written = post(admin, &order).and_then(|answer| {
        let token = token_of(&answer, &secret)?;
        let text = serde_json::to_string_pretty(&token)
            .map_err(|error| Failure::failed("the token", error))?;
        writeln!(file, "{text}")
            .and_then(|()| file.sync_all())
            .map_err(|error| Failure::failed(output.display(), error))?;
        Ok(token)
    });
    let token = written.inspect_err(|_| {
        // Nothing is in it, or not all.
        let _ = std::fs::remove_file(output);
    })?;
    if as_json {
        say(serde_json::json!({
            "node": token.node, "expires_at": token.expires_at, "file": output,
        }));
    } else {
        say(format_args!(
            "wrote {}, for node-{} and until {}. On the new machine:\n  quorate join --token-file {} \
             HOST:PORT\nwhere HOST:PORT is the peer address (UDP) of any member",
            output.display(),
            token.node,
            moment_s(token.expires_at),
            output.display(),
        ));
    }
    Ok(())
}

fn token_of(answer: &Value, secret: &[u8; 32]) -> Result<Token, Failure> {
    let read = || {
        let authorities = answer["authorities"].as_array()?;
        Some(Token {
            format: FORMAT,
            cluster_name: answer["cluster_name"].as_str()?.to_owned(),
            cluster_id: answer["cluster_id"].as_str()?.to_owned(),
            node: answer["node"].as_u64()?,
            authorities: authorities
                .iter()
                .map(|one| one.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            secret: hex::encode(secret),
            expires_at: answer["expires_at"].as_u64()?,
        })
    };
    read().ok_or_else(|| Failure::Failed("the answer can't be read".to_owned()))
}

fn random() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|error| Failure::failed("/dev/urandom", error))?;
    Ok(bytes)
}

fn list(admin: &AdminUrl, as_json: bool) -> Result<(), Failure> {
    let answer = admin.get("/tokens", ANSWER_LIMIT)?.json(admin)?;
    if as_json {
        say(&answer);
        return Ok(());
    }
    let mut rows = vec![["NODE", "STATE", "UNTIL"].map(str::to_owned).to_vec()];
    for token in answer["tokens"].as_array().into_iter().flatten() {
        let state = match (token["expired"] == true, token["redeemed"] == true) {
            (true, _) => "expired",
            (false, true) => "redeemed, the node has not joined yet",
            (false, false) => "open",
        };
        let until = moment_s(token["expires_at"].as_u64().unwrap_or_default());
        rows.push(vec![format!("node-{}", token["node"]), state.to_owned(), until]);
    }
    say(table(&rows).trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = r#"{
  "format": 1,
  "cluster_name": "shop",
  "cluster_id": "000000000000000000000000000000ab",
  "node": 4,
  "authorities": [
    "0101010101010101010101010101010101010101010101010101010101010101"
  ],
  "secret": "0202020202020202020202020202020202020202020202020202020202020202",
  "expires_at": 1800000000
}"#;

    #[test]
    fn a_token_file_is_fixed_and_what_is_wrong_with_one_is_named() {
        let path = std::env::temp_dir().join(format!("quorate-{}-join.token", std::process::id()));
        std::fs::write(&path, GOLDEN).expect("written");
        let token = Token::read(&path).expect("it is read");
        assert_eq!(serde_json::to_string_pretty(&token).expect("JSON"), GOLDEN);
        assert_eq!(token.fingerprints().expect("they are read"), [[1; 32]]);
        for (right, wrong, named) in [
            ("\"format\": 1", "\"format\": 2", "format 2 is not known"),
            ("\"node\"", "\"nodes\"", "unknown field `nodes`"),
            ("{", "", "invalid type"),
        ] {
            std::fs::write(&path, GOLDEN.replacen(right, wrong, 1)).expect("written");
            let error = Token::read(&path).expect_err("it is wrong").to_string();
            assert!(error.contains("join.token") && error.contains(named), "{error}");
        }
        std::fs::remove_file(path).expect("removed");
    }
}
