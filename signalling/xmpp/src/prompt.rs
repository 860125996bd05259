//! A TCP connection that acknowledges at once what it reads.
//!
//! Servers may hold back a small stanza until the one before is acknowledged (Nagle's algorithm,
//! RFC 9293 section 3.7.4; Prosody's default). The system acknowledges up to 40 ms late, in the
//! hope that there is something to send as well, and goes back to that by itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::sockopt::set_tcp_quickack;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// See the head of this file.
pub(crate) struct Prompt(TcpStream);

impl Prompt {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self(tcp)
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.0
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.0).poll_read(context, buffer);
        if result.is_ready() {
            // Without it all works, later.
            let _ = set_tcp_quickack(&self.0, true);
        }
        result
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
