//! What the fuzz targets in `fuzz/` run: each takes any bytes and asserts what must hold for all of them, besides not
//! panicking. Built for them and for the unit test that replays their seeds; not part of the library.

mod files;
mod plugins;
mod text;
mod wire;

pub use files::{catalog, config, state};
pub use plugins::{pgoutput, wal2json, walsender};
pub use text::{array_text, copy_text};
pub use wire::{frames, login};

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Target = fn(&[u8]);

    /// The targets in `fuzz/fuzz_targets`.
    const TARGETS: [(&str, Target); 10] = [
        ("array_text", super::array_text),
        ("catalog", super::catalog),
        ("config", super::config),
        ("copy_text", super::copy_text),
        ("frames", super::frames),
        ("login", super::login),
        ("pgoutput", super::pgoutput),
        ("state", super::state),
        ("wal2json", super::wal2json),
        ("walsender", super::walsender),
    ];

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_seed_holds() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let targets = TARGETS.map(|(name, _)| name.to_owned());
        assert_eq!(names(&fuzz.join("fuzz_targets")), targets);
        assert_eq!(names(&fuzz.join("seeds")), targets);
        for (name, target) in TARGETS {
            let seeds: Vec<_> = std::fs::read_dir(fuzz.join("seeds").join(name)).unwrap().collect();
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                let whole = std::fs::read(seed.unwrap().path()).unwrap();
                target(&whole);
                // A truncated seed must hold too.
                for end in 0..whole.len().min(300) {
                    target(&whole[..end]);
                }
            }
        }
    }
}
