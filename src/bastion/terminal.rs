//! The operator's own terminal: raw while a session has it, without echo while a passphrase is typed, and as it was before
//! on every way out, a panic included.

use std::io;
use std::os::fd::AsFd;

use russh::Pty;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a far side is told when nobody here has a terminal (`ssh -t` in a script): the size of a VT100.
const USUAL: Size = Size {
    columns: 80,
    rows: 24,
};

/// A window, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u32,
    /// Lines.
    pub rows: u32,
}

impl Size {
    /// The size of `terminal`'s window; 80 by 24 when it is none or does not know.
    #[must_use]
    pub fn of(terminal: impl AsFd) -> Self {
        match tcgetwinsize(terminal) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => Self {
                columns: size.ws_col.into(),
                rows: size.ws_row.into(),
            },
            _ => USUAL,
        }
    }
}

/// The changes of the window's size (SIGWINCH).
#[derive(Debug)]
pub struct Resizes(Signal);

impl Resizes {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::window_change()).map(Self)
    }

    /// The size after the next change.
    pub async fn next(&mut self) -> Size {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        Size::of(io::stdin())
    }
}

/// A terminal in another mode, for as long as this value lives.
#[derive(Debug)]
pub struct Mode<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> Mode<T> {
    /// Every key reaches the far side as it is, Ctrl-C too.
    ///
    /// # Errors
    /// When it is no terminal.
    pub fn raw(terminal: T) -> io::Result<Self> {
        Self::enter(terminal, Termios::make_raw)
    }

    /// What is typed is not shown; Ctrl-C still is a signal.
    ///
    /// # Errors
    /// When it is no terminal.
    pub fn silent(terminal: T) -> io::Result<Self> {
        Self::enter(terminal, |modes| {
            modes.local_modes.remove(LocalModes::ECHO);
            modes.local_modes.insert(LocalModes::ECHONL);
        })
    }

    fn enter(terminal: T, change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut modes = before.clone();
        change(&mut modes);
        // Now, and not when all output is out: a terminal that somebody stopped would be waited for.
        tcsetattr(&terminal, OptionalActions::Now, &modes)?;
        Ok(Self { terminal, before })
    }

    /// What the far side's terminal should take over: the keys that mean something, and whether text is UTF-8.
    #[must_use]
    pub fn for_the_far_side(&self) -> Vec<(Pty, u32)> {
        let keys = [
            (Pty::VINTR, SpecialCodeIndex::VINTR),
            (Pty::VQUIT, SpecialCodeIndex::VQUIT),
            (Pty::VERASE, SpecialCodeIndex::VERASE),
            (Pty::VKILL, SpecialCodeIndex::VKILL),
            (Pty::VEOF, SpecialCodeIndex::VEOF),
            (Pty::VSUSP, SpecialCodeIndex::VSUSP),
        ];
        let mut modes: Vec<_> = keys
            .into_iter()
            .map(|(name, index)| (name, self.before.special_codes[index].into()))
            .collect();
        let is_utf8 = self.before.input_modes.contains(InputModes::IUTF8);
        modes.push((Pty::IUTF8, is_utf8.into()));
        modes
    }
}

impl<T: AsFd> Drop for Mode<T> {
    fn drop(&mut self) {
        // The terminal may be gone (its window was closed): then nobody is left to be served.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
