//! Every requirement of RFC 9293 (its appendix B) with our verdict, the function that obeys it and
//! the test that would fail if it did not: `tests/rfc9293.toml`, held true here. The same table,
//! generated, is `src/RFC9293.md`: `SHAKEDOWN_BLESS=1 cargo test --test rfc9293` writes it anew.
//!
//! What is held: no requirement is missing; every function and test that is named is there; the
//! function quotes the requirement by its id; what is not met is argued.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// How many requirements of each kind the RFC has.
const KINDS: [(&str, u32, &[&str]); 4] = [
    ("MUST", 69, &["MUST", "MUST NOT"]),
    ("SHLD", 31, &["SHOULD", "SHOULD NOT"]),
    ("MAY", 18, &["MAY"]),
    ("REC", 1, &["RECOMMENDED"]),
];

/// Of the SHOULDs that apply, in percent.
const SHOULDS_MET_MIN: usize = 90;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    NotMet,
    NotApplicable,
}

/// A line of the table.
#[derive(Clone, Debug)]
struct Requirement {
    id: String,
    keyword: String,
    section: String,
    /// In our words.
    says: String,
    verdict: Verdict,
    /// `file::item`, of `src`.
    code: Vec<String>,
    /// `file::function`, or a script.
    tests: Vec<String>,
    /// A remark; the argument where it is not met.
    why: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

/// Fails with all findings at once, one a line.
fn none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn parse(text: &str) -> Vec<Requirement> {
    let table: toml::Table = text.parse().unwrap();
    let rows = table["requirement"].as_array().unwrap();
    rows.iter().map(|row| requirement(row.as_table().unwrap())).collect()
}

/// # Panics
/// If the line is not made as the others are: it says which.
fn requirement(row: &toml::Table) -> Requirement {
    let known = ["id", "keyword", "section", "says", "verdict", "code", "tests", "why"];
    let id = row["id"].as_str().unwrap().to_owned();
    for key in row.keys() {
        assert!(known.contains(&key.as_str()), "{id} has `{key}`");
    }
    let text = |key: &str| row.get(key).map_or("", |value| value.as_str().unwrap()).to_owned();
    let list = |key: &str| -> Vec<String> {
        let values = row.get(key).map_or(&[][..], |value| value.as_array().unwrap());
        values.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    let verdict = match text("verdict").as_str() {
        "met" => Verdict::Met,
        "not met" => Verdict::NotMet,
        "not applicable" => Verdict::NotApplicable,
        other => panic!("{id}: `{other}` is no verdict"),
    };
    Requirement {
        keyword: text("keyword"),
        section: text("section"),
        says: text("says"),
        verdict,
        code: list("code"),
        tests: list("tests"),
        why: text("why"),
        id,
    }
}

fn requirements() -> Vec<Requirement> {
    parse(&read("tests/rfc9293.toml").expect("the table is there"))
}

fn ids() -> Vec<String> {
    let numbers = |(kind, count, _): &(&str, u32, &[&str])| {
        (1..=*count).map(|number| format!("{kind}-{number}")).collect::<Vec<_>>()
    };
    KINDS.iter().flat_map(numbers).collect()
}

/// The item `name` of a source text, or `Type::name` of its blocks, from the first line of its
/// comment to its last.
fn item<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    if let Some((owner, name)) = name.split_once("::") {
        let ends = [format!(" {owner} {{"), format!(" {owner}<")];
        let of_owner =
            |line: &str| line.starts_with("impl") && ends.iter().any(|end| line.contains(end));
        let mut blocks = text.match_indices("\nimpl").map(|(at, _)| &text[at + 1..]);
        return blocks.find_map(|block| {
            let block = &block[..block.find("\n}\n")? + 3];
            block.lines().next().filter(|line| of_owner(line))?;
            item(block, name)
        });
    }
    let words = ["fn", "const", "struct", "enum", "trait"];
    let defines = |line: &str| {
        words.iter().any(|word| {
            let head = format!("{word} {name}");
            let at = line.find(&head);
            at.is_some_and(|at| {
                let after = line[at + head.len()..].chars().next().unwrap_or(' ');
                let before = line[..at].chars().next_back().unwrap_or(' ');
                before == ' ' && !after.is_alphanumeric() && after != '_'
            }) && !line.trim_start().starts_with("//")
        })
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = lines.iter().position(|line| defines(line))?;
    let belongs = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with("#[")
    };
    let above = lines[..at].iter().rev().take_while(|line| belongs(line)).count();
    let indent = lines[at].len() - lines[at].trim_start().len();
    // Its last line is the first at its own depth that closes it; an item of one line is that line.
    let closes = |line: &&str| {
        let bare = line.trim_end();
        bare.len() - bare.trim_start().len() == indent && bare.trim_start().starts_with(['}', ']'])
    };
    let whole = lines[at].trim_end().ends_with([';', '}']);
    let len = if whole { 1 } else { lines[at..].iter().position(closes)? + 1 };
    let bytes = |lines: &[&str]| -> usize { lines.iter().copied().map(str::len).sum() };
    let start = bytes(&lines[..at - above]);
    Some(&text[start..start + bytes(&lines[at - above..at + len])])
}

/// True if `text` says `id`, and not merely a longer one that begins like it.
fn says(text: &str, id: &str) -> bool {
    text.match_indices(id).any(|(at, _)| !text[at + id.len()..].starts_with(char::is_numeric))
}

/// Why `place` does not obey `id`.
fn fault_of_code(place: &str, id: &str) -> Option<String> {
    let Some((file, name)) = place.split_once("::") else {
        return Some(format!("{id}: `{place}` is no `file::item`"));
    };
    let Some(text) = read(file) else { return Some(format!("{id}: there is no {file}")) };
    match item(&text, name) {
        _ if !file.starts_with("src/") => Some(format!("{id}: {file} is not our code")),
        None => Some(format!("{id}: there is no `{name}` in {file}")),
        Some(item) if !says(item, id) => Some(format!("{id}: {place} does not say so")),
        Some(_) => None,
    }
}

/// Why `place` is no test.
fn fault_of_test(place: &str, id: &str) -> Option<String> {
    let Some((file, name)) = place.split_once("::") else {
        let script = place.starts_with("tests/scripts/") && place.ends_with(".pkt");
        let found = script && read(place).is_some();
        return (!found).then(|| format!("{id}: there is no script {place}"));
    };
    let Some(text) = read(file) else { return Some(format!("{id}: there is no {file}")) };
    match item(&text, name) {
        None => Some(format!("{id}: there is no `{name}` in {file}")),
        Some(item) if !item.lines().any(|line| line.trim() == "#[test]") => {
            Some(format!("{id}: {place} is no test"))
        }
        Some(_) => None,
    }
}

#[test]
fn every_requirement_stands_in_the_table_once_and_in_order() {
    let table: Vec<String> = requirements().into_iter().map(|row| row.id).collect();
    assert_eq!(table, ids());
    assert_eq!(table.len(), 119);
}

#[test]
fn every_requirement_is_of_its_kind_and_has_words_of_its_own() {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for row in requirements() {
        let kind = row.id.split('-').next().unwrap_or_default();
        let keywords = KINDS.iter().find(|(name, ..)| *name == kind).map(|(.., words)| *words);
        if !keywords.unwrap_or_default().contains(&row.keyword.as_str()) {
            findings.push(format!("{} is no {}", row.id, row.keyword));
        }
        if !row.section.starts_with("3.") {
            findings.push(format!("{}: {} is no section with requirements", row.id, row.section));
        }
        if row.says.len() < 10 || !seen.insert(row.says.clone()) {
            findings.push(format!("{}: `{}` is too little or said twice", row.id, row.says));
        }
    }
    none(&findings);
}

#[test]
fn what_is_met_is_met_by_a_function_that_says_so_and_a_test() {
    let mut findings = Vec::new();
    for row in requirements() {
        let id = &row.id;
        findings.extend(row.code.iter().filter_map(|place| fault_of_code(place, id)));
        findings.extend(row.tests.iter().filter_map(|place| fault_of_test(place, id)));
        if row.verdict == Verdict::Met && (row.code.is_empty() || row.tests.is_empty()) {
            findings.push(format!("{id}: met by which function, shown by which test?"));
        }
    }
    none(&findings);
}

#[test]
fn what_is_not_met_is_argued_and_nine_of_ten_shoulds_are() {
    let mut findings = Vec::new();
    let (mut met, mut apply) = (0, 0);
    for row in requirements() {
        if row.verdict != Verdict::Met && row.why.len() < 20 {
            findings.push(format!("{}: why not?", row.id));
        }
        if row.id.starts_with("SHLD") && row.verdict != Verdict::NotApplicable {
            apply += 1;
            met += usize::from(row.verdict == Verdict::Met);
        }
    }
    none(&findings);
    assert!(met * 100 >= apply * SHOULDS_MET_MIN, "{met} of {apply} SHOULDs are met");
}

#[test]
fn the_code_and_the_scripts_cite_no_requirement_that_the_rfc_does_not_have() {
    let known: BTreeSet<String> = ids().into_iter().collect();
    let mut findings = Vec::new();
    let mut folders = vec![root().join("src"), root().join("tests/scripts")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for cited in cited(&text) {
                if !known.contains(&cited) {
                    findings.push(format!("{}: {cited}", path.display()));
                }
            }
        }
    }
    none(&findings);
}

