//! The program itself, started as an operator starts it, in an environment of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The long-lived key's secret.
pub const SECRET: &str = "LONG/lived+secret/that/no/log/may/show";

/// A command line and environment that is about to be run.
pub struct Refresher {
    pub home: TempDir,
    command: Command,
    interval: &'static str,
}

/// A running refresher; killed when dropped.
pub struct Process {
    pub home: TempDir,
    child: Child,
}

impl Refresher {
    pub fn new() -> Self {
        let home = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_credential-refresher"));
        command
            .env_clear()
            .env("HOME", home.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "AKIDLONGLIVED")
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
        Self { home, command, interval: "100ms" }
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes the long-lived key from its environment.
    pub fn without_keys(self) -> Self {
        self.without_env("AWS_ACCESS_KEY_ID").without_env("AWS_SECRET_ACCESS_KEY")
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Writes a file into its home directory.
    pub fn home_file(self, name: &str, text: &str) -> Self {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Runs a copy of the program in its home directory, which a test can replace.
    pub fn copied(self) -> Self {
        let copy = self.home.path().join("credential-refresher");
        // Not copied by this process: a test that starts another at this moment would hand it the copy, open for writing,
        // and such a file can't be run.
        assert!(Command::new("cp").arg(self.command.get_program()).arg(&copy).status().unwrap().success());
        self.run_by(Command::new(copy))
    }

    /// Moves the arguments and the environment to another command.
    fn run_by(mut self, mut command: Command) -> Self {
        command.args(self.command.get_args()).env_clear();
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.command = command;
        self
    }

    /// Limits its file descriptors, as `ulimit -n` does.
    pub fn with_descriptors(self, most: u32) -> Self {
        self.with_limit("-n", most)
    }

    /// Limits its address space, so that a test that fails leaves the machine its memory.
    pub fn with_address_space(self, mib: u32) -> Self {
        self.with_limit("-v", mib * 1024)
    }

    fn with_limit(self, option: &str, most: u32) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit {option} {most}; exec \"$0\" \"$@\"")]).arg(self.command.get_program());
        self.run_by(command)
    }

    pub fn sts(self, port: u16) -> Self {
        self.env("AWS_ENDPOINT_URL_STS", format!("http://127.0.0.1:{port}"))
    }

    pub fn socket(self, path: &Path) -> Self {
        self.args(&["--proxy", &format!("unix:{}", path.display())])
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub fn interval(mut self, interval: &'static str) -> Self {
        self.interval = interval;
        self
    }

    pub fn start(self) -> Process {
        let log = std::fs::File::create(self.home.path().join("log")).unwrap();
        self.start_with_log(log)
    }

    /// Starts it with its output elsewhere than in the file that [`Process::log`] reads.
    pub fn start_with_log(mut self, log: impl Into<Stdio> + AsFd) -> Process {
        let output = log.as_fd().try_clone_to_owned().unwrap();
        self.command.args(["--interval", self.interval]);
        let child = self.command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().unwrap();
        Process { home: self.home, child }
    }
}

impl Process {
    /// Returns all that it has written so far to standard output and standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    /// Returns the address that `--listen 127.0.0.1:0` was given.
    pub async fn status_address(&self) -> String {
        self.until("the status address", || self.log().contains("listening for probes")).await;
        let log = self.log();
        let address = log.split("address=").nth(1).unwrap();
        address.split_whitespace().next().unwrap().to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns the number of its open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Returns the peak of its resident memory, in MiB.
    pub fn most_resident_mib(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }

    /// Returns its writable memory, piece by piece.
    pub fn memory(&self) -> Vec<Vec<u8>> {
        let process = format!("/proc/{}", self.child.id());
        let memory = std::fs::File::open(format!("{process}/mem")).unwrap();
        let maps = std::fs::read_to_string(format!("{process}/maps")).unwrap();
        let read = |map: &str| {
            let (range, rest) = map.split_once(' ')?;
            let (start, end) = range.split_once('-').filter(|_| rest.starts_with("rw"))?;
            let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
            let mut piece = vec![0; usize::try_from(end - start).unwrap()];
            // Some of the kernel's own can't be read.
            memory.read_exact_at(&mut piece, start).ok()?;
            Some(piece)
        };
        maps.lines().filter_map(read).collect()
    }

    /// Waits for its end, and returns how long that took.
    pub async fn end(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `happened`, and returns how long that took.
    pub async fn until(&self, what: &str, happened: impl Fn() -> bool) -> Duration {
        let start = Instant::now();
        while !happened() {
            assert!(start.elapsed() < Duration::from_secs(30), "not seen: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        start.elapsed()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a plain GET; returns the status line and the body.
pub fn get(address: &str, path: &str) -> (String, String) {
    try_get(address, path, Duration::from_secs(30)).unwrap()
}

/// Makes a plain GET as a caller that gives up.
pub fn try_get(address: &str, path: &str, patience: Duration) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((head.lines().next().unwrap().to_owned(), body.to_owned()))
}
