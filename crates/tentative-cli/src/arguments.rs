//! The grammar of the command line. Wrong words are refused here, before anything is touched.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue},
};
use tentative::{
    layer::Layer,
    policy::{Action, Kind, Policy, Rule},
};

use crate::{error::CommandError, values};

/// Run code tentatively: look at what it did, then commit it or take it back.
#[derive(Debug, Parser)]
#[command(
    name = "tentative",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    after_help = "Exit status: the program's own; 120 commit refused, 122 this machine cannot contain what was asked,\n\
                  123 internal error, 124 timeout, 125 usage, 126 not executable, 127 not found."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a program tentatively (without PROGRAM: your shell)
    Run(Box<Run>),
    /// List what waits for a decision, with sizes and ages
    List(List),
    /// Show the report of a transaction (without ID: the latest pending one)
    Show(Show),
    /// Show the changes of a transaction line by line (without ID: the latest pending one)
    Diff(Diff),
    /// Apply the changes of a pending transaction (without ID: if exactly one is pending)
    Commit(Decide),
    /// Discard a pending transaction (without ID: if exactly one is pending)
    Rollback(Decide),
    /// Finish or discard what a crash or a power loss interrupted
    Recover(Recover),
    /// Find out by trying what this machine can contain, and how to get what is missing
    Doctor(Doctor),
    /// Show every system call and what becomes of it inside
    Pathways(Pathways),
    /// Serve the transactions of a live process (started by the library)
    #[command(hide = true)]
    Monitor(Monitor),
    /// Try one mechanism in a process of its own (started by doctor)
    #[command(hide = true)]
    Probe(Probe),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(override_usage = "tentative run [MODE] [POLICY]… [OPTIONS] [--] [PROGRAM [ARG…]]")]
pub struct Run {
    /// What happens when the program has ended.
    #[command(flatten)]
    pub mode: ModeOptions,
    /// Crossings to let through.
    #[arg(
        long,
        value_name = "KIND[:TARGET]",
        value_parser = values::rule_kind,
        help_heading = "Policy",
        help = "Let crossings of a kind through: net, net:HOST[:PORT], net:CIDR, listen:PORT, unix:PATH, unix:@NAME, \
                device:PATH, signal:PID"
    )]
    pub allow: Vec<Kind>,
    /// Refuse crossings of a kind, also where an earlier rule allows them (the last rule that matches decides)
    #[arg(long, value_name = "KIND[:TARGET]", value_parser = values::rule_kind, help_heading = "Policy")]
    pub deny: Vec<Kind>,
    /// Not there yet: refused with a sentence, instead of as an unknown option.
    #[arg(long, value_name = "KIND[:TARGET]", hide = true)]
    pub confirm: Vec<String>,
    /// Show the program's output live, or hold it back until the commit
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = OutputOption::Live, hide_possible_values = true)]
    pub output: OutputOption,
    /// End the program after this time: 30, 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub timeout: Option<Duration>,
    /// Let the program have at most this much memory: 500M, 2G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub memory_limit: Option<u64>,
    /// Do not contain these layers (files, kin, world); the report then says so
    #[arg(long, value_name = "LAYER", value_delimiter = ',', value_parser = values::outer_layer)]
    pub without: Vec<Layer>,
    /// Write the record as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The program and its arguments; options after PROGRAM are the program's
    #[arg(value_name = "PROGRAM", trailing_var_arg = true, hide = true)]
    pub command: Vec<OsString>,
}

/// The modes of `run`: at most one.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub struct ModeOptions {
    /// Show the report and ask (default in a terminal)
    #[arg(long, help_heading = "Mode")]
    ask: bool,
    /// Show the report and keep the transaction pending (default without a terminal)
    #[arg(long, help_heading = "Mode")]
    keep: bool,
    /// Show the report and roll back
    #[arg(long, help_heading = "Mode")]
    rollback: bool,
    /// Commit if the program ended with status 0, otherwise keep; with =always: whatever its status
    #[arg(
        long,
        value_name = "always",
        help_heading = "Mode",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "success",
        hide_possible_values = true
    )]
    commit: Option<CommitWhen>,
}

/// When `--commit` commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CommitWhen {
    /// If the program ended with 0.
    #[value(hide = true)]
    Success,
    /// Whatever its status.
    Always,
}

/// What happens when the program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ask on the terminal.
    Ask,
    /// Keep it pending.
    Keep,
    /// Roll back.
    Rollback,
    /// Commit, if the program ended well or always.
    Commit(CommitWhen),
}

