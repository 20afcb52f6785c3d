//! The command line: one subcommand a file. Here a configuration file is laid under the flags, and
//! every end is turned into an exit code. What a setting means is not known here.

mod bench;
mod client;
mod doctor;
mod server;

use crate::control::Failure;
use crate::control::config::{self, Fault, Setting};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser};
use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
Numbers take k, m and g (decimal); durations us, ms, s, m, h, d.
Every flag is a key of the --config file, where [tcp] holds --tcp-* and [impair] --impair-*.
Exit codes: 0 ok, 1 run error, 2 usage, 3 environment unfit, 104 bad configuration file,
105 stopped by a signal before its end.";

/// A poll-mode TCP stack on AF_XDP, and the load tester on it
#[derive(Parser, Debug)]
#[command(name = "shakedown", version, after_help = AFTER_HELP)]
enum Cli {
    Server(Box<server::Server>),
    Client(Box<client::Client>),
    Bench(Box<bench::Bench>),
    Doctor(doctor::Doctor),
}

/// Where settings may come from besides the flags.
#[derive(Args, Clone, Debug, Default)]
struct File {
    /// TOML file with the same names as the flags; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl File {
    /// A plan's complaint, as the kind of failure it is: of the file if there is one, or else of
    /// the command line.
    fn failure(&self, message: String) -> Failure {
        match &self.config {
            Some(path) => Failure::Config(format!("{}: {message}", path.display())),
            None => Failure::Usage(message),
        }
    }
}

/// Parses `argv`, runs what it asks for, says on standard error what went wrong, and answers the
/// exit code.
pub fn main(argv: Vec<OsString>) -> ExitCode {
    let failure = match parse(argv) {
        Ok(cli) => match run(cli) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(failure) => failure,
        },
        Err(Refused::Clap(error)) => {
            let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // A closed pipe is the reader's wish: nothing is lost that anyone waits for.
            let _ = error.print();
            return ExitCode::from(if shown { 0 } else { 2 });
        }
        Err(Refused::Failure(failure)) => failure,
    };
    eprintln!("shakedown: {}", failure.message());
    ExitCode::from(failure.code())
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli {
        Cli::Server(server) => server.run(),
        Cli::Client(client) => client.run(),
        Cli::Bench(bench) => bench.run(),
        Cli::Doctor(doctor) => doctor.run(),
    }
}

enum Refused {
    Clap(clap::Error),
    Failure(Failure),
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Refused {
        Refused::Clap(error)
    }
}

/// Parses `argv` once for `--config`, and again with the file's settings before the flags, which so
/// win.
fn parse(mut argv: Vec<OsString>) -> Result<Cli, Refused> {
    let mut command = Cli::command().args_override_self(true);
    command.build();
    let matches = command.try_get_matches_from_mut(&argv)?;
    let (name, flags) = matches.subcommand().expect("clap requires a subcommand");
    let file = flags.try_get_one::<PathBuf>("config").ok().flatten();
    let Some(path) = file else {
        return Ok(Cli::from_arg_matches(&matches)?);
    };
    let subcommand = command.find_subcommand(name).expect("clap matched it");
    let words = config::read(path)
        .and_then(|settings| words_of(settings, subcommand, flags))
        .map_err(|fault| Refused::Failure(Failure::Config(fault.at(path))))?;
    argv.splice(2..2, words);
    Ok(Cli::from_arg_matches(&command.try_get_matches_from_mut(&argv)?)?)
}

/// The settings as flags of `subcommand`, without those that the command line has said already.
fn words_of(
    settings: Vec<Setting>,
    subcommand: &Command,
    flags: &ArgMatches,
) -> Result<Vec<OsString>, Fault> {
    let mut words = Vec::new();
    for setting in settings {
        let known = subcommand.get_arguments().find(|arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(&setting.name) || aliases.contains(&setting.name.as_str())
        });
        let arg = known.filter(|arg| !["config", "help"].contains(&arg.get_id().as_str()));
        let Some(arg) = arg else {
            let message = format!(
                "`{}` is no setting of this command: `shakedown {} --help` lists them",
                setting.name,
                subcommand.get_name()
            );
            return Err(Fault { place: Some(setting.place), message });
        };
        if flags.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        if let Some(word) = word_of(&setting, arg)? {
            words.push(word);
        }
    }
    Ok(words)
}

