//! Bounds on connections and on requests under way, in all and by client.
//!
//! Owns the counts. A [`Place`] is held as long as what it counts lives. A client is an IPv4
//! address or an IPv6 /64: who has one address of a /64 usually has all of them. Behind a trusted
//! proxy, the client is what `X-Forwarded-For` says from its right end. Refuses what is over a
//! limit; doesn't know what is done with the place.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hub::rate::{Bucket, Rate};
use hyper::HeaderMap;
use sharelinkd::config::Network;

use super::{Api, Limits, Settings, problem::Problem};

/// Log lines about refused connections: more say nothing new.
const COMPLAINTS: Rate = Rate { burst: 3, per_s: 1 };

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections.
    Connection,
    /// Requests under way.
    Request,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// That over all clients.
    Whole,
    /// That of the client.
    Client,
}

/// The counts of all listeners together.
#[derive(Default)]
pub struct Places {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    connections: Count,
    requests: Count,
    complaints: Option<Bucket>,
}

#[derive(Default)]
struct Count {
    whole: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// One that is counted, until it is dropped.
pub struct Place {
    places: Arc<Places>,
    kind: Kind,
    client: Option<IpAddr>,
}

impl Places {
    /// Counts one more. Without a client it counts in the whole alone.
    pub fn take(
        self: &Arc<Self>,
        kind: Kind,
        client: Option<IpAddr>,
        whole_max: usize,
        client_max: usize,
    ) -> Result<Place, Full> {
        let client = client.map(network);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inner.of(kind);
        if count.whole >= whole_max {
            return Err(Full::Whole);
        }
        if let Some(client) = client {
            let own = count.by_client.entry(client).or_default();
            if *own >= client_max {
                return Err(Full::Client);
            }
            *own += 1;
        }
        count.whole += 1;
        Ok(Place { places: Arc::clone(self), kind, client })
    }

    /// How many there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).of(kind).whole
    }

    /// Whether a refusal should be logged.
    pub fn complains(&self, now: Duration) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.complaints.get_or_insert_with(|| Bucket::full(COMPLAINTS, now)).take(COMPLAINTS, now)
    }
}

impl Inner {
    const fn of(&mut self, kind: Kind) -> &mut Count {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Request => &mut self.requests,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inner.of(self.kind);
        count.whole = count.whole.saturating_sub(1);
        let Some(client) = self.client else { return };
        let own = count.by_client.get(&client).copied().unwrap_or_default();
        if own > 1 {
            count.by_client.insert(client, own - 1);
        } else {
            count.by_client.remove(&client);
        }
    }
}

/// What counts as one client.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Whether an address is that of a trusted proxy.
pub fn is_trusted(proxies: &[Network], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(address))
}

/// The client's address: behind trusted proxies, the rightmost hop that is not trusted itself. A
/// hop that can't be read ends the search: hops left of it are not believed.
pub fn client(headers: &HeaderMap, proxies: &[Network], peer: IpAddr) -> IpAddr {
    let mut address = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        let hop = hop.trim_ascii();
        if hop.is_empty() {
            continue;
        }
        if !is_trusted(proxies, address) {
            break;
        }
        match std::str::from_utf8(hop).ok().and_then(forwarded) {
            Some(hop) => address = hop.to_canonical(),
            None => break,
        }
    }
    address
}

/// An address as proxies write it, with or without a port.
fn forwarded(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    parsed.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

/// The place of a request under way. One that comes through no proxy needs none: its client has as
/// many requests as connections.
pub fn of_request(api: &Api, settings: &Settings, headers: &HeaderMap, peer: IpAddr) -> Result<Option<Place>, Problem> {
    if !is_trusted(&settings.trusted_proxies, peer) {
        return Ok(None);
    }
    let client = client(headers, &settings.trusted_proxies, peer);
    let Limits { connections_max, connections_per_address_max, .. } = settings.limits;
    match api.places.take(Kind::Request, Some(client), connections_max, connections_per_address_max) {
        Ok(place) => Ok(Some(place)),
        Err(_) => {
            Err(Problem::busy("too_many_requests", "too many requests of this address are under way; come back later"))
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use sharelinkd::config::values::network as parsed;

    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_client() {
        let places = Arc::<Places>::default();
        let take = |client: &str| places.take(Kind::Connection, Some(client.parse().unwrap()), 4, 2);
        let first = take("192.0.2.1").ok().unwrap();
        let _second = take("::ffff:192.0.2.1").ok().unwrap();
        assert_eq!(take("192.0.2.1").err(), Some(Full::Client));
        let _third = take("2001:db8::1").ok().unwrap();
        let _fourth = take("2001:db8::ffff:2").ok().unwrap();
        assert_eq!(take("192.0.2.9").err(), Some(Full::Whole));
        assert!(places.take(Kind::Request, None, 1, 0).is_ok(), "another kind");
        drop(first);
        assert_eq!(take("2001:db8::3").err(), Some(Full::Client), "the same /64");
        let _again = take("192.0.2.1").ok().unwrap();
    }

    #[test]
    fn forgotten_clients_take_no_memory() {
        let places = Arc::<Places>::default();
        for number in 0..100_u8 {
            drop(places.take(Kind::Request, Some([192, 0, 2, number].into()), 1, 1).ok().unwrap());
        }
        assert!(places.inner.lock().unwrap().requests.by_client.is_empty());
    }

    #[test]
    fn the_rightmost_hop_that_is_not_trusted_is_the_client() {
        let proxies = [parsed("10.0.0.0/8").unwrap()];
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.7"][..], "192.0.2.7"),
            (&["203.0.113.1, 192.0.2.7, 10.0.0.2"][..], "192.0.2.7"),
            (&["203.0.113.1", "192.0.2.7:4711, ,"][..], "192.0.2.7"),
            (&["203.0.113.1, unknown, 10.0.0.2"][..], "10.0.0.2"),
            (&["[2001:db8::7]"][..], "2001:db8::7"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
            }
            assert_eq!(client(&headers, &proxies, [10, 0, 0, 1].into()).to_string(), expected, "{lines:?}");
            assert_eq!(client(&headers, &proxies, [192, 0, 2, 200].into()).to_string(), "192.0.2.200");
        }
    }
}
