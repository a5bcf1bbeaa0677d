//! Runs the real program on files in a directory of its own, with a time limit.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::{Map, Value, json};

use super::cluster::without_pg_variables;
use super::messages::{Record, Schema};
use super::{Catalog, Message, Running, Stalled, TestDb, check_protocol};

/// The program with its files. Methods that set something return it, so that a test reads as a command line.
pub(crate) struct Tap {
    program: OsString,
    dir: tempfile::TempDir,
    config: Map<String, Value>,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    timeout: Duration,
}

impl Tap {
    /// A tap with the connection keys of this database in its config.
    pub(crate) fn new(db: &TestDb) -> Tap {
        // The whole suite with one way to read the log, in bulk or streamed.
        let tap = match env::var("TAP_TEST_WAL_READER") {
            Ok(reader) => Tap::bare().config("wal_reader", reader),
            Err(_) => Tap::bare(),
        };
        tap.config("host", db.cluster().dir().to_str().expect("a UTF-8 path"))
            .config("port", db.cluster().port())
            .config("user", "postgres")
            .config("password", "not asked for")
            .config("dbname", db.name())
    }

    /// A tap whose config is empty.
    pub(crate) fn bare() -> Tap {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Another program with the same contract, to see whether a test expects what the reference does.
        let program = env::var_os("TAP_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tap-postgres-rs").into());
        Tap { program, dir, config: Map::new(), args: Vec::new(), env: Vec::new(), timeout: Duration::from_secs(60) }
    }

    /// Runs another program in its place.
    pub(crate) fn program(mut self, program: impl Into<OsString>) -> Tap {
        self.program = program.into();
        self
    }

    /// Sets a config key.
    pub(crate) fn config(mut self, key: &str, value: impl Into<Value>) -> Tap {
        self.config.insert(key.to_owned(), value.into());
        self
    }

    /// Sets many config keys, given as an object.
    #[track_caller]
    pub(crate) fn configs(mut self, values: &Value) -> Tap {
        self.config.extend(values.as_object().expect("config is an object").clone());
        self
    }

    /// Takes a config key away.
    pub(crate) fn without(mut self, key: &str) -> Tap {
        self.config.shift_remove(key);
        self
    }

    /// Runs with a catalog (`--catalog`), discovered and then changed by the caller.
    pub(crate) fn catalog(self, catalog: &Catalog) -> Tap {
        let path = self.file("catalog.json", &catalog.as_value().to_string());
        self.arg("--catalog").arg(path)
    }

    /// Runs with a state (`--state`).
    pub(crate) fn state(self, state: &Value) -> Tap {
        let path = self.file("state.json", &state.to_string());
        self.arg("--state").arg(path)
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Tap {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Tap {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// How long a run may take; 60 s otherwise.
    pub(crate) fn timeout(mut self, timeout: Duration) -> Tap {
        self.timeout = timeout;
        self
    }

    /// Writes a file into the tap's directory.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).expect("write a file for the tap");
        path
    }

    /// The tap's directory: state.json lies there, for tests that rewrite it during a run.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command, its config file written. For tests that want their own hands on the process.
    pub(crate) fn command(&self) -> Command {
        let config = self.file("config.json", &Value::Object(self.config.clone()).to_string());
        let mut command = Command::new(&self.program);
        without_pg_variables(&mut command);
        // No ~/.pgpass of the developer's, no formatter of Meltano's.
        command.env("HOME", self.dir.path()).env_remove("SINGER_SDK_LOG_CONFIG");
        command.arg("--config").arg(config).args(&self.args).envs(self.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end, whatever that is.
    #[track_caller]
    pub(crate) fn output(&self) -> Output {
        let output = collect(&mut self.command().spawn().expect("run the tap"), self.timeout);
        for line in output.stderr.lines() {
            let value: Option<Value> = serde_json::from_str(line).ok();
            let state = value.is_some_and(|value| value.get("bookmarks").is_some());
            assert!(!state, "a log line that PipelineWise would take for state: {line}");
        }
        output
    }

    /// Runs a sync that must succeed, and checks what any run must hold to.
    #[track_caller]
    pub(crate) fn run(&self) -> Output {
        let output = self.output().expect_code(0).parsed();
        check_protocol(&output.messages);
        assert!(output.messages.last().is_some_and(Message::is_state), "the last message is no STATE: {output:?}");
        output
    }

    /// Runs a sync that must fail with this exit code. What it printed before is parsed all the same.
    #[track_caller]
    pub(crate) fn run_failing(&self, code: i32) -> Output {
        let output = self.output().expect_code(code).parsed();
        check_protocol(&output.messages);
        output
    }

    /// Starts a sync and returns at once, for tests that read along or send signals.
    #[track_caller]
    pub(crate) fn spawn(self) -> Running {
        Running::start(self)
    }

    /// The same, but nobody reads what it prints.
    #[track_caller]
    pub(crate) fn stall(self) -> Stalled {
        Stalled::start(self)
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.timeout
    }

    /// Runs discovery, which must succeed.
    #[track_caller]
    pub(crate) fn discover(mut self) -> Catalog {
        self.args.push("--discover".into());
        self.output().expect_code(0).catalog()
    }
}

/// What a run printed.
#[derive(Debug)]
pub(crate) struct Output {
    /// Stdout as messages; empty where the run was not a sync.
    pub(crate) messages: Vec<Message>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

impl Output {
    /// Fails, showing stderr, unless the run ended with this exit code.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Output {
        let (status, stderr) = (self.status, &self.stderr);
        assert_eq!(status.code(), Some(code), "{status}; stdout:\n{}\nstderr:\n{stderr}", tail(&self.stdout));
        self
    }

    /// Parses every line of stdout as a message.
    #[track_caller]
    pub(crate) fn parsed(mut self) -> Output {
        let parse = |line| Message::parse(line).unwrap_or_else(|error| panic!("{error}\nstderr:\n{}", self.stderr));
        self.messages = self.stdout.lines().map(parse).collect();
        self
    }

    /// The records of a stream, columns by name.
    pub(crate) fn records(&self, stream: &str) -> Vec<&Map<String, Value>> {
        self.record_messages().filter(|record| record.stream == stream).map(|record| &record.record).collect()
    }

    /// All records, in order, with stream, version and time.
    pub(crate) fn record_messages(&self) -> impl Iterator<Item = &Record> {
        self.messages.iter().filter_map(Message::as_record)
    }

    /// The SCHEMA messages of a stream.
    pub(crate) fn schemas(&self, stream: &str) -> Vec<&Schema> {
        let schemas = self.messages.iter().filter_map(|message| match message {
            Message::Schema(schema) => Some(schema),
            _ => None,
        });
        schemas.filter(|schema| schema.stream == stream).collect()
    }

    /// Every message but STATE.
    pub(crate) fn without_states(&self) -> Vec<&Message> {
        self.messages.iter().filter(|message| !message.is_state()).collect()
    }

    /// The values of the STATE messages.
    pub(crate) fn states(&self) -> Vec<&Value> {
        self.messages.iter().filter_map(Message::as_state).collect()
    }

    /// The last STATE: what a target hands to the next run.
    #[track_caller]
    pub(crate) fn last_state(&self) -> &Value {
        self.states().last().copied().unwrap_or_else(|| panic!("no STATE; stderr:\n{}", self.stderr))
    }

    /// A stream's bookmark in the last STATE.
    #[track_caller]
    pub(crate) fn bookmark(&self, stream: &str) -> &Value {
        let bookmark = self.last_state()["bookmarks"].get(stream);
        bookmark.unwrap_or_else(|| panic!("no bookmark of {stream} in {}", self.last_state()))
    }

    /// Stdout as a catalog.
    #[track_caller]
    pub(crate) fn catalog(&self) -> Catalog {
        let value = serde_json::from_str(&self.stdout);
        Catalog::new(value.unwrap_or_else(|error| panic!("{error} in the catalog {}", tail(&self.stdout))))
    }

    /// How many lines of the log hold this text.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.stderr.lines().filter(|line| line.contains(text)).count()
    }

    /// Returns the lines of the log that are warnings.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.stderr.lines().filter(|line| line.contains("level=WARNING")).map(str::to_owned).collect()
    }
}

/// Reads all that a tap prints, to its end.
#[track_caller]
pub(crate) fn collect(child: &mut Child, timeout: Duration) -> Output {
    let stdout = gather(child.stdout.take().expect("a piped stdout"));
    let stderr = gather(child.stderr.take().expect("a piped stderr"));
    let status = wait(child, timeout);
    let stdout = stdout.join().expect("the thread that reads stdout");
    let stderr = stderr.join().expect("the thread that reads stderr");
    let Some(status) = status else {
        panic!("the tap did not end within {timeout:?}; stdout:\n{}\nstderr:\n{stderr}", tail(&stdout))
    };
    Output { messages: Vec::new(), stdout, stderr, status }
}

/// Reads a pipe to its end beside the test, so that the program never waits for a reader.
pub(crate) fn gather(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("read the tap's output");
        String::from_utf8(bytes).expect("the tap prints UTF-8")
    })
}

/// Waits for the end; kills where it does not come in time.
pub(crate) fn wait(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().expect("wait for the tap") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().expect("kill the tap");
            child.wait().expect("wait for the killed tap");
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The end of a long text.
pub(crate) fn tail(text: &str) -> &str {
    let start = text.char_indices().rev().nth(3000).map_or(0, |(index, _)| index);
    &text[start..]
}

/// The config of runs that are compared with the reference's.
pub(crate) fn reference_dialect() -> Value {
    json!({"schema_dialect": "reference", "extended_types": false, "unchanged_toast": "omit"})
}
