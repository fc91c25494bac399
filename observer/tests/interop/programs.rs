//! The programs: Hubble's own, our command line, and a daemon that has played a recording.

use crate::support::{Daemon, OBSERVER, PATIENCE};
use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
};

/// What a program said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Its stdout, if all is well and nothing is on stderr.
    pub(crate) fn clean(self) -> Result<String, String> {
        if self.code == Some(0) && self.stderr.is_empty() {
            Ok(self.stdout)
        } else {
            Err(format!("{self:?}"))
        }
    }
}

/// One of Hubble's programs, as `scripts/interop` built it.
fn hubbles(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop").join(name);
    assert!(path.exists(), "{} is missing: make interop builds it", path.display());
    path
}

pub(crate) fn testdata(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(file)
}

/// A command line with the address of a server.
pub(crate) struct Client {
    program: PathBuf,
    server: String,
    /// A network namespace to be in.
    netns: Option<PathBuf>,
    /// Further variables of its environment.
    variables: Vec<(&'static str, String)>,
}

impl Client {
    /// Hubble's.
    pub(crate) fn hubble(server: impl Into<String>) -> Self {
        Self { program: hubbles("hubble"), server: server.into(), netns: None, variables: Vec::new() }
    }

    /// Ours, which a build of the workspace puts beside the daemon.
    pub(crate) fn observe(server: impl Into<String>) -> Self {
        let program = Path::new(OBSERVER).with_file_name("observe");
        assert!(program.exists(), "{} is missing: cargo build -p observe", program.display());
        Self { program, server: server.into(), netns: None, variables: Vec::new() }
    }

    pub(crate) fn inside(self, netns: PathBuf) -> Self {
        Self { netns: Some(netns), ..self }
    }

    /// By mutual TLS, for a server of this name.
    pub(crate) fn by_tls(self, certificates: &Path, name: &str) -> Self {
        let file = |file: &str| certificates.join(file).display().to_string();
        let variables = vec![
            ("HUBBLE_TLS", "true".to_owned()),
            ("HUBBLE_TLS_CA_CERT_FILES", file("ca.crt")),
            ("HUBBLE_TLS_CLIENT_CERT_FILE", file("client.crt")),
            ("HUBBLE_TLS_CLIENT_KEY_FILE", file("client.key")),
            ("HUBBLE_TLS_SERVER_NAME", name.to_owned()),
        ];
        Self { variables, ..self }
    }

    /// With nothing of this user's own: no configuration, no variables.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = match &self.netns {
            Some(netns) => observer_lab::netns::command_in(netns, &self.program),
            None => Command::new(&self.program),
        };
        command
            .args(args)
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .env("HUBBLE_SERVER", &self.server)
            .envs(self.variables.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// The words of a line for `hubble`; what is `hubble observe` there is `observe` here.
    fn words<'a>(&self, line: &'a str) -> impl Iterator<Item = &'a str> {
        let is_ours = self.program.ends_with("observe");
        line.split_whitespace().skip(usize::from(is_ours && line.starts_with("observe")))
    }

    /// Runs it to its end, with the words of `line` and then `more`.
    pub(crate) fn run(&self, line: &str, more: &[&str]) -> Ran {
        self.run_with(line, more, b"")
    }

    /// As [`Client::run`], with this on stdin.
    pub(crate) fn run_with(&self, line: &str, more: &[&str], input: &[u8]) -> Ran {
        self.run_words_with(self.words(line).chain(more.iter().copied()), input)
    }

    /// Runs it with these words, whatever is in them.
    pub(crate) fn run_words<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Ran {
        self.run_words_with(words, b"")
    }

    fn run_words_with<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>, input: &[u8]) -> Ran {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // It may end without reading all.
            scope.spawn(move || _ = stdin.write_all(input));
            child.wait_with_output().unwrap()
        });
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Starts what goes on until it is stopped.
    pub(crate) fn start(&self, line: &str) -> Running {
        let mut command = self.command(self.words(line));
        Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    }
}

/// A program that goes on; killed with this value.
pub(crate) struct Running {
    child: Child,
    stdout: Option<ChildStdout>,
    lines: Option<mpsc::Receiver<String>>,
}

impl Running {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        Self { stdout: child.stdout.take(), child, lines: None }
    }

    /// Its stdout, which nobody has read yet.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.stdout.take().unwrap()
    }

    /// Its next line on stdout; `None` at the end, or where nothing comes for [`PATIENCE`].
    pub(crate) fn line(&mut self) -> Option<String> {
        let lines = self.lines.get_or_insert_with(|| {
            let (sender, lines) = mpsc::channel();
            let stdout = BufReader::new(self.stdout.take().unwrap());
            std::thread::spawn(move || {
                stdout.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
            });
            lines
        });
        lines.recv_timeout(PATIENCE).ok()
    }

    /// Ctrl-C; its exit code and what was on stderr.
    pub(crate) fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        // All of it is read: a pipe that is closed would end it in another way.
        let _ = self.line();
        for _ in self.lines.iter().flatten() {}
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The real relay in a node of a lab. Its log is kept in a file of `dir`.
pub(crate) fn relay(netns: &Path, dir: &Path, args: &[&str]) -> Running {
    let mut command = observer_lab::netns::command_in(netns, hubbles("hubble-relay"));
    command.args(["serve", "--gops=false"]).args(args).env_clear().env("HOME", "/nonexistent");
    let log = std::fs::File::create(dir.join("relay.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    Running::spawn(&mut command)
}

/// A certificate authority and what it signed (testdata/interop/certs), in `dir`.
pub(crate) fn certificates(dir: &Path) {
    let made = Command::new(hubbles("certs")).arg(dir).output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// A daemon that has played all of a recording of `testdata/events`.
pub(crate) fn replayed(name: &str, args: &[&str]) -> Daemon {
    let mut command = Command::new(OBSERVER);
    command.arg("--replay").arg(testdata(&format!("events/{name}.rec"))).args(["--speed", "max"]).args(args);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    daemon.log_line("replayed ");
    daemon
}

/// The address of a daemon's socket.
pub(crate) fn socket(daemon: &Daemon) -> String {
    format!("unix://{}", daemon.dir.path().join("hubble.sock").display())
}
