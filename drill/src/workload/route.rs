//! A connection that goes where the primary is said to be.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::history::Outcome;
use crate::resp::{Client, ClientError, Value};

/// After an error that names no other node.
const BACKOFF: Duration = Duration::from_millis(10);

/// Follows `MOVED`; after any other refusal, and after a broken connection, goes to the next
/// node. A command is sent once: whoever retries must use another value.
#[derive(Debug)]
pub struct Route {
    nodes: Vec<SocketAddr>,
    target: SocketAddr,
    client: Option<Client>,
    timeout: Duration,
    /// Connections made so far.
    pub connections: usize,
}

impl Route {
    /// Starts at the first of these nodes; `timeout` bounds every wait for a reply.
    #[must_use]
    pub fn new(nodes: &[SocketAddr], timeout: Duration) -> Self {
        Self { nodes: nodes.to_vec(), target: nodes[0], client: None, timeout, connections: 0 }
    }

    /// Sends commands in one go; one outcome for each.
    pub fn send<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(commands.len());
        if let Err(error) = self.exchange(commands, &mut outcomes) {
            self.client = None;
            self.turn();
            let refused = matches!(error, ClientError::Connect { .. });
            let text = error.to_string();
            outcomes.push(Outcome::of(Err(error)));
            outcomes.resize_with(commands.len(), || {
                if refused { Outcome::Refused(text.clone()) } else { Outcome::Lost(text.clone()) }
            });
        } else if let Some(text) = refusal(&outcomes) {
            self.follow(&text);
        }
        outcomes
    }

    /// Sends one command.
    pub fn send_one<A: AsRef<[u8]>>(&mut self, command: Vec<A>) -> Outcome {
        self.send(&[command]).remove(0)
    }

    fn exchange<A: AsRef<[u8]>>(
        &mut self,
        commands: &[Vec<A>],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), ClientError> {
        if self.client.is_none() {
            self.client = Some(Client::connect(self.target, self.timeout)?);
            self.connections += 1;
        }
        let client = self.client.as_mut().expect("connected above");
        client.send_all(commands)?;
        for _ in commands {
            outcomes.push(Outcome::of(Ok(client.receive()?)));
        }
        Ok(())
    }

    fn follow(&mut self, refusal: &str) {
        let moved = refusal
            .strip_prefix("MOVED ")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|address| address.parse().ok());
        self.client = None;
        match moved {
            Some(address) if address != self.target => self.target = address,
            Some(_) | None => self.turn(),
        }
    }

    /// Goes to the node after the current one.
    fn turn(&mut self) {
        let current = self.nodes.iter().position(|node| *node == self.target);
        self.target = self.nodes[current.map_or(0, |index| (index + 1) % self.nodes.len())];
        thread::sleep(BACKOFF);
    }
}

fn refusal(outcomes: &[Outcome]) -> Option<String> {
    outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Refused(text) => Some(text.clone()),
        Outcome::Done(_) | Outcome::InDoubt(_) | Outcome::Lost(_) => None,
    })
}

/// Whether a write's reply is the one that it must have.
pub(crate) fn is_ok(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done(Value::Simple(text)) if text == "OK")
}
