//! The XML itself: what other tools write is read, what we write is what the standards say.

#![allow(clippy::unwrap_used)]

use ipop_jingle::node::Node;
use ipop_jingle::room::{self, OccupantNotice};
use ipop_jingle::session::{Body, Message, Proposal, Refusal};
use ipop_jingle::{ns, services};
use ipop_signal::{
    ByeReason, Candidate, CandidateKind, Fingerprint, Host, IceCredentials, SessionId, Transport,
};
use minidom::Element;
use xmpp_parsers::jingle;

fn element(text: &str) -> Element {
    text.parse().unwrap()
}

fn proposal() -> Proposal {
    Proposal {
        credentials: IceCredentials::new("8hhy", "asd88fgpdd777uzjYhagZg").unwrap(),
        fingerprint: Fingerprint([0xab; 32]),
        candidates: vec![Candidate {
            component: 1,
            kind: CandidateKind::ServerReflexive,
            address: "192.0.2.3:45664".parse().unwrap(),
            related: Some("10.0.1.1:8998".parse().unwrap()),
            priority: 1_694_498_815,
            foundation: "2".to_owned(),
        }],
        end: false,
    }
}

fn message(body: Body) -> Message {
    Message { session: SessionId::new("a73sjjvkla37jfea").unwrap(), body }
}

#[test]
fn an_offer_is_what_the_standards_say() {
    let expected = element(&format!(
        "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='a73sjjvkla37jfea'
                 initiator='room@muc/nick'><content creator='initiator' name='vpn'><description
          xmlns='urn:ipop:vpn:0'/><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'
          ufrag='8hhy' pwd='asd88fgpdd777uzjYhagZg'><fingerprint
          xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>{}</fingerprint
          ><candidate component='1' foundation='2' generation='0' id='srflx-1-192-0-2-3-45664'
          ip='192.0.2.3' port='45664' priority='1694498815' protocol='udp' rel-addr='10.0.1.1'
          rel-port='8998' type='srflx'/></transport></content></jingle>",
        ["AB"; 32].join(":")
    ));
    assert_eq!(message(Body::Initiate(proposal())).emit("room@muc/nick"), expected);
}

#[test]
fn the_types_of_others_read_what_we_write() {
    let bodies = [
        Body::Initiate(proposal()),
        Body::Accept(proposal()),
        Body::Info { credentials: None, candidates: proposal().candidates, end: true },
        Body::Terminate(ByeReason::ConnectivityError),
        Body::Terminate(ByeReason::UnknownSession),
    ];
    for body in bodies {
        let written = message(body).emit("room@muc/nick");
        let read = jingle::Jingle::try_from(written.clone()).unwrap();
        assert_eq!(read.sid.0, "a73sjjvkla37jfea");
        for content in read.contents {
            assert!(matches!(content.transport, Some(jingle::Transport::IceUdp(_))), "{written:?}");
        }
    }
}

/// XEP-0176 example 4 with the fingerprint of XEP-0320 example 1, our description, and candidates
/// of other kinds than UDP among them.
#[test]
fn an_offer_of_another_tool_is_read() {
    let offer = element(
        "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate'
                 initiator='romeo@montague.example/orchard' sid='a73sjjvkla37jfea'>
          <content creator='initiator' name='any' senders='both'>
            <description xmlns='urn:ipop:vpn:0' version='7'><extra xmlns='urn:x'/></description>
            <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'
                       pwd='asd88fgpdd777uzjYhagZg' ufrag='8hhy'>
              <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-1' setup='actpass'>
                02:1A:CC:54:27:AB:EB:9C:53:3F:3E:4B:65:2E:7D:46:3F:54:42:CD</fingerprint>
              <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>
                02:1A:CC:54:27:AB:EB:9C:53:3F:3E:4B:65:2E:7D:46:3F:54:42:CD:54:F1:7A:03:\
                A2:7D:F9:B0:7F:46:19:B2
              </fingerprint>
              <candidate component='1' foundation='1' generation='0' id='el0747fg11' ip='10.0.1.1'
                         network='1' port='8998' priority='2130706431' protocol='udp' type='host'/>
              <candidate component='1' foundation='1' generation='0' id='t' ip='10.0.1.1'
                         network='1' port='9' priority='2130706431' protocol='tcp' type='host'/>
              <candidate component='1' foundation='1' generation='0' id='m' ip='0b1c.local'
                         network='1' port='8998' priority='2130706431' protocol='udp' type='host'/>
              <candidate component='1' foundation='2' generation='0' id='y3s2b30v3r' ip='192.0.2.3'
                         network='1' port='45664' priority='1694498815' protocol='udp'
                         rel-addr='10.0.1.1' rel-port='8998' type='srflx'/>
            </transport>
          </content>
        </jingle>",
    );
    let Body::Initiate(proposal) = Message::parse(&offer).unwrap().body else { panic!() };
    assert_eq!(proposal.credentials.ufrag, "8hhy");
    assert_eq!(proposal.fingerprint.0[..3], [0x02, 0x1a, 0xcc]);
    let ports: Vec<u16> = proposal.candidates.iter().map(|c| c.address.port()).collect();
    assert_eq!(ports, [8998, 45664]);
    assert_eq!(proposal.candidates[1].related, Some("10.0.1.1:8998".parse().unwrap()));
}

