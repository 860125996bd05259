//! Any traffic that a host may give to its tap.

use ipop_wire::tcp::{ACK, CWR, ECE, FIN, PSH, URG};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::frames::{Extension, Shape};

/// Headers of any kind that a host may send, without a payload.
pub fn any_headers() -> impl Strategy<Value = Shape> {
    let kinds = (any::<bool>(), any::<bool>(), option::weighted(0.2, any::<u16>()));
    let tags = (option::weighted(0.3, any::<u16>()), kinds);
    let extension = (prop_oneof![Just(0u8), Just(60)], 0..3u8)
        .prop_map(|(protocol, words)| Extension { protocol, words });
    let options = (0..=10usize, any::<u8>(), 0..=10usize, vec(extension, 0..3));
    let has_options = any::<bool>();
    let fields = (any::<u8>(), any::<u16>(), any::<u32>(), any::<u16>(), any::<bool>());
    (tags, options, has_options, any_flags(), fields, any::<u8>()).prop_map(
        |((vlan, (is_v6, is_tcp, service_vlan)), options, has_options, flags, fields, fill)| {
            let (option_words, option, ip_option_words, extensions) = options;
            let (tos, window, sequence, id, dont_fragment) = fields;
            Shape {
                is_v6,
                is_tcp,
                vlan,
                // A lone service tag is no way to tag.
                service_vlan: service_vlan.filter(|_| vlan.is_some()),
                ip_option_words: if has_options { ip_option_words } else { 0 },
                option_words,
                option,
                window,
                tos,
                extensions: if has_options { extensions } else { Vec::new() },
                flags,
                sequence,
                id,
                dont_fragment,
                payload_len: 0,
                fill,
            }
        },
    )
}

/// Acknowledging, and whatever else a segment with payload may have.
fn any_flags() -> impl Strategy<Value = u8> {
    let others = [PSH, FIN, CWR, ECE, URG];
    any::<u8>().prop_map(move |bits| {
        let is_set = |number: usize| bits >> number & 1 != 0;
        let set = others.iter().enumerate().filter(|(number, _)| is_set(*number));
        set.fold(ACK, |flags, (_, flag)| flags | flag)
    })
}

/// A super-segment, its segment size, and whether it is marked for congestion control.
pub fn any_super_segment() -> impl Strategy<Value = (Shape, u16, bool)> {
    let sizes = prop_oneof![
        4 => (200..1600usize, 2..45usize),
        1 => (8..200usize, 2..=128usize),
        1 => (1600..9000usize, 2..=128usize),
        // As long as a packet can be.
        1 => (600..9000usize, Just(128usize)),
    ];
    (any_headers(), sizes, any::<prop::sample::Index>()).prop_map(
        |(shape, (gso_size, segments), last)| {
            let payload_len = (segments - 1) * gso_size + 1 + last.index(gso_size);
            let payload_len = payload_len.min(shape.payload_len_max());
            let has_ecn = shape.is_tcp && shape.flags & CWR != 0;
            (Shape { payload_len, ..shape }, gso_size as u16, has_ecn)
        },
    )
}
