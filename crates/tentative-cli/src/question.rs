//! The question after a run: one key on the terminal, whatever the standard streams are.
//!
//! Whoever does not answer keeps: Enter, end of input, Ctrl-C and hang-up all leave the transaction pending, which it was
//! made before the question was asked. Keys typed before the question are not answers.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Signal, kill_current_process_group},
    termios::{
        LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush, tcgetattr, tcsetattr,
    },
};

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Apply the changes.
    Commit,
    /// Discard them.
    RollBack,
    /// Show them line by line, and ask again.
    Diff,
    /// Show everything, and ask again.
    Show,
    /// Leave the transaction pending.
    Keep,
}

impl Answer {
    const fn word(self) -> &'static str {
        match self {
            Answer::Commit => "commit",
            Answer::RollBack => "roll back",
            Answer::Diff => "diff",
            Answer::Show => "show",
            Answer::Keep => "keep",
        }
    }
}

/// What one byte from the terminal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Answer(Answer),
    /// Ctrl-Z: to the shell and back, as from any program. What is typed next is for the shell, and the `c` of `cd` no commit.
    Suspend,
    /// The beginning of an arrow or function key, whose other bytes must not be taken for answers (→ ends with `C`).
    Escape,
    Unknown,
}

const fn key(byte: u8) -> Key {
    match byte {
        b'c' => Key::Answer(Answer::Commit),
        b'r' => Key::Answer(Answer::RollBack),
        b'd' => Key::Answer(Answer::Diff),
        b's' => Key::Answer(Answer::Show),
        // Enter, Ctrl-C, Ctrl-D, Ctrl-\ keep like `k`.
        b'k' | b'\r' | b'\n' | 0x03 | 0x04 | 0x1c => Key::Answer(Answer::Keep),
        0x1a => Key::Suspend,
        0x1b => Key::Escape,
        _ => Key::Unknown,
    }
}

/// The controlling terminal of the process.
#[derive(Debug)]
pub(crate) struct Terminal(File);

impl Terminal {
    /// Opens the controlling terminal; none without one.
    pub(crate) fn open() -> Option<Terminal> {
        File::options().read(true).write(true).open("/dev/tty").ok().map(Terminal)
    }

    /// Writes to the terminal. A terminal that hung up is noticed by the next question.
    pub(crate) fn write(&mut self, text: &str) {
        let _ = self.0.write_all(text.as_bytes());
    }

    /// Asks until there is an answer. What cannot be asked or answered is answered with keep.
    pub(crate) fn ask(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.ask_once() {
                return answer;
            }
            self.write("^Z\r\n");
            // All of the job, as the terminal would have it. Where there is nobody to go back to, nothing happens.
            let _ = kill_current_process_group(Signal::TSTP);
        }
    }

    /// Asks once; none if the command is to be stopped and to ask again when it goes on.
    fn ask_once(&mut self) -> Option<Answer> {
        // Before the question is there to be answered, since entering forgets what was typed.
        let Ok(_keys) = KeyMode::enter(&self.0) else { return Some(Answer::Keep) };
        self.write("[c]ommit, [r]oll back, [d]iff, [s]how, or [k]eep for later? ");
        loop {
            match self.read_byte().map_or(Key::Answer(Answer::Keep), key) {
                Key::Answer(answer) => {
                    self.write(answer.word());
                    self.write("\r\n");
                    return Some(answer);
                }
                Key::Suspend => return None,
                Key::Escape => self.skip_sequence(),
                Key::Unknown => self.write("\r\npress c, r, d, s or k (Enter keeps): "),
            }
        }
    }

    /// The next byte; none at the end of input and after a hang-up.
    fn read_byte(&self) -> Option<u8> {
        let mut byte = [0_u8; 1];
        loop {
            match rustix::io::read(&self.0, &mut byte) {
                Ok(1) => return Some(byte[0]),
                Err(Errno::INTR) => {}
                _ => return None,
            }
        }
    }

    /// Drops what follows an escape character at once: the rest of one key.
    fn skip_sequence(&self) {
        while self.readable_within(Duration::from_millis(30)) {
            if self.read_byte().is_none() {
                return;
            }
        }
    }

    fn readable_within(&self, time: Duration) -> bool {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut polled, Some(&timeout)) == Ok(1)
    }
}

/// The terminal delivers single keys while this lives, and is as it was afterwards.
struct KeyMode {
    terminal: OwnedFd,
    before: Termios,
}

impl KeyMode {
    /// Switches to single keys without echo and without signals, and forgets keys that were typed before.
    fn enter(terminal: &File) -> Result<KeyMode, Errno> {
        let terminal = rustix::io::fcntl_dupfd_cloexec(terminal.as_fd(), 3)?;
        let before = tcgetattr(&terminal)?;
        let mut keys = before.clone();
        keys.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Drain, &keys)?;
        tcflush(&terminal, QueueSelector::IFlush)?;
        Ok(KeyMode { terminal, before })
    }
}

impl Drop for KeyMode {
    fn drop(&mut self) {
        // A terminal that hung up has no modes to restore.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_keys_decide() {
        assert_eq!(key(b'c'), Key::Answer(Answer::Commit));
        assert_eq!(key(b'C'), Key::Unknown, "the last byte of the right arrow key");
        assert_eq!(key(0x1b), Key::Escape);
        assert_eq!(key(0x1a), Key::Suspend);
        for keep in [b'k', b'\n', b'\r', 3, 4] {
            assert_eq!(key(keep), Key::Answer(Answer::Keep));
        }
    }
}
