//! The packetdrill shim over its C interface: a small driver in C opens the built library as
//! packetdrill does and plays a scene, under the virtual clock.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const V4: &str = "ip=192.168.0.1,syn_retries=2";
const V6: &str = "ip=fd00::1 syn_retries=2";

/// The driver and the shim, built once.
fn built() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = Path::new(env!("CARGO_BIN_EXE_shakedown")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", "packetdrill"]).current_dir(root);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.arg("--target-dir").arg(folder.parent().unwrap());
        done("cargo build", cargo.output().unwrap());
        let driver = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packetdrill-driver");
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-stringop-truncation", "-o"]);
        cc.arg(&driver).arg(root.join("tests/packetdrill/driver.c")).args(["-ldl", "-lpthread"]);
        done("cc", cc.output().unwrap());
        (driver, folder.join("examples/libpacketdrill.so"))
    })
}

fn done(what: &str, output: Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{said}", output.status);
}

fn driver(flags: &str, scene: &str) -> Output {
    let (driver, shim) = built();
    // Nothing in it takes real time: what hangs is stopped.
    let mut command = Command::new("timeout");
    command.arg("60").arg(driver).arg(shim).args([flags, scene]).output().unwrap()
}

/// Plays a scene in both families.
fn play(scene: &str) {
    for flags in [V4, V6] {
        done(&format!("{scene} with {flags}"), driver(flags, scene));
    }
}

#[test]
fn a_passive_open_carries_data_both_ways_and_closes() {
    play("passive");
}

#[test]
fn a_connect_that_does_not_block_is_in_progress_then_done() {
    play("active");
}

#[test]
fn a_refused_connect_says_so_once() {
    play("refused");
}

#[test]
fn a_reset_is_read_as_one_and_then_as_the_end() {
    play("reset");
}

#[test]
fn a_connect_that_nobody_answers_times_out() {
    play("timed_out");
}

#[test]
fn what_is_lost_is_sent_again_by_the_virtual_clock() {
    play("retransmits");
}

#[test]
fn a_close_with_unread_data_resets() {
    play("closes_unread");
}

#[test]
fn a_close_that_does_not_linger_resets() {
    play("lingers_not");
}

#[test]
fn keepalive_is_switched_on_for_one_socket() {
    play("keeps_alive");
}

#[test]
fn a_listener_keeps_as_many_as_it_was_told() {
    play("overfull");
}

#[test]
fn a_port_is_open_while_its_socket_listens() {
    play("closed");
}

#[test]
fn calls_that_block_return_at_the_instant_at_which_they_can() {
    play("blocks");
}

#[test]
fn an_unknown_flag_is_an_error_that_lists_the_known_ones() {
    let output = driver("ip=192.168.0.1,colour=red", "passive");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no `colour`") && said.contains("rto_min="), "{said}");
}
