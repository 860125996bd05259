//! Names in virtual time.

use std::time::Duration;

use ipop_signal as signal;

use super::*;
use crate::settings::TurnTransport as Way;

const HOST: &str = "192.0.2.1";

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn endpoint(host: &str) -> Endpoint {
    Endpoint { host: host.into(), port: 3478 }
}

fn relay(host: &str) -> Relay {
    let (username, password) = ("u".into(), "p".into());
    Relay { endpoint: endpoint(host), transport: Way::Udp, username, password }
}

fn at(host: &str) -> HostPort {
    HostPort { host: Host::of(host), port: 3478 }
}

fn offer(stun: &[&str], turn: &[(&str, &str)]) -> Input {
    let turn = turn.iter().map(|(host, password)| signal::TurnServer {
        at: at(host),
        transport: Transport::Udp,
        username: "u".into(),
        password: (*password).into(),
        expires_unix_s: None,
    });
    let stun = stun.iter().map(|host| at(host)).collect();
    Input::Offered(IceServers { stun, turn: turn.collect() })
}

/// The machine, its time, and what it wanted.
struct World {
    now: Instant,
    servers: Servers,
    /// Look-ups without an answer yet.
    asked: Vec<(String, u64)>,
    /// All other outputs.
    told: Vec<Output>,
}

impl World {
    fn new(stun: &[&str], turn: &[&str], likely: Resolved) -> Self {
        let now = Instant::now();
        let stun: Vec<_> = stun.iter().map(|host| endpoint(host)).collect();
        let turn: Vec<_> = turn.iter().map(|host| relay(host)).collect();
        let servers = Servers::new(now, &stun, &turn, likely, 7);
        let mut world = Self { now, servers, asked: Vec::new(), told: Vec::new() };
        world.drain();
        world
    }

    fn drain(&mut self) {
        while let Some(output) = self.servers.poll_output() {
            match output {
                Output::LookUp { name, number } => self.asked.push((name, number)),
                other => self.told.push(other),
            }
        }
    }

    fn hear(&mut self, input: Input) {
        self.servers.handle_input(self.now, input);
        self.drain();
    }

    /// Answers the only look-up under way.
    fn answer(&mut self, result: Result<&[&str], &str>) {
        assert_eq!(self.asked.len(), 1, "{:?}", self.asked);
        let (name, number) = self.asked.remove(0);
        let result = result.map(|found| found.iter().map(|text| ip(text)).collect());
        self.hear(Input::Answer { name, number, result: result.map_err(str::to_owned) });
    }

    /// Sleeps until something is due, and says how long.
    fn sleep(&mut self) -> Duration {
        let due = self.servers.poll_timeout().expect("something is due");
        let pause = due.saturating_duration_since(self.now);
        self.pass(pause);
        pause
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.servers.handle_timeout(self.now);
        self.drain();
    }

    /// The STUN and TURN servers told last; nothing else was told since the last call.
    fn used(&mut self) -> (Vec<String>, Vec<String>) {
        let told = std::mem::take(&mut self.told);
        let [Output::Use(Resolved { stun, turn })] = told.as_slice() else { panic!("{told:?}") };
        let turn = turn.iter().map(|turn| turn.address.ip().to_string()).collect();
        (stun.iter().map(|stun| stun.ip().to_string()).collect(), turn)
    }
}

fn is_about(pause: Duration, expected: f64) -> bool {
    (0.75 * expected..=1.25 * expected).contains(&pause.as_secs_f64())
}

#[test]
fn all_names_are_asked_at_once_and_nothing_waits_for_them() {
    let mut world = World::new(&["a.test", HOST, "b.test"], &["a.test", "c.test"], no_servers());
    let names: Vec<_> = world.asked.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.test", "b.test", "c.test"], "each once");
    assert_eq!(world.used(), (vec![HOST.into()], vec![]));
    world.asked.truncate(1);
    world.answer(Ok(&["198.51.100.1", "198.51.100.2", "2001:db8::1"]));
    let both = ["198.51.100.1", "2001:db8::1"].map(String::from);
    let stun = [&both[..], &[HOST.to_owned()]].concat();
    assert_eq!(world.used(), (stun, both.to_vec()), "one of each family");
}

fn no_servers() -> Resolved {
    Resolved::default()
}

