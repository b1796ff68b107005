//! Name resolution by the system's resolver, which blocks, on a bounded number of threads.
//!
//! `getaddrinfo` cannot be interrupted, and takes half a minute and more while a name server
//! is silent. So each look-up has a thread of its own, a name is never looked up twice at a
//! time, and whoever gives up waiting leaves the thread to its end. The threads are not those
//! of the runtime, which has files to read and an end to come to.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock};
use std::thread;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Look-ups that one resolver makes at a time; the next name waits for a thread.
pub const THREADS: usize = 32;

type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// What a look-up came to; the error's text, since an `io::Error` cannot be handed to several.
type Answer = Result<Arc<[SocketAddr]>, (io::ErrorKind, String)>;

/// Resolves names. Clones share their threads and the look-ups that are under way.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    lookup: Box<Lookup>,
    threads: Arc<Semaphore>,
    under_way: Mutex<HashMap<String, watch::Receiver<Option<Answer>>>>,
}

impl Resolver {
    /// The system's resolver with [`THREADS`] threads of its own, so that names which hang
    /// here delay nobody else's.
    #[must_use]
    pub fn system() -> Self {
        Self::new(THREADS, |host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    /// The system's resolver, shared by all in this process that need no threads of their own.
    #[must_use]
    pub fn shared() -> Self {
        static SHARED: LazyLock<Resolver> = LazyLock::new(Resolver::system);
        SHARED.clone()
    }

    /// Another source of addresses. `lookup` may block, and runs on at most so many threads;
    /// the ports that it returns do not matter.
    #[must_use]
    pub fn new(
        threads: usize,
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        let threads = Arc::new(Semaphore::new(threads));
        let (lookup, under_way) = (Box::new(lookup), Mutex::default());
        Self { shared: Arc::new(Shared { lookup, threads, under_way }) }
    }

    /// The addresses of a host, each once, in the resolver's order. An IP address, with or
    /// without the brackets of IPv6, needs no thread. Cancel-safe; the caller bounds the wait.
    ///
    /// # Errors
    /// The name does not resolve, or to no address.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in self.answer(bare).await?.iter() {
            let mut address = *address;
            address.set_port(port);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }

    /// The addresses of `host:port`, as [`Self::resolve`] finds them.
    ///
    /// # Errors
    /// A text of another form; a name that does not resolve.
    pub async fn resolve_authority(&self, authority: &str) -> io::Result<Vec<SocketAddr>> {
        let parts = authority.rsplit_once(':');
        let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let Some((host, port)) = parts.filter(|(host, _)| !host.is_empty()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not of the form host:port"));
        };
        self.resolve(host, port).await
    }

    /// Joins the look-up of this name that is under way, or starts one when a thread is free.
    async fn answer(&self, host: &str) -> io::Result<Arc<[SocketAddr]>> {
        let under_way = self.shared.under_way.lock().get(host).cloned();
        let mut answer = match under_way {
            Some(answer) => answer,
            None => {
                let threads = Arc::clone(&self.shared.threads);
                let thread = threads.acquire_owned().await.expect("the semaphore is never closed");
                self.start(host, thread)?
            }
        };
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(addresses))) => Ok(Arc::clone(addresses)),
            Ok(Some(Err((kind, text)))) => Err(io::Error::new(*kind, text.clone())),
            Ok(None) | Err(_) => Err(io::Error::other("the look-up has ended without an answer")),
        }
    }

    fn start(
        &self,
        host: &str,
        thread: OwnedSemaphorePermit,
    ) -> io::Result<watch::Receiver<Option<Answer>>> {
        let mut under_way = self.shared.under_way.lock();
        // Somebody else may have had the same wish, and a thread sooner.
        if let Some(answer) = under_way.get(host) {
            return Ok(answer.clone());
        }
        let (told, answer) = watch::channel(None);
        let entry = Entry { shared: Arc::clone(&self.shared), host: host.to_owned() };
        thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            let found = (entry.shared.lookup)(&entry.host);
            let found = found.map(Into::into).map_err(|error| (error.kind(), error.to_string()));
            // First out of the table: whoever asks after the answer wants a newer one.
            drop(entry);
            told.send_replace(Some(found));
            drop(thread);
        })?;
        under_way.insert(host.to_owned(), answer.clone());
        Ok(answer)
    }

    /// Threads that are not in a look-up.
    #[cfg(test)]
    fn free_threads(&self) -> usize {
        self.shared.threads.available_permits()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = self.shared.under_way.lock().len();
        f.debug_struct("Resolver").field("under_way", &under_way).finish_non_exhaustive()
    }
}

