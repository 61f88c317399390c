//! Stands between a node and an S3 store, and breaks what goes through.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A connection that nothing comes through for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The longest request that goes through: a part of an object, and more.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Looks at whether it is to end while a request is held.
const HOLD_POLL: Duration = Duration::from_millis(20);

/// What happens to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum S3Fault {
    /// They go through.
    #[default]
    None,
    /// From this one on, counted from 1, none reaches the store.
    Away(u64),
    /// From this one on, they reach the store, and its answers are lost.
    Deaf(u64),
    /// This one's answer is lost.
    Lost(u64),
    /// The answer to the first request is lost that puts an object of this name.
    LostPut(&'static str),
    /// Each is held for so long.
    Slow(Duration),
}

/// A listener on loopback; it ends when this is dropped.
#[derive(Debug)]
pub struct S3Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: SocketAddr,
    ended: AtomicBool,
    /// What happens, and requests since it does.
    fault: Mutex<(S3Fault, u64)>,
}

impl S3Proxy {
    /// Begins to forward to this store.
    ///
    /// # Panics
    ///
    /// If it can't listen.
    #[must_use]
    pub fn start(store: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("it is bound");
        let shared =
            Arc::new(Shared { store, ended: AtomicBool::new(false), fault: Mutex::default() });
        let serving = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = serving.clone();
                // An error is the end of a connection, which is all that it means to the other side.
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this happens; requests are counted anew. Returns how many there were.
    pub fn set(&self, fault: S3Fault) -> u64 {
        let mut known = self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, (fault, 0)).1
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees it.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(IDLE_LIMIT))?;
        client.set_write_timeout(Some(IDLE_LIMIT))?;
        let mut client = BufReader::new(client);
        let Some(request) = read_request(&mut client)? else { return Ok(()) };
        let (fault, number) = self.count(&request);
        let is_lost = match fault {
            S3Fault::None => false,
            S3Fault::Away(first) if number >= first => return Ok(()),
            S3Fault::Away(_) => false,
            S3Fault::Deaf(first) => number >= first,
            S3Fault::Lost(only) => number == only,
            S3Fault::LostPut(_) => number == 1,
            S3Fault::Slow(delay) => {
                self.hold(delay);
                false
            }
        };
        let mut store = TcpStream::connect(self.store)?;
        store.set_read_timeout(Some(IDLE_LIMIT))?;
        store.write_all(&request)?;
        // The store closes its connection behind each answer, and says so in it.
        let mut answer = Vec::new();
        store.read_to_end(&mut answer)?;
        if is_lost { Ok(()) } else { client.get_mut().write_all(&answer) }
    }

    /// What happens to a request, and which one it is.
    fn count(&self, request: &[u8]) -> (S3Fault, u64) {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = match known.0 {
            S3Fault::LostPut(name) => {
                let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
                let line = String::from_utf8_lossy(line);
                line.starts_with("PUT ") && line.contains(&format!("/{name} "))
            }
            S3Fault::None
            | S3Fault::Away(_)
            | S3Fault::Deaf(_)
            | S3Fault::Lost(_)
            | S3Fault::Slow(_) => true,
        };
        if !counts {
            return (S3Fault::None, 0);
        }
        known.1 += 1;
        *known
    }

    fn hold(&self, delay: Duration) {
        let until = Instant::now() + delay;
        while Instant::now() < until && !self.ended.load(Ordering::Relaxed) {
            thread::sleep(HOLD_POLL);
        }
    }
}

/// Head and body; `None` where the client has closed instead.
fn read_request(client: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    let mut body = 0;
    loop {
        let from = request.len();
        if client.read_until(b'\n', &mut request)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&request[from..]).to_ascii_lowercase();
        if let Some(length) = line.strip_prefix("content-length:") {
            body = length.trim().parse().map_err(io::Error::other)?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let is_whole =
        body <= BODY_BYTES_MAX && client.take(body).read_to_end(&mut request)? as u64 == body;
    Ok(is_whole.then_some(request))
}
