//! The task of one connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quorate_protocol::resp::{Limits, RequestParser};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

use super::output::Output;
use super::registry::Client;
use super::round::Round;
use super::session::{Mode, Session};
use super::shared::Shared;
use crate::submit::Waits;

/// What one read asks for, at first and once a client has shown that it sends more.
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 64 << 10;

/// Arguments of a round's first command that the slow log may want.
const SHOWN_ARGUMENTS: usize = 8;

/// Serves one connection until it ends.
pub(super) async fn serve(
    shared: Arc<Shared>,
    client: Arc<Client>,
    mut stream: TcpStream,
    mode: Mode,
) {
    let result = Connection::new(&shared, &client, &mut stream, mode).run().await;
    if let Err(error) = result {
        tracing::debug!(client = client.id, %error, "connection ended");
    }
    shared.registry.leave(client.id);
    shared.metrics.disconnected();
}

struct Connection<'a> {
    shared: &'a Shared,
    client: &'a Client,
    socket: ReadHalf<'a>,
    out: Output<'a>,
    session: Session,
    input: BytesMut,
    read_bytes: usize,
    parser: RequestParser,
    argv: Vec<Bytes>,
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, client: &'a Client, stream: &'a mut TcpStream, mode: Mode) -> Self {
        let live = shared.live();
        let settings = &live.settings;
        let open = settings.requirepass.is_none();
        client.set_authenticated(open);
        let mut parser = RequestParser::new(Limits {
            bulk_bytes_max: settings.max_value_bytes,
            request_bytes_max: settings.request_bytes_max,
            ..Limits::default()
        });
        parser.set_authenticated(open);
        let (socket, writer) = stream.split();
        Self {
            shared,
            client,
            socket,
            out: Output::new(writer, settings.output_bytes_max),
            session: Session::new(mode, open),
            input: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            parser,
            argv: Vec::new(),
        }
    }

    async fn run(&mut self) -> io::Result<()> {
        let client = self.client;
        let mut ended = std::pin::pin!(client.ended());
        loop {
            let wanted = self.parser.wanted(&self.input).max(self.read_bytes);
            tokio::select! {
                biased;
                received = receive(&mut self.socket, &mut self.input, wanted) => {
                    match received? {
                        0 => return Ok(()),
                        received => self.round(received).await?,
                    }
                    if self.session.closing || client.is_ending() {
                        return self.close().await;
                    }
                }
                written = self.out.writable(), if !self.out.is_empty() => written?,
                () = &mut ended => return self.close().await,
            }
        }
    }

    /// Answers every complete command that has been read.
    async fn round(&mut self, received: usize) -> io::Result<()> {
        let started = Instant::now();
        self.client.touch(started);
        let out_before = self.out.taken();
        let mut first: Vec<Bytes> = Vec::new();
        let mut round =
            Round::new(self.shared, &mut self.session, self.client, &mut self.out, started);
        loop {
            match self.parser.parse(&mut self.input, &mut self.argv) {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => {
                    round.reject(fault.to_reply()).await?;
                    break;
                }
            }
            if first.is_empty() {
                first.extend(self.argv.iter().take(SHOWN_ARGUMENTS).cloned());
            }
            round.take(&mut self.argv).await?;
            self.parser.set_authenticated(round.is_authenticated());
            if round.is_closing() {
                break;
            }
        }
        let mut counts = round.finish().await?;
        let took = started.elapsed().saturating_sub(round.waited());
        let waits = round.waits();
        counts.took = took;
        counts.input_bytes = received as u64;
        counts.output_bytes = self.out.taken() - out_before;
        self.shared.metrics.round(&counts);
        if self.shared.slowlog.concerns(took) && !first.is_empty() {
            self.log_slow(&first, took, waits.map(|(waits, _)| waits));
        }
        // A client that fills its reads gets larger ones.
        if received >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        let Some((_, encoding)) = waits else { return self.out.flush() };
        let handing_over = Instant::now();
        self.out.flush()?;
        self.shared.metrics.answered(encoding, handing_over.elapsed());
        Ok(())
    }

    fn log_slow(&self, first: &[Bytes], took: Duration, waits: Option<Waits>) {
        let name = self.client.details.lock().name.clone();
        let at_s = self.shared.now_ms() / 1_000;
        let who = (self.client.address.to_string(), name);
        self.shared.slowlog.add(at_s, took, (first, waits), who);
    }

    /// Lets the last replies leave, as long as the client takes them.
    async fn close(&mut self) -> io::Result<()> {
        let flushed = async {
            while !self.out.is_empty() {
                self.out.writable().await?;
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(1), flushed)
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Reads once; at least `bytes` fit. May be dropped at any time.
async fn receive(
    socket: &mut ReadHalf<'_>,
    input: &mut BytesMut,
    bytes: usize,
) -> io::Result<usize> {
    input.reserve(bytes);
    socket.read_buf(input).await
}