/// A name in the table of look-ups; taken out when this is dropped, by a panic as well.
struct Entry {
    shared: Arc<Shared>,
    host: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.under_way.lock().remove(&self.host);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use futures_util::future::{join_all, select};
    use std::pin::pin;
    use tokio::task::yield_now;

    use super::*;

    const HERE: [u8; 4] = [192, 0, 2, 1];

    /// A resolver whose names beginning with `dead` hang until the returned sender is dropped.
    fn hanging(threads: usize) -> (Resolver, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (release, hang) = mpsc::channel::<()>();
        let hang = std::sync::Mutex::new(hang);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let resolver = Resolver::new(threads, move |host| {
            count.fetch_add(1, Ordering::SeqCst);
            if host.starts_with("dead") {
                let _released = hang.lock().unwrap().recv();
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(vec![SocketAddr::from((HERE, 0))])
        });
        (resolver, release, asked)
    }

    #[tokio::test]
    async fn addresses_and_brackets_need_no_look_up() {
        let resolver = Resolver::new(0, |_| unreachable!("nothing is looked up"));
        for (host, expected) in
            [("192.0.2.1", "192.0.2.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7")]
        {
            let found = resolver.resolve(host, 7).await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()], "{host}");
        }
        for text in ["", "host", ":9", "host:", "host:65536"] {
            let error = resolver.resolve_authority(text).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{text:?}");
        }
    }

    #[tokio::test]
    async fn each_address_comes_once_and_with_the_port_that_was_asked_for() {
        let twice = vec![SocketAddr::from((HERE, 1)), SocketAddr::from((HERE, 2))];
        let resolver = Resolver::new(1, move |_| Ok(twice.clone()));
        assert_eq!(resolver.resolve("a", 9).await.unwrap(), [(HERE, 9).into()]);
        let none = Resolver::new(1, |_| Ok(Vec::new()));
        assert_eq!(none.resolve("a", 9).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn names_that_hang_delay_no_other_name() {
        let (resolver, _release, _) = hanging(8);
        let dead = (0..6).map(|n| format!("dead{n}"));
        let dead = dead.map(|name| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolver.resolve(&name, 1).await })
        });
        let dead: Vec<_> = dead.collect();
        while resolver.free_threads() > 2 {
            yield_now().await;
        }
        assert_eq!(resolver.resolve("good", 9).await.unwrap(), [(HERE, 9).into()]);
        assert!(dead.iter().all(|look_up| !look_up.is_finished()));
    }

    #[tokio::test]
    async fn name_that_hangs_takes_one_thread_however_often_it_is_asked_for() {
        let (resolver, release, asked) = hanging(4);
        for _ in 0..50 {
            // Gives up at once, as after a time-out; the thread goes on.
            let asking = pin!(resolver.resolve("dead", 1));
            select(asking, pin!(yield_now())).await;
        }
        assert_eq!(resolver.free_threads(), 3);
        let waiting = resolver.resolve("dead", 1);
        drop(release);
        assert_eq!(waiting.await.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(asked.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn hanging_look_ups_are_bounded_and_a_free_thread_goes_to_who_waits() {
        let (resolver, release, asked) = hanging(2);
        let names: Vec<_> = (0..20).map(|n| format!("dead{n}")).collect();
        let all = join_all(names.iter().map(|name| resolver.resolve(name, 1)));
        let all = tokio::time::timeout(Duration::from_millis(50), all).await;
        assert!(all.is_err());
        assert_eq!(resolver.free_threads(), 0);
        assert!(asked.load(Ordering::SeqCst) <= 2);
        drop(release);
        assert_eq!(resolver.resolve("good", 9).await.unwrap(), [(HERE, 9).into()]);
    }

    #[tokio::test]
    async fn look_up_that_panics_is_an_error_and_gives_its_thread_back() {
        let resolver = Resolver::new(1, |host| {
            assert!(host != "bad", "a bug");
            Ok(vec![SocketAddr::from((HERE, 0))])
        });
        resolver.resolve("bad", 1).await.unwrap_err();
        assert_eq!(resolver.resolve("good", 9).await.unwrap(), [(HERE, 9).into()]);
    }
}
