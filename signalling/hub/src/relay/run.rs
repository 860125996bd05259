//! Datagrams that leave together: those of one length from one socket to one place, as the kernel
//! gave them joined (GRO), are given back to it as one (GSO). It costs a fraction of as many calls,
//! and whoever gets them gets them joined again.

use super::sockets::Endpoint;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Bytes that leave at once at most: a datagram's length field counts them while they are one.
const RUN_LEN_MAX: usize = 65_000;

/// See the [module](self). What was added waits for [`Run::flush`], or for something that does not
/// fit behind it: datagrams never overtake each other.
#[derive(Default)]
pub(super) struct Run {
    way: Option<Way>,
    bytes: Vec<u8>,
    /// Bytes of each datagram; the last one may have fewer.
    part: usize,
    /// How many there are.
    count: usize,
}

#[derive(Clone)]
struct Way {
    endpoint: Arc<Endpoint>,
    to: SocketAddr,
    from: Option<IpAddr>,
}

impl Run {
    /// Adds a datagram.
    pub(super) fn add(
        &mut self,
        endpoint: &Arc<Endpoint>,
        to: SocketAddr,
        from: Option<IpAddr>,
        data: &[u8],
    ) {
        let is_same = self.way.as_ref().is_some_and(|way| {
            Arc::ptr_eq(&way.endpoint, endpoint) && (way.to, way.from) == (to, from)
        });
        if !is_same || !fits(self.part, self.count, self.bytes.len(), data.len(), endpoint) {
            self.flush();
            self.way = Some(Way { endpoint: endpoint.clone(), to, from });
            self.part = data.len();
        }
        self.bytes.extend_from_slice(data);
        self.count += 1;
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) {
        if let Some(Way { endpoint, to, from }) = self.way.take() {
            let part = (self.count > 1).then_some(self.part);
            endpoint.send(to, from, &self.bytes, part);
        }
        self.bytes.clear();
        self.count = 0;
    }
}

/// Whether a datagram of `len` bytes goes behind `count` of `part` bytes, `all` together.
fn fits(part: usize, count: usize, all: usize, len: usize, endpoint: &Endpoint) -> bool {
    let is_last_whole = all == part * count;
    let is_in_bounds = count < endpoint.run_max() && all + len <= RUN_LEN_MAX;
    is_last_whole && is_in_bounds && (1..=part).contains(&len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    #[tokio::test(flavor = "current_thread")]
    async fn datagrams_arrive_as_they_were_and_in_order() {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let receivers = [bind(), bind()];
        let sender = bind();
        sender.set_nonblocking(true).unwrap();
        let sender = Arc::new(Endpoint::new(sender).unwrap());
        let mut run = Run::default();
        let lens = [100, 100, 100, 7, 100, 200, 0, 200, 200, 1, 1, 1400];
        let datagrams = lens.iter().enumerate().map(|(number, len)| vec![number as u8; *len]);
        let datagrams: Vec<_> = datagrams.chain((0..60).map(|_| vec![9; 1400])).collect();
        let place = |number: usize| receivers[usize::from(number % 50 == 49)].local_addr().unwrap();
        for (number, datagram) in datagrams.iter().enumerate() {
            run.add(&sender, place(number), None, datagram);
        }
        run.flush();
        for (at, receiver) in receivers.iter().enumerate() {
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut buffer = [0; 2000];
            for (number, datagram) in datagrams.iter().enumerate() {
                if usize::from(number % 50 == 49) == at {
                    let len = receiver.recv(&mut buffer).unwrap();
                    assert_eq!(&buffer[..len], datagram, "{number}");
                }
            }
        }
    }
}
