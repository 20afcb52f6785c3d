//! The rules of the house that a compiler does not know: who may import whom, what may not be
//! written where, and how long things may get. A rule here is one that a review once had to say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, and the modules that it may import. `sys` and `wire` stand alone; `control` and `cli`
/// end the table.
const IMPORTS: &[(&str, &str)] = &[
    ("time", ""),
    ("rng", ""),
    ("wire", ""),
    ("sys", ""),
    ("frame", "sys"),
    ("flow", "wire time rng"),
    ("timer", "time sys"),
    ("stats", "wire time rng"),
    ("tcp", "flow wire time rng"),
    ("app", "tcp flow stats time rng"),
    ("engine", "app tcp timer flow wire frame stats time rng sys"),
    ("device", "frame time rng sys"),
    ("floor", "device app stats wire frame time"),
    ("worker", "device engine app stats frame time"),
    ("sim", "worker device engine app tcp wire flow frame time rng stats"),
    ("control", "worker floor device engine app tcp timer flow wire frame stats time rng sys"),
    ("cli", "control"),
    ("main", "cli"),
    ("lib", ""),
];

/// Where a module may import only one part of another.
const PARTS: &[(&str, &str, &[&str])] = &[
    ("engine", "sys", &["cpu", "pages"]),
    ("timer", "sys", &["cpu", "pages"]),
    ("frame", "sys", &["umem"]),
    // The referee forms its own opinion: of tcp it knows the words of the engine's API and no more.
    ("sim", "tcp", &["self", "State", "End", "Config", "Congestion", "Keepalive", "Mss"]),
    ("control", "tcp", &["self", "Config", "Keepalive", "End", "Mss", "State"]),
    ("control", "wire", &["ethernet", "segment"]),
];

/// Text that may stand only in the named places, and why.
const BANS: &[(&str, &[&str], &str)] = &[
    // A C interface can't be given but by raw pointers: one file of the shim has them.
    (
        "unsafe ",
        &["src/sys/", "tests/no_alloc.rs", "examples/packetdrill/abi.rs"],
        "unsafe code is in src/sys, each with SAFETY",
    ),
    (
        "Instant::now",
        &["src/control/clock.rs", "benches/", "tests/", "examples/flood/"],
        "time is an argument",
    ),
    ("SystemTime::now", &["src/control/clock.rs", "benches/", "tests/"], "time is an argument"),
    (".unwrap()", &["tests/", "benches/"], "say what must hold with expect, or answer an error"),
    ("todo!", &[], "finish it"),
    ("unimplemented!", &[], "finish it"),
    ("dbg!", &[], "take it out"),
    ("TODO", &[], "do it, or leave it out"),
    ("FIXME", &[], "fix it"),
    (
        "println!",
        &[
            "src/control/",
            "src/cli/",
            "src/sim/mod.rs",
            "tests/",
            "benches/",
            "examples/packetdrill/abi.rs",
            "examples/flood/main.rs",
        ],
        "only control talks",
    ),
    ("state = State::", &["src/tcp/tcb.rs", "src/app/", "tests/"], "states change in Tcb::enter"),
    ("HashMap", &["tests/", "benches/", "src/sim/"], "its order is random; use hashbrown's table"),
    ("thread_rng", &[], "randomness is an argument"),
    ("static mut", &[], "share by message"),
];

/// Lines of a file before its tests, and of a function.
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Columns of a line, and of one with a string in it, which no formatter breaks.
const COLUMNS_MAX: usize = 100;
const STRING_COLUMNS_MAX: usize = 130;

/// A source file: its path from the root, its text, and how many of its lines stand before its
/// tests.
struct Source {
    path: String,
    text: String,
    code_lines: usize,
}

impl Source {
    /// The lines before the tests, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().take(self.code_lines).enumerate().map(|(index, line)| (index + 1, line))
    }

    /// `engine` of `src/engine/table.rs`, `time` of `src/time.rs`.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split(['/', '.']).next().unwrap_or(inside))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of ours below `folder`, sorted; what tools made is left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            _ if [".git", "target", "proptest-regressions"].contains(&name.as_str()) => {}
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let folders = ["src", "tests", "benches", "examples"].map(|folder| root().join(folder));
    let paths = folders.iter().filter(|folder| folder.exists()).flat_map(|folder| files(folder));
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let tests_at = text.lines().position(|line| line.trim() == "#[cfg(test)]");
            let code_lines = tests_at.unwrap_or(text.lines().count());
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            Source { path, text, code_lines }
        })
        .collect()
}

/// Fails with all findings at once, one a line.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// The part of a line that is code: no comment, and no text in double quotes.
fn code_of(line: &str) -> String {
    let (mut code, mut quoted, mut escaped) = (String::new(), false, false);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '/' if !quoted && rest.peek() == Some(&'/') => break,
            _ if !quoted => code.push(c),
            _ => {}
        }
    }
    code
}

