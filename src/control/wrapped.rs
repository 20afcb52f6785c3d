//! A device, and in front of it what was asked for: impairment, a recording, both, or neither.
//!
//! An enum where the rest is generic: the choice is made once a turn, not once a frame, and the
//! alternative is four copies of the program for each device. The recording is outermost, so it
//! shows what the stack itself sent and got.

use super::clock::Clock;
use super::settings::{self, ImpairDirection};
use crate::device::impair::{self, Impair};
use crate::device::pcap::Pcap;
use crate::device::{Device, Report};
use crate::frame::{Burst, Pool};
use crate::time::{Instant, Span};
use std::io;
use std::path::Path;

/// A device behind its wrappers.
pub enum Wrapped<D> {
    Plain(D),
    Impaired(Impair<D>),
    Recorded(Pcap<D>),
    Both(Pcap<Impair<D>>),
}

/// What to put in front of a device.
#[derive(Clone, Debug, Default)]
pub struct Wrappers<'a> {
    pub impair: Option<&'a settings::Impair>,
    pub pcap: Option<&'a Path>,
    /// Of the impairment's dice.
    pub seed: u64,
}

impl<D: Device> Wrapped<D> {
    /// Wraps `device`, whose frames are those of `pool`.
    ///
    /// # Errors
    /// The recording's file can't be created.
    pub fn new(
        device: D,
        pool: &Pool,
        wrappers: &Wrappers<'_>,
        clock: &Clock,
    ) -> io::Result<Wrapped<D>> {
        let impaired = |device| {
            let [tx, rx] = wrappers.impair.map_or([None, None], options_of);
            Impair::new(device, pool.umem(), tx, rx, wrappers.seed)
        };
        let origin = clock.wall_origin();
        Ok(match (wrappers.impair, wrappers.pcap) {
            (None, None) => Wrapped::Plain(device),
            (Some(_), None) => Wrapped::Impaired(impaired(device)),
            (None, Some(path)) => Wrapped::Recorded(Pcap::create(device, path, origin, None)?),
            (Some(_), Some(path)) => {
                Wrapped::Both(Pcap::create(impaired(device), path, origin, None)?)
            }
        })
    }

    /// Ends the recording, if there is one.
    ///
    /// # Errors
    /// The recording is incomplete, and why.
    pub fn finish(&mut self) -> io::Result<()> {
        match self {
            Wrapped::Plain(_) | Wrapped::Impaired(_) => Ok(()),
            Wrapped::Recorded(device) => device.finish(),
            Wrapped::Both(device) => device.finish(),
        }
    }
}

impl<D: Device> Device for Wrapped<D> {
    #[inline]
    fn rx(&mut self, now: Instant, pool: &mut Pool, rx: &mut Burst) {
        match self {
            Wrapped::Plain(device) => device.rx(now, pool, rx),
            Wrapped::Impaired(device) => device.rx(now, pool, rx),
            Wrapped::Recorded(device) => device.rx(now, pool, rx),
            Wrapped::Both(device) => device.rx(now, pool, rx),
        }
    }

    #[inline]
    fn tx(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        match self {
            Wrapped::Plain(device) => device.tx(now, pool, tx),
            Wrapped::Impaired(device) => device.tx(now, pool, tx),
            Wrapped::Recorded(device) => device.tx(now, pool, tx),
            Wrapped::Both(device) => device.tx(now, pool, tx),
        }
    }

    fn lent(&self) -> usize {
        match self {
            Wrapped::Plain(device) => device.lent(),
            Wrapped::Impaired(device) => device.lent(),
            Wrapped::Recorded(device) => device.lent(),
            Wrapped::Both(device) => device.lent(),
        }
    }

    fn report(&self) -> Report {
        match self {
            Wrapped::Plain(device) => device.report(),
            Wrapped::Impaired(device) => device.report(),
            Wrapped::Recorded(device) => device.report(),
            Wrapped::Both(device) => device.report(),
        }
    }
}

/// Of what is sent, and of what is received.
fn options_of(asked: &settings::Impair) -> [Option<impair::Options>; 2] {
    let &settings::Impair {
        impair_direction,
        impair_loss,
        impair_dup,
        impair_reorder,
        impair_corrupt,
        impair_delay,
        impair_jitter,
        impair_rate,
    } = asked;
    let options = impair::Options {
        loss: impair_loss.unwrap_or(0.0),
        duplicate: impair_dup.unwrap_or(0.0),
        reorder: impair_reorder.unwrap_or(0.0),
        corrupt: impair_corrupt.unwrap_or(0.0),
        delay: impair_delay.unwrap_or(Span::ZERO),
        jitter: impair_jitter.unwrap_or(Span::ZERO),
        rate_bps: impair_rate,
        ..impair::Options::default()
    };
    match impair_direction.unwrap_or_default() {
        ImpairDirection::Tx => [Some(options), None],
        ImpairDirection::Rx => [None, Some(options)],
        ImpairDirection::Both => [Some(options), Some(options)],
    }
}
