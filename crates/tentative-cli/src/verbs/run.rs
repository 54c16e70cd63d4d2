//! `tentative run`: a program from its start to the decision about what it changed.
//!
//! Whatever ends this process after the program has ended leaves the transaction pending: it is kept before the question
//! is asked. The report, the question and errors never go to standard output.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use rustix::{io::Errno, process::Signal};
use tentative::{
    effect::Class,
    layer::LayerSet,
    policy::Policy,
    program::{self, Ended, How, LaunchStep, ProgramOptions, RunError, output},
    record::{Record, State},
    sandbox::Ending,
    store::Transaction,
    transaction::Output,
};
use tentative_report::{Detail, changes, json, summary};

use crate::{
    End,
    arguments::{CommitWhen, Mode, OutputOption, Run as Arguments},
    decision, difference,
    error::{CommandError, Kind},
    question::{Answer, Terminal},
    selection,
    streams::Streams,
};

/// Exit status when the time was over.
const TIMED_OUT: u8 = 124;

/// Runs the program and carries out the mode.
pub(crate) fn run(arguments: &Arguments, policy: Policy, streams: &Streams) -> Result<End, CommandError> {
    arguments.refuse_what_is_not_there_yet()?;
    let mode = choose(arguments.mode.chosen(), streams)?;
    let document = arguments.json.as_deref().map(Document::create).transpose()?;
    let store = selection::open_store(streams)?;
    let mut transaction = store.create()?;
    let options = ProgramOptions {
        argv: command(arguments),
        policy,
        without: arguments.without.iter().copied().collect::<LayerSet>(),
        output: arguments.output.into(),
        timeout: arguments.timeout,
        memory_limit: arguments.memory_limit,
    };
    if arguments.command.is_empty() && mode == Mode::Ask {
        // A prompt looks like any other, and nothing else would say where one is.
        let id = transaction.id();
        streams.say(&format!(
            "inside transaction {id}: 'exit' ends the shell, and you decide about what was done\n"
        ));
    }
    let (mut ended, ending) = match program::run_and_look(&options, &mut transaction) {
        Ok(ended) => ended,
        Err(error) if error.has_run() && transaction.has_plan() => return Err(rescue(error, transaction)),
        Err(error) => {
            // The first error is the one to tell; what cannot be removed now is removed by the next start.
            let _ = transaction.discard();
            return Err(error.into());
        }
    };
    if streams.error_is_terminal() && ended.how == How::Signalled(Signal::INT.as_raw()) {
        // The terminal has printed ^C where the cursor was.
        streams.say("\n");
    }
    if ended.timed_out {
        streams.say("its time was over, so it was ended\n");
    }
    if is_decided(mode, &ended) {
        forget_where_output_is(&mut ended);
    }
    streams.say(&summary::report(&ended.record, Detail::Brief, streams.err));
    if let Some(means) = ended.memory_limit_by {
        streams.say(&format!("memory limit: {means}\n"));
    }
    let mut settled = settle(mode, &ended, ending, transaction, streams)?;
    if let Some(document) = document {
        document.write(&Record { state: settled.state, ..ended.record.clone() })?;
    }
    match settled.refused.take() {
        Some(refused) => Err(refused),
        None => Ok(end(&ended)),
    }
}

/// Whether the transaction will be gone when the mode has been carried out, if nothing is in a commit's way.
fn is_decided(mode: Mode, ended: &Ended) -> bool {
    match mode {
        Mode::Rollback | Mode::Commit(CommitWhen::Always) => true,
        Mode::Commit(CommitWhen::Success) => end(ended) == End::WELL,
        Mode::Keep | Mode::Ask => false,
    }
}

/// Held output is printed or thrown away at once: there will be nothing to look at by its id.
fn forget_where_output_is(ended: &mut Ended) {
    let held = ended.record.effects.iter_mut().filter(|effect| effect.class == Class::Held);
    held.for_each(|effect| effect.hint = None);
}

