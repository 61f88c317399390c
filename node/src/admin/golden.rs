//! What nodes of different versions say to each other in JSON, as it is written now: what reads it
//! must go on to.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::drill::Break;
use super::joining::Sign;
use super::orders::{Promote, SetPolicy};
use super::renewal::Renew;
use super::tokens::Redeem;
use super::{JoinAnswer, JoinRequest, MembersOrder, TokensOrder};

#[track_caller]
fn unchanged<T: Serialize + DeserializeOwned>(golden: &str) {
    let read: T = serde_json::from_str(golden).expect("it is read");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), golden);
}

#[track_caller]
fn read<T: DeserializeOwned>(golden: &str) -> T {
    serde_json::from_str(golden).expect("it is read")
}

#[test]
fn what_a_node_that_joins_sends_and_gets_is_fixed() {
    unchanged::<JoinRequest>(r#"{"secret":"00ff","request":"-----BEGIN"}"#);
    unchanged::<JoinAnswer>(
        r#"{"error":null,"node":4,"certificate":"-----BEGIN","authorities":"-----BEGIN","members":[[1,"a:7411"],[2,"b:7411"]]}"#,
    );
    // A refusal may say nothing else.
    assert_eq!(read::<JoinAnswer>(r#"{"error":"no"}"#).error.as_deref(), Some("no"));
    unchanged::<Redeem>(r#"{"hash":"00","key":"ff"}"#);
    unchanged::<Sign>(r#"{"hash":"00","request":"-----BEGIN"}"#);
    unchanged::<Renew>(r#"{"request":"-----BEGIN","hosts":["a.example"]}"#);
}

#[test]
fn orders_that_are_passed_on_are_fixed() {
    unchanged::<MembersOrder>(
        r#"{"action":"add","node":4,"disk":"ab","peer":"d:7411","client":"d:7401","plain":"","dry_run":false}"#,
    );
    unchanged::<MembersOrder>(r#"{"action":"add","node":4,"dry_run":true}"#);
    unchanged::<MembersOrder>(r#"{"action":"remove","node":4,"dry_run":false}"#);
    unchanged::<TokensOrder>(r#"{"action":"create","hash":"ab","node":4,"ttl_seconds":3600}"#);
    unchanged::<TokensOrder>(r#"{"action":"revoke","node":4}"#);
    unchanged::<Break>(r#"{"node":1,"fault":"kill","confirmed":true}"#);
    unchanged::<Break>(r#"{"node":1,"fault":{"pause":2000},"confirmed":false}"#);
    // As operators send them.
    assert_eq!(read::<Promote>(r#"{"to":2}"#).to, Some(2));
    assert_eq!(read::<Promote>("{}").to, None);
    assert_eq!(read::<SetPolicy>(r#"{"policy":"all"}"#).policy, "all");
    assert!(serde_json::from_str::<SetPolicy>(r#"{"policy":"all","x":1}"#).is_err());
}
