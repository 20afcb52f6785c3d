//! Configuration files that nobody would write: each is a setting or an error that says where, with
//! exit code 104, within a second or two and a bounded memory. The interface that they are for does
//! not exist, so a file that is understood ends with exit code 3, and nothing ever runs.

use shakedown::rng::Rng;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Address space that the program may take, in KiB.
const MEMORY_MAX_KIB: u64 = 2 << 20;
const TIME_MAX: Duration = Duration::from_secs(20);
const MUTANTS: u64 = 200;

const SOUND: &str = "addr = ['10.0.0.1/24', 'fd00::1/64']\nmtu = 1500\nseed = 7\n\
    [tcp]\nmsl = '30s'\nsyn_retries = 6\n[[listen]]\nport = 7003\napp = 'echo'\n\
    keepalive = { idle = '2s', interval = '1s', probes = 3 }\n[[listen]]\nport = 80\n";

/// The exit code, and what was said.
fn judged(name: &str, text: &[u8]) -> (i32, String) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("config-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let begun = Instant::now();
    let output = Command::new("timeout")
        .args([&TIME_MAX.as_secs().to_string(), "sh", "-c"])
        .arg(format!("ulimit -v {MEMORY_MAX_KIB}; exec \"$@\""))
        .args(["sh", env!("CARGO_BIN_EXE_shakedown"), "server", "-i", "nothere0", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    let code = code.unwrap_or_else(|| panic!("{name}: {:?} {said}", output.status));
    assert!(code != 124, "{name}: {:?} and not done", begun.elapsed());
    (code, said)
}

#[test]
fn what_is_sound_gets_as_far_as_the_interface() {
    let (code, said) = judged("sound", SOUND.as_bytes());
    assert!(code == 3 && said.contains("nothere0"), "{code} {said}");
}

#[test]
fn what_nobody_would_write_is_an_error_that_says_so() {
    let many = |item: &str, count: usize| vec![item; count].join(",");
    let files: Vec<(&str, String)> = vec![
        ("deep-arrays", format!("addr = {}", "[".repeat(100_000))),
        ("deep-tables", format!("a = {}", "{a=".repeat(100_000))),
        ("deep-keys", format!("{}a = 1", "a.".repeat(100_000))),
        ("huge-integer", "mtu = 99999999999999999999999999".to_owned()),
        ("negative", "mtu = -1".to_owned()),
        ("huge-float", "seed = 1e400".to_owned()),
        ("not-a-number", "seed = nan".to_owned()),
        ("huge-word", format!("addr = '{}'", "9".repeat(1 << 20))),
        ("huge-key", format!("{} = 1", "k".repeat(1 << 20))),
        ("huge-range", "cpus = '0-4294967295'".to_owned()),
        ("huge-ports", "listen = '1-65536'".to_owned()),
        ("every-ipv4", "addr = '0.0.0.0-255.255.255.255/0'".to_owned()),
        ("backwards", "addr = '10.0.0.9-10.0.0.1/24'".to_owned()),
        ("two-families", "addr = '10.0.0.1-fd00::1/24'".to_owned()),
        ("huge-time", "[tcp]\nmsl = '99999999999999999999d'".to_owned()),
        ("no-such", "\0\u{feff} = 1".to_owned()),
        ("twice", "mtu = 1500\nmtu = 1500".to_owned()),
        ("many-words", format!("addr = [{}]", many("'x'", 100_000))),
        ("many-sound-then-none", format!("addr = [{}, 'x']", many("'10.0.0.1/24'", 200_000))),
    ];
    for (name, text) in files {
        let (code, said) = judged(name, text.as_bytes());
        assert!(code == 104 && said.contains(name), "{name}: {code} {said:.300}");
        assert!(said.len() < 3 << 20, "{name}: says {} bytes", said.len());
    }
    let (code, said) = judged("not-utf-8", b"addr = '\xff\xfe'");
    assert!(code == 104 && said.contains("can't be read"), "{code} {said}");
}

#[test]
fn what_was_changed_by_chance_is_a_setting_or_an_error() {
    let mut rng = Rng::new(3);
    let mut codes = [0; 2];
    for n in 0..MUTANTS {
        let mut text = SOUND.as_bytes().to_vec();
        for _ in 0..1 + rng.below(3) {
            mutate(&mut text, &mut rng);
        }
        let (code, said) = judged("mutant", &text);
        let shown = String::from_utf8_lossy(&text);
        assert!(code == 3 || code == 104, "{n}: {code} {said}\n{shown}");
        assert!(!said.contains("panicked") && !said.is_empty(), "{n}: {said}\n{shown}");
        codes[usize::from(code == 104)] += 1;
    }
    assert!(codes.iter().all(|&count| count > 5), "understood and refused: {codes:?}");
}

fn mutate(text: &mut Vec<u8>, rng: &mut Rng) {
    let place = |rng: &mut Rng, len: usize| rng.below(len as u64) as usize;
    let at = place(rng, text.len());
    match rng.below(5) {
        0 => text[at] = 32 + rng.below(95) as u8,
        1 => text[at] = b'0' + rng.below(10) as u8,
        2 => text.truncate(at.max(1)),
        3 => {
            let end = (at + place(rng, 20)).min(text.len());
            let piece = text[at..end].to_vec();
            let to = place(rng, text.len());
            text.splice(to..to, piece);
        }
        _ => {
            let end = (at + 1 + place(rng, 8)).min(text.len());
            text.drain(at..end);
            text.push(b'\n');
        }
    }
}