/// The program has run, and what it did cannot be looked at or written down: its files are kept all the same.
fn rescue(error: RunError, mut transaction: Transaction) -> CommandError {
    let id = transaction.id().clone();
    let error = CommandError::from(error);
    match transaction.keep() {
        Ok(()) => error.hint(format!(
            "the work is kept as {id}: once the cause is gone, look at it with 'tentative diff {id}', then commit or \
             roll back"
        )),
        Err(cause) => {
            let error = error.detail(format!("the work cannot be marked as kept either: {cause}"));
            let place = transaction.dir().display().to_string();
            error.hint(format!(
                "what was changed lies below {place}: copy it away before tentative starts again, which removes it"
            ))
        }
    }
}

/// The mode that was asked for, or the one that fits the terminal.
fn choose(asked: Option<Mode>, streams: &Streams) -> Result<Mode, CommandError> {
    match asked {
        Some(Mode::Ask) if Terminal::open().is_none() => {
            Err(CommandError::usage("there is no terminal to ask on")
                .hint("decide beforehand: --keep, --rollback or --commit"))
        }
        Some(mode) => Ok(mode),
        None if streams.error_is_terminal() && Terminal::open().is_some() => Ok(Mode::Ask),
        None => Ok(Mode::Keep),
    }
}

/// The program and its arguments; without any, the user's shell.
fn command(arguments: &Arguments) -> Vec<OsString> {
    if !arguments.command.is_empty() {
        return arguments.command.clone();
    }
    let shell = env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into())]
}

/// What became of the transaction.
struct Settled {
    state: State,
    refused: Option<CommandError>,
}

impl Settled {
    const fn as_asked(state: State) -> Settled {
        Settled { state, refused: None }
    }
}

/// Carries out the mode.
fn settle(
    mode: Mode,
    ended: &Ended,
    ending: Ending,
    transaction: Transaction,
    streams: &Streams,
) -> Result<Settled, CommandError> {
    let untouched = ended.record.changes.is_empty() && output::read(transaction.dir())?.is_empty();
    // What nobody wants is removed while the sandbox's mounts go; anything else waits for them.
    if untouched {
        let discarded = transaction.discard();
        ending.wait().map_err(RunError::Destroy)?;
        discarded?;
        streams.say(&format!("{}, so there is nothing to decide\n", summary::unchanged(&ended.record)));
        let state = if matches!(mode, Mode::Commit(_)) { State::Committed } else { State::RolledBack };
        return Ok(Settled::as_asked(state));
    }
    if mode == Mode::Rollback {
        let rolled_back = roll_back(transaction, ended, streams);
        ending.wait().map_err(RunError::Destroy)?;
        return rolled_back;
    }
    ending.wait().map_err(RunError::Destroy)?;
    decide(mode, ended, transaction, streams)
}

/// Carries out a mode on a transaction whose sandbox is gone.
fn decide(
    mode: Mode,
    ended: &Ended,
    mut transaction: Transaction,
    streams: &Streams,
) -> Result<Settled, CommandError> {
    match mode {
        Mode::Rollback => roll_back(transaction, ended, streams),
        Mode::Keep => keep(transaction, ended, streams),
        Mode::Commit(CommitWhen::Always) => commit(transaction, ended, streams),
        Mode::Commit(CommitWhen::Success) if end(ended) == End::WELL => commit(transaction, ended, streams),
        Mode::Commit(CommitWhen::Success) => {
            streams.say("the program did not end with status 0, so nothing is committed\n");
            keep(transaction, ended, streams)
        }
        Mode::Ask => {
            // From here on a hang-up, a kill or a power loss keeps it.
            transaction.keep()?;
            ask(transaction, ended, streams)
        }
    }
}

