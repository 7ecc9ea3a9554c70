//! `healthcheck`: what a container's health check runs.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;

use crate::{cli::HealthcheckArgs, errors::Status};

/// Longer than a healthy server ever takes.
const PATIENCE: Duration = Duration::from_secs(3);

/// `GET /health` on loopback: done on 200, with or without a model; failed otherwise.
pub fn run(args: &HealthcheckArgs) -> anyhow::Result<Status> {
    let status =
        status_line(args.port).with_context(|| format!("no healthy server on 127.0.0.1:{}", args.port))?;
    let up = status.split(' ').nth(1) == Some("200");
    Ok(if up { Status::Done } else { Status::Failed })
}

fn status_line(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
