//! `tentative doctor`: what this machine can contain, found by trying, with the remedy for what is missing.
//!
//! Changes nothing: every probe runs in a process of its own and cleans up.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tentative::store::default_root;
use tentative_report::{
    json::{self, Check, CheckResult},
    paint::Palette,
    printable::printable,
};

use crate::{
    End,
    arguments::Doctor as Arguments,
    error::{CommandError, Kind},
    probes::{self, Need, Probe},
    streams::Streams,
};

/// How long one probe may take; the slowest needs a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a probe process prints.
#[derive(Deserialize)]
struct Found {
    works: bool,
    found: String,
    remedy: Option<String>,
}

/// Tries everything and prints one line each.
pub(crate) fn run(arguments: &Arguments, streams: &Streams) -> Result<End, CommandError> {
    let mut checks: Vec<Check> = Vec::new();
    for probe in probes::ALL {
        let check = attempt(probe)?;
        if !arguments.json {
            // One cause often shows in many lines; its remedy is worth one.
            let repeated = checks.iter().any(|earlier| earlier.remedy == check.remedy);
            streams.print(&line(&check, !repeated, streams.out))?;
        }
        checks.push(check);
    }
    if arguments.json {
        streams.print(&json::doctor(&checks))?;
    }
    let missing = checks.iter().filter(|check| check.result == CheckResult::Missing).count();
    if missing == 0 {
        if !arguments.json {
            streams.print(&format!("{}\n", streams.out.good("everything can be contained")))?;
        }
        return Ok(End::WELL);
    }
    if !arguments.json {
        let verdict = "the default containment cannot be had; fewer layers can be asked for: run --without files,kin,world";
        streams.print(&format!("{}\n", streams.out.bad(verdict)))?;
    }
    Ok(End::Status(Kind::Machine.status()))
}

fn attempt(probe: &Probe) -> Result<Check, CommandError> {
    let found =
        try_in_child(probe).map_err(|error| error.context(format!("cannot try '{}'", probe.title)))?;
    let result = match (found.works, probe.need) {
        (true, _) => CheckResult::Works,
        (false, Need::Optional) => CheckResult::Degraded,
        (false, Need::Required) => CheckResult::Missing,
    };
    Ok(Check {
        name: probe.name.to_owned(),
        title: probe.title.to_owned(),
        result,
        found: found.found,
        remedy: found.remedy,
    })
}

/// Runs one probe in a child. A child that crashes, hangs or is refused is a result, too.
fn try_in_child(probe: &Probe) -> Result<Found, CommandError> {
    let mut child = Command::new("/proc/self/exe")
        .args(["probe", probe.name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| CommandError::new(Kind::Machine, error))?;
    let failed = |found: String| Found { works: false, found, remedy: None };
    if !ended_in_time(&mut child)? {
        child.kill()?;
        child.wait()?;
        return Ok(failed(format!("no answer within {} s", PATIENCE.as_secs())));
    }
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    if let Some(store) = default_root() {
        probes::remove_scratch(&store, child.id());
    }
    Ok(serde_json::from_str(&text).unwrap_or_else(|_| failed(format!("the attempt ended with {status}"))))
}

fn ended_in_time(child: &mut Child) -> Result<bool, CommandError> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    while begun.elapsed() < PATIENCE {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(false)
}

fn line(check: &Check, with_remedy: bool, palette: Palette) -> String {
    let mark = match check.result {
        CheckResult::Works => palette.good("ok      "),
        CheckResult::Degraded => palette.warning("without "),
        CheckResult::Missing => palette.bad("MISSING "),
    };
    let mut text = format!("{mark} {}: {}\n", check.title, printable(&check.found));
    if let Some(remedy) = check.remedy.as_ref().filter(|_| with_remedy) {
        text.push_str(&format!("{:9}{} {}\n", "", palette.literal("hint:"), printable(remedy)));
    }
    text
}
