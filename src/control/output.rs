//! Where the report goes: text to standard output, JSON to where it was asked for.

use super::Failure;
use super::report::{self, Side};
use super::settings::Output;
use super::summary;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::Path;

/// What the summary for people is made of.
pub struct Text<'a> {
    pub verdict: &'a Result<String, String>,
    pub sides: &'a [(&'a str, &'a Side)],
    pub notes: &'a [String],
}

/// True if a line a second is wanted: not when quiet, and not when standard output is to be JSON.
pub fn shows_live(output: &Output) -> bool {
    !output.quiet && !json_to_stdout(output)
}

fn json_to_stdout(output: &Output) -> bool {
    output.json.as_deref() == Some(Path::new("-"))
}

/// Writes the summary, and the JSON if it is asked for.
///
/// # Errors
/// The JSON file can't be written.
pub fn write(
    command: &str,
    output: &Output,
    text: &Text<'_>,
    sections: Map<String, Value>,
) -> Result<(), Failure> {
    if !json_to_stdout(output) {
        let verdict = match text.verdict {
            Ok(verdict) | Err(verdict) => verdict,
        };
        let mut all = format!("\n{verdict}\n");
        for (name, side) in text.sides {
            all += &summary::side(name, side, output.verbose);
        }
        for note in text.notes {
            all += &format!("{note}\n");
        }
        // A closed pipe is the reader's wish.
        let _ = io::stdout().write_all(all.as_bytes());
    }
    let Some(path) = &output.json else { return Ok(()) };
    let document = format!("{:#}\n", report::document(command, text.verdict, sections));
    let result = match json_to_stdout(output) {
        true => io::stdout().write_all(document.as_bytes()),
        false => std::fs::write(path, document),
    };
    result.map_err(|error| Failure::Run(format!("--json {}: {error}", path.display())))
}

/// How the command ends after its report.
///
/// # Errors
/// A bad verdict, or a signal that came first.
pub fn end(verdict: Result<String, String>, signalled: bool) -> Result<(), Failure> {
    match verdict {
        Err(text) => Err(Failure::Run(text)),
        Ok(_) if signalled => Err(Failure::Stopped),
        Ok(_) => Ok(()),
    }
}
