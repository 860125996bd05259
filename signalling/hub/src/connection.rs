//! One client from its connection to its end.

use crate::login::{Door, Stream};
use crate::outbox::{Budget, Outbox};
use crate::pace::Pace;
use crate::relay::{RelayHandle, is_turn, serve_stream};
use crate::router::{BindError, Output, Router, SessionId};
use crate::stanza::{self, refusal};
use crate::strangers::Strangers;
use crate::stream::{self, CLOSE_PATIENCE, Fault, ending};
use ipop_jingle::ns;
use ipop_stream::{Assembler, Incoming};
use minidom::Element;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant as Deadline, sleep, timeout, timeout_at};

/// From the connection to the bound resource.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that says nothing for so long is asked whether it is there.
const QUIET_TIME: Duration = Duration::from_secs(120);
/// And has so long to answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// A client that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const RESOURCE_LEN: usize = 8;

/// What all connections share.
pub(crate) struct Clients {
    door: Door,
    inner: Mutex<Inner>,
    budget: Budget,
    /// Those who have yet to show who they are.
    strangers: Strangers,
    /// For those that are TURN clients.
    relay: RelayHandle,
}

struct Inner {
    router: Router,
    outboxes: HashMap<SessionId, Arc<Outbox>>,
}

impl Clients {
    pub(crate) fn new(door: Door, router: Router, relay: RelayHandle) -> Self {
        let inner = Inner { router, outboxes: HashMap::new() };
        let strangers = Strangers::default();
        Self { door, inner: Mutex::new(inner), budget: Budget::default(), strangers, relay }
    }

    /// Serves a client until one side ends it.
    pub(crate) async fn serve(&self, tcp: TcpStream, remote: SocketAddr) {
        let Some(stranger) = self.strangers.enter(remote.ip()) else {
            tracing::warn!(%remote, "turned away: too many are logging in");
            return self.turn_away(tcp).await;
        };
        let _ = tcp.set_nodelay(true);
        let deadline = Deadline::now() + LOGIN_TIMEOUT;
        let mut first = [0xff];
        if timeout_at(deadline, tcp.peek(&mut first)).await.is_ok() && is_turn(first[0]) {
            return serve_stream(self.relay.clone(), tcp, remote, stranger).await;
        }
        let reached_at = tcp.local_addr().map_or(remote.ip(), |local| local.ip());
        let logged_in = self.log_in(tcp, reached_at, deadline).await;
        drop(stranger);
        match logged_in {
            Err(fault) => tracing::debug!(%remote, ?fault, "did not log in"),
            Ok((stream, id, outbox, user)) => {
                tracing::info!(%remote, %user, "logged in");
                let fault = self.converse(stream, id, &outbox).await;
                tracing::info!(%remote, %user, ?fault, "gone");
            }
        }
    }

    /// Tells a client that there are too many.
    pub(crate) async fn turn_away(&self, tcp: TcpStream) {
        self.door.turn_away(tcp, "resource-constraint").await;
    }

    /// Ends all sessions, because the hub stops.
    pub(crate) fn shutdown(&self) {
        self.with_router(Router::shutdown);
    }

    /// How many are logged in.
    pub(crate) fn count(&self) -> usize {
        self.with_router(|router| router.sessions())
    }

    async fn log_in(
        &self,
        tcp: TcpStream,
        reached_at: IpAddr,
        deadline: Deadline,
    ) -> Result<(Stream, SessionId, Arc<Outbox>, String), Fault> {
        let (mut stream, user) = self.door.admit(tcp, deadline).await?;
        match self.bind(&mut stream, &user, reached_at).await {
            Ok((id, outbox)) => Ok((stream, id, outbox, user)),
            Err(fault) => {
                stream.fail(&self.door.domain, fault).await;
                Err(fault)
            }
        }
    }

