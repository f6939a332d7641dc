//! A real terminal: somebody opens a window, types a command into it, and closes the window.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use rustix::{
    fs::OFlags,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Written behind what a program printed, to know that all was read.
const END: &str = "\u{4}end\u{4}";

/// A window with a terminal in it. Dropping it closes it: the system then sends SIGHUP to the process that owns the
/// terminal, and what is read from or written to it fails.
///
/// Unless [`Terminal::printed`] does, nobody reads what is printed in it, which is fine as long as it is a few screens.
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

    /// As [`Terminal::open`], so many columns wide.
    pub(crate) fn open_wide(columns: u16) -> Self {
        let terminal = Self::open();
        let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal.window, size).unwrap();
        terminal
    }

    /// Runs the one command that prints into this terminal, and closes it; returns how it ended and what stood there, with lines as programs
    /// write them.
    pub(crate) fn printed(self, command: &mut Command) -> (ExitStatus, String) {
        let mut child = command.stdin(self.inside()).stdout(self.inside()).stderr(Stdio::null()).spawn().unwrap();
        // Held open by us, or the end would look like an error.
        let _inside = self.inside();
        let window = self.window.try_clone().unwrap();
        let (text, printed) = mpsc::channel();
        thread::spawn(move || {
            let mut window = File::from(window);
            let mut piece = [0; 4096];
            while let Ok(n) = window.read(&mut piece) {
                if n == 0 || text.send(piece[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let status = child.wait().unwrap();
        // Everything it wrote stands in the terminal by now; the marker behind it says that all was read.
        self.inside().write_all(END.as_bytes()).unwrap();
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(END) {
            all.extend(printed.recv().unwrap());
        }
        let all = String::from_utf8(all).unwrap();
        (status, all.split(END).next().unwrap().replace("\r\n", "\n"))
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