#[test]
fn a_name_that_fails_is_tried_again_with_growing_pauses() {
    let mut world = World::new(&[], &["a.test"], no_servers());
    let start = world.now;
    for expected in [1., 2., 4., 8., 16., 32., 60., 60., 60.] {
        world.answer(Err("no"));
        let pause = world.sleep();
        assert!(is_about(pause, expected), "{pause:?} for {expected}");
    }
    let failing = Output::Failing { name: "a.test".into(), text: "no".into() };
    assert_eq!(std::mem::take(&mut world.told), [failing], "said once");
    let unresolved: Vec<_> = world.servers.unresolved().collect();
    assert_eq!(
        unresolved,
        [Unresolved { name: "a.test", since: start, text: "no", next: None, kept: vec![] }]
    );
    // For another reason is said, and so is the end.
    world.answer(Ok(&[]));
    world.sleep();
    world.answer(Ok(&[HOST]));
    assert!(matches!(world.told.remove(0), Output::Failing { .. }));
    assert_eq!(world.told.remove(0), Output::Mended { name: "a.test".into() });
    assert_eq!(world.used(), (vec![], vec![HOST.into()]));
    assert_eq!(world.servers.unresolved().count(), 0);
    assert!(is_about(world.sleep(), 600.));
}

#[test]
fn a_name_is_looked_up_again_and_the_same_answer_is_no_news() {
    let mut world = World::new(&["a.test"], &[], no_servers());
    world.answer(Ok(&["192.0.2.1", "192.0.2.2"]));
    world.used();
    for _ in 0..4 {
        assert!(is_about(world.sleep(), 600.));
        world.answer(Ok(&["192.0.2.2", "192.0.2.1"]));
        assert!(is_about(world.sleep(), 600.));
        world.answer(Ok(&["192.0.2.1", "192.0.2.2"]));
    }
    assert_eq!(world.told, []);
}

#[test]
fn a_server_that_moved_is_found_and_the_old_place_is_left_later() {
    let mut world = World::new(&[], &["a.test"], no_servers());
    world.answer(Ok(&["192.0.2.1"]));
    world.used();
    world.sleep();
    world.answer(Ok(&["192.0.2.2"]));
    assert_eq!(world.used().1, ["192.0.2.1", "192.0.2.2"]);
    // It answers anew a moment later, by a move of ours: that is no reason to hurry.
    world.pass(seconds(30.));
    world.hear(Input::NetworkMoved);
    world.answer(Ok(&["192.0.2.2"]));
    assert_eq!(world.told, []);
    world.sleep();
    world.answer(Ok(&["192.0.2.2"]));
    assert_eq!(world.used().1, ["192.0.2.2"]);
    // A name whose addresses take turns has two, not all that it ever had.
    for last in 3..9 {
        world.pass(seconds(10.));
        world.hear(Input::NetworkMoved);
        world.answer(Ok(&[&format!("192.0.2.{last}")]));
        assert_eq!(world.used().1.len(), 2);
    }
}

#[test]
fn a_name_that_fails_keeps_what_it_stood_for() {
    let mut world = World::new(&["a.test"], &[], no_servers());
    world.answer(Ok(&[HOST]));
    world.used();
    world.sleep();
    world.answer(Err("no"));
    assert!(matches!(world.told.as_slice(), [Output::Failing { .. }]));
    let unresolved: Vec<_> = world.servers.unresolved().collect();
    assert_eq!(unresolved[0].kept, [ip(HOST)]);
    assert!(is_about(world.sleep(), 1.));
    world.answer(Ok(&[HOST]));
    assert_eq!(world.told.split_off(1), [Output::Mended { name: "a.test".into() }]);
}

#[test]
fn a_move_of_the_network_has_all_names_looked_up_at_once() {
    let mut world = World::new(&["a.test"], &[], no_servers());
    // At start the machine's addresses are told one by one: no reason to ask twice.
    world.hear(Input::NetworkMoved);
    assert_eq!(world.asked.len(), 1);
    for _ in 0..6 {
        world.answer(Err("no"));
        world.sleep();
    }
    world.answer(Err("no"));
    world.told.clear();
    world.pass(seconds(5.));
    assert!(world.asked.is_empty(), "the next try is far");
    world.hear(Input::NetworkMoved);
    // Not again at once; but the resolver of the old network is not waited for, nor is its answer
    // taken.
    world.pass(seconds(0.5));
    world.hear(Input::NetworkMoved);
    assert_eq!(world.asked.len(), 1);
    let (name, number) = world.asked.remove(0);
    world.pass(seconds(0.5));
    world.hear(Input::Answer { name, number, result: Ok(vec![ip("192.0.2.9")]) });
    assert_eq!(world.told, []);
    world.answer(Err("no"));
    assert!(is_about(world.sleep(), 1.), "pauses begin anew");
    world.answer(Ok(&[HOST]));
    // A name that resolves is looked up, too, and again after a while where moves never end.
    world.pass(seconds(20.));
    world.hear(Input::NetworkMoved);
    world.answer(Ok(&[HOST]));
    world.pass(seconds(1.));
    world.hear(Input::NetworkMoved);
    assert!(world.asked.is_empty());
    assert_eq!(world.sleep(), seconds(9.));
    world.answer(Ok(&[HOST]));
}