/// Every id that a text cites.
fn cited(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, ..) in KINDS {
        for (at, _) in text.match_indices(&format!("{kind}-")) {
            let rest = &text[at + kind.len() + 1..];
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if !digits.is_empty() && !text[..at].ends_with(char::is_alphanumeric) {
                found.push(format!("{kind}-{digits}"));
            }
        }
    }
    found
}

/// The table as documentation.
fn document(rows: &[Requirement]) -> String {
    let mut out = String::from(
        "# RFC 9293, requirement by requirement\n\n\
         Generated from `tests/rfc9293.toml` by `SHAKEDOWN_BLESS=1 cargo test --test rfc9293`, \
         which also holds it: every function and test named here exists, and every function says \
         the id of what it obeys. The wording is ours; the RFC's own is what counts.\n\n\
         | kind | met | not met, argued | not applicable, argued | all |\n|---|---|---|---|---|\n",
    );
    for (kind, count, keywords) in KINDS {
        let of = |verdict| {
            let own = |row: &&Requirement| {
                row.id.split('-').next() == Some(kind) && row.verdict == verdict
            };
            rows.iter().filter(own).count()
        };
        let (met, not) = (of(Verdict::Met), of(Verdict::NotMet));
        let (none, keyword) = (of(Verdict::NotApplicable), keywords[0]);
        writeln!(out, "| {keyword} | {met} | {not} | {none} | {count} |").unwrap();
    }
    let mut section = "";
    let mut rows: Vec<&Requirement> = rows.iter().collect();
    let numbers = |row: &Requirement| -> Vec<u32> {
        row.section.split('.').map(|part| part.parse().unwrap()).collect()
    };
    rows.sort_by_key(|row| numbers(row));
    for row in &rows {
        if row.section != section {
            section = &row.section;
            write!(out, "\n## Section {section}\n\n").unwrap();
            out += "| id | | requirement | verdict | obeyed by | would fail |\n";
            out += "|---|---|---|---|---|---|\n";
        }
        let verdict = match row.verdict {
            Verdict::Met => "met",
            Verdict::NotMet => "**not met**",
            Verdict::NotApplicable => "not applicable",
        };
        let why = if row.why.is_empty() { String::new() } else { format!(". {}", row.why) };
        let list = |places: &[String], strip: &str| -> String {
            let short = places.iter().map(|place| place.strip_prefix(strip).unwrap_or(place));
            short.map(|place| format!("`{place}`")).collect::<Vec<_>>().join(" ")
        };
        let (code, tests) = (list(&row.code, "src/"), list(&row.tests, "tests/"));
        let Requirement { id, keyword, says, .. } = row;
        writeln!(out, "| {id} | {keyword} | {says} | {verdict}{why} | {code} | {tests} |").unwrap();
    }
    out
}

