use super::*;
use crate::ParseError;

const SERVER: &str = "198.18.0.20:3478";

fn client(now: Instant) -> BindingClient {
    BindingClient::new(BindingConfig::new(SERVER.parse().unwrap()), [1; 32], now)
}

fn sent(client: &mut BindingClient) -> Vec<u8> {
    match client.poll_output() {
        Some(BindingOutput::Transmit { to, data }) => {
            assert_eq!(to, SERVER.parse().unwrap());
            data
        }
        other => panic!("no datagram but {other:?}"),
    }
}

fn answer(request: &[u8], mapped: &str) -> Vec<u8> {
    let request = Message::parse(request).unwrap();
    Builder::success(&request)
        .with(Attribute::XorMappedAddress(mapped.parse().unwrap()))
        .build()
        .unwrap()
}

fn take(client: &mut BindingClient, now: Instant, from: &str, data: &[u8]) -> Result<(), Dropped> {
    client.handle_input(now, Input { remote: from.parse().unwrap(), data })
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn an_address_is_told_once_and_when_it_changes() {
    let start = Instant::now();
    let mut client = client(start);
    let request = sent(&mut client);
    let now = start + Duration::from_millis(30);
    take(&mut client, now, SERVER, &answer(&request, "192.0.2.1:1000")).unwrap();
    let address = "192.0.2.1:1000".parse().unwrap();
    let rtt = Some(Duration::from_millis(30));
    assert_eq!(client.poll_output(), Some(BindingOutput::Mapped { address, rtt }));
    assert_eq!(client.poll_output(), None);

    let now = client.poll_timeout().unwrap();
    assert_eq!(now, start + Duration::from_millis(20_030));
    client.handle_timeout(now);
    let request = sent(&mut client);
    take(&mut client, now, SERVER, &answer(&request, "192.0.2.1:1000")).unwrap();
    assert_eq!(client.poll_output(), None, "the same address is no news");

    let now = client.poll_timeout().unwrap();
    client.handle_timeout(now);
    let request = sent(&mut client);
    take(&mut client, now, SERVER, &answer(&request, "192.0.2.1:2000")).unwrap();
    assert!(matches!(client.poll_output(), Some(BindingOutput::Mapped { address, .. })
        if address.port() == 2000));
    assert_eq!(client.mapped(), Some("192.0.2.1:2000".parse().unwrap()));
}

#[test]
fn a_lost_request_is_repeated_with_the_same_id() {
    let start = Instant::now();
    let mut client = client(start);
    let first = sent(&mut client);
    let now = start + Duration::from_millis(500);
    assert_eq!(client.poll_timeout(), Some(now));
    client.handle_timeout(now);
    assert_eq!(sent(&mut client), first);
    take(&mut client, now, SERVER, &answer(&first, "192.0.2.1:1000")).unwrap();
    let told = client.poll_output();
    assert!(matches!(told, Some(BindingOutput::Mapped { rtt: None, .. })), "rtt is ambiguous");
    let again = take(&mut client, now, SERVER, &answer(&first, "192.0.2.9:9"));
    assert_eq!(again, Err(Dropped::Unexpected), "a duplicate changes nothing");
}

#[test]
fn silence_is_told_once_and_the_server_asked_less_often() {
    let start = Instant::now();
    let mut client = client(start);
    let (mut failures, mut questions, mut now) = (0, 0, start);
    let mut last_first_sending = Vec::new();
    let mut id = None;
    while now < start + seconds(3600) {
        while let Some(output) = client.poll_output() {
            match output {
                BindingOutput::Transmit { data, .. } => {
                    questions += 1;
                    let this = Message::parse(&data).unwrap().transaction();
                    if id.replace(this) != Some(this) {
                        last_first_sending.push((now - start).as_secs());
                    }
                }
                BindingOutput::Failed(BindingError::Timeout) => {
                    failures += 1;
                    assert_eq!(now, start + Duration::from_millis(39_500));
                }
                other => panic!("{other:?}"),
            }
        }
        now = client.poll_timeout().unwrap();
        client.handle_timeout(now);
    }
    assert_eq!(failures, 1);
    assert_eq!(last_first_sending[..4], [0, 59, 139, 258]);
    assert!(questions < 120, "{questions} datagrams to a dead server in an hour");
}

#[test]
fn strangers_forgeries_and_refusals() {
    let start = Instant::now();
    let mut client = client(start);
    let request = sent(&mut client);
    let good = answer(&request, "192.0.2.1:1000");
    assert_eq!(take(&mut client, start, "198.18.0.20:3479", &good), Err(Dropped::Stranger));
    let mut wrong_id = good.clone();
    wrong_id[19] ^= 1;
    assert_eq!(take(&mut client, start, SERVER, &wrong_id), Err(Dropped::Unexpected));
    assert_eq!(take(&mut client, start, SERVER, &request), Err(Dropped::Unexpected));
    let malformed = take(&mut client, start, SERVER, &good[..12]);
    assert_eq!(malformed, Err(Dropped::Malformed(ParseError::NotStun)));
    assert_eq!(client.poll_output(), None);

    let refusal = Builder::error(&Message::parse(&request).unwrap(), 420, "Unknown Attribute");
    take(&mut client, start, SERVER, &refusal.build().unwrap()).unwrap();
    let error = ErrorCode { code: 420, reason: "Unknown Attribute".into() };
    let failed = BindingOutput::Failed(BindingError::Refused(error));
    assert_eq!(client.poll_output(), Some(failed));
}

/// Type 0x7fff must be understood by whoever reads it; we do not, so the answer is void.
#[test]
fn an_answer_that_demands_the_unknown_is_void() {
    let start = Instant::now();
    let mut client = client(start);
    let request = sent(&mut client);
    let mut data = answer(&request, "192.0.2.1:1000");
    data.extend_from_slice(&[0x7f, 0xff, 0, 0]);
    data[3] += 4;
    take(&mut client, start, SERVER, &data).unwrap();
    let failed = client.poll_output();
    assert!(matches!(failed, Some(BindingOutput::Failed(BindingError::Useless(_)))));
}