impl ModeOptions {
    /// The mode that was asked for; none leaves it to where the streams lead.
    pub(crate) const fn chosen(self) -> Option<Mode> {
        match self {
            ModeOptions { ask: true, .. } => Some(Mode::Ask),
            ModeOptions { keep: true, .. } => Some(Mode::Keep),
            ModeOptions { rollback: true, .. } => Some(Mode::Rollback),
            ModeOptions { commit: Some(when), .. } => Some(Mode::Commit(when)),
            _ => None,
        }
    }
}

/// Where the program's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputOption {
    /// To the program's standard streams, at once.
    Live,
    /// Kept with the transaction, delivered by its commit.
    Hold,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Print a JSON document
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Print a JSON document
    #[arg(long)]
    pub json: bool,
    /// Print the output that was held back, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub output: bool,
    /// Id of the transaction, or a unique beginning of it
    pub id: Option<String>,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Id of the transaction, or a unique beginning of it
    pub id: Option<String>,
}

/// Arguments of `commit` and `rollback`.
#[derive(Debug, Args)]
pub struct Decide {
    /// Print a JSON document
    #[arg(long)]
    pub json: bool,
    /// Id of the transaction, or a unique beginning of it
    pub id: Option<String>,
}

/// Arguments of `recover`.
#[derive(Debug, Args)]
pub struct Recover {
    /// Print a JSON document
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print a JSON document
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `pathways`.
#[derive(Debug, Args)]
pub struct Pathways {
    /// Print a JSON document
    #[arg(long)]
    pub json: bool,
    /// Print the reference page, docs/reference/pathways.md
    #[arg(long, conflicts_with = "json", hide = true)]
    pub page: bool,
}

/// Arguments of the hidden verb `monitor`.
#[derive(Debug, Args)]
pub struct Monitor {
    /// The socket to the process that is served.
    #[arg(long)]
    pub fd: i32,
}

/// Arguments of the hidden verb `probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// The name of the check.
    pub name: String,
}

/// Parses the command line (the program's own name first). The policy is separate because its rules count in the order
/// in which `--allow` and `--deny` were given.
///
/// # Errors
///
/// What clap says; asking for help or the version is an error of clap's, too.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<(Arguments, Policy), clap::Error> {
    let matches = Arguments::command().try_get_matches_from(asked_for_help(arguments))?;
    let policy = matches.subcommand_matches("run").map(policy).unwrap_or_default();
    Ok((Arguments::from_arg_matches(&matches)?, policy))
}

/// `help` and `help VERB` as `--help` and `VERB --help`, which is what whoever knows git tries first. The parser's own verb
/// would be listed among those that are about transactions.
fn asked_for_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|verb| verb == "help") {
        arguments.remove(1);
        if arguments.get(1).is_some_and(|about| about == "help") {
            arguments.remove(1);
        }
        arguments.insert(arguments.len().min(2), "--help".into());
    }
    arguments
}

/// Verbs and options that are decided, with what does something like it by now.
const NOT_THERE_YET: [(&str, &str); 9] = [
    ("review", "'tentative diff' shows the changes line by line"),
    ("undo", "a commit cannot be undone yet: look with 'tentative diff' before"),
    ("export", "the changes are in place after 'tentative commit'"),
    ("apply", "run the program again where its changes are wanted"),
    ("effects", "'tentative show' lists the effects"),
    ("gc", "nothing is kept after a commit or a rollback"),
    ("--session", "run a shell: the commands in it build on each other"),
    ("--on", "commit the first transaction, or run both programs in one shell"),
    ("--require-reversible", "without --allow nothing escapes; 'tentative show' has the verdict"),
];

/// What the command line asks for that is decided and not part of this version, in words.
fn not_there_yet(error: &clap::Error) -> Option<CommandError> {
    let named =
        [ContextKind::InvalidSubcommand, ContextKind::InvalidArg].into_iter().find_map(|kind| match error
            .get(kind)
        {
            Some(ContextValue::String(name)) => Some(name.clone()),
            _ => None,
        })?;
    let named = named.split('=').next().unwrap_or_default();
    let (name, instead) = NOT_THERE_YET.iter().find(|(name, _)| *name == named)?;
    Some(CommandError::usage(format!("{name} is not supported by this version")).hint(*instead))
}

/// Says what is wrong with a command line in our own form: the message, then hints on lines of their own.
pub(crate) fn explain(error: &clap::Error) -> CommandError {
    if let Some(error) = not_there_yet(error) {
        return error;
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let message = lines.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message).replace("subcommand", "verb");
    let mut details = Vec::new();
    let mut hints = Vec::new();
    for line in lines {
        if let Some(tip) = line.strip_prefix("tip: ") {
            // What looks like an option is hardly ever meant as the name of a program or a transaction.
            if !tip.starts_with("to pass") {
                hints.push(tip.replace("subcommand", "verb"));
            }
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            // That there has to be a verb is no news to somebody who has mistyped one.
            if usage != "tentative <VERB>" {
                hints.push(format!("usage: {usage}"));
            }
        } else if !line.starts_with("For more information") {
            details.push(line.to_owned());
        }
    }
    let message = if details.is_empty() { message } else { format!("{message} {}", details.join(" ")) };
    let error = CommandError::usage(message);
    let error = hints.into_iter().fold(error, CommandError::hint);
    error.hint("'tentative --help' lists the verbs, 'tentative VERB --help' the options of one")
}

