//! How replies find the way to the worker that asked, among several: by a choice of source ports
//! where the NIC's hash is known, and else as the peer pleases.

use super::report::Side;
use crate::flow::Rss;
use crate::sys::net::Spreading;
use std::io;
use std::sync::Arc;

/// Where less of the frames than this is handed on, the peer keeps a connection on its queue: the
/// rest is ARP and neighbor discovery, which each worker has to hear.
const SAME_QUEUE_RATIO: f64 = 0.01;

/// What is known of where replies come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Homing {
    /// To the only worker.
    Alone,
    /// To where the NIC's own hash says: source ports are chosen by it.
    Toeplitz(Arc<Rss>),
    /// Not known beforehand, and why.
    Unknown(String),
}

impl Homing {
    /// For an interface whose queues are dealt out to workers.
    pub fn of(interface: &str, crews: &[(u32, Vec<u32>)]) -> Homing {
        if crews.len() == 1 {
            return Homing::Alone;
        }
        match read(interface) {
            Ok(spreading) => Homing::with(&spreading, crews),
            Err(why) => Homing::Unknown(why),
        }
    }

    fn with(spreading: &Spreading, crews: &[(u32, Vec<u32>)]) -> Homing {
        // A queue that is none of ours: what comes to it goes to the kernel, so that no port is
        // chosen for it.
        const NOBODY: u16 = u16::MAX;
        let whose = |queue: &u32| {
            let worker = crews.iter().position(|(_, queues)| queues.contains(queue));
            worker.map_or(NOBODY, |worker| worker as u16)
        };
        let made = key_of(spreading).and_then(|key| {
            let workers = spreading.table.iter().map(whose).collect();
            Rss::new(key, workers).ok_or_else(|| {
                format!("its indirection table has {} entries", spreading.table.len())
            })
        });
        match made {
            Ok(rss) => match (0..crews.len() as u16).find(|&worker| !rss.reaches(worker)) {
                None => Homing::Toeplitz(Arc::new(rss)),
                Some(worker) => Homing::Unknown(format!(
                    "its indirection table names none of the queues {:?}",
                    crews[usize::from(worker)].1
                )),
            },
            Err(why) => Homing::Unknown(why),
        }
    }

    /// What tuples are chosen by.
    pub fn rss(&self) -> Option<Arc<Rss>> {
        match self {
            Homing::Toeplitz(rss) => Some(Arc::clone(rss)),
            Homing::Alone | Homing::Unknown(_) => None,
        }
    }

    /// In a word, for programs: of the way that replies took, `side` having seen it.
    pub fn name(&self, side: &Side) -> &'static str {
        match self {
            Homing::Alone => "one worker",
            Homing::Toeplitz(_) => "toeplitz",
            Homing::Unknown(_) if side.stray_ratio() < SAME_QUEUE_RATIO => "same queue",
            Homing::Unknown(_) => "handed on",
        }
    }

    /// In a line, for people; `None` where there was nothing to bring home.
    pub fn note(&self, side: &Side) -> Option<String> {
        let percent = side.stray_ratio() * 100.0;
        let name = self.name(side);
        let how = match self {
            Homing::Alone => return None,
            Homing::Toeplitz(_) => "key read, source ports chosen by it",
            Homing::Unknown(why) => why,
        };
        Some(format!("rss: {name} ({how}); {percent:.1} hand-ons between workers per 100 frames"))
    }
}

/// What the interface's driver says of its hash.
pub(super) fn read(interface: &str) -> Result<Spreading, String> {
    Spreading::of(interface).map_err(|error| match error.kind() {
        io::ErrorKind::Unsupported => "the driver has no hash to read".to_string(),
        _ => error.to_string(),
    })
}

/// The key, if the hash is one that we know.
fn key_of(spreading: &Spreading) -> Result<&[u8; crate::flow::rss::KEY_BYTES], String> {
    let Spreading { key, table: _, toeplitz, with_ports } = spreading;
    if !toeplitz {
        return Err("its hash is not Toeplitz's".to_string());
    }
    if with_ports.contains(&Some(false)) {
        return Err("it hashes TCP without ports".to_string());
    }
    key.first_chunk().ok_or_else(|| format!("its key has {} bytes", key.len()))
}

/// What [`Homing::of`] would make of an interface with a worker for each queue.
pub(super) fn verdict(spreading: &Spreading, queues: u32) -> Result<(), String> {
    let crews: Vec<_> = (0..queues).map(|queue| (queue, vec![queue])).collect();
    match Homing::with(spreading, &crews) {
        Homing::Alone | Homing::Toeplitz(_) => Ok(()),
        Homing::Unknown(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spreading() -> Spreading {
        Spreading {
            key: (0..40).collect(),
            table: (0..128).map(|bucket| bucket % 4).collect(),
            toeplitz: true,
            with_ports: [Some(true), None],
        }
    }

    fn crews(queues: &[&[u32]]) -> Vec<(u32, Vec<u32>)> {
        queues.iter().map(|queues| (0, queues.to_vec())).collect()
    }

    #[test]
    fn a_hash_that_is_read_leads_each_bucket_to_the_worker_of_its_queue() {
        let homing = Homing::with(&spreading(), &crews(&[&[0, 2], &[1, 3]]));
        let key = std::array::from_fn(|at| at as u8);
        assert_eq!(homing.rss(), Rss::new(&key, vec![0, 1]).map(Arc::new));
    }

    #[test]
    fn what_comes_to_queues_that_are_not_ours_is_nobodys() {
        let homing = Homing::with(&spreading(), &crews(&[&[0], &[1]]));
        let rss = homing.rss().unwrap();
        assert!(rss.reaches(0) && rss.reaches(1) && rss.reaches(u16::MAX));
    }

    #[test]
    fn what_we_can_not_follow_is_said_and_not_guessed() {
        let two = crews(&[&[0], &[1]]);
        let cases = [
            (Spreading { toeplitz: false, ..spreading() }, "not Toeplitz"),
            (Spreading { with_ports: [Some(true), Some(false)], ..spreading() }, "without ports"),
            (Spreading { key: vec![1; 32], ..spreading() }, "32 bytes"),
            (Spreading { table: vec![0, 1, 0], ..spreading() }, "3 entries"),
            (Spreading { table: vec![0; 128], ..spreading() }, "none of the queues [1]"),
        ];
        for (spreading, said) in cases {
            match Homing::with(&spreading, &two) {
                Homing::Unknown(why) => assert!(why.contains(said), "{why}"),
                other => panic!("{said}: {other:?}"),
            }
        }
        assert!(matches!(Homing::of("lo", &two), Homing::Unknown(why) if why.contains("no hash")));
        assert_eq!(Homing::of("lo", &crews(&[&[0]])), Homing::Alone);
    }
}
