//! From a domain to a TCP connection: SRV records, addresses, and whoever answers first.
//!
//! 1. The configuration names servers, or SRV records do (RFC 6120 section 3.2.1, XEP-0368), or
//!    the domain itself at port 5222.
//! 2. All targets are looked up at once, and their addresses tried in turn, the families
//!    alternating, a quarter of a second apart (RFC 8305 in its simplest form); all at once where
//!    the configuration names several. An address that took a connection and led nowhere comes
//!    last the next time.

use crate::config::{Config, Security, ServerAddress};
use crate::failure::Failure;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Between the starts of two attempts.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// For one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// For SRV records; without an answer by then, the domain itself is tried.
const SRV_TIMEOUT: Duration = Duration::from_secs(3);
/// For the addresses of a target: the system's resolver asks twice meanwhile.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(6);
/// For the other targets' addresses, once those of one are known.
const LOOKUP_GRACE: Duration = Duration::from_secs(1);
const ADDRESSES_MAX: usize = 16;

/// A connection to a server.
pub(crate) struct Dialled {
    pub(crate) stream: TcpStream,
    /// How it is to be encrypted.
    pub(crate) security: Security,
    /// How long it took.
    pub(crate) rtt: Duration,
}

/// Opens a connection to the server of a domain. `reached`: the address that the last connection
/// led to, if that was of no use; then the one that this one leads to.
pub(crate) async fn dial(
    config: &Config,
    domain: &str,
    reached: &mut Option<SocketAddr>,
) -> Result<Dialled, Failure> {
    let last = *reached;
    let connected = match config.servers.as_slice() {
        [] => reach(targets_of(domain).await?, last).await,
        [server] => reach(vec![server.clone()], last).await,
        servers => reach_any(servers, last).await,
    }?;
    *reached = connected.stream.peer_addr().ok();
    Ok(connected)
}

/// Which of several places is right is nobody's guess, so none gets a head start.
async fn reach_any(
    servers: &[ServerAddress],
    last: Option<SocketAddr>,
) -> Result<Dialled, Failure> {
    let mut attempts: JoinSet<_> =
        servers.iter().map(|server| reach(vec![server.clone()], last)).collect();
    let mut failed = Failure::retry("no server is configured");
    while let Some(done) = attempts.join_next().await {
        match done {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(failure)) => failed = failure,
            Err(_) => {}
        }
    }
    Err(failed)
}

/// Looks the targets up and connects to the first that answers.
async fn reach(targets: Vec<ServerAddress>, last: Option<SocketAddr>) -> Result<Dialled, Failure> {
    let (mut addresses, faults) = look_up(targets).await;
    if addresses.is_empty() {
        return Err(Failure::retry(faults.join("; ")));
    }
    addresses.sort_by_key(|(address, _)| Some(*address) == last);
    addresses.truncate(ADDRESSES_MAX);
    connect_first(addresses, last).await
}

/// The addresses of all targets, in the targets' order, and why some have none.
async fn look_up(targets: Vec<ServerAddress>) -> (Vec<(SocketAddr, Security)>, Vec<String>) {
    let mut lookups = JoinSet::new();
    for (order, target) in targets.into_iter().enumerate() {
        lookups.spawn(async move { (order, target.security, addresses_of(&target).await) });
    }
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let mut end = None;
    loop {
        let done = tokio::select! {
            done = lookups.join_next() => done,
            () = until(end) => None,
        };
        match done {
            Some(Ok((order, security, Ok(addresses)))) => {
                found.push((order, security, addresses));
                end.get_or_insert_with(|| Instant::now() + LOOKUP_GRACE);
            }
            Some(Ok((.., Err(fault)))) => faults.push(fault),
            Some(Err(_)) => {}
            None => break,
        }
    }
    found.sort_by_key(|(order, ..)| *order);
    let addresses = found.into_iter().flat_map(|(_, security, addresses)| {
        addresses.into_iter().map(move |address| (address, security))
    });
    (addresses.collect(), faults)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Tries all, the next one when the last has failed or has had its head start.
async fn connect_first(
    addresses: Vec<(SocketAddr, Security)>,
    last: Option<SocketAddr>,
) -> Result<Dialled, Failure> {
    // Others may be tried beside these.
    if addresses.first().is_some_and(|(address, _)| Some(*address) == last) {
        sleep(ATTEMPT_DELAY).await;
    }
    let mut faults = Vec::new();
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.into_iter();
    let mut next = waiting.next();
    loop {
        if let Some((address, security)) = next.take() {
            attempts.spawn(async move {
                let start = Instant::now();
                match connect(address).await {
                    Ok(stream) => Ok(Dialled { stream, security, rtt: start.elapsed() }),
                    Err(error) => Err(format!("{address}: {error}")),
                }
            });
        }
        tokio::select! {
            done = attempts.join_next() => match done {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(fault))) => {
                    faults.push(fault);
                    next = waiting.next();
                }
                Some(Err(_)) => next = waiting.next(),
                None => break,
            },
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => next = waiting.next(),
        }
    }
    Err(Failure::retry(format!("the server cannot be reached ({})", faults.join("; "))))
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(ATTEMPT_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    // A login is one word at a time, each of which waits for the other's: on a network that loses
    // much, TCP would double its pauses. For six of them it does not. Without it all works, later.
    let _ = socket2::SockRef::from(&stream).set_tcp_thin_linear_timeouts(true);
    Ok(stream)
}

