//! One plain HTTP GET with a deadline, for `/readyz`, `/healthz` and `/metrics` of our own processes. No TLS, no keep-alive.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Status code and body of `GET path` at 127.0.0.1:`port`.
pub fn http_get(port: u16, path: &str, timeout: Duration) -> Result<(u16, String)> {
    http_get_at(SocketAddr::from(([127, 0, 0, 1], port)), path, timeout)
}

/// The same at another address.
pub(crate) fn http_get_at(at: SocketAddr, path: &str, timeout: Duration) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&at, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of headers")?;
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("the answer has no status")?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_parsed() {
        assert_eq!(parse("HTTP/1.1 503 Busy\r\nA: b\r\n\r\nno\n").unwrap(), (503, "no\n".to_owned()));
        assert!(parse("HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse("hello\r\n\r\n").is_err());
    }
}
