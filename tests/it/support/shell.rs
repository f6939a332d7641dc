//! Commands of the real binary as somebody types them: in a folder of their own, with an environment that is known.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::process::Ran;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_feedmill");

/// A working directory and an environment, which holds nothing of the test's own but PATH and HOME.
pub(crate) struct Shell {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("feedmill-shell-").tempdir().unwrap(), variables: Vec::new() }
    }

    /// Sets an environment variable for what is run from now on.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.push((name, value.into()));
    }

    /// Writes a file into the working directory; returns where it is.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The working directory.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Any program, in this folder and environment.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env_clear().stdin(Stdio::null());
        let kept = ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.envs(kept).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs feedmill.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(BINARY).args(args).output().unwrap())
    }

    /// Runs feedmill with this on stdin.
    pub(crate) fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(BINARY);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Dropped at the end of the statement, which closes it.
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        ran(child.wait_with_output().unwrap())
    }
}

/// What a process printed, which must be text.
pub(crate) fn ran(output: std::process::Output) -> Ran {
    Ran {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// Checks that the command ended well and said nothing beside its data, which is returned.
    #[track_caller]
    pub(crate) fn data(self) -> String {
        assert_eq!((self.status.code(), self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// Checks that the command failed with this exit status, and that all it said is this one line.
    #[track_caller]
    pub(crate) fn failed(&self, status: i32, error: &str) {
        let expected = (Some(status), String::new(), format!("error: {error}\n"));
        assert_eq!((self.status.code(), self.stdout.clone(), self.stderr.clone()), expected);
    }
}