/// Asks until a key decides.
fn ask(transaction: Transaction, ended: &Ended, streams: &Streams) -> Result<Settled, CommandError> {
    loop {
        let answer = Terminal::open().map_or(Answer::Keep, |mut terminal| terminal.ask());
        match answer {
            Answer::Commit => return commit(transaction, ended, streams),
            Answer::RollBack => return roll_back(transaction, ended, streams),
            Answer::Keep => {
                say_next_steps(ended, streams);
                return Ok(Settled::as_asked(State::Pending));
            }
            Answer::Show => on_terminal(&summary::report(&ended.record, Detail::Full, streams.err)),
            Answer::Diff if transaction.has_plan() => {
                let plan = transaction.plan()?;
                let shown = difference::print(&plan, streams.err, |text| {
                    on_terminal(text);
                    Ok(())
                });
                // What cannot be shown can still be decided.
                if let Err(error) = shown {
                    streams.say(&error.render(streams.err));
                }
            }
            Answer::Diff => on_terminal("no files were contained, so there is nothing to compare\n"),
        }
    }
}

fn on_terminal(text: &str) {
    if let Some(mut terminal) = Terminal::open() {
        terminal.write(text);
    }
}

fn keep(mut transaction: Transaction, ended: &Ended, streams: &Streams) -> Result<Settled, CommandError> {
    transaction.keep()?;
    say_next_steps(ended, streams);
    Ok(Settled::as_asked(State::Pending))
}

fn say_next_steps(ended: &Ended, streams: &Streams) {
    streams.say(&summary::next_steps(&ended.record, ended.is_inside, streams.err));
}

fn roll_back(transaction: Transaction, ended: &Ended, streams: &Streams) -> Result<Settled, CommandError> {
    transaction.discard()?;
    streams.say(&format!("rolled back; {}\n", summary::outside(&ended.record)));
    Ok(Settled::as_asked(State::RolledBack))
}

fn commit(transaction: Transaction, ended: &Ended, streams: &Streams) -> Result<Settled, CommandError> {
    match decision::commit(transaction) {
        Ok(kept) => {
            let tally = changes::tally(&ended.record.changes);
            streams.say(&format!("committed: {tally}{}\n", decision::others_in_words(&kept)));
            Ok(Settled::as_asked(State::Committed))
        }
        Err(refused) => match refused.transaction {
            Some(mut transaction) => {
                transaction.keep()?;
                Ok(Settled { state: State::Pending, refused: Some(refused.error) })
            }
            None => Ok(Settled { state: State::Committing, refused: Some(refused.error) }),
        },
    }
}

/// How this process ends: as the program did, or with the status of the timeout.
fn end(ended: &Ended) -> End {
    match ended.how {
        _ if ended.timed_out => End::Status(TIMED_OUT),
        How::Signalled(signal) => End::Signal(signal),
        How::Exited(status) => End::Status(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
    }
}

/// The file of `--json`, made before the program runs: a name that cannot be written is an error before, not after. Until
/// the document is whole it has another name, and what was there stays.
struct Document {
    path: PathBuf,
    file: File,
    /// The other name; none of a device or a pipe, which is written to as it is.
    fresh: Option<PathBuf>,
}

impl Document {
    fn create(path: &Path) -> Result<Document, CommandError> {
        let failed = |error| {
            CommandError::new(Kind::Usage, error)
                .context(format!("cannot write {}", path.display()))
                .hint("--json takes the name of a file that you can write")
        };
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            let file = File::options().write(true).open(path).map_err(failed)?;
            return Ok(Document { path: path.to_owned(), file, fresh: None });
        }
        // Where a link leads, so that the link stays.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new-{}", std::process::id()));
        let fresh = path.with_file_name(name);
        let file = File::create(&fresh).map_err(failed)?;
        Ok(Document { path, file, fresh: Some(fresh) })
    }

    fn write(mut self, record: &Record) -> Result<(), CommandError> {
        let written = self.file.write_all(json::record(record).as_bytes());
        let put = || self.fresh.as_ref().map_or(Ok(()), |fresh| fs::rename(fresh, &self.path));
        written.and_then(|()| put()).map_err(|error| {
            CommandError::new(Kind::Machine, error).context(format!("cannot write {}", self.path.display()))
        })?;
        self.fresh = None;
        Ok(())
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        if let Some(fresh) = &self.fresh {
            // There is no document, and the error that kept it from being is told.
            let _nothing_to_do = fs::remove_file(fresh);
        }
    }
}

