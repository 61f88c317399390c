//! This crate as if it were a server.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use quorate_protocol::command::batch::Encoder;
use quorate_protocol::command::execute::{Moment, apply_payload, execute_read, execute_walk};
use quorate_protocol::command::{self, Command, CommandQuery, MemoryKeyspace, Read, catalog};
use quorate_protocol::resp::{Limits, Protocol, Reply, RequestParser};
use quorate_protocol::types::Seq;

use super::server::{Value, read_value};

#[derive(Default)]
pub(crate) struct Model {
    keyspace: MemoryKeyspace,
    seq: u64,
}

impl Model {
    /// The reply; `None` for commands that a connection answers.
    pub(crate) fn command(&mut self, argv: &[Bytes]) -> Option<Value> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let now_ms = now.as_millis() as u64;
        let reply = match command::parse(&mut argv.to_vec()) {
            Err(error) => error.to_reply(),
            Ok(Command::Write(write)) => {
                // By way of the log, as in a node.
                let mut encoder = Encoder::new();
                encoder.write(&write);
                self.seq += 1;
                let at = Moment { now_ms, seq: Seq(self.seq) };
                let mut replies = Vec::new();
                let payload = encoder.finish().bytes;
                apply_payload(&payload, at, &mut self.keyspace, Some(&mut replies))
                    .expect("what was encoded is applied");
                replies.remove(0)
            }
            Ok(Command::Read(Read::Walk(walk))) => {
                execute_walk(&walk, now_ms, 1, &self.keyspace).expect("in memory")
            }
            Ok(Command::Read(read)) => {
                execute_read(&read, now_ms, &self.keyspace).expect("in memory")
            }
            Ok(Command::Connection(_) | Command::Transaction(_)) => return None,
        };
        Some(value(&reply))
    }
}

pub(crate) fn protocol_error(stream: &[u8]) -> Value {
    let mut parser = RequestParser::new(Limits::default());
    parser.set_authenticated(true);
    let (mut input, mut argv) = (BytesMut::from(stream), Vec::new());
    loop {
        match parser.parse(&mut input, &mut argv) {
            Ok(true) => {}
            Ok(false) => panic!("no error in {stream:?}"),
            Err(error) => return value(&error.to_reply()),
        }
    }
}

pub(crate) fn command_info(name: &'static str) -> Vec<Value> {
    let query = CommandQuery::Info { names: vec![name.into()] };
    let Value::Array(mut infos) = value(&catalog::answer(&query)) else { panic!("an array") };
    let Value::Array(info) = infos.remove(0) else { panic!("an array") };
    info
}

/// Answers a `COMMAND …`.
pub(crate) fn catalog(argv: &[Bytes]) -> Value {
    match command::parse(&mut argv.to_vec()) {
        Err(error) => value(&error.to_reply()),
        Ok(Command::Connection(connection)) => match *connection {
            command::Connection::Command(query) => value(&catalog::answer(&query)),
            other => panic!("{other:?}"),
        },
        Ok(other) => panic!("{other:?}"),
    }
}

fn value(reply: &Reply) -> Value {
    let mut out = BytesMut::new();
    reply.write(Protocol::Resp2, &mut out);
    read_value(&mut &out[..])
}
