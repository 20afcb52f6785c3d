//! A TOML file is a command line written down: every key is a flag's long name, every value what
//! follows the flag.
//!
//! [`read`] turns a file into [`Setting`]s, each with its line and column, and knows no flag: which
//! names exist and what they take is said once, in `settings`. `[tcp]` and `[impair]` hold the
//! flags `--tcp-*` and `--impair-*`; `_` and `-` are the same; an array repeats its flag;
//! `[[listen]]` tables write out what `--listen` packs into a word.

use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One flag, as found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The flag's long name, without dashes.
    pub name: String,
    pub value: String,
    pub place: Place,
}

/// Line and column in a file, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// What is wrong with a file, and where if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Option<Place>,
    pub message: String,
}

impl Fault {
    /// `FILE:LINE:COLUMN: message`.
    pub fn at(&self, path: &Path) -> String {
        match self.place {
            Some(Place { line, column }) => {
                format!("{}:{line}:{column}: {}", path.display(), self.message)
            }
            None => format!("{}: {}", path.display(), self.message),
        }
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// The file can't be read, is not TOML, or holds a value that no flag could take.
pub fn read(path: &Path) -> Result<Vec<Setting>, Fault> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Fault { place: None, message: format!("can't be read: {error}") })?;
    settings_of(&text)
}

/// The settings in `text`, in order.
///
/// # Errors
/// As [`read`].
pub fn settings_of(text: &str) -> Result<Vec<Setting>, Fault> {
    let table = DeTable::parse(text).map_err(|error| Fault {
        place: error.span().map(|span| place_of(text, span.start)),
        message: error.message().replace('\n', " "),
    })?;
    let mut reader = Reader { text, settings: Vec::new(), reached: (0, START) };
    for (key, value) in in_order(table.get_ref()) {
        let name = flag_name(key.get_ref());
        match (name.as_str(), value.get_ref()) {
            ("listen", DeValue::Array(items)) => {
                for item in items.iter() {
                    reader.listen(item)?;
                }
            }
            ("keepalive", DeValue::Table(table)) => {
                let packed = reader.keepalive(table)?;
                reader.push(name, packed, value.span().start);
            }
            ("tcp" | "impair", DeValue::Table(table)) => {
                for (key, value) in in_order(table) {
                    reader.flag(format!("{name}-{}", flag_name(key.get_ref())), value)?;
                }
            }
            _ => reader.flag(name, value)?,
        }
    }
    Ok(reader.settings)
}

struct Reader<'a> {
    text: &'a str,
    settings: Vec<Setting>,
    /// Where the last setting stands: the next is looked for from there, or a long file would be
    /// counted through once for each.
    reached: (usize, Place),
}

impl Reader<'_> {
    fn push(&mut self, name: String, value: String, at: usize) {
        let (from, start) = if at < self.reached.0 { (0, START) } else { self.reached };
        let place = place_after(start, self.text.get(from..at).unwrap_or_default());
        self.reached = (at, place);
        self.settings.push(Setting { name, value, place });
    }

    /// A scalar, or an array of scalars that repeats the flag.
    fn flag(&mut self, name: String, value: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
        match value.get_ref() {
            DeValue::Array(items) => {
                for item in items.iter() {
                    let word = self.scalar(item)?;
                    self.push(name.clone(), word, item.span().start);
                }
            }
            _ => {
                let word = self.scalar(value)?;
                self.push(name, word, value.span().start);
            }
        }
        Ok(())
    }

    /// One `[[listen]]` table, packed as `--listen` takes it; or the packed word itself.
    fn listen(&mut self, item: &Spanned<DeValue<'_>>) -> Result<(), Fault> {
        let at = item.span().start;
        let DeValue::Table(table) = item.get_ref() else {
            let word = self.scalar(item)?;
            self.push("listen".to_string(), word, at);
            return Ok(());
        };
        let (mut port, mut app, mut options) = (None, String::new(), String::new());
        for (key, value) in in_order(table) {
            let name = flag_name(key.get_ref());
            match (name.as_str(), value.get_ref()) {
                ("port", _) => port = Some(self.scalar(value)?),
                ("app", _) => app = format!("={}", self.scalar(value)?),
                ("response-size", _) => {
                    options += &format!(":response-size={}", self.scalar(value)?);
                }
                ("keepalive", DeValue::Table(table)) => {
                    options += &format!(":keepalive={}", self.keepalive(table)?);
                }
                ("keepalive", _) => options += &format!(":keepalive={}", self.scalar(value)?),
                _ => {
                    return Err(self.fault(
                        key.span().start,
                        format!(
                            "`{}` is no setting of a listener: port, app, response_size, keepalive",
                            key.get_ref()
                        ),
                    ));
                }
            }
        }
        let Some(port) = port else {
            return Err(self.fault(at, "a listener needs a port: `port = 80`".to_string()));
        };
        self.push("listen".to_string(), format!("{port}{app}{options}"), at);
        Ok(())
    }

    /// `{ idle, interval, probes }`, packed; what is absent keeps its default.
    fn keepalive(&self, table: &DeTable<'_>) -> Result<String, Fault> {
        let mut parts = ["2h".to_string(), "75s".to_string(), "9".to_string()];
        for (key, value) in in_order(table) {
            let part = match key.get_ref().as_ref() {
                "idle" => 0,
                "interval" => 1,
                "probes" => 2,
                other => {
                    return Err(self.fault(
                        key.span().start,
                        format!("`{other}` is no setting of keepalive: idle, interval, probes"),
                    ));
                }
            };
            parts[part] = self.scalar(value)?;
        }
        Ok(parts.join("/"))
    }

    fn scalar(&self, value: &Spanned<DeValue<'_>>) -> Result<String, Fault> {
        match value.get_ref() {
            DeValue::String(word) => Ok(word.to_string()),
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Boolean(yes) => Ok(yes.to_string()),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => Err(self.fault(
                value.span().start,
                format!("a {} can't stand here", value.get_ref().type_str()),
            )),
        }
    }

    fn fault(&self, at: usize, message: String) -> Fault {
        Fault { place: Some(place_of(self.text, at)), message }
    }
}

