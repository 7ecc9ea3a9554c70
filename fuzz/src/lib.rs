//! What the fuzzer calls with its inputs: one function for each target.
//!
//! `scripts/fuzz` runs them under libFuzzer, and `crates/nephros-server/tests/corpus.rs` includes this file
//! and replays the kept inputs with the stable toolchain. A function returns for an input that is handled
//! well, whether it is refused or not, and panics for a finding.

pub mod batch;
pub mod body;
pub mod bundle;
pub mod decode;
pub mod expand;
pub mod keras;
mod service;

use std::{backtrace::Backtrace, panic, path::Path};

/// Largest picture, in pixels. That of the server is PIL's, 90 megapixels, which a sanitized decoder fills in
/// seconds; what a decoder may allocate follows from this figure in both, and `scripts/fuzz` limits it.
pub const MAX_PIXELS: usize = 1 << 22;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("decode", decode::run),
    ("body", body::run),
    ("batch", batch::run),
    ("bundle", bundle::run),
    ("keras", keras::run),
];

/// Calls `found`, after the hook that is set, for every panic in code of this repository, caught ones included.
/// Those of the libraries that decode are contained by `nephros_core`, on purpose: they are printed where
/// `RUST_BACKTRACE` is set, and end the target where nothing contains them.
///
/// The hook that libFuzzer has set before ends the process.
pub fn on_own_panics(found: impl Fn(String) + Send + Sync + 'static) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let file = info.location().map_or("", |place| place.file());
        // Those of libraries come with the path of the registry; a member's depends on who builds it.
        if Path::new(file).is_relative() || file.contains("crates/nephros-") {
            before(info);
            found(info.to_string());
        } else if std::env::var_os("RUST_BACKTRACE").is_some() {
            eprintln!("{info}\n{}", Backtrace::capture());
        }
    }));
}