/// What stands after each `crate::` of a line: `(module, part)`, the part empty where a brace
/// follows.
fn imports_of(code: &str) -> Vec<(String, String)> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate` and `libcrate::` are something else.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '$') {
            continue;
        }
        let after = &code[at + "crate::".len()..];
        let module = word(after);
        let rest = &after[module.len()..];
        let parts: Vec<String> = match rest.strip_prefix("::") {
            Some(list) if list.starts_with('{') => {
                list[1..].split(['}', ',']).map(|part| word(part.trim())).collect()
            }
            Some(part) => vec![word(part)],
            None => Vec::new(),
        };
        let named = parts.into_iter().filter(|part| !part.is_empty());
        let named: Vec<_> = named.map(|part| (module.clone(), part)).collect();
        match named.is_empty() {
            true => found.push((module, String::new())),
            false => found.extend(named),
        }
    }
    found
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut findings = Vec::new();
    let modules: BTreeSet<&str> = IMPORTS.iter().map(|(module, _)| *module).collect();
    for source in sources() {
        let Some(module) = source.module() else { continue };
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
            findings.push(format!("{}: module `{module}` is not in the table", source.path));
            continue;
        };
        let allowed: Vec<&str> = allowed.split_whitespace().collect();
        for (number, line) in source.code() {
            for (imported, part) in imports_of(&code_of(line)) {
                let known = modules.contains(imported.as_str());
                if !known || imported == module {
                    continue;
                }
                let place = format!("{}:{number}", source.path);
                if !allowed.contains(&imported.as_str()) {
                    findings.push(format!("{place}: {module} may not import {imported}"));
                }
                let limited = PARTS.iter().find(|(of, from, _)| *of == module && *from == imported);
                if let Some((_, _, parts)) = limited
                    && !part.is_empty()
                    && !parts.contains(&part.as_str())
                {
                    findings.push(format!("{place}: of {imported}, {module} may not see {part}"));
                }
            }
        }
    }
    none(findings);
}

#[test]
fn only_the_kernel_devices_import_sys() {
    let allowed = ["src/device/xdp", "src/device/packet", "src/device/steering"];
    let mut findings = Vec::new();
    for source in sources() {
        let kernel = allowed.iter().any(|start| source.path.starts_with(start));
        if !source.path.starts_with("src/device/") || kernel {
            continue;
        }
        for (number, line) in source.code() {
            if code_of(line).contains("crate::sys") {
                findings.push(format!("{}:{number}: this device knows no kernel", source.path));
            }
        }
    }
    none(findings);
}

#[test]
fn what_is_banned_stands_only_where_it_is_allowed() {
    let mut findings = Vec::new();
    for source in sources() {
        if source.path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in source.code() {
            let code = code_of(line);
            for (text, places, why) in BANS {
                let comment_too = ["TODO", "FIXME"].contains(text) && line.contains(text);
                let here = comment_too || code.contains(text);
                if here && !places.iter().any(|place| source.path.starts_with(place)) {
                    findings.push(format!("{}:{number}: `{text}`: {why}", source.path));
                }
            }
        }
    }
    none(findings);
}

#[test]
fn every_unsafe_block_says_why_it_is_safe() {
    let mut findings = Vec::new();
    let places = ["src/sys/", "examples/"];
    let has_unsafe = |source: &&Source| places.iter().any(|place| source.path.starts_with(place));
    for source in sources().iter().filter(has_unsafe) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = code_of(line);
            if !(code.contains("unsafe {") || code.contains("unsafe impl")) {
                continue;
            }
            // The reason stands above the statement, which may have begun a few lines before.
            let above = &lines[index.saturating_sub(12)..index];
            if !above.iter().any(|line| line.contains("SAFETY:")) {
                findings.push(format!("{}:{}: unsafe without SAFETY", source.path, index + 1));
            }
        }
    }
    none(findings);
}

#[test]
fn files_and_functions_stay_short() {
    let mut findings = Vec::new();
    for source in sources() {
        if source.path.starts_with("src/") && source.code_lines > FILE_LINES_MAX {
            let lines = source.code_lines;
            findings.push(format!("{}: {lines} lines before its tests", source.path));
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let bare = line.trim_start();
            let indent = line.len() - bare.len();
            let header = bare.split("fn ").next().unwrap_or("");
            let words = ["pub", "const", "unsafe", "pub(super)", "pub(crate)", "async", "extern"];
            let is_function =
                bare.contains("fn ") && header.split_whitespace().all(|word| words.contains(&word));
            if !is_function || bare.ends_with(';') {
                continue;
            }
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[start..].iter().position(|line| *line == end).map_or(1, |at| at + 1);
            if length > FUNCTION_LINES_MAX {
                findings.push(format!("{}:{}: {length} lines: {bare}", source.path, start + 1));
            }
        }
    }
    none(findings);
}

#[test]
fn lines_stay_narrow() {
    let mut findings = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let max = if line.contains('"') { STRING_COLUMNS_MAX } else { COLUMNS_MAX };
            let columns = line.chars().count();
            if columns > max {
                findings.push(format!("{}:{}: {columns} columns", source.path, index + 1));
            }
        }
    }
    none(findings);
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut findings = Vec::new();
    for source in sources() {
        if source.path != "src/lib.rs" && !source.text.starts_with("//!") {
            findings.push(format!("{}: no module comment", source.path));
        }
    }
    none(findings);
}

#[test]
fn the_architecture_names_every_module() {
    let text = fs::read_to_string(root().join("src/ARCHITECTURE.md")).unwrap();
    let missing = IMPORTS.iter().map(|(module, _)| *module).filter(|module| *module != "lib");
    none(
        missing.filter(|module| !text.contains(&format!("`{module}"))).map(String::from).collect(),
    );
}

