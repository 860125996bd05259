//! What the router maps to our port, for the agent, which sleeps elsewhere.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipop_portmap::{Mapper, Mapping};
use ipop_shm::Ringer;

/// News of the mapping: it, or that there is none any more.
type News = Arc<Mutex<Option<Option<Mapping>>>>;

/// The agent's end of the port mapping.
#[derive(Default)]
pub(crate) struct Mappings {
    mapper: Option<Mapper>,
    news: News,
}

impl Mappings {
    /// Lets a thread ask the router for UDP `port`, and ring the agent's bell with what it gets.
    pub(crate) fn start(port: u16, ringer: Ringer) -> Self {
        let news = News::default();
        let told = news.clone();
        let tell = move |mapping| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(mapping);
            ringer.ring();
        };
        let mapper = Mapper::start(port, tell);
        if let Err(error) = &mapper {
            tracing::warn!("the router is not asked for a port: {error}");
        }
        Self { mapper: mapper.ok(), news }
    }

    /// The network has changed.
    pub(crate) fn look_again(&self) {
        if let Some(mapper) = &self.mapper {
            mapper.look_again();
        }
    }

    /// Our socket and where others reach it, if that is another since the last call.
    pub(crate) fn take(&self) -> Option<Option<(SocketAddr, SocketAddr)>> {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(news.map(|mapping| (mapping.internal.into(), mapping.external.into())))
    }
}
