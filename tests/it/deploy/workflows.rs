//! The workflows of .github, without a runner: what they run is in the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{root, run};

/// All workflows, by their path.
fn workflows() -> Vec<(PathBuf, Value)> {
    let files = fs::read_dir(root(".github/workflows")).unwrap();
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let read = |path: PathBuf| {
        let json = run(Command::new("/usr/bin/python3").args(["-c", script]).arg(&path));
        (path, serde_json::from_str(&json).unwrap())
    };
    let workflows: Vec<_> = files.map(|file| read(file.unwrap().path())).collect();
    assert_eq!(workflows.len(), 2, "{workflows:?}");
    workflows
}

/// Each job, called by its workflow and its own name.
fn jobs() -> Vec<(String, Value)> {
    let of_workflow = |(path, workflow): (PathBuf, Value)| {
        let jobs = workflow["jobs"].as_object().unwrap().clone();
        jobs.into_iter().map(move |(name, job)| (format!("{}: {name}", path.display()), job))
    };
    workflows().into_iter().flat_map(of_workflow).collect()
}

/// The commands of a job, and those that its matrix puts into them.
fn commands(job: &Value) -> Vec<String> {
    let steps = job["steps"].as_array().unwrap();
    let of_steps = steps.iter().filter_map(|step| step["run"].as_str());
    let matrix = job["strategy"]["matrix"]["include"].as_array();
    let of_matrix = matrix.into_iter().flatten().filter_map(|row| row["test"].as_str());
    of_steps.chain(of_matrix).map(str::to_owned).collect()
}

/// The targets of the Makefile.
fn targets() -> BTreeSet<String> {
    let makefile = fs::read_to_string(root("Makefile")).unwrap();
    let named = makefile.lines().filter_map(|line| line.split_once(':').map(|(names, _)| names));
    let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    named.flat_map(str::split_whitespace).filter(is_name).map(str::to_owned).collect()
}

#[test]
fn workflows_run_targets_and_scripts_that_exist() {
    let targets = targets();
    let mut found = 0;
    for (name, job) in jobs() {
        for command in commands(&job) {
            let words = command.split_whitespace().map(|word| word.trim_end_matches(';'));
            let words: Vec<_> = words.collect();
            for pair in words.windows(2).filter(|pair| pair[0] == "make") {
                assert!(targets.contains(pair[1]), "{name}: make {}", pair[1]);
                found += 1;
            }
            let is_path = |word: &&&str| {
                ["scripts/", ".ci/", "tests/"].iter().any(|folder| word.starts_with(folder))
            };
            for script in words.iter().filter(is_path) {
                assert!(root(script).is_file(), "{name}: {script}");
                found += 1;
            }
        }
    }
    assert!(found > 10, "{found} commands: has the search gone blind?");
}

#[test]
fn workflows_need_jobs_and_outputs_that_exist() {
    for (path, workflow) in workflows() {
        let jobs = workflow["jobs"].as_object().unwrap();
        for (name, job) in jobs {
            let needs = &job["needs"];
            let several = needs.as_array().into_iter().flatten();
            let needs: Vec<_> = several.chain([needs]).filter_map(Value::as_str).collect();
            let at = format!("{}: {name}", path.display());
            for needed in &needs {
                assert!(jobs.contains_key(*needed), "{at}: {needed}");
            }
            let text = job.to_string();
            for output in text.split("needs.").skip(1) {
                let (other, rest) = output.split_once(".outputs.").unwrap();
                let output = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap();
                assert!(needs.contains(&other), "{at}: {other}");
                assert!(jobs[other]["outputs"][output].is_string(), "{at}: {other}.{output}");
            }
            let ids =
                job["steps"].as_array().unwrap().iter().filter_map(|step| step["id"].as_str());
            let ids: BTreeSet<_> = ids.collect();
            for step in text.split("steps.").skip(1) {
                assert!(ids.contains(step.split('.').next().unwrap()), "{at}: {step}");
            }
        }
    }
}

#[test]
fn workflows_have_limits_and_use_versions() {
    for (name, job) in jobs() {
        assert!(job["timeout-minutes"].as_u64().is_some_and(|minutes| minutes <= 60), "{name}");
        for step in job["steps"].as_array().unwrap() {
            assert!(step["uses"].is_string() != step["run"].is_string(), "{name}: {step}");
            if let Some(action) = step["uses"].as_str() {
                let (_, version) = action.split_once("@v").unwrap();
                assert_eq!(version.split('.').count(), 3, "{name}: {action}");
            }
        }
    }
    for (path, workflow) in workflows() {
        assert_eq!(workflow["permissions"]["contents"], "read", "{}", path.display());
    }
}

#[test]
fn scripts_of_workflows_are_what_bash_reads() {
    for (name, job) in jobs() {
        for command in commands(&job) {
            // What the runner puts in is some word.
            let command: String = command
                .split("${{")
                .enumerate()
                .map(|(index, part)| match index {
                    0 => part.to_owned(),
                    _ => format!("word{}", part.split_once("}}").unwrap().1),
                })
                .collect();
            let said = run(Command::new("bash").args(["-n", "-c", &command]));
            assert_eq!(said, "", "{name}");
        }
    }
}
