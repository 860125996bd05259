//! What a network does to datagrams, and how a kernel hands over those that are left.

use ipop_pipeline::Path;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Pair, source};

/// A path, direct or through a relay, from narrow to jumbo.
pub fn any_path() -> impl Strategy<Value = Path> {
    (option::of(0x4000..=0x4fffu16), prop_oneof![600..1500u16, Just(1472u16), 1500..9000u16])
        .prop_map(|(channel, datagram_len)| Path {
            channel,
            datagram_len,
            is_settled: true,
            is_lossy: false,
        })
}

/// What happens to one datagram.
#[derive(Clone, Debug)]
pub enum Fate {
    Arrives,
    IsLost,
    IsDoubled,
    /// Arrives before others that were sent before it.
    Overtakes(Index),
}

impl Arbitrary for Fate {
    type Parameters = ();
    type Strategy = BoxedStrategy<Fate>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![
            7 => Just(Fate::Arrives),
            1 => Just(Fate::IsLost),
            1 => Just(Fate::IsDoubled),
            1 => any::<Index>().prop_map(Fate::Overtakes),
        ]
        .boxed()
    }
}

/// What arrives of the datagrams, in what order. Those without a fate arrive.
pub fn suffer<'a>(datagrams: &'a [Vec<u8>], fates: &[Fate]) -> Vec<&'a Vec<u8>> {
    let mut arriving = Vec::new();
    let fates = fates.iter().chain(std::iter::repeat(&Fate::Arrives));
    for (datagram, fate) in datagrams.iter().zip(fates) {
        match fate {
            Fate::Arrives => arriving.push(datagram),
            Fate::IsLost => {}
            Fate::IsDoubled => arriving.extend([datagram, datagram]),
            Fate::Overtakes(place) => {
                arriving.insert(place.index(arriving.len() + 1), datagram);
            }
        }
    }
    arriving
}

/// Hands up to `more` datagrams besides the first to B in one receive, as GRO would: of one size,
/// but for a shorter one at the end. Returns how many it took.
pub fn deliver_group(pair: &mut Pair, datagrams: &[&Vec<u8>], more: usize) -> usize {
    let size = datagrams[0].len();
    let mut taken = 1;
    while taken <= more && taken < datagrams.len() && datagrams[taken - 1].len() == size {
        if datagrams[taken].len() > size {
            break;
        }
        taken += 1;
    }
    let buffer: Vec<u8> = datagrams[..taken].iter().flat_map(|d| d.iter().copied()).collect();
    pair.b.ingress(pair.now, &buffer, size, source(), &mut pair.b_out);
    taken
}
