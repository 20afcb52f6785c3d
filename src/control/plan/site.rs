//! Which interface a server or a client runs on, and how its frames come and go.

use super::super::settings::{Mode, Network, Output, TxChecksum};
use super::super::value::Indices;

/// The interface to run on, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    pub interface: String,
    /// All of the interface's if `None`.
    pub queues: Option<Vec<u32>>,
    pub mode: Mode,
    pub busy_poll: bool,
    pub tx_checksum: TxChecksum,
}

impl Site {
    /// What was asked for.
    ///
    /// # Errors
    /// What is missing, or does not go together.
    pub(super) fn new(network: &Network) -> Result<Site, String> {
        let Some(interface) = network.interface.clone() else {
            return Err("say which interface: -i eth1 (`shakedown doctor` lists them)".to_string());
        };
        if network.addr.is_empty() {
            return Err("say which address is ours: --addr 10.0.0.2/24".to_string());
        }
        let site = Site {
            interface,
            queues: network.queues.clone().map(|Indices(queues)| queues),
            mode: network.mode.unwrap_or_default(),
            busy_poll: network.busy_poll,
            tx_checksum: network.tx_checksum.unwrap_or_default(),
        };
        if site.busy_poll && site.mode == Mode::Packet {
            return Err("--busy-poll is for AF_XDP: leave out --mode packet".to_string());
        }
        Ok(site)
    }

    /// Holds checksums that are left to the device to a run that can do so.
    ///
    /// # Errors
    /// What to leave out.
    pub(super) fn suits(&self, impaired: bool, output: &Output) -> Result<(), String> {
        let without = match (self.tx_checksum, self.mode) {
            (TxChecksum::Auto | TxChecksum::Software, _) => return Ok(()),
            (_, Mode::Packet) => "--mode packet: it is for AF_XDP",
            _ if impaired => "--impair-*: what was corrupted would get a checksum that fits",
            _ if output.pcap.is_some() => "--pcap, which is to show what goes over the wire",
            _ => return Ok(()),
        };
        Err(format!("--tx-checksum device needs a run without {without}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checksum_of_the_devices_does_not_go_with_is_said() {
        let site = |mode, tx_checksum| Site {
            interface: "eth1".to_string(),
            queues: None,
            mode,
            busy_poll: false,
            tx_checksum,
        };
        let plain = Output { json: None, pcap: None, quiet: false, verbose: false };
        let recorded = Output { pcap: Some("a.pcap".into()), ..plain.clone() };
        let device = site(Mode::Auto, TxChecksum::Device);
        assert_eq!(device.suits(false, &plain), Ok(()));
        for (refused, what) in [
            (device.suits(true, &plain), "--impair-*"),
            (device.suits(false, &recorded), "--pcap"),
            (site(Mode::Packet, TxChecksum::Device).suits(false, &plain), "--mode packet"),
        ] {
            assert!(refused.unwrap_err().contains(what), "{what}");
        }
        for ours in [TxChecksum::Auto, TxChecksum::Software] {
            assert_eq!(site(Mode::Packet, ours).suits(true, &recorded), Ok(()));
        }
    }
}
