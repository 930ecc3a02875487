//! How many answers that take long may be under way: each holds a connection and a place in memory, an
//! event stream for minutes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Streams open at a time, over all clients.
const ALL: usize = 512;
/// Streams one client may have open; behind one address there may be several Macs.
const OF_ONE: usize = 16;
/// The same of downloads, which are short where the client reads them.
const DOWNLOADS: usize = 256;
const DOWNLOADS_OF_ONE: usize = 8;

/// The streams that are open, each of a client: an address, or whoever has a token.
#[derive(Debug)]
pub struct Streams<C: Eq + Hash> {
    all: Arc<Semaphore>,
    of_one: usize,
    clients: Mutex<HashMap<C, usize>>,
}

/// No stream can be opened now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// For anybody.
    ForAll,
    /// For this client, which has as many as it may.
    ForClient,
}

/// A stream's place, until it is dropped.
#[derive(Debug)]
pub struct Place<C: Eq + Hash> {
    streams: Arc<Streams<C>>,
    client: Option<C>,
    _permit: OwnedSemaphorePermit,
}

impl<C: Eq + Hash> Default for Streams<C> {
    fn default() -> Self {
        Self::new(ALL, OF_ONE)
    }
}

impl<C: Eq + Hash> Streams<C> {
    /// Of answers that are long.
    pub fn for_downloads() -> Self {
        Self::new(DOWNLOADS, DOWNLOADS_OF_ONE)
    }

    /// Places for `all` together, and `of_one` for each client.
    pub fn new(all: usize, of_one: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_one,
            clients: Mutex::default(),
        }
    }

    /// A place for one more stream. A client that is not known counts with all only.
    ///
    /// # Refusals
    /// [`Full`].
    pub fn enter(self: &Arc<Self>, client: Option<C>) -> Result<Place<C>, Full>
    where
        C: Clone,
    {
        let mut clients = self.clients();
        if let Some(client) = &client
            && clients.get(client).is_some_and(|open| *open >= self.of_one)
        {
            return Err(Full::ForClient);
        }
        let permit = Arc::clone(&self.all)
            .try_acquire_owned()
            .map_err(|_| Full::ForAll)?;
        if let Some(client) = client.clone() {
            *clients.entry(client).or_default() += 1;
        }
        drop(clients);
        Ok(Place {
            streams: Arc::clone(self),
            client,
            _permit: permit,
        })
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<C, usize>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Eq + Hash> Drop for Place<C> {
    fn drop(&mut self) {
        let Some(client) = &self.client else { return };
        let mut clients = self.streams.clients();
        if let Some(open) = clients.get_mut(client) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                clients.remove(client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn nobody_has_more_than_a_share_and_all_have_no_more_than_there_is() {
        let streams = Arc::new(Streams::new(3, 2));
        let client = |last| Some(IpAddr::from([192, 0, 2, last]));
        let enter = |client| streams.enter(client);
        let (first, _second) = (
            enter(client(1)).expect("one"),
            enter(client(1)).expect("two"),
        );
        assert_eq!(enter(client(1)).err(), Some(Full::ForClient));
        let third = enter(client(2)).expect("three");
        assert_eq!(enter(client(3)).err(), Some(Full::ForAll));
        assert_eq!(enter(None).err(), Some(Full::ForAll));

        drop(first);
        let again = enter(client(1)).expect("a place was given back");
        drop((again, third));
        assert_eq!(streams.clients().len(), 1, "who has none is forgotten");
        assert_eq!(streams.all.available_permits(), 2);
    }
}