#[test]
fn what_is_not_ours_is_told_from_what_is_broken() {
    let offer = |inside: &str| {
        let text = format!(
            "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'>{inside}</jingle>"
        );
        Message::parse(&element(&text)).unwrap_err()
    };
    let not_ours = |reason| Refusal::NotOurs { session: SessionId::new("s").unwrap(), reason };
    assert_eq!(offer(""), Refusal::Malformed("no content"));
    let audio = "<content creator='initiator' name='voice'>
        <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></content>";
    assert_eq!(offer(audio), not_ours("unsupported-applications"));
    let ibb = "<content creator='initiator' name='x'><description xmlns='urn:ipop:vpn:0'/>
        <transport xmlns='urn:xmpp:jingle:transports:ibb:1' sid='t' block-size='1'/></content>";
    assert_eq!(offer(ibb), not_ours("unsupported-transports"));
    let bare = "<content creator='initiator' name='x'><description xmlns='urn:ipop:vpn:0'/>
        <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'/></content>";
    assert_eq!(offer(bare), Refusal::Malformed("no ICE credentials"));
    let unknown = "<jingle xmlns='urn:xmpp:jingle:1' action='content-add' sid='s'/>";
    assert_eq!(Message::parse(&element(unknown)), Err(Refusal::Unsupported));
}

#[test]
fn two_fingerprints_pin_nothing() {
    let value = |byte: &str| [byte; 32].join(":");
    let text = format!(
        "<jingle xmlns='urn:xmpp:jingle:1' action='session-accept' sid='s'><content name='v'>
         <description xmlns='urn:ipop:vpn:0'/><transport ufrag='8hhy' pwd='asd88fgpdd777uzjYhagZg'
            xmlns='urn:xmpp:jingle:transports:ice-udp:1'>
         <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256'>{}</fingerprint>
         <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256'>{}</fingerprint>
         </transport></content></jingle>",
        value("AA"),
        value("BB")
    );
    let refusal = Message::parse(&element(&text)).unwrap_err();
    assert_eq!(refusal, Refusal::Malformed("no SHA-256 fingerprint"));
}

#[test]
fn a_choice_of_the_other_end_is_no_candidate() {
    let info = element(
        "<jingle xmlns='urn:xmpp:jingle:1' action='transport-info' sid='s'>
           <content creator='initiator' name='v'>
             <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1'>
               <remote-candidate component='1' ip='10.0.1.2' port='9001'/>
             </transport></content></jingle>",
    );
    let body = Message::parse(&info).unwrap().body;
    assert_eq!(body, Body::Info { credentials: None, candidates: Vec::new(), end: false });
}

