//! A configuration file of any text, and each of its lines as a word of the command line: a value
//! or an error that says something.

use shakedown::control::{address, config, value};
use std::fmt::Debug;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::settings_of(text) {
        Ok(settings) => settings.iter().for_each(|setting| words(&setting.value)),
        Err(fault) => assert!(!fault.message.is_empty()),
    }
    text.lines().for_each(words);
}

fn words(text: &str) {
    said(text.parse::<value::Ports>());
    said(text.parse::<value::Listen>());
    if let Some(value::Indices(indices)) = said(text.parse()) {
        assert!(indices.len() <= 1024 && indices.is_sorted());
    }
    said(value::port(text));
    said(value::number(text));
    said(value::number32(text));
    said(value::bytes(text));
    said(value::positive_rate(text));
    said(value::probability(text));
    said(value::span(text));
    said(value::keepalive(text));
    said(address::address(text));
    if let Some(subnet) = said(address::subnet(text)) {
        assert!(subnet.first <= subnet.last && subnet.range().count() > 0, "{subnet:?}");
    }
    if let Some(target) = said(address::target(text)) {
        assert!(target.addresses.first <= target.addresses.last && target.first_port > 0);
    }
}

fn said<T: Debug>(result: Result<T, String>) -> Option<T> {
    if let Err(error) = &result {
        assert!(!error.is_empty());
    }
    result.ok()
}