#[test]
fn an_offer_replaces_the_one_before_and_names_stay_known() {
    let mut world = World::new(&[HOST], &[], no_servers());
    world.used();
    world.hear(offer(&["a.test"], &[("a.test", "old"), ("b.test", "old")]));
    let (b, _) = (world.asked.pop(), world.answer(Ok(&["192.0.2.2"])));
    assert_eq!(world.used(), (vec![HOST.into(), "192.0.2.2".into()], vec!["192.0.2.2".into()]));
    // A renewed credential is told at once, by a name that needs no look-up.
    world.hear(offer(&["a.test"], &[("a.test", "new"), ("b.test", "new")]));
    let [Output::Use(resolved)] = world.told.as_slice() else { panic!("{:?}", world.told) };
    assert_eq!(resolved.turn[0].password, "new");
    assert_eq!(resolved.turn[0].name, "a.test");
    world.told.clear();
    world.hear(offer(&["a.test"], &[("a.test", "new"), ("b.test", "new")]));
    assert_eq!((world.told.len(), world.asked.len()), (0, 0), "no news");
    // The answer to the first question still counts.
    world.asked.extend(b);
    world.answer(Ok(&["192.0.2.3"]));
    assert_eq!(world.used().1, ["192.0.2.2", "192.0.2.3"]);
    world.hear(offer(&[], &[]));
    assert_eq!(world.used(), (vec![HOST.into()], vec![]));
    assert_eq!(world.servers.poll_timeout(), None, "nothing is looked up for nobody");
}

#[test]
fn what_was_in_use_before_is_used_until_all_is_known() {
    let before = TurnServer {
        address: "192.0.2.7:3478".parse().expect("an address"),
        transport: TurnTransport::Udp,
        name: "a.test".into(),
        username: "u".into(),
        password: "old".into(),
    };
    let stun = "192.0.2.8:3478".parse().expect("an address");
    let likely = Resolved { stun: vec![stun], turn: vec![before] };
    let mut world = World::new(&[], &["c.test"], likely);
    assert_eq!(world.used(), (vec!["192.0.2.8".into()], vec!["192.0.2.7".into()]));
    world.answer(Ok(&["192.0.2.1"]));
    assert_eq!(world.used().1, ["192.0.2.1", "192.0.2.7"], "the configured ones come first");
    assert_eq!(world.servers.offered_stun(), None);
    world.hear(offer(&["b.test"], &[("192.0.2.7", "new")]));
    let [Output::Use(resolved)] = world.told.as_slice() else { panic!("{:?}", world.told) };
    assert_eq!((resolved.turn.len(), resolved.turn[1].password.as_str()), (2, "new"));
    world.told.clear();
    assert_eq!(world.servers.offered_stun(), None);
    world.answer(Ok(&["192.0.2.2"]));
    assert_eq!(world.used().0, ["192.0.2.2"]);
    assert_eq!(world.servers.offered_stun(), Some(vec!["192.0.2.2:3478".parse().expect("one")]));
}

#[test]
fn an_offer_is_taken_within_bounds() {
    let mut world = World::new(&[], &[], no_servers());
    let names: Vec<_> = (0..1000).map(|number| format!("{number}.test")).collect();
    world.hear(offer(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]));
    assert_eq!(world.asked.len(), OFFERED_MAX);
}

#[test]
fn the_networks_own_machine_is_asked_until_the_network_names_others() {
    let mut world = World::new(&[], &[], Resolved::default());
    world.told.clear();
    world.hear(Input::Reached(ip(HOST)));
    let stun = |addresses: &[&str]| {
        let stun = addresses.iter().map(|address| SocketAddr::new(ip(address), 3478)).collect();
        Output::Use(Resolved { stun, turn: Vec::new() })
    };
    assert_eq!(world.told, [stun(&[HOST])]);
    world.hear(offer(&["192.0.2.2"], &[]));
    world.hear(Input::Reached(ip(HOST)));
    assert_eq!(world.told[1..], [stun(&["192.0.2.2"])]);
    // A network that names none has none.
    let mut world = World::new(&[], &[], Resolved::default());
    world.hear(Input::Reached(ip(HOST)));
    world.told.clear();
    world.hear(offer(&[], &[]));
    assert_eq!(world.told, [stun(&[])]);
}
