//! The container files, without a container: what a parser and a linter can find.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{deploy, root, run, tool};

/// A compose file of deploy/ as JSON.
pub(super) fn compose(path: &str) -> Value {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    // Debian's Python, which is where Debian's yaml is.
    let mut python = Command::new("/usr/bin/python3");
    let json = run(python.args(["-c", script]).arg(deploy(path)));
    serde_json::from_str(&json).unwrap()
}

#[test]
fn hadolint_finds_no_fault_in_the_dockerfile() {
    assert_eq!(run(Command::new(tool("hadolint")).arg(deploy("docker/Dockerfile"))), "");
}

#[test]
fn image_is_built_by_the_compiler_of_the_repository() {
    let toolchain = fs::read_to_string(root("rust-toolchain.toml")).unwrap();
    let channel = toolchain.split("channel = \"").nth(1).unwrap().split(".0\"").next().unwrap();
    let dockerfile = fs::read_to_string(deploy("docker/Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{channel}-bookworm AS build\n")));
}

#[test]
fn composed_services_name_files_that_are_there_and_images_by_their_version() {
    let compose = compose("docker/compose.yaml");
    let services = compose["services"].as_object().unwrap();
    assert!(services.keys().eq(["caddy", "prometheus", "relay"]), "{services:?}");
    let folder = deploy("docker");
    for (name, service) in services {
        if let Some(image) = service["image"].as_str() {
            assert!(image.split(':').nth(1).is_some_and(|tag| tag.contains('.')), "{image}");
        } else {
            let build = &service["build"];
            let context = folder.join(build["context"].as_str().unwrap());
            assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file(), "{name}");
        }
        for volume in service["volumes"].as_array().unwrap() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let known = compose["volumes"].as_object().unwrap().contains_key(source);
            assert!(known || folder.join(source).exists(), "{name}: {source}");
        }
        // What they tell each other, they tell on loopback.
        assert_eq!(service["network_mode"], "host", "{name}");
    }
}
