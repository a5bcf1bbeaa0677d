//! The name that pipelines call: becomes `tap-postgres-rs`, which is installed beside it.

use std::env;
use std::io::{Write, stderr};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // It may be called by a link from elsewhere.
    let error = match env::current_exe().and_then(|path| path.canonicalize()) {
        // Returns only if it fails.
        Ok(path) => Command::new(path.with_file_name("tap-postgres-rs")).args(env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    // Nobody is left to be told of a stderr that can't be written to.
    let _ = writeln!(stderr(), "tap-postgres: cannot run tap-postgres-rs, which belongs beside it: {error}");
    ExitCode::from(2)
}