/// The table's entries as they stand in the file.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn flag_name(key: &str) -> String {
    key.replace('_', "-")
}

const START: Place = Place { line: 1, column: 1 };

fn place_of(text: &str, at: usize) -> Place {
    place_after(START, text.get(..at).unwrap_or(text))
}

/// Where what follows `text` stands, if `text` begins at `start`.
fn place_after(start: Place, text: &str) -> Place {
    let Some(newline) = text.rfind('\n') else {
        return Place { column: start.column + text.chars().count(), ..start };
    };
    Place {
        line: start.line + text.matches('\n').count(),
        column: text[newline + 1..].chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        settings_of(text).unwrap().into_iter().map(|s| (s.name, s.value)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_string(), value.to_string())
    }

    #[test]
    fn keys_are_flags_and_arrays_repeat_them() {
        let text = "response_size = 100\naddr = ['10.0.0.1/24', \"10.0.1.1/24\"]\nquiet = true";
        let expected = [
            pair("response-size", "100"),
            pair("addr", "10.0.0.1/24"),
            pair("addr", "10.0.1.1/24"),
            pair("quiet", "true"),
        ];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn a_section_is_a_prefix() {
        let text = "[tcp]\nmsl = '30s'\nsyn_retries = 6\n[impair]\nloss = 0.01";
        let expected =
            [pair("tcp-msl", "30s"), pair("tcp-syn-retries", "6"), pair("impair-loss", "0.01")];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn listeners_are_packed_in_order() {
        let text = "[[listen]]\nport = 7003\napp = 'echo'\n\
                    keepalive = { idle = '2s', probes = 3 }\n[[listen]]\nport = 80";
        assert_eq!(
            pairs(text),
            [pair("listen", "7003=echo:keepalive=2s/75s/3"), pair("listen", "80")]
        );
        assert_eq!(
            pairs("listen = ['80=http', 81]"),
            [pair("listen", "80=http"), pair("listen", "81")]
        );
    }

    #[test]
    fn faults_say_line_and_column() {
        let place = |text: &str| settings_of(text).unwrap_err().place.unwrap();
        assert_eq!(place("a = 1\nb = = 2"), Place { line: 2, column: 5 });
        assert_eq!(place("a = 1\n\n  when = 2020-01-01"), Place { line: 3, column: 10 });
        assert_eq!(place("[[listen]]\nport = 1\nttl = 3"), Place { line: 3, column: 1 });
        assert_eq!(place("[[listen]]\napp = 'echo'"), Place { line: 1, column: 1 });
        let fault = settings_of("keepalive = { idel = '2s' }").unwrap_err();
        assert_eq!(
            fault.at(Path::new("x.toml")),
            "x.toml:1:15: `idel` is no setting of keepalive: idle, interval, probes"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let fault = read(Path::new("/nonexistent/x.toml")).unwrap_err();
        assert!(fault.at(Path::new("/nonexistent/x.toml")).contains("x.toml: can't be read"));
    }
}
