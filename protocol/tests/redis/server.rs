//! A Redis server of our own, and a connection to it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// A reply in RESP2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Null,
    Array(Vec<Value>),
}

pub(crate) struct Server {
    process: Child,
    port: u16,
    directory: std::path::PathBuf,
}

impl Server {
    /// `None` if tests may go without a Redis server.
    pub(crate) fn start() -> Option<Self> {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let directory = std::env::temp_dir().join(format!("quorate-redis-{port}"));
        std::fs::create_dir_all(&directory).expect("a directory");
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1", "--dir"])
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn();
        match started {
            Ok(process) => Some(Self { process, port, directory }),
            Err(_) if std::env::var_os("QUORATE_WITHOUT_REDIS").is_some() => None,
            Err(error) => panic!("redis-server: {error}; set QUORATE_WITHOUT_REDIS to skip"),
        }
    }

    pub(crate) fn connect(&self) -> Connection {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
                    return Connection { reader: BufReader::new(stream) };
                }
                Err(error) if Instant::now() > deadline => panic!("redis-server: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn command(&mut self, argv: &[Bytes]) -> Value {
        let mut request = format!("*{}\r\n", argv.len()).into_bytes();
        for argument in argv {
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        self.send(&request);
        self.receive()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("the server reads");
    }

    pub(crate) fn receive(&mut self) -> Value {
        read_value(&mut self.reader)
    }
}

pub(crate) fn read_value(reader: &mut impl BufRead) -> Value {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).expect("a reply");
    let text = String::from_utf8_lossy(&line[1..line.len() - 2]).into_owned();
    let number = || text.parse::<i64>().expect("a number");
    match line[0] {
        b'+' => Value::Simple(text),
        b'-' => Value::Error(text),
        b':' => Value::Integer(number()),
        b'$' | b'*' if number() < 0 => Value::Null,
        b'$' => {
            let mut data = vec![0; number() as usize + 2];
            reader.read_exact(&mut data).expect("a bulk string");
            data.truncate(data.len() - 2);
            Value::Bulk(data.into())
        }
        b'*' => Value::Array((0..number()).map(|_| read_value(reader)).collect()),
        other => panic!("not RESP2: {other}"),
    }
}
