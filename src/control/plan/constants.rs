//! TCP's constants: what was asked for, laid over the defaults, within the bounds that RFCs set.

use crate::control::settings::{CongestionName, CookiesName, EcnName, Tcp};
use crate::tcp;
use crate::time::Span;

/// The longest that an ACK may be delayed: Linux's.
const DELAYED_ACK_MAX: Span = Span::from_millis(200);

/// What an end of TIME-WAIT can be told from (RFC 9293 s3.4.2 takes two minutes for a long one).
const MSL_MAX: Span = Span::from_secs(12 * 3600);

/// # Errors
/// A value that its RFC forbids, or two that contradict each other.
pub(super) fn config(tcp: Tcp, msl_default: Span) -> Result<tcp::Config, String> {
    let Tcp {
        tcp_msl,
        tcp_rto_initial,
        tcp_rto_min,
        tcp_rto_max,
        tcp_syn_retries,
        tcp_syn_backlog,
        tcp_syncookies,
        tcp_rfc1337,
        tcp_data_retries,
        tcp_fin_wait2,
        tcp_mss,
        tcp_timestamps,
        tcp_window_scaling,
        tcp_window,
        tcp_sack,
        tcp_reassembly,
        tcp_delayed_ack,
        tcp_ecn,
        tcp_dscp,
        tcp_congestion,
        tcp_nagle,
        tcp_user_timeout,
    } = tcp;
    let default = tcp::Config::default();
    let config = tcp::Config {
        msl: tcp_msl.unwrap_or(msl_default),
        rto_initial: tcp_rto_initial.unwrap_or(default.rto_initial),
        rto_min: tcp_rto_min.unwrap_or(default.rto_min),
        rto_max: tcp_rto_max.unwrap_or(default.rto_max),
        syn_retries: tcp_syn_retries.unwrap_or(default.syn_retries),
        data_retries: tcp_data_retries.unwrap_or(default.data_retries),
        fin_wait2: tcp_fin_wait2.unwrap_or(default.fin_wait2),
        mss: tcp_mss.map_or(default.mss, tcp::Mss::both),
        timestamps: tcp_timestamps.unwrap_or(default.timestamps),
        // Read from the clock when the run begins: a plan says the same whenever it is made.
        timestamp_origin_ms: default.timestamp_origin_ms,
        window_scaling: tcp_window_scaling.unwrap_or(default.window_scaling),
        window: tcp_window.unwrap_or(default.window),
        sack: tcp_sack.unwrap_or(default.sack),
        delayed_ack: tcp_delayed_ack.unwrap_or(default.delayed_ack),
        syn_backlog: tcp_syn_backlog.unwrap_or(default.syn_backlog),
        syncookies: tcp_syncookies.map_or(default.syncookies, cookies),
        rfc1337: tcp_rfc1337.unwrap_or(default.rfc1337),
        ecn: match tcp_ecn {
            None => default.ecn,
            Some(EcnName::Off) => tcp::Ecn::Off,
            Some(EcnName::Accept) => tcp::Ecn::Accept,
            Some(EcnName::Request) => tcp::Ecn::Request,
        },
        dscp: tcp_dscp.unwrap_or(default.dscp),
        reassembly_bytes: tcp_reassembly.unwrap_or(default.reassembly_bytes),
        congestion: match tcp_congestion {
            None => default.congestion,
            Some(CongestionName::Cubic) => tcp::Congestion::Cubic,
            Some(CongestionName::NewReno) => tcp::Congestion::NewReno,
            Some(CongestionName::Fixed) => tcp::Congestion::Fixed,
        },
        nagle: tcp_nagle.unwrap_or(default.nagle),
        user_timeout: match tcp_user_timeout {
            None => default.user_timeout,
            Some(timeout) => (timeout > Span::ZERO).then_some(timeout),
        },
    };
    within_bounds(&config)?;
    Ok(config)
}

fn cookies(name: CookiesName) -> tcp::CookiesWhen {
    match name {
        CookiesName::Off => tcp::CookiesWhen::Off,
        CookiesName::Full => tcp::CookiesWhen::Full,
        CookiesName::Always => tcp::CookiesWhen::Always,
    }
}

fn within_bounds(config: &tcp::Config) -> Result<(), String> {
    if config.msl > MSL_MAX {
        return Err(format!("--tcp-msl {} is above {MSL_MAX}", config.msl));
    }
    if config.rto_min == Span::ZERO || config.rto_min > config.rto_max {
        return Err(format!(
            "--tcp-rto-min {} must be above 0 and not above --tcp-rto-max {}",
            config.rto_min, config.rto_max
        ));
    }
    // RFC 9293 s3.8.6.3, MUST-40, asks for less than half a second.
    if config.delayed_ack > DELAYED_ACK_MAX {
        return Err(format!("--tcp-delayed-ack {} is above {DELAYED_ACK_MAX}", config.delayed_ack));
    }
    // RFC 7323 s2.3: a window of 2^30 bytes is the largest that a shift of 14 can say.
    let window_max = if config.window_scaling { 1 << 30 } else { 65_535 };
    if config.window < u32::from(config.mss.v4) || config.window > window_max {
        return Err(format!(
            "--tcp-window {} must be from the MSS, {}, to {window_max}",
            config.window, config.mss.v4
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    /// What the flags in `words` come to.
    fn asked(words: &[String]) -> tcp::Config {
        let command = Tcp::augment_args(clap::Command::new("tcp").no_binary_name(true));
        let matches = command.try_get_matches_from(words).unwrap();
        config(Tcp::from_arg_matches(&matches).unwrap(), Span::ZERO).unwrap()
    }

    #[test]
    fn an_msl_that_no_network_has_is_refused() {
        let config = |hours: u64| config(Tcp::default(), Span::from_secs(hours * 3600));
        assert!(config(12).is_ok());
        assert!(config(13).is_err_and(|why| why.starts_with("--tcp-msl ")));
    }

    #[test]
    fn what_a_sender_does_can_be_asked_for() {
        for congestion in tcp::Congestion::ALL {
            let words = [format!("--tcp-congestion={}", congestion.name())];
            assert_eq!(asked(&words).congestion, congestion);
        }
        assert!(asked(&["--tcp-nagle=true".to_string()]).nagle);
        let patient = asked(&["--tcp-user-timeout=5m".to_string()]);
        assert_eq!(patient.user_timeout, Some(Span::from_secs(300)));
    }

    #[test]
    fn the_help_tells_the_true_defaults() {
        let command = Tcp::augment_args(clap::Command::new("tcp"));
        let mut words = Vec::new();
        for arg in command.get_arguments() {
            let help = arg.get_help().unwrap().to_string();
            let default = help.split("[default: ").nth(1).unwrap();
            let default = default.split([']', ';']).next().unwrap();
            // Said in words: it depends on the MTU.
            if arg.get_id() != "tcp_mss" {
                words.push(format!("--{}={default}", arg.get_long().unwrap()));
            }
        }
        assert_eq!(asked(&words), tcp::Config::default());
    }
}