    /// Gives a session its resource (RFC 6120 section 7).
    async fn bind(
        &self,
        stream: &mut Stream,
        user: &str,
        reached_at: IpAddr,
    ) -> Result<(SessionId, Arc<Outbox>), Fault> {
        let features = format!(
            "<bind xmlns='{}'/><session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/>\
             </session>",
            ns::BIND
        );
        stream.open(&self.door.domain, &features).await?;
        loop {
            let iq = stream.element().await?;
            let request = iq
                .get_child("bind", ns::BIND)
                .filter(|_| iq.is("iq", ns::JABBER_CLIENT) && iq.attr("type") == Some("set"));
            let Some(request) = request else { return Err(Fault::Error("not-authorized")) };
            let resource = request.get_child("resource", ns::BIND).map(Element::text);
            let resource = resource.filter(|resource| !resource.is_empty());
            let resource = resource.map_or_else(random_resource, Ok)?;
            match self.open(user, &resource, reached_at, &iq) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    let (kind, condition) = match error {
                        BindError::Malformed => ("modify", "bad-request"),
                        BindError::TooMany => ("wait", "resource-constraint"),
                    };
                    let error = refusal(&iq, &self.door.domain, "", kind, condition);
                    let error = error.as_ref().map(stanza::write).unwrap_or_default();
                    stream.write(&error).await?;
                }
            }
        }
    }

    fn open(
        &self,
        user: &str,
        resource: &str,
        reached_at: IpAddr,
        iq: &Element,
    ) -> Result<(SessionId, Arc<Outbox>), BindError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = inner.router.open(user, resource, reached_at);
        let opened = opened.map(|(id, jid)| {
            let outbox = Arc::new(Outbox::new(&self.budget));
            let address = Element::builder("jid", ns::BIND).append(jid.as_str());
            let bind = Element::builder("bind", ns::BIND).append(address).build();
            let result = stanza::result(iq, &self.door.domain, jid.as_str(), Some(bind));
            let _ = outbox.push(&stanza::write(&result));
            inner.outboxes.insert(id, outbox.clone());
            (id, outbox)
        });
        inner.settle();
        opened
    }

    /// Stanzas both ways until one side ends it.
    async fn converse(&self, stream: Stream, id: SessionId, outbox: &Outbox) -> Option<Fault> {
        let (io, mut assembler) = stream.into_parts();
        let (mut reader, writer) = tokio::io::split(io);
        let mut writing = Box::pin(write(writer, outbox));
        let fault = tokio::select! {
            fault = self.read(&mut reader, &mut assembler, id, outbox) => Some(fault),
            () = &mut writing => None,
        };
        self.with_router(|router| router.close(id));
        self.lock().outboxes.remove(&id);
        if let Some(fault) = fault {
            outbox.end(ending(fault).as_bytes());
            let _ = timeout(CLOSE_PATIENCE, writing).await;
        }
        fault
    }

    async fn read(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        assembler: &mut Assembler,
        id: SessionId,
        outbox: &Outbox,
    ) -> Fault {
        let mut pace = Pace::new(Instant::now());
        let mut taken = 0;
        loop {
            match self.take_all(assembler, id) {
                Ok(sent) => sleep(pace.spend(Instant::now(), taken, sent)).await,
                Err(fault) => return fault,
            }
            taken = match timeout(QUIET_TIME, stream::read(reader, assembler)).await {
                Ok(Ok(len)) => len,
                Ok(Err(fault)) => return fault,
                Err(_) => {
                    let _ = outbox.push(ping(&self.door.domain).as_bytes());
                    match timeout(ANSWER_TIME, stream::read(reader, assembler)).await {
                        Ok(Ok(len)) => len,
                        Ok(Err(fault)) => return fault,
                        Err(_) => return Fault::Error("connection-timeout"),
                    }
                }
            };
        }
    }

    /// Handles what has arrived; how many bytes were sent to anybody because of it.
    fn take_all(&self, assembler: &mut Assembler, id: SessionId) -> Result<usize, Fault> {
        let mut sent = 0;
        while let Some(incoming) = assembler.poll()? {
            match incoming {
                Incoming::Element(stanza) => {
                    let mut inner = self.lock();
                    inner.router.handle_stanza(unix_s(), id, stanza);
                    sent += inner.settle();
                }
                Incoming::Footer => return Err(Fault::Footer),
                Incoming::Header(_) => return Err(Fault::Error("bad-format")),
            }
        }
        Ok(sent)
    }

    fn with_router<R>(&self, act: impl FnOnce(&mut Router) -> R) -> R {
        let mut inner = self.lock();
        let result = act(&mut inner.router);
        inner.settle();
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Carries out what the router wants; how many bytes it sends.
    fn settle(&mut self) -> usize {
        let mut sent = 0;
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Send(id, stanza) => {
                    let Some(outbox) = self.outboxes.get(&id) else { continue };
                    let bytes = stanza::write(&stanza);
                    sent += bytes.len();
                    if outbox.push(&bytes).is_err() {
                        tracing::warn!(?id, "reads too slowly, let go");
                        self.end(id, "resource-constraint");
                        self.router.close(id);
                    }
                }
                Output::End(id, condition) => self.end(id, condition),
            }
        }
        sent
    }

    fn end(&mut self, id: SessionId, condition: &'static str) {
        if let Some(outbox) = self.outboxes.remove(&id) {
            outbox.end(ending(Fault::Error(condition)).as_bytes());
        }
    }
}

async fn write(mut io: impl AsyncWrite + Unpin, outbox: &Outbox) {
    while let Some(bytes) = outbox.next().await {
        let write = async {
            io.write_all(&bytes).await?;
            io.flush().await
        };
        if !matches!(timeout(WRITE_TIMEOUT, write).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(CLOSE_PATIENCE, io.shutdown()).await;
}

fn ping(domain: &str) -> String {
    let ping = ipop_jingle::stanza::emit_ping();
    let mut iq = Element::bare("iq", ns::JABBER_CLIENT);
    stanza::set(&mut iq, minidom::rxml::xml_ncname!("type"), "get");
    stanza::set(&mut iq, minidom::rxml::xml_ncname!("id"), "hub-ping");
    stanza::set(&mut iq, minidom::rxml::xml_ncname!("from"), domain);
    iq.append_child(ping);
    String::from_utf8_lossy(&stanza::write(&iq)).into_owned()
}

fn random_resource() -> Result<String, Fault> {
    let mut random = [0; RESOURCE_LEN];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Fault::Error("internal-server-error"))?;
    Ok(crate::state::to_hex(&random))
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