/// Asks for both kinds of records at once and mixes them by priority, as XEP-0368 says.
async fn targets_of(domain: &str) -> Result<Vec<ServerAddress>, Failure> {
    let here = |port, security| ServerAddress { host: domain.to_owned(), port, security };
    if domain.parse::<IpAddr>().is_ok() {
        return Ok(vec![here(5222, Security::StartTls)]);
    }
    let (direct, upgraded) = tokio::join!(
        records(format!("_xmpps-client._tcp.{domain}."), Security::DirectTls),
        records(format!("_xmpp-client._tcp.{domain}."), Security::StartTls),
    );
    let mut records: Vec<Record> = direct.into_iter().chain(upgraded).collect();
    if records.is_empty() {
        return Ok(vec![here(5222, Security::StartTls)]);
    }
    // A lone "." means that the domain decidedly has no such service (RFC 2782).
    records.retain(|record| !record.target.host.is_empty());
    if records.is_empty() {
        return Err(Failure::retry(format!("{domain} says in DNS that it has no XMPP server")));
    }
    records.sort_by_key(|record| (record.priority, std::cmp::Reverse(record.weight)));
    Ok(records.into_iter().map(|record| record.target).collect())
}

struct Record {
    priority: u16,
    weight: u16,
    target: ServerAddress,
}

/// No answer, no records and no way to ask all mean the same here: the domain itself is tried.
async fn records(name: String, security: Security) -> Vec<Record> {
    let Ok(resolver) = TokioResolver::builder_tokio().and_then(|builder| builder.build()) else {
        return Vec::new();
    };
    let Ok(Ok(lookup)) = timeout(SRV_TIMEOUT, resolver.srv_lookup(name)).await else {
        return Vec::new();
    };
    let record = |data: &RData| match data {
        RData::SRV(srv) => Some(Record {
            priority: srv.priority,
            weight: srv.weight,
            target: ServerAddress {
                host: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                port: srv.port,
                security,
            },
        }),
        _ => None,
    };
    lookup.answers().iter().filter_map(|answer| record(&answer.data)).collect()
}

async fn addresses_of(target: &ServerAddress) -> Result<Vec<SocketAddr>, String> {
    let place = (target.host.as_str(), target.port);
    let found = match timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(place)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("no address for {}: {error}", target.host)),
        Err(_) => return Err(format!("no address for {}: DNS does not answer", target.host)),
    };
    Ok(alternate(found.collect()))
}

/// Puts one address of the other family behind each, the first family as the system prefers it.
fn alternate(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().copied() else { return addresses };
    let (same, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let len = same.len().max(other.len());
    let pair = |index: usize| same.get(index).into_iter().chain(other.get(index)).copied();
    (0..len).flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let read = |text: &[&str]| -> Vec<SocketAddr> {
            text.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = read(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        let expected = read(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(alternate(given), expected);
        assert_eq!(alternate(Vec::new()), Vec::new());
    }

    /// Two places that take every connection; whichever led nowhere is left for the other.
    #[tokio::test]
    async fn an_address_that_led_nowhere_comes_last() {
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let second = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
        let server = |host: &str| format!("{host}:{port}").parse::<ServerAddress>().unwrap();
        let targets = vec![server("127.0.0.1"), server("127.0.0.2")];
        let mut last = None;
        for expected in [&first, &second, &first] {
            let expected = expected.local_addr().unwrap();
            let Dialled { stream, .. } = reach(targets.clone(), last).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), expected, "after {last:?}");
            last = Some(expected);
            let mut config = Config::new("a@b", "c", "d@e");
            config.servers.clone_from(&targets);
            let mut reached = last;
            dial(&config, "b", &mut reached).await.unwrap();
            assert_ne!(reached, last, "one of several servers");
        }
    }

    /// A target without an address costs the others nothing.
    #[tokio::test]
    async fn targets_keep_their_order_and_those_without_an_address_are_left_out() {
        let server = |host: &str| ServerAddress {
            host: host.to_owned(),
            port: 5222,
            security: Security::StartTls,
        };
        let targets = ["192.0.2.2", "no\0name", "192.0.2.1"].map(server).to_vec();
        let (addresses, faults) = look_up(targets).await;
        let addresses: Vec<_> = addresses.iter().map(|(at, _)| at.ip().to_string()).collect();
        assert_eq!(addresses, ["192.0.2.2", "192.0.2.1"]);
        assert!(faults[0].contains("no address for"), "{faults:?}");
    }
}