#[test]
fn the_documentation_is_the_table() {
    let path = "src/RFC9293.md";
    let document = document(&requirements());
    if std::env::var_os("SHAKEDOWN_BLESS").is_some() {
        fs::write(root().join(path), &document).unwrap();
    }
    let stands = read(path).unwrap_or_default();
    assert!(stands == document, "{path} is old: SHAKEDOWN_BLESS=1 writes it anew");
}

#[test]
fn the_checks_find_what_they_forbid() {
    let text = "/// MUST-1.\n#[test]\nfn one(\n    a: u8,\n) {\n    two();\n}\n\n\
                    // MUST-12\n    const TWO: u8 = 2;\nfn one_more() {\n}\n";
    assert!(item(text, "one").unwrap().ends_with("two();\n}\n"));
    assert_eq!(item(text, "TWO"), Some("// MUST-12\n    const TWO: u8 = 2;\n"));
    assert_eq!(item(text, "one_more"), Some("fn one_more() {\n}\n"));
    assert_eq!((item(text, "on"), item(text, "two")), (None, None));
    let text = "\nimpl A {\n    fn new() {}\n}\n\nimpl Default for B {\n    fn new() {\n    }\n}\n";
    assert_eq!(item(text, "B::new"), Some("    fn new() {\n    }\n"));
    assert_eq!(item(text, "A::new"), Some("    fn new() {}\n"));
    assert_eq!(item(text, "C::new"), None);
    assert!(says("(MUST-1, MUST-12)", "MUST-1") && !says("MUST-12", "MUST-1"));
    assert_eq!(cited("MUST-1, SHLD-99; MUST-nn, XMAY-3"), ["MUST-1", "SHLD-99"]);

    let fault = |place| fault_of_code(place, "MUST-8");
    assert_eq!(fault("src/tcp/isn.rs::isn"), None);
    for place in ["src/tcp/isn.rs", "src/tcp/isn.rs::nothing", "src/nowhere.rs::isn"] {
        assert!(fault(place).is_some(), "{place}");
    }
    assert!(fault_of_code("src/tcp/isn.rs::isn", "MUST-1").is_some());
    assert!(fault_of_code("tests/rfc9293.rs::fault_of_code", "MUST-8").is_some());

    let fault = |place| fault_of_test(place, "MUST-8");
    assert_eq!(fault("tests/rfc9293.rs::the_checks_find_what_they_forbid"), None);
    assert_eq!(fault("tests/scripts/passive_open.pkt"), None);
    for place in ["tests/rfc9293.rs::fault_of_test", "tests/scripts/nothing.pkt", "README.md"] {
        assert!(fault(place).is_some(), "{place}");
    }
}