/// Puts the rules of `--allow` and `--deny` into the order in which they were given.
fn policy(matches: &ArgMatches) -> Policy {
    let mut rules: Vec<(usize, Rule)> = Vec::new();
    for (name, action) in [("allow", Action::Allow), ("deny", Action::Deny)] {
        let kinds = matches.get_many::<Kind>(name).into_iter().flatten();
        let places = matches.indices_of(name).into_iter().flatten();
        rules.extend(places.zip(kinds).map(|(place, kind)| (place, Rule { action, kind: kind.clone() })));
    }
    rules.sort_by_key(|(place, _)| *place);
    Policy { rules: rules.into_iter().map(|(_, rule)| rule).collect() }
}

impl Run {
    /// Refuses what is part of the interface and not of this version.
    ///
    /// # Errors
    ///
    /// A usage error that says what to do instead.
    pub(crate) fn refuse_what_is_not_there_yet(&self) -> Result<(), CommandError> {
        if self.confirm.is_empty() {
            return Ok(());
        }
        Err(CommandError::usage("--confirm is not supported by this version")
            .hint("decide with --allow or --deny; what no rule allows is blocked and recorded"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Result<(Run, Policy), clap::Error> {
        let words = ["tentative", "run"].iter().chain(words).map(OsString::from).collect();
        parse(words).map(|(arguments, policy)| match arguments.verb {
            Verb::Run(run) => (*run, policy),
            _ => unreachable!("the verb is run"),
        })
    }

    #[test]
    fn the_grammar_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_after_the_program_are_the_programs() {
        let (run, _) = run(&["--keep", "ls", "--keep", "-l", "--", "--timeout", "x"]).unwrap();
        assert_eq!(run.command, ["ls", "--keep", "-l", "--", "--timeout", "x"]);
        assert_eq!(run.mode.chosen(), Some(Mode::Keep));
    }

    #[test]
    fn two_dashes_end_the_options() {
        assert_eq!(run(&["--", "--odd", "--keep"]).unwrap().0.command, ["--odd", "--keep"]);
        assert!(run(&["--odd"]).is_err());
        assert!(run(&[]).unwrap().0.command.is_empty());
    }

    #[test]
    fn help_is_a_verb_and_about_verbs() {
        let help = |words: &[&str]| {
            let words = words.iter().map(OsString::from).collect();
            parse(words).unwrap_err().render().to_string()
        };
        let general = help(&["tentative", "--help"]);
        assert!(general.contains("Verbs:"), "{general}");
        assert_eq!(help(&["tentative", "help"]), general);
        assert_eq!(help(&["tentative", "help", "help"]), general);
        assert_eq!(help(&["tentative", "help", "show"]), help(&["tentative", "show", "--help"]));
        assert_eq!(help(&["tentative", "help", "run", "ls"]), help(&["tentative", "run", "--help"]));
        assert!(help(&["tentative", "help", "runn"]).contains("unrecognized"));
    }

    #[test]
    fn modes_exclude_each_other() {
        assert_eq!(
            run(&["--commit", "true"]).unwrap().0.mode.chosen(),
            Some(Mode::Commit(CommitWhen::Success))
        );
        assert_eq!(
            run(&["--commit=always"]).unwrap().0.mode.chosen(),
            Some(Mode::Commit(CommitWhen::Always))
        );
        assert_eq!(run(&["true"]).unwrap().0.mode.chosen(), None);
        for bad in [&["--ask", "--keep"][..], &["--commit", "--rollback"], &["--commit=never"]] {
            assert!(run(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rules_keep_their_order() {
        let (_, policy) =
            run(&["--allow", "net", "--deny=net:10.0.0.0/8", "--allow", "unix:@x", "--", "true"]).unwrap();
        let actions: Vec<Action> = policy.rules.iter().map(|rule| rule.action).collect();
        assert_eq!(actions, [Action::Allow, Action::Deny, Action::Allow]);
        assert_eq!(policy.rules[1].kind, "net:10.0.0.0/8".parse().unwrap());
    }

    #[test]
    fn layers_may_be_in_one_word() {
        let (run, _) = run(&["--without", "files,kin", "--without=world"]).unwrap();
        assert_eq!(run.without, [Layer::Files, Layer::Kin, Layer::World]);
    }
}
