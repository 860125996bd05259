//! The link table: one row per peer, kept in its place as long as the peer has a link.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipop_crypto::{Cipher, Fingerprint};
use ipop_link::{LinkStatus, Traffic};
use ipop_shm::RowWriter;
use ipop_steer as steer;
use ipop_wire::LinkIndex;

use crate::clock::unix_ms_of;
use crate::exchange::LinkReport;
use crate::journal::{choice_out, outcome_out};
use crate::steering::{kind_out, path_kind_out, state_out};

/// Reports after the last traffic in which silence still means something.
const IDLE_REPORTS_MAX: u8 = 4;

/// The table and which row is whose.
pub(crate) struct Rows {
    writer: RowWriter,
    places: BTreeMap<Fingerprint, usize>,
    written: BTreeMap<usize, Vec<u8>>,
}

/// What the agent knows of a peer beside the link's status.
pub(crate) struct PeerView<'a> {
    /// Name for people.
    pub name: &'a str,
    /// Overlay networks routed to it.
    pub routes: &'a [(IpAddr, u8)],
    /// What its earlier sessions carried.
    pub carried: &'a Carried,
}

/// What a peer's sessions carried, those that are over included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    /// By session and lane.
    lanes: BTreeMap<(u32, u8), LinkReport>,
    /// By session.
    activity: BTreeMap<u32, Activity>,
    past: [u64; 5],
}

/// What a session carried by its last report.
#[derive(Clone, Copy, Debug)]
struct Activity {
    data_out: u64,
    data_in: u64,
    bytes: u64,
    /// Reports since the last that told of data.
    idle_reports: u8,
}

impl Default for Activity {
    fn default() -> Self {
        Self { data_out: 0, data_in: 0, bytes: 0, idle_reports: IDLE_REPORTS_MAX }
    }
}

impl Activity {
    /// Takes the datagrams of data so far; whether some went out, and some came in, since before.
    fn learn(&mut self, data_out: u64, data_in: u64) -> (bool, bool) {
        let is_new = (data_out > self.data_out, data_in > self.data_in);
        (self.data_out, self.data_in) = (data_out, data_in);
        let is_idle = is_new == (false, false);
        self.idle_reports = if is_idle { self.idle_reports.saturating_add(1) } else { 0 };
        is_new
    }
}

impl Carried {
    /// Takes the latest report of a session's lane. With that of its first lane, says what all of
    /// them carried since it said so last; nothing, once they have been idle for a while.
    pub(crate) fn learn(&mut self, lane: u8, report: LinkReport) -> Option<Traffic> {
        let index = report.index;
        self.lanes.insert((index.0, lane), report);
        if lane != 0 {
            return None;
        }
        let (data_out, data_in) = self.of_session(index).map(data).fold((0, 0), add);
        let heard = self.of_session(index).filter_map(|lane| lane.heard).max();
        let all = self.of_session(index).map(|lane| lane.counters);
        let all: u64 = all.map(|counters| counters.bytes_out + counters.bytes_in).sum();
        let activity = self.activity.entry(index.0).or_default();
        let (is_sending, is_receiving) = activity.learn(data_out, data_in);
        let bytes = all - std::mem::replace(&mut activity.bytes, all).min(all);
        let traffic = Traffic { is_sending, is_receiving, bytes, heard };
        (activity.idle_reports <= IDLE_REPORTS_MAX).then_some(traffic)
    }

    /// Keeps the sum of a session that is over.
    pub(crate) fn retire(&mut self, index: LinkIndex) {
        let past = &mut self.past;
        self.activity.remove(&index.0);
        self.lanes.retain(|(session, _), report| {
            let stays = *session != index.0;
            if !stays {
                let sum = past.iter_mut().zip(numbers(report));
                sum.for_each(|(past, number)| *past += number);
            }
            stays
        });
    }

    fn totals(&self) -> [u64; 5] {
        let mut totals = self.past;
        for report in self.lanes.values() {
            totals.iter_mut().zip(numbers(report)).for_each(|(total, number)| *total += number);
        }
        totals
    }

    /// The reports of a session, from lane 0 on.
    fn of_session(&self, index: LinkIndex) -> impl Iterator<Item = &LinkReport> {
        self.lanes.range((index.0, 0)..=(index.0, u8::MAX)).map(|(_, report)| report)
    }
}

/// Datagrams of data, out and in.
fn data(report: &LinkReport) -> (u64, u64) {
    let c = &report.counters;
    let data_out = c.datagrams_out.saturating_sub(c.control_out);
    (data_out, c.datagrams_in.saturating_sub(c.control_in))
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}

fn numbers(report: &LinkReport) -> [u64; 5] {
    let c = &report.counters;
    [c.bytes_in, c.bytes_out, c.datagrams_in, c.datagrams_out, c.drops]
}

impl Rows {
    pub(crate) fn new(writer: RowWriter) -> Self {
        Self { writer, places: BTreeMap::new(), written: BTreeMap::new() }
    }

