//! What this program was built from, so that two of them can be told apart.

use serde::Serialize;

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `--version` says behind the program's name: the version, the commit with its date, the
/// target, and the doors that are compiled in.
pub const ABOUT: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("BUILT_COMMIT"),
    " of ",
    env!("BUILT_DATE"),
    "\ntarget: ",
    env!("BUILT_TARGET"),
    "\ndoors: pilot, netbird, peerbus, middleman, keyop",
);

/// Sources and target; what nobody has told the build is `unknown`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Build {
    /// The commit of the sources, with `-dirty` where files differed from it.
    pub commit: &'static str,
    /// The day of the commit, as 2026-11-30.
    pub commit_date: &'static str,
    /// The target triple.
    pub target: &'static str,
}

/// The build of this program.
pub const BUILD: Build = Build {
    commit: env!("BUILT_COMMIT"),
    commit_date: env!("BUILT_DATE"),
    target: env!("BUILT_TARGET"),
};
