//! Every counter of the engine, in one table: field, published name, what it counts.
//! Names are RFC 4022's and nstat's where those have one.

macro_rules! counters {
    ($($field:ident, $name:literal, $doc:literal;)*) => {
        /// One core's counters. All are events since start unless the text says otherwise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $(#[doc = $doc] pub $field: u64,)* }

        impl Counters {
            /// Name and meaning of each counter, in the order of [`Counters::values`].
            pub const TABLE: &'static [(&'static str, &'static str)] = &[$(($name, $doc),)*];

            /// The values in table order.
            pub fn values(&self) -> [u64; Counters::TABLE.len()] {
                [$(self.$field,)*]
            }

            /// Counters from values in table order.
            pub fn from_values(values: [u64; Counters::TABLE.len()]) -> Counters {
                let [$($field,)*] = values;
                Counters { $($field,)* }
            }

            /// What was counted since `earlier`.
            pub fn since(&self, earlier: &Counters) -> Counters {
                Counters { $($field: self.$field - earlier.$field,)* }
            }

            /// Adds another core's counters.
            pub fn add(&mut self, other: &Counters) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counters! {
    active_opens, "ActiveOpens", "Connections that went from CLOSED to SYN-SENT (RFC 4022).";
    passive_opens, "PassiveOpens", "Connections that went from LISTEN to SYN-RECEIVED (RFC 4022).";
    attempt_fails, "AttemptFails", "Connections that ended in SYN-SENT or SYN-RECEIVED (RFC 4022).";
    estab_resets, "EstabResets", "Connections that went from ESTABLISHED or CLOSE-WAIT to CLOSED (RFC 4022).";
    established, "Established", "Connections that reached ESTABLISHED.";
    closed, "Closed", "Connections that ended after both sides' FIN was exchanged; TIME-WAIT counts as ended.";
    in_segs, "InSegs", "TCP segments received, those in error included (RFC 4022).";
    out_segs, "OutSegs", "TCP segments sent, pure retransmissions left out (RFC 4022).";
    retrans_segs, "RetransSegs", "TCP segments sent again (RFC 4022).";
    in_errs, "InErrs", "TCP segments received in error (RFC 4022).";
    out_rsts, "OutRsts", "Segments sent with RST (RFC 4022).";
    syn_retrans, "TCPSynRetrans", "SYNs and SYN-ACKs sent again.";
    timeouts, "TCPTimeouts", "Retransmission timeouts.";
    challenge_acks, "TCPChallengeACK", "Segments that called for a challenge ACK (RFC 5961).";
    skipped_challenge, "TCPACKSkippedChallenge", "Challenge ACKs withheld: the connection had sent too many (RFC 5961 s7).";
    skipped_seq, "TCPACKSkippedSeq", "ACKs of segments out of the window withheld, as many.";
    skipped_paws, "TCPACKSkippedPAWS", "ACKs of segments with an old timestamp withheld, as many.";
    paws_estab, "PAWSEstab", "Segments dropped because their timestamp was old (RFC 7323 s5).";
    keepalive_probes, "TCPKeepAlive", "Keepalive probes sent.";
    time_waits, "TW", "Connections that went through TIME-WAIT.";
    time_wait_recycled, "TWRecycled", "Connections reopened out of TIME-WAIT by a new SYN (RFC 6191, RFC 9293 s3.6.1).";
    time_wait_overflows, "TCPTimeWaitOverflow", "Connections in TIME-WAIT that gave way to later ones: there were too many.";
    listen_overflows, "ListenOverflows", "SYNs and last ACKs of a handshake dropped because the table was full.";
    syncookies_sent, "SyncookiesSent", "SYNs answered with a cookie, and nothing kept of them (RFC 4987 s3.6).";
    syncookies_recv, "SyncookiesRecv", "Connections made of a cookie that came back.";
    syncookies_failed, "SyncookiesFailed", "ACKs that came while cookies were about, and acknowledged none.";
    req_q_full_do_cookies, "TCPReqQFullDoCookies", "SYNs answered with a cookie because the SYN cache was full.";
    req_q_full_drop, "TCPReqQFullDrop", "SYNs and half-open connections dropped because the SYN cache was full.";
    delayed_acks, "DelayedACKs", "Acknowledgments sent because their delay was over.";
    congestion_echoes, "ecn_echoes_total", "Segments received that say our text met congestion (RFC 3168 s6.1.2).";
    soft_errors, "icmp_soft_errors_total", "ICMP errors about text in flight, told to the application (RFC 9293 s3.9.2.2).";
    urgent, "urgent_pointers_total", "Urgent pointers received that were news (RFC 9293 s3.8.5).";
    urgent_unsaid, "urgent_unsaid_total", "Text sent as not urgent because every data path was in use.";
    ofo_queued, "TCPOFOQueue", "Segments that arrived ahead of order and were kept.";
    ofo_dropped, "TCPOFODrop", "Segments that arrived ahead of order and were dropped: no room to keep them.";
    dsack_ofo_sent, "TCPDSACKOfoSent", "Segments that arrived ahead of order and again.";
    out_of_window, "TCPOutOfWindow", "Segments whose sequence numbers were not acceptable (RFC 9293 s3.10.7.4).";
    fast_retrans, "TCPFastRetrans", "Segments sent again in fast recovery (RFC 6582, RFC 6675).";
    slow_start_retrans, "TCPSlowStartRetrans", "Segments sent again after a retransmission timeout.";
    reno_recoveries, "TCPRenoRecovery", "Fast recoveries of peers without SACK.";
    sack_recoveries, "TCPSackRecovery", "Fast recoveries of peers with SACK.";
    lost_retransmits, "TCPLostRetransmit", "Segments sent again that were lost again.";
    loss_probes, "TCPLossProbes", "Tail loss probes sent (RFC 8985 s7).";
    loss_probe_recoveries, "TCPLossProbeRecovery", "Losses that a tail loss probe repaired.";
    dsacks, "TCPDSACKRecv", "Segments by which the peer reports that something arrived twice (RFC 2883).";
    sacks_discarded, "TCPSACKDiscard", "SACK blocks that can't be true, or that there was no place for.";
    sack_reneging, "TCPSACKReneging", "Peers that discarded what they had reported by SACK.";
    path_mtus, "path_mtu_learned_total", "Connections whose segments a router's message made smaller (RFC 1191, RFC 8201).";
    paths_refused, "paths_refused_total", "Times a connection had to do without a data path: all were lent.";
    idle_rested, "idle_rested_total", "Times an idle connection left its slot for less memory.";
    idle_woken, "idle_woken_total", "Times one that had came back.";
    zero_window_probes, "TCPWinProbe", "Zero-window probes sent.";
    end_finished, "end_finished_total", "Connections that ended by FIN from both sides.";
    end_reset, "end_reset_total", "Connections ended by the peer's RST after ESTABLISHED.";
    end_refused, "end_refused_total", "Connections refused by RST in SYN-SENT or SYN-RECEIVED.";
    end_syn_timeout, "end_syn_timeout_total", "Connections given up because the handshake was not answered.";
    end_data_timeout, "end_data_timeout_total", "Connections given up because data or FIN was not acknowledged.";
    end_keepalive_timeout, "end_keepalive_timeout_total", "Connections given up because no keepalive probe was answered.";
    end_fin_wait2_timeout, "end_fin_wait2_timeout_total", "Connections given up in FIN-WAIT-2.";
    end_aborted, "end_aborted_total", "Connections aborted by our application (RST sent).";
    end_unreachable, "end_unreachable_total", "Connections given up because the next hop or the host can't be reached.";
    launch_no_tuple, "launch_no_tuple_total", "Connections not launched: every four-tuple is in use or in TIME-WAIT.";
    launch_table_full, "launch_table_full_total", "Connections not launched: the connection table was full.";
    launch_not_a_host, "launch_not_a_host_total", "Connections not launched: the target is no single host's address.";
    rx_frames, "rx_packets_total", "Frames received.";
    rx_bytes, "rx_bytes_total", "Bytes received, Ethernet headers included.";
    tx_frames, "tx_packets_total", "Frames handed to the device.";
    tx_bytes, "tx_bytes_total", "Bytes handed to the device, Ethernet headers included.";
    rx_payload_bytes, "rx_payload_bytes_total", "TCP payload delivered to the application.";
    tx_payload_bytes, "tx_payload_bytes_total", "TCP payload acknowledged by the peer.";
    rx_truncated, "rx_truncated_total", "Frames dropped: shorter than their headers say.";
    rx_ip_header, "rx_ip_header_total", "Frames dropped: IP version or header length.";
    rx_ip_length, "rx_ip_length_total", "Frames dropped: IP total length.";
    rx_ip_checksum, "rx_ip_checksum_total", "Frames dropped: IP header checksum.";
    rx_ip_extension, "rx_ip_extension_total", "Frames dropped: IPv6 extension headers.";
    rx_fragment, "rx_fragment_total", "Frames dropped: IP fragments.";
    rx_martian, "rx_martian_total", "Frames dropped: an address that no host may use.";
    rx_tcp_header, "rx_tcp_header_total", "Segments dropped: TCP data offset.";
    rx_tcp_checksum, "rx_tcp_checksum_total", "Segments dropped: TCP checksum.";
    rx_tcp_option, "rx_tcp_option_total", "Segments dropped: TCP option length.";
    rx_tcp_port, "rx_tcp_port_total", "Segments dropped: TCP port 0.";
    rx_tcp_dropped, "rx_tcp_dropped_total", "Segments dropped for the flags they have or lack (RFC 9293 s3.10.7).";
    rx_arp_malformed, "rx_arp_malformed_total", "Frames dropped: ARP.";
    rx_icmp_malformed, "rx_icmp_malformed_total", "Frames dropped: ICMP.";
    rx_icmp_ignored, "rx_icmp_ignored_total", "ICMP messages dropped: of no use to us, or about nothing in flight.";
    rx_ndp_malformed, "rx_ndp_malformed_total", "Frames dropped: neighbor discovery (RFC 4861 s7.1).";
    address_conflicts, "address_conflicts_total", "Claims of others to an address of ours (RFC 5227 s2.4).";
    rx_not_ours, "rx_not_ours_total", "Frames dropped: not to an address of ours, or a protocol we do not speak.";
    tx_no_frame, "tx_no_frame_total", "Frames not sent at once because the pool was empty; sent later.";
    answers_dropped, "answers_dropped_total", "Stateless answers (ARP, ICMP, RST) not sent because there was no room.";
    strays_in, "strays_in_total", "Frames received from another worker, which has no connection for them.";
    strays_out, "strays_out_total", "Frames without a connection here, left to the next worker; not counted as received.";
    strays_dropped, "strays_dropped_total", "Frames dropped because the next worker's inbox was full.";
    arp_requests, "arp_requests_total", "ARP requests sent.";
    solicitations, "neighbor_solicitations_total", "Neighbor solicitations sent.";
    errors_withheld, "icmp_errors_withheld_total", "ICMP errors not sent because there were too many (RFC 4443 s2.4).";
}
