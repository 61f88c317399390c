//! Requests to a node's admin port: one connection each, and every wait has a deadline.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where a node's admin port is: `http://host:port`.
#[derive(Clone, Debug)]
pub(crate) struct AdminUrl {
    authority: String,
}

/// What a node answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: String,
}

impl Answer {
    /// The body of a success as JSON; what it says is wrong, otherwise.
    pub(crate) fn json(&self, from: &AdminUrl) -> Result<serde_json::Value, Failure> {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let error = body["error"].as_str().unwrap_or(self.body.trim());
        match self.status {
            200 => Ok(body),
            400 => Err(Failure::Usage(error.to_owned())),
            status => Err(Failure::Failed(format!("{from} answers {status}: {error}"))),
        }
    }

    /// The same, as what it should be.
    pub(crate) fn parsed<T: serde::de::DeserializeOwned>(
        &self,
        from: &AdminUrl,
    ) -> Result<T, Failure> {
        serde_json::from_value(self.json(from)?)
            .map_err(|error| Failure::failed(format_args!("the answer of {from}"), error))
    }
}

/// A path with those parameters that have a value, percent-encoded.
pub(crate) fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let mut text = path.to_owned();
    for (index, (name, value)) in given.enumerate() {
        text += if index == 0 { "?" } else { "&" };
        text += name;
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text += &format!("%{byte:02X}");
            }
        }
    }
    text
}

impl std::str::FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is not a URL such as http://127.0.0.1:7421");
        let authority = text.strip_prefix("http://").ok_or_else(refuse)?.trim_end_matches('/');
        let port = authority.rsplit_once(':').map(|(_, port)| port).ok_or_else(refuse)?;
        if authority.contains('/') || port.parse::<u16>().is_err() {
            return Err(refuse());
        }
        Ok(Self { authority: authority.to_owned() })
    }
}

impl std::fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl AdminUrl {
    /// The admin port at this address.
    pub(crate) fn at(address: std::net::SocketAddr) -> Self {
        Self { authority: address.to_string() }
    }

    /// Whether nothing listens there any more. That nothing is heard is no proof of it.
    pub(crate) fn is_refused(&self, timeout: Duration) -> bool {
        let addresses = self.authority.to_socket_addrs().into_iter().flatten();
        let mut connects = addresses.map(|address| TcpStream::connect_timeout(&address, timeout));
        connects.all(|connected| {
            connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        })
    }

    /// `GET path`. Any status is an answer; none is [`Failure::Unreachable`].
    pub(crate) fn get(&self, path: &str, timeout: Duration) -> Result<Answer, Failure> {
        self.request(&format!("GET {path} HTTP/1.1\r\n"), "", timeout)
    }

    /// `POST path` with a JSON body.
    pub(crate) fn post(
        &self,
        path: &str,
        json: &str,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            json.len()
        );
        self.request(&head, json, timeout)
    }

    fn request(&self, head: &str, body: &str, timeout: Duration) -> Result<Answer, Failure> {
        let authority = &self.authority;
        let request = format!("{head}Host: {authority}\r\nConnection: close\r\n\r\n{body}");
        self.exchange(&request, timeout)
            .map_err(|error| Failure::Unreachable(format!("no answer from {self}: {error}")))
    }

    fn exchange(&self, request: &str, timeout: Duration) -> std::io::Result<Answer> {
        let deadline = Instant::now() + timeout;
        let address = self
            .authority
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| std::io::Error::other("the name has no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(request.as_bytes())?;
        let mut received = Vec::new();
        let mut chunk = [0; 16 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            stream.set_read_timeout(Some(left))?;
            match stream.read(&mut chunk)? {
                0 => break,
                count if received.len() + count > ANSWER_BYTES_MAX => {
                    return Err(std::io::Error::other("the answer is too long"));
                }
                count => received.extend_from_slice(&chunk[..count]),
            }
        }
        parse(&String::from_utf8_lossy(&received))
            .ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
    }
}

/// Bodies come with a length and end with the connection; a shorter one was cut off.
fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return None;
    }
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        assert_eq!(
            "http://127.0.0.1:7421/".parse::<AdminUrl>().expect("a URL").to_string(),
            "http://127.0.0.1:7421"
        );
        for wrong in ["127.0.0.1:7421", "https://a:1", "http://a", "http://a:1/b", "http://a:x"] {
            assert!(wrong.parse::<AdminUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn parameters_are_encoded_and_left_out() {
        let clauses = Some("persisted>=1 && in_memory>=2".to_owned());
        assert_eq!(
            query("/p", &[("policy", clauses), ("down", None), ("x", Some("1,2".to_owned()))]),
            "/p?policy=persisted%3E%3D1%20%26%26%20in_memory%3E%3D2&x=1%2C2"
        );
        assert_eq!(query("/p", &[("down", None)]), "/p");
    }

    #[test]
    fn a_cut_answer_is_no_answer() {
        let whole = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno";
        let answer = parse(whole).expect("whole");
        assert_eq!((answer.status, answer.body.as_str()), (503, "no"));
        assert!(parse(&whole[..whole.len() - 1]).is_none());
        assert!(parse("nonsense\r\n\r\n").is_none());
    }
}
