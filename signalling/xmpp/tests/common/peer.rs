//! A client under test and what it has heard.

use ipop_signal::{
    Action, Announcement, Candidate, CandidateKind, FatalCause, Fingerprint, Happening,
    IceCredentials, IceServers, Origin, OverlayAddress, PeerAddress,
};
use ipop_xmpp::{ActionSender, Client, Config, HappeningReceiver, Offer};
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(15);

pub struct Peer {
    pub actions: ActionSender,
    pub announcement: Announcement,
    happenings: HappeningReceiver,
    /// Heard while waiting for something else; looked at first.
    kept: Vec<Happening>,
    /// Everything that was heard, for messages about failures.
    heard: Vec<Happening>,
}

pub fn announcement(name: &str, byte: u8) -> Announcement {
    Announcement {
        fingerprint: Fingerprint([byte; 32]),
        name: name.to_owned(),
        addresses: vec![OverlayAddress {
            address: std::net::Ipv4Addr::new(10, 77, 0, byte).into(),
            prefix: 16,
            origin: Origin::Derived,
            attempt: 0,
        }],
        invitation: None,
    }
}

pub fn credentials(ufrag: &str) -> IceCredentials {
    IceCredentials::new(ufrag, "0123456789abcdefABCDEF").unwrap()
}

pub fn candidate(port: u16) -> Candidate {
    Candidate {
        component: 1,
        kind: CandidateKind::ServerReflexive,
        address: std::net::SocketAddr::from(([192, 0, 2, 3], port)),
        related: Some("[fd00::1]:7".parse().unwrap()),
        priority: 1_694_498_815,
        foundation: "a1".to_owned(),
    }
}

impl Peer {
    /// Starts a client that announces itself at once.
    pub fn start(mut config: Config, announcement: Announcement) -> Self {
        config.resource = format!("ipop-{}", &announcement.fingerprint.uid_hex()[..16]);
        let (actions, happenings) = Client::start(config);
        actions.send(Action::Announce(announcement.clone())).unwrap();
        Self { actions, announcement, happenings, kept: Vec::new(), heard: Vec::new() }
    }

    /// What the server offered at the last login.
    pub fn offer(&self) -> Option<Offer> {
        self.happenings.offer()
    }

    pub fn say(&self, action: Action) {
        self.actions.send(action).unwrap();
    }

    /// Waits for something; what comes before it is kept for later questions.
    pub async fn expect<T>(&mut self, what: &str, pick: impl Fn(&Happening) -> Option<T>) -> T {
        if let Some(at) = self.kept.iter().position(|happening| pick(happening).is_some()) {
            return pick(&self.kept.remove(at)).unwrap();
        }
        loop {
            let next = timeout(PATIENCE, self.happenings.recv()).await;
            let Ok(Some(happening)) = next else {
                panic!("{} waits for {what} in vain: {:#?}", self.announcement.name, self.heard);
            };
            self.heard.push(happening.clone());
            match pick(&happening) {
                Some(found) => return found,
                None => self.kept.push(happening),
            }
        }
    }

    /// Whether something of the kind was heard and not asked for, or comes within the time.
    pub async fn hears(&mut self, time: Duration, is: impl Fn(&Happening) -> bool) -> bool {
        if self.kept.iter().any(&is) {
            return true;
        }
        let listen = async {
            while let Some(happening) = self.happenings.recv().await {
                self.heard.push(happening.clone());
                let found = is(&happening);
                self.kept.push(happening);
                if found {
                    return true;
                }
            }
            false
        };
        timeout(time, listen).await.unwrap_or(false)
    }

    pub async fn online(&mut self) -> PeerAddress {
        let address = |h: &Happening| match h {
            Happening::Online { address } => Some(address.clone()),
            _ => None,
        };
        self.expect("being online", address).await
    }

    pub async fn offline(&mut self) -> String {
        let reason = |h: &Happening| match h {
            Happening::Offline { reason } => Some(reason.clone()),
            _ => None,
        };
        self.expect("being offline", reason).await
    }

    pub async fn fatal(&mut self) -> (FatalCause, String) {
        let cause = |h: &Happening| match h {
            Happening::Fatal { cause, text } => Some((*cause, text.clone())),
            _ => None,
        };
        let fatal = self.expect("a fatal end", cause).await;
        let rest = timeout(PATIENCE, self.happenings.recv()).await;
        assert_eq!(rest.expect("nothing follows the fatal end"), None);
        fatal
    }

    /// Waits until another peer has appeared; its address.
    pub async fn sees(&mut self, other: &Announcement) -> PeerAddress {
        let other = other.clone();
        let appeared = |h: &Happening| match h {
            Happening::MemberAppeared(member)
                if member.fingerprint == other.fingerprint
                    && member.name == other.name
                    && member.addresses == other.addresses =>
            {
                Some(member.address.clone())
            }
            _ => None,
        };
        self.expect("a member", appeared).await
    }

    pub async fn ice_servers(&mut self) -> IceServers {
        let servers = |h: &Happening| match h {
            Happening::IceServers(servers) => Some(servers.clone()),
            _ => None,
        };
        self.expect("STUN and TURN servers", servers).await
    }

    /// Ends the client, and waits until it has.
    pub async fn stop(self) {
        let Self { actions, mut happenings, .. } = self;
        drop(actions);
        let end = async { while happenings.recv().await.is_some() {} };
        timeout(PATIENCE, end).await.expect("the client ends");
    }
}
