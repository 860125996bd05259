//! UPnP's Internet Gateway Device: found by SSDP, spoken to by SOAP.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use igd_next::{AddPortError, Gateway, PortMappingProtocol, SearchOptions, search_gateway};

use crate::{LIFETIME_SECONDS, Mapping, Protocol};

/// How long routers have to answer the search.
const SEARCH_TIME: Duration = Duration::from_secs(2);
/// What administrators see in the router's list.
const DESCRIPTION: &str = "ipop";
/// Tried in turn when a port is taken by another machine.
const TRIES: u16 = 4;

/// Asks for a mapping; the error is for people.
pub(crate) fn map(internal: SocketAddrV4, suggested: u16) -> Result<Mapping, String> {
    let gateway = find(internal)?;
    let external = gateway.get_external_ip().map_err(|error| error.to_string())?;
    let IpAddr::V4(external) = external else {
        return Err(format!("its outside is {external}"));
    };
    let first = if suggested == 0 { internal.port() } else { suggested };
    let mut refused = String::new();
    for port in (0..TRIES).map(|step| first.checked_add(step).unwrap_or(first - step)) {
        match add(&gateway, internal, port) {
            Ok(lifetime) => {
                let external = SocketAddrV4::new(external, port);
                return Ok(Mapping { protocol: Protocol::Upnp, internal, external, lifetime });
            }
            Err(AddPortError::PortInUse) => refused = "the port is taken".to_owned(),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(refused)
}

/// Gives a mapping back.
pub(crate) fn unmap(mapping: &Mapping) -> Result<(), String> {
    let gateway = find(mapping.internal)?;
    let port = mapping.external.port();
    gateway.remove_port(PortMappingProtocol::UDP, port).map_err(|error| error.to_string())
}

fn find(internal: SocketAddrV4) -> Result<Gateway, String> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::from((*internal.ip(), 0));
    options.timeout = Some(SEARCH_TIME);
    options.single_search_timeout = Some(SEARCH_TIME);
    search_gateway(options).map_err(|error| error.to_string())
}

/// Some routers know only mappings without an end: those are asked for as well then, and renewed
/// and given back like the others.
fn add(gateway: &Gateway, internal: SocketAddrV4, port: u16) -> Result<Duration, AddPortError> {
    let to = SocketAddr::V4(internal);
    let add = |seconds| gateway.add_port(PortMappingProtocol::UDP, port, to, seconds, DESCRIPTION);
    match add(LIFETIME_SECONDS) {
        Err(AddPortError::OnlyPermanentLeasesSupported) => add(0)?,
        result => result?,
    }
    Ok(Duration::from_secs(LIFETIME_SECONDS.into()))
}
