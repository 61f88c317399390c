//! `SESSION DURABILITY`: a policy beside the cluster's.

use std::borrow::Cow;

use quorate_protocol::policy::Policy;
use quorate_protocol::resp::Reply;

use super::Control;
use crate::client::refusal::cluster_down;

impl Control<'_> {
    /// What the session asks for is met beside what the cluster's policy asks for, so that it
    /// can't be weaker. The cluster's own policy takes the session's back.
    pub(super) fn set_durability(&mut self, text: &str) -> Reply {
        let view = self.shared.published.view();
        let Some(config) = &view.config else { return cluster_down() };
        let voters = config.voters().count();
        let policy = match Policy::parse(text, voters) {
            Ok(policy) => policy,
            Err(error) => return Reply::Error(Cow::Owned(format!("ERR {error}"))),
        };
        let beyond = policy.beyond(&config.policy, voters);
        if beyond.is_none() && policy.normal_form(voters) != config.policy.normal_form(voters) {
            return Reply::Error(Cow::Owned(format!(
                "ERR {policy} is weaker than the cluster's policy, {}",
                config.policy
            )));
        }
        self.session.durability = beyond;
        Reply::OK
    }
}
