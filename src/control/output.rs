//! Where the report goes: text to standard output, JSON to where it was asked for.

use super::Failure;
use super::report::{self, Side};
use super::settings::Output;
use super::summary;
use serde_json::{Map, Value};
use std::fs::File;
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

/// Where the JSON goes. A file is opened before the run: what can't be written is known before it
/// is waited for, and privileges that opening may need are given up after.
pub struct Report<'a> {
    output: &'a Output,
    file: Option<File>,
}

impl Report<'_> {
    /// Opens the file, and leaves what it holds until there is a report.
    ///
    /// # Errors
    /// It can't be written.
    pub fn open(output: &Output) -> Result<Report<'_>, Failure> {
        let file = match &output.json {
            Some(path) if !json_to_stdout(output) => {
                let file = File::options().write(true).create(true).truncate(false).open(path);
                Some(file.map_err(|error| unwritable(path, &error))?)
            }
            Some(_) | None => None,
        };
        Ok(Report { output, file })
    }

    /// Writes the summary, and the JSON if it is asked for.
    ///
    /// # Errors
    /// The JSON can't be written.
    pub fn write(
        self,
        command: &str,
        text: &Text<'_>,
        sections: Map<String, Value>,
    ) -> Result<(), Failure> {
        say_summary(self.output, text);
        let Some(path) = &self.output.json else { return Ok(()) };
        let document = format!("{:#}\n", report::document(command, text.verdict, sections));
        let written = match self.file {
            None => io::stdout().write_all(document.as_bytes()),
            Some(mut file) => replace(&mut file, document.as_bytes()),
        };
        written.map_err(|error| unwritable(path, &error))
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Run(format!("--json {}: {error}", path.display()))
}

/// Puts `document` in the place of what a file holds; a pipe or a device holds nothing.
fn replace(file: &mut File, document: &[u8]) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(document)
}

fn say_summary(output: &Output, text: &Text<'_>) {
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
