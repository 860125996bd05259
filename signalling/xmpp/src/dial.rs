//! From a domain to a TCP connection: SRV records, addresses, and whoever answers first.
//!
//! 1. The configuration names servers, or SRV records do (RFC 6120 section 3.2.1, XEP-0368), or
//!    the domain itself at port 5222.
//! 2. Each target's addresses are tried in turn, the families alternating, a quarter of a second
//!    apart (RFC 8305 in its simplest form); all at once where the configuration names several.

use crate::config::{Config, Security, ServerAddress};
use crate::failure::Failure;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Between the starts of two attempts.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// For one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// For SRV records; without an answer by then, the domain itself is tried.
const SRV_TIMEOUT: Duration = Duration::from_secs(3);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
const ADDRESSES_MAX: usize = 16;

/// Opens a connection to the server of a domain.
pub(crate) async fn dial(config: &Config, domain: &str) -> Result<(TcpStream, Security), Failure> {
    match config.servers.as_slice() {
        [] => reach(targets_of(domain).await?).await,
        [server] => reach(vec![server.clone()]).await,
        servers => reach_any(servers).await,
    }
}

/// Which of several places is right is nobody's guess, so none gets a head start.
async fn reach_any(servers: &[ServerAddress]) -> Result<(TcpStream, Security), Failure> {
    let mut attempts: JoinSet<_> =
        servers.iter().map(|server| reach(vec![server.clone()])).collect();
    let mut last = Failure::retry("no server is configured");
    while let Some(done) = attempts.join_next().await {
        match done {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(failure)) => last = failure,
            Err(_) => {}
        }
    }
    Err(last)
}

/// Looks the targets up and connects to the first that answers.
async fn reach(targets: Vec<ServerAddress>) -> Result<(TcpStream, Security), Failure> {
    let mut addresses = Vec::new();
    let mut faults = Vec::new();
    for target in targets {
        match addresses_of(&target).await {
            Ok(found) => addresses.extend(found.into_iter().map(|at| (at, target.security))),
            Err(fault) => faults.push(fault),
        }
    }
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() {
        return Err(Failure::retry(faults.join("; ")));
    }
    connect_first(addresses).await
}

/// Tries all, the next one when the last has failed or has had its head start.
async fn connect_first(
    addresses: Vec<(SocketAddr, Security)>,
) -> Result<(TcpStream, Security), Failure> {
    let mut faults = Vec::new();
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.into_iter();
    let mut next = waiting.next();
    loop {
        if let Some((address, security)) = next.take() {
            attempts.spawn(async move {
                match connect(address).await {
                    Ok(stream) => Ok((stream, security)),
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
}
