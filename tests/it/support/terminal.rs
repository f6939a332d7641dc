//! A real terminal: somebody opens a window, types a command into it, and closes the window.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    process::Command,
};

use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

/// A window with a terminal in it. Dropping it closes it: the system then sends SIGHUP to the process that owns the
/// terminal, and what is read from or written to it fails.
///
/// Nobody reads what is printed in it, which is fine as long as it is a few screens.
pub(crate) struct Terminal {
    window: OwnedFd,
}

impl Terminal {
    pub(crate) fn open() -> Self {
        // A process that inherited the window would keep it open.
        let window = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&window).unwrap();
        unlockpt(&window).unwrap();
        Self { window }
    }

    /// `command` as the owner of this terminal, with its stdin there. `words` come before it (`nohup`).
    pub(crate) fn command(&self, words: &[&str], command: &Command) -> Command {
        let mut typed = Command::new("setsid");
        typed.arg("--ctty").args(words).arg(command.get_program()).args(command.get_args()).stdin(self.inside());
        typed.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            typed.current_dir(folder);
        }
        typed
    }

    /// The side that programs read from and write to.
    fn inside(&self) -> File {
        let path = ptsname(&self.window, Vec::new()).unwrap();
        // Ours it must not become.
        let flags = OFlags::NOCTTY.bits() as i32;
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(OsStr::from_bytes(path.as_bytes())).unwrap()
    }
}
