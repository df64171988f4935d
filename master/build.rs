//! Watches the dashboard that `make dashboard` builds, so that the next build of this crate embeds it.

use std::path::Path;

fn main() {
    let built = Path::new("dashboard/dist");
    // Cargo takes a watched path that is missing for one that changes all the time, and would build this crate anew each
    // time; so there is an empty folder (git ignores it) until there is a dashboard. A read-only tree is built only once.
    let _ = std::fs::create_dir_all(built);
    println!("cargo:rerun-if-changed=build.rs");
    if built.exists() {
        println!("cargo:rerun-if-changed=dashboard/dist");
    }
}
