//! How long keys are used: `[keys]` of the configuration, and flags of the datapath's process.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use ipop_crypto::{EPOCH_PACKETS_MAX, EPOCH_TIME_MAX, KeyLife};
use ipop_engine::REHANDSHAKE_AFTER;
use serde::Deserialize;

use crate::failure::Failure;

/// Limits below the usual ones, which nothing may exceed.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// A sending key is used for so many seconds.
    #[arg(long = "key-seconds")]
    pub seconds: Option<u64>,
    /// A sending key seals so many datagrams.
    #[arg(long = "key-packets")]
    pub packets: Option<u64>,
    /// New keys are made by a handshake after so many seconds.
    #[arg(long = "key-handshake-seconds")]
    pub handshake_seconds: Option<u64>,
}

impl KeyLimits {
    /// Refuses values out of their bounds.
    ///
    /// # Errors
    /// Names the key, the value and the bounds.
    pub fn check(&self) -> Result<(), Failure> {
        let bounded = |key: &str, value: Option<u64>, bounds: RangeInclusive<u64>| match value {
            Some(value) if !bounds.contains(&value) => {
                let (least, most) = bounds.into_inner();
                let text = format!("keys.{key} = {value}: it is {least} to {most}");
                Err(Failure::usage(text))
            }
            _ => Ok(()),
        };
        bounded("seconds", self.seconds, 1..=EPOCH_TIME_MAX.as_secs())?;
        bounded("packets", self.packets, 1024..=EPOCH_PACKETS_MAX)?;
        // Replaced keys stay for ten seconds, and there is room for few.
        bounded("handshake_seconds", self.handshake_seconds, 10..=REHANDSHAKE_AFTER.as_secs())
    }

    /// The flags again, for another process.
    pub fn to_args(self) -> impl Iterator<Item = String> {
        [
            ("key-seconds", self.seconds),
            ("key-packets", self.packets),
            ("key-handshake-seconds", self.handshake_seconds),
        ]
        .into_iter()
        .filter_map(|(flag, value)| value.map(|value| format!("--{flag}={value}")))
    }

    /// How long a sending key is used.
    pub fn life(&self) -> KeyLife {
        let usual = KeyLife::default();
        KeyLife {
            time: self.seconds.map_or(usual.time, Duration::from_secs),
            packets: self.packets.unwrap_or(usual.packets),
        }
    }

    /// After how long a handshake makes new keys.
    pub fn rehandshake_after(&self) -> Duration {
        self.handshake_seconds.map_or(REHANDSHAKE_AFTER, Duration::from_secs)
    }
}