#[test]
fn a_presence_names_the_node() {
    let node = Node::parse(&element(&format!(
        "<node xmlns='urn:ipop:node:0' name='alpha' later='x'>
           <fingerprint hash='sha-256'>{}</fingerprint>
           <address ip='10.77.0.9' prefix='16' origin='derived' attempt='2'/>
           <address ip='10.77.0.9' prefix='33' origin='fixed'/>
           <address ip='fd00::9' prefix='64' origin='fixed'/>
           <address ip='nonsense'/>
         </node>",
        ["01"; 32].join(":")
    )));
    let addresses = node.unwrap().announcement.addresses;
    assert_eq!(addresses.len(), 2);
    assert_eq!((addresses[0].attempt, addresses[1].prefix), (2, 64));
}

#[test]
fn a_room_notice_is_read() {
    let presence = element(
        "<presence xmlns='jabber:client'><x xmlns='http://jabber.org/protocol/muc#user'>
           <item affiliation='member' role='none' nick='other'/><status code='303'/>
           <status code='110'/><status code='strange'/></x></presence>",
    );
    let payloads: Vec<Element> = presence.children().cloned().collect();
    let notice = OccupantNotice::parse(&payloads);
    assert!(notice.has(room::status::SELF) && notice.has(room::status::RENAMED));
    assert_eq!(notice.new_nick.as_deref(), Some("other"));
}

/// As Prosody 0.12's mod_turn_external answers: `turns` has no credentials of its own.
#[test]
fn prosodys_services_are_read() {
    let services = services::parse(&element(
        "<services xmlns='urn:xmpp:extdisco:2'>
           <service type='stun' transport='udp' port='3478' host='turn.lab.test'/>
           <service type='turn' transport='udp' port='3478' host='turn.lab.test' restricted='1'
                    username='1764000000' password='5iXu' expires='2026-11-24T03:00:00Z'/>
           <service type='turns' transport='tcp' port='5349' host='turn.lab.test' restricted='1'/>
         </services>",
    ));
    let servers = services.unwrap().servers;
    assert_eq!(servers.stun[0].to_string(), "turn.lab.test:3478");
    assert_eq!(servers.turn[0].transport, Transport::Udp);
    assert_eq!(servers.turn[0].expires_unix_s, Some(1_795_489_200));
    assert_eq!(servers.turn[1].transport, Transport::Tls);
    assert_eq!(servers.turn[1].password, "5iXu");
}

/// As ejabberd 23's mod_stun_disco answers: literal addresses, `restricted='true'`.
#[test]
fn ejabberds_services_are_read() {
    let services = services::parse(&element(
        "<services xmlns='urn:xmpp:extdisco:2'>
           <service transport='udp' port='3478' type='stun' host='203.0.113.3' restricted='false'/>
           <service transport='udp' port='3478' type='turn' host='2001:db8::3' restricted='true'
             username='1764000000:abc' password='x+/=' expires='2026-11-23T15:40:00Z'/>
           <service transport='tcp' port='3478' type='stun' host='203.0.113.3'/>
         </services>",
    ));
    let servers = services.unwrap().servers;
    assert_eq!(servers.stun.len(), 1);
    assert_eq!(servers.turn[0].at.host, Host::Address("2001:db8::3".parse().unwrap()));
    assert_eq!(servers.turn[0].username, "1764000000:abc");
}

#[test]
fn a_relay_without_credentials_is_asked_about() {
    let services = services::parse(&element(
        "<services xmlns='urn:xmpp:extdisco:2'>
           <service type='turn' host='relay.example' restricted='1' transport='udp'/>
           <service type='turn' host='open.example'/>
         </services>",
    ));
    let services = services.unwrap();
    assert_eq!(services.servers.turn.len(), 1);
    let query = services::emit_credentials(&services.locked[0]);
    assert!(query.is("credentials", ns::EXT_DISCO));
    let service = query.get_child("service", ns::EXT_DISCO).unwrap();
    assert_eq!(service.attr("host"), Some("relay.example"));
    assert_eq!((service.attr("type"), service.attr("port")), (Some("turn"), Some("3478")));
}

#[test]
fn a_new_room_is_unlocked_with_or_without_a_password() {
    let plain = room::emit_configuration(None);
    let form = plain.get_child("x", ns::DATA_FORMS).unwrap();
    assert_eq!((form.attr("type"), form.children().count()), (Some("submit"), 0));
    let secret = room::emit_configuration(Some("s3"));
    assert!(String::from(&secret).contains("<value>s3</value>"));
}
