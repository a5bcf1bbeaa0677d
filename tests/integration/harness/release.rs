//! Which release of PostgreSQL is tested, and what a test does where it is too old.

use std::io::Write;
use std::process::Command;
use std::sync::OnceLock;

use super::cluster::server_binaries;

/// The server's release, such as 15.
pub(crate) fn release() -> u32 {
    static RELEASE: OnceLock<u32> = OnceLock::new();
    *RELEASE.get_or_init(|| {
        let output = Command::new(server_binaries().join("postgres")).arg("--version").output().expect("run postgres");
        // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1), or 19devel
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().nth(2).unwrap_or_else(|| panic!("a version in {text:?}"));
        let major: String = version.chars().take_while(char::is_ascii_digit).collect();
        major.parse().unwrap_or_else(|_| panic!("a version in {text:?}"))
    })
}

/// Whether the server has what a test is about, which came with this release. If not it says so, and the test returns:
/// there is nothing to be tested.
#[must_use]
pub(crate) fn needs(since: u32, what: &str) -> bool {
    let has = release() >= since;
    if !has {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // Not captured, as what a test prints is.
        let _ = writeln!(std::io::stderr(), "skipped {test}: {what} came with PostgreSQL {since}");
    }
    has
}