/// One setting as a flag; `None` for a switch that is off.
fn word_of(setting: &Setting, arg: &Arg) -> Result<Option<OsString>, Fault> {
    let fault = |message: String| Fault { place: Some(setting.place), message };
    let flag = format!("--{}", setting.name);
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return match setting.value.as_str() {
            "true" => Ok(Some(flag.into())),
            "false" => Ok(None),
            other => Err(fault(format!("{}: `{other}` is not true or false", setting.name))),
        };
    }
    // Tried on its own, so that the error is this value's and not some later one's.
    let word = format!("{flag}={}", setting.value);
    let alone = Arg::new("value")
        .action(arg.get_action().clone())
        .value_delimiter(arg.get_value_delimiter())
        .value_parser(arg.get_value_parser().clone());
    let command = Command::new("file").no_binary_name(true).arg(alone);
    match command.try_get_matches_from(["--", &setting.value]) {
        Ok(_) => Ok(Some(word.into())),
        Err(error) => Err(fault(format!("{}: {}", setting.name, reason(&error, &setting.value)))),
    }
}

/// What was wrong with a value, in one line.
fn reason(error: &clap::Error, value: &str) -> String {
    match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) => {
            format!("`{value}` is none of {}", valid.join(", "))
        }
        (None, _) => format!("`{value}` is not understood"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(name: &str, text: &str, argv: &[&str]) -> Result<Cli, String> {
        let path = std::env::temp_dir().join(format!("sd-cli-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let mut argv: Vec<OsString> = argv.iter().map(|word| word.into()).collect();
        argv.insert(0, "shakedown".into());
        argv.extend(["--config".into(), path.clone().into_os_string()]);
        let parsed = parse(argv);
        std::fs::remove_file(path).unwrap();
        parsed.map_err(|refused| match refused {
            Refused::Clap(error) => error.to_string(),
            Refused::Failure(failure) => format!("{} {}", failure.code(), failure.message()),
        })
    }

    fn client(name: &str, text: &str, argv: &[&str]) -> client::Client {
        match with_file(name, text, argv).unwrap() {
            Cli::Client(client) => *client,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_file_and_replace_its_lists() {
        let text = "rate = '10k'\nconnections = 5\naddr = ['10.0.0.1/24', '10.0.1.1/24']";
        let both = client("win", text, &["client", "-r", "1k", "--addr", "10.9.0.1/24"]);
        assert_eq!((both.load.rate, both.load.connections), (Some(1000.0), Some(5)));
        assert_eq!(both.network.addr.len(), 1);
        let file = client("lists", text, &["client"]);
        assert_eq!((file.load.rate, file.network.addr.len()), (Some(10_000.0), 2));
    }

    #[test]
    fn switches_in_the_file_are_true_or_false() {
        assert!(client("on", "quiet = true", &["client"]).output.quiet);
        assert!(!client("off", "quiet = false", &["client"]).output.quiet);
        let error = with_file("maybe", "quiet = 3", &["client"]).unwrap_err();
        assert!(error.contains(":1:9: quiet: `3` is not true or false"), "{error}");
    }

    #[test]
    fn a_bad_value_in_the_file_is_shown_with_line_and_column() {
        let error = with_file("value", "quiet = true\nduration = '10'", &["client"]).unwrap_err();
        assert!(error.starts_with("104 ") && error.contains(":2:12: duration: "), "{error}");
        assert!(error.contains("write 10s"), "{error}");
        let error = with_file("choice", "close = 'bye'", &["client"]).unwrap_err();
        assert!(error.contains(":1:9: close: ") && error.contains("rst"), "{error}");
        let error = with_file("deep", "[tcp]\nmsl = 'x'", &["client"]).unwrap_err();
        assert!(error.contains(":2:7: tcp-msl: "), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = with_file("unknown", "\nratee = 1", &["client"]).unwrap_err();
        assert!(error.contains(":2:9: `ratee` is no setting of this command"), "{error}");
        let error = with_file("other", "target = '10.0.0.1:80'", &["server"]).unwrap_err();
        assert!(error.contains("shakedown server --help"), "{error}");
        assert!(with_file("self", "config = 'x'", &["server"]).is_err());
    }

    #[test]
    fn the_example_files_parse_and_make_plans() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/configs");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let command = text.lines().find_map(|line| line.strip_prefix("#   shakedown "));
            let command = command.unwrap().split(' ').next().unwrap();
            let name = path.file_stem().unwrap().to_string_lossy();
            let planned = match with_file(&format!("example-{name}"), &text, &[command]).unwrap() {
                Cli::Server(server) => server.plan().map(drop),
                Cli::Client(client) => client.plan().map(drop),
                Cli::Bench(bench) => bench.plan().map(drop),
                Cli::Doctor(_) => unreachable!("doctor takes no file"),
            };
            assert_eq!(planned, Ok(()), "{name}");
            seen += 1;
        }
        assert!(seen >= 6);
    }
}