#[test]
fn the_root_holds_only_what_belongs_there() {
    let allowed = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "benches",
        "bpf",
        "configs",
        "examples",
        "rustfmt.toml",
        "scripts",
        "src",
        "target",
        "tests",
    ];
    let names = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    none(
        names.filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str())).collect(),
    );
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        assert!(root().join(licence).exists(), "{licence}");
    }
}

#[test]
fn scripts_can_be_run_and_say_what_they_do() {
    use std::os::unix::fs::PermissionsExt;
    let mut scripts = files(&root().join("scripts"));
    scripts.push(root().join(".ci/run"));
    let mut findings = Vec::new();
    for path in scripts {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.display();
        if fs::metadata(&path).unwrap().permissions().mode() & 0o111 == 0 {
            findings.push(format!("{name}: not executable"));
        }
        if !text.starts_with("#!") || !text.lines().nth(1).unwrap_or("").starts_with("# ") {
            findings.push(format!("{name}: no `#!` line, or no comment below it"));
        }
    }
    none(findings);
}

/// Lists of what is tried: the last cell of a row names its test, of these files unless a file is
/// named.
const LISTS: [(&str, &[&str]); 2] = [
    ("src/HOSTILE.md", &["tests/hostile.rs", "tests/exhaustion.rs"]),
    ("src/FAULTS.md", &["tests/faults.rs"]),
];

#[test]
fn the_tests_that_lists_name_exist() {
    let mut findings = Vec::new();
    for (list, files) in LISTS {
        let text = fs::read_to_string(root().join(list)).unwrap();
        let tests: String =
            files.iter().map(|file| fs::read_to_string(root().join(file)).unwrap()).collect();
        let mut listed = false;
        for row in text.lines() {
            // Other tables are no lists.
            listed = row.starts_with('|') && (listed || row.ends_with("| test |"));
            if !listed || row.ends_with("| test |") || row.starts_with("|-") {
                continue;
            }
            let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or("");
            for name in last.split('`').skip(1).step_by(2) {
                let exists = match name.contains('/') {
                    true => root().join(name).exists(),
                    false => tests.contains(&format!("fn {name}()")),
                };
                if !exists {
                    findings.push(format!("{list}: no test {name}"));
                }
            }
            if !last.contains('`') {
                findings.push(format!("{list}: no test in {row}"));
            }
        }
    }
    none(findings);
}

#[test]
fn no_file_speaks_of_the_machine_it_was_written_on() {
    // Put together here, or this file would be found too.
    let banned = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    let mut findings = Vec::new();
    for path in files(root()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (index, line) in text.lines().enumerate() {
            if let Some(found) = banned.iter().find(|banned| line.contains(banned.as_str())) {
                findings.push(format!("{}:{}: {found}", path.display(), index + 1));
            }
        }
    }
    none(findings);
}

#[test]
fn the_rules_find_what_they_forbid() {
    assert_eq!(code_of(r#"let a = "x // y"; // z"#), "let a = ; ");
    assert_eq!(code_of(r#"call("a\"b", c)"#), "call(, c)");
    let imports = imports_of("use crate::tcp::{self, State}; crate::wire::segment::parse()");
    let pair = |module: &str, part: &str| (module.to_string(), part.to_string());
    assert_eq!(imports, [pair("tcp", "self"), pair("tcp", "State"), pair("wire", "segment")]);
    assert_eq!(imports_of("use crate::worker;"), [pair("worker", "")]);
    assert!(imports_of("$crate::x!()").is_empty());
}