    /// Shows a link; a table that is full shows the first ones.
    pub(crate) fn show(&mut self, status: &LinkStatus, view: &PeerView<'_>) {
        let Some(place) = self.place(status.peer) else { return };
        let row = row(status, view).emit();
        if self.written.get(&place).is_some_and(|before| before[..] == row[..]) {
            return;
        }
        if let Err(error) = self.writer.write(place, &row) {
            tracing::debug!("link table: {error}");
        }
        self.written.insert(place, row.to_vec());
    }

    /// Empties the row of a peer without a link.
    pub(crate) fn clear(&mut self, peer: &Fingerprint) {
        if let Some(place) = self.places.remove(peer) {
            self.written.remove(&place);
            if let Err(error) = self.writer.clear(place) {
                tracing::debug!("link table: {error}");
            }
        }
    }

    fn place(&mut self, peer: Fingerprint) -> Option<usize> {
        if let Some(place) = self.places.get(&peer) {
            return Some(*place);
        }
        let taken: Vec<_> = self.places.values().copied().collect();
        let free = (0..self.writer.count()).find(|place| !taken.contains(place))?;
        self.places.insert(peer, free);
        Some(free)
    }
}

fn row(status: &LinkStatus, view: &PeerView<'_>) -> steer::LinkRow {
    let [bytes_in, bytes_out, packets_in, packets_out, drops] = view.carried.totals();
    let current = status.keys.map(|keys| view.carried.of_session(keys.index));
    let lanes: Vec<_> = current.into_iter().flatten().collect();
    let mut row = steer::LinkRow::new(steer::Fingerprint(status.peer.0), status.session);
    row.state = state_out(status.state);
    row.name = view.name.to_owned();
    row.reason.clone_from(&status.reason);
    row.addresses = view.routes.iter().copied().take(steer::limits::ROW_ADDRESSES_MAX).collect();
    (row.bytes_in, row.bytes_out) = (bytes_in, bytes_out);
    (row.packets_in, row.packets_out, row.drops) = (packets_in, packets_out, drops);
    row.rtt_us = status.rtt.map_or(0, |rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
    row.epoch = lanes.first().map_or(0, |report| u32::try_from(report.epoch).unwrap_or(u32::MAX));
    row.last_heard_ms = lanes.iter().filter_map(|lane| lane.heard).max().map_or(0, unix_ms_of);
    if let Some(keys) = status.keys {
        row.cipher = Some(cipher_out(keys.cipher));
        row.lanes = keys.lanes;
        row.mtu = status.datagram_len.unwrap_or(0);
        row.established_ms = unix_ms_of(keys.established);
    }
    row.outcomes = status.outcomes.iter().map(outcome_out).collect();
    row.is_lossy = status.is_lossy;
    if let Some(path) = status.path {
        row.relay = status.relay.map(|relay| (relay.server, relay.channel));
        row.choice = status.choice.map(|choice| choice_out(&choice, unix_ms_of));
        row.path = Some(path_kind_out(path.kind));
        (row.local, row.remote) = (Some(path.local), Some(path.remote));
        row.local_kind = Some(kind_out(path.local_kind));
        row.remote_kind = Some(kind_out(path.remote_kind));
    }
    row
}

fn cipher_out(cipher: Cipher) -> steer::Cipher {
    match cipher {
        Cipher::Aes128Gcm => steer::Cipher::Aes128Gcm,
        Cipher::Aes256Gcm => steer::Cipher::Aes256Gcm,
        Cipher::ChaCha20Poly1305 => steer::Cipher::ChaCha20Poly1305,
        Cipher::Plain => steer::Cipher::Plain,
        Cipher::Aegis128X4 => steer::Cipher::Aegis128X4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(datagrams_out: u64, datagrams_in: u64) -> LinkReport {
        let counters = ipop_pipeline::LinkCounters {
            datagrams_out,
            datagrams_in,
            control_out: 1,
            control_in: 1,
            bytes_out: 100 * datagrams_out,
            bytes_in: 10 * datagrams_in,
            ..Default::default()
        };
        LinkReport { index: LinkIndex(7), counters, epoch: 0, heard: None }
    }

    #[test]
    fn traffic_is_that_of_all_lanes_and_ends_a_while_after_the_last() {
        let mut carried = Carried::default();
        assert_eq!(carried.learn(0, report(1, 1)), None, "control datagrams are none");
        assert_eq!(carried.learn(1, report(5, 1)), None, "told with the first lane");
        let told = |traffic: Traffic| (traffic.is_sending, traffic.is_receiving, traffic.bytes);
        assert_eq!(carried.learn(0, report(1, 1)).map(told), Some((true, false, 510)));
        assert_eq!(carried.learn(0, report(1, 2)).map(told), Some((false, true, 10)));
        for _ in 0..IDLE_REPORTS_MAX {
            assert_eq!(carried.learn(0, report(1, 2)).map(told), Some((false, false, 0)));
        }
        assert_eq!(carried.learn(0, report(1, 2)), None);
        carried.retire(LinkIndex(7));
        assert!(carried.activity.is_empty() && carried.lanes.is_empty());
    }
}
