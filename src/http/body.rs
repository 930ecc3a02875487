//! Reading a request's body: limited, alone and together with all others, and refused in a way the
//! client gets to see.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::reason::Reason;

/// Octets of bodies kept at a time, over all connections. Room is taken as octets arrive, so that
/// nobody can occupy more than was sent; who finds none waits for as long as the request may take.
/// A whole fleet of 5,000 Macs that answers in the same moment has 65 MB.
static ROOM: Semaphore = Semaphore::const_new(128 * 1024 * 1024);

/// Most that is read of a body that is refused. A client is still sending then, and would meet a
/// broken connection in place of the answer. Nothing of it is kept.
const DISCARDED: usize = 4 * 1024 * 1024;

/// A body of at most `MAX` octets, or why there is none: `request_too_large`, or
/// `request_malformed` for one that broke off.
#[derive(Debug)]
pub struct Received<const MAX: usize>(pub Result<Bytes, Reason>);

impl<const MAX: usize, S: Send + Sync> FromRequest<S> for Received<MAX> {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        Ok(Self(
            read(request.into_body(), MAX)
                .await
                .map(|kept| kept.octets.into()),
        ))
    }
}

/// A whole body, and the room it takes until it is dropped.
#[derive(Debug)]
pub struct Kept<'a> {
    octets: Vec<u8>,
    _room: Option<SemaphorePermit<'a>>,
}

impl Kept<'_> {
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }
}

/// Reads a body of at most `max` octets.
///
/// # Refusals
/// As for [`Received`].
pub async fn read(body: Body, max: usize) -> Result<Kept<'static>, Reason> {
    read_into(&ROOM, body, max).await
}

/// Reads and forgets the body of a request that is refused for another reason.
pub async fn discard(mut body: Body) {
    pass_over(&mut body, 0).await;
}

async fn read_into(room: &Semaphore, mut body: Body, max: usize) -> Result<Kept<'_>, Reason> {
    let mut kept = Kept {
        octets: Vec::new(),
        _room: None,
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Reason::RequestMalformed)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let length = kept.octets.len().saturating_add(data.len());
        if length > max {
            drop((kept, frame));
            pass_over(&mut body, length).await;
            return Err(Reason::RequestTooLarge);
        }
        let taken = u32::try_from(data.len()).map_err(|_| Reason::RequestTooLarge)?;
        // It is never closed.
        let taken = room
            .acquire_many(taken)
            .await
            .map_err(|_| Reason::RequestMalformed)?;
        match &mut kept._room {
            Some(all) => all.merge(taken),
            none => *none = Some(taken),
        }
        kept.octets.extend_from_slice(data);
    }
    Ok(kept)
}

/// Reads on after `length` octets until the end or until enough was read.
async fn pass_over(body: &mut Body, mut length: usize) {
    while length <= DISCARDED
        && let Some(Ok(frame)) = body.frame().await
    {
        length = length.saturating_add(frame.data_ref().map_or(0, Bytes::len));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn in_pieces(pieces: &[&'static str]) -> Body {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(*piece))
            .collect();
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    async fn octets(body: Body) -> Result<Vec<u8>, Reason> {
        read(body, 4).await.map(|kept| kept.octets)
    }

    #[tokio::test]
    async fn a_body_is_whole_or_refused() {
        assert_eq!(octets(in_pieces(&[])).await, Ok(Vec::new()));
        assert_eq!(octets(in_pieces(&["ab", "cd"])).await, Ok(b"abcd".to_vec()));
        for large in [
            &["abcde"][..],
            &["ab", "cde"],
            &["abcd", "efgh", "ijkl", "mnop"],
        ] {
            assert_eq!(octets(in_pieces(large)).await, Err(Reason::RequestTooLarge));
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_taken_for_a_short_one() {
        let pieces = [Ok("ab"), Err(std::io::Error::other("gone"))];
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        assert_eq!(octets(body).await, Err(Reason::RequestMalformed));
    }

    #[tokio::test]
    async fn bodies_take_the_room_they_need_and_wait_for_it() {
        let room = Semaphore::new(8);
        let read = |pieces: &[&'static str]| read_into(&room, in_pieces(pieces), 8);
        let first = read(&["abc", "de"]).await.expect("read");
        assert_eq!(
            (first.octets(), room.available_permits()),
            (&b"abcde"[..], 3)
        );
        let mut second = Box::pin(read(&["fg", "hi"]));
        assert!((&mut second).now_or_never().is_none());
        // What is too large for itself needs no room, and gives back what it took.
        let large = Box::pin(read(&["abcdefghi"])).await;
        assert_eq!(large.err(), Some(Reason::RequestTooLarge));
        drop(first);
        let second = second.await.expect("read");
        assert_eq!(
            (second.octets(), room.available_permits()),
            (&b"fghi"[..], 4)
        );
        drop(second);
        assert_eq!(room.available_permits(), 8);
        let large = read(&["abc", "defghi"]).await;
        assert_eq!(
            (large.err(), room.available_permits()),
            (Some(Reason::RequestTooLarge), 8)
        );
    }

    #[tokio::test]
    async fn what_is_refused_is_read_on_but_not_for_ever() {
        let mut body = Body::from_stream(futures_util::stream::repeat_with(|| {
            Ok::<_, Infallible>(vec![0_u8; 1024 * 1024])
        }));
        pass_over(&mut body, 0).await;
        assert_eq!(read(body, 4).await.err(), Some(Reason::RequestTooLarge));
    }
}
