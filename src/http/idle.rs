//! The end of connections that say nothing.
//!
//! hyper's timers begin where a protocol is spoken: nothing of theirs runs while hyper-util still
//! reads the octets that tell HTTP/1 from HTTP/2, nor before the preface of HTTP/2 is complete. So
//! the silence is measured where the octets arrive.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// As long as the preface of HTTP/2 (RFC 9113 section 3.4), by which the protocol is certain; no
/// request in HTTP/1 to a path served here is shorter.
const OPENING: usize = 24;

/// How long a peer may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the start until `OPENING` octets are read, however they trickle.
    pub opening: Duration,
    /// Between octets after that.
    pub between: Duration,
}

/// A stream whose reads fail with `TimedOut` once its peer was silent for too long.
///
/// Writing extends nothing: what is written is answers, and a peer that takes them without ever
/// asking again is idle.
#[derive(Debug)]
pub struct Idle<S> {
    stream: S,
    patience: Patience,
    /// Octets of the opening that are still to come.
    opening: usize,
    end: Pin<Box<Sleep>>,
}

impl<S> Idle<S> {
    pub fn new(stream: S, patience: Patience) -> Self {
        let end = Box::pin(sleep(patience.opening));
        Self {
            stream,
            patience,
            opening: OPENING,
            end,
        }
    }

    fn heard(&mut self, octets: usize) {
        self.opening = self.opening.saturating_sub(octets);
        if self.opening == 0 {
            self.end
                .as_mut()
                .reset(Instant::now() + self.patience.between);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Idle<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if read.is_pending() {
            return this
                .end
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        this.heard(buffer.filled().len().saturating_sub(before));
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Idle<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::timeout;

    use super::*;

    /// Longer than any test may take: a limit that must not be the one that is met.
    const NEVER: Duration = Duration::from_secs(600);
    const SOON: Duration = Duration::from_millis(50);
    /// No test waits longer than this, so what ends in it was ended by the guard.
    const PATIENT: Duration = Duration::from_secs(60);

    async fn cut<S: AsyncRead + Unpin>(idle: &mut Idle<S>) -> bool {
        let mut octets = Vec::new();
        let read = timeout(PATIENT, idle.read_to_end(&mut octets))
            .await
            .expect("ends");
        read.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test]
    async fn who_never_says_anything_is_cut_off() {
        let (_peer, stream) = duplex(64);
        let began = Instant::now();
        let mut idle = Idle::new(
            stream,
            Patience {
                opening: SOON,
                between: NEVER,
            },
        );
        assert!(cut(&mut idle).await);
        assert!(began.elapsed() >= SOON);
    }

    #[tokio::test]
    async fn an_opening_that_trickles_is_cut_off() {
        let (mut peer, stream) = duplex(64);
        let trickle = tokio::spawn(async move {
            // Three octets short of the preface, and no octet late by itself.
            for octet in b"PRI * HTTP/2.0\r\n\r\nSM\r" {
                peer.write_all(&[*octet]).await.expect("sent");
                tokio::time::sleep(SOON / 50).await;
            }
            peer
        });
        let mut idle = Idle::new(
            stream,
            Patience {
                opening: SOON,
                between: NEVER,
            },
        );
        assert!(cut(&mut idle).await);
        drop(trickle.await);
    }

    #[tokio::test]
    async fn who_falls_silent_is_cut_off() {
        let (mut peer, stream) = duplex(64);
        peer.write_all(&[b'x'; OPENING]).await.expect("sent");
        let mut idle = Idle::new(
            stream,
            Patience {
                opening: NEVER,
                between: SOON,
            },
        );
        let mut octets = [0; OPENING];
        idle.read_exact(&mut octets).await.expect("reads");
        // What is written meanwhile is no sign of life.
        idle.write_all(b"answer").await.expect("writes");
        assert!(cut(&mut idle).await);
    }

    #[tokio::test]
    async fn every_octet_after_the_opening_buys_time() {
        let between = Duration::from_secs(2);
        let (mut peer, stream) = duplex(64);
        let talker = tokio::spawn(async move {
            peer.write_all(&[b'x'; OPENING]).await.expect("sent");
            for _ in 0..6 {
                tokio::time::sleep(between / 4).await;
                peer.write_all(b"x").await.expect("sent");
            }
        });
        let mut idle = Idle::new(
            stream,
            Patience {
                opening: between,
                between,
            },
        );
        let mut octets = Vec::new();
        let read = timeout(PATIENT, idle.read_to_end(&mut octets))
            .await
            .expect("ends");
        assert_eq!(read.expect("an orderly end"), OPENING + 6);
        talker.await.expect("talks");
    }
}