impl From<OutputOption> for Output {
    fn from(option: OutputOption) -> Output {
        match option {
            OutputOption::Live => Output::Live,
            OutputOption::Hold => Output::Hold,
        }
    }
}

impl From<RunError> for CommandError {
    fn from(error: RunError) -> CommandError {
        const DOCTOR: &str = "'tentative doctor' finds out what this machine lacks";
        const FEWER: &str = "layers that can be gone without, by name: --without files,kin,world";
        match error {
            RunError::Save(error) => CommandError::from(error)
                .context("the program has ended, and what it did cannot be written down"),
            RunError::Execute { program, source } => not_executed(&program, source),
            error @ (RunError::NoProgram | RunError::Directory(_)) => {
                CommandError::new(Kind::Usage, error).hint("change to a directory that is there")
            }
            error @ RunError::Launch { step: LaunchStep::Directory, .. } => {
                CommandError::new(Kind::Machine, error)
                    .hint("the working directory is not there inside: start from another one")
            }
            error @ (RunError::Plan(_)
            | RunError::Point { .. }
            | RunError::Sandbox(_)
            | RunError::Spawn(_)
            | RunError::Launch { .. }) => CommandError::new(Kind::Machine, error).hint(DOCTOR).hint(FEWER),
            error @ RunError::Hold(_) => CommandError::new(Kind::Machine, error).hint(
                "held output needs room in the store: free some space, or set TENTATIVE_HOME to another disk",
            ),
            error @ RunError::Changes(_) => CommandError::new(Kind::Machine, error),
            error => CommandError::new(Kind::Internal, error),
        }
    }
}

/// The program is not there (127) or cannot be executed (126).
fn not_executed(program: &Path, errno: Errno) -> CommandError {
    let name = program.display();
    if name.to_string().is_empty() {
        return CommandError::message(Kind::NotFound, "the program's name is empty")
            .hint("name a program: tentative run -- PROGRAM");
    }
    match errno {
        Errno::NOENT | Errno::NOTDIR if program.exists() => CommandError::message(
            Kind::NotExecutable,
            format!("{name} names an interpreter that is not there"),
        )
        .hint("look at its first line, or at its ELF interpreter"),
        Errno::NOENT | Errno::NOTDIR => {
            let error = CommandError::message(Kind::NotFound, format!("program not found: {name}"));
            if env::var_os("SHELL").is_some_and(|shell| shell == *program) {
                error.hint("it is what SHELL names: set that to a shell that is there, or name a program")
            } else if program == Path::new("always") {
                error.hint("the option is one word: --commit=always")
            } else if name.to_string().contains('/') {
                error.hint("paths are relative to the working directory")
            } else {
                error.hint("it is in no directory of PATH")
            }
        }
        Errno::ACCESS if program.is_dir() => {
            CommandError::message(Kind::NotExecutable, format!("{name} is a directory"))
                .hint("name a program: tentative run -- PROGRAM")
        }
        Errno::ACCESS => CommandError::message(Kind::NotExecutable, format!("{name} may not be executed"))
            .hint(match File::open(program) {
                Ok(_) => format!(
                    "make it executable (chmod +x {name}), or start its interpreter: tentative run -- sh {name}"
                ),
                Err(_) => "it may not be read either: its owner has to allow that first".to_owned(),
            }),
        Errno::NOEXEC => CommandError::message(
            Kind::NotExecutable,
            format!("{name} is no program of this machine"),
        )
        .hint(format!(
            "a script needs a first line like #!/bin/sh, or its interpreter: tentative run -- sh {name}"
        )),
        other => CommandError::new(Kind::NotExecutable, std::io::Error::from(other))
            .context(format!("{name} cannot be executed")),
    }
}
