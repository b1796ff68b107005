//! The manifests for Kubernetes: rendered by kubectl, checked against Kubernetes's own schemas, and
//! their settings by the relay itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::{deploy, run, tools, try_to_run};
use crate::control::say;
use crate::harness::{Node, PATIENCE, Relay, http_get, look_until};
use crate::peer::Peer;

/// The newest version whose schemas the tool has; the syntax is that of kubectl 1.20.
const KUBERNETES: &str = "1.37";

/// What an operator applies.
const OVERLAYS: [&str; 4] = ["one", "cluster", "netbird", "monitor"];

/// An overlay as kubectl makes it.
fn rendered(overlay: &str) -> String {
    let folder = deploy("kubernetes").join(overlay);
    let output = Command::new("kubectl").arg("kustomize").arg(&folder).output();
    let output =
        output.unwrap_or_else(|error| panic!("kubectl: {error}; `make setup` installs it"));
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{overlay}: {warnings}");
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of an overlay.
fn objects(overlay: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rendered.yaml");
    fs::write(&file, rendered(overlay)).unwrap();
    let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)";
    // Debian's Python, which is where Debian's yaml is.
    let json = run(Command::new("/usr/bin/python3").args(["-c", script]).arg(&file));
    serde_json::from_str(&json).unwrap()
}

/// What checks a file, with Debian's yaml.
fn validate() -> Command {
    let mut python = Command::new("python3");
    let path = format!("{}:/usr/lib/python3/dist-packages", tools().display());
    python.env("PYTHONPATH", path).args(["-m", "kubernetes_validate", "--strict"]);
    python.args(["--kubernetes-version", KUBERNETES]);
    python
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[test]
fn manifests_are_what_kubernetes_takes() {
    let folder = tempfile::tempdir().unwrap();
    for overlay in OVERLAYS.into_iter().filter(|overlay| *overlay != "monitor") {
        let file = folder.path().join(overlay).with_extension("yaml");
        fs::write(&file, rendered(overlay)).unwrap();
        run(validate().arg(file));
    }
    let file = folder.path().join("wrong.yaml");
    fs::write(&file, rendered("one").replace("replicas: 1", "replicas: some")).unwrap();
    let (passes, _) = try_to_run(validate().arg(file));
    assert!(!passes, "it sees what is wrong");
}

#[test]
fn service_monitor_finds_the_relays() {
    let monitors = objects("monitor");
    let [monitor] = &monitors[..] else { panic!("{monitors:?}") };
    assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(monitor["kind"], "ServiceMonitor");
    let wanted = &monitor["spec"]["selector"]["matchLabels"];
    let endpoints = monitor["spec"]["endpoints"].as_array().unwrap();
    for overlay in ["one", "cluster", "netbird"] {
        let objects = objects(overlay);
        let services = of_kind(&objects, "Service");
        let selected = services.iter().filter(|service| {
            let labels = &service["metadata"]["labels"];
            wanted.as_object().unwrap().iter().all(|(key, value)| labels[key] == *value)
        });
        let ports: Vec<_> =
            selected.flat_map(|service| service["spec"]["ports"].as_array().unwrap()).collect();
        for endpoint in endpoints {
            let found = ports.iter().filter(|port| port["name"] == endpoint["port"]).count();
            assert_eq!(found, 1, "{overlay}: {}", endpoint["port"]);
        }
    }
}

#[test]
fn services_and_policies_name_the_ports_that_the_relay_listens_at() {
    for (overlay, replicas) in [("one", 1), ("cluster", 3), ("netbird", 3)] {
        let objects = objects(overlay);
        let [set] = of_kind(&objects, "StatefulSet")[..] else { panic!("{overlay}") };
        assert_eq!(set["spec"]["replicas"], replicas, "{overlay}");
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(pod["enableServiceLinks"], false, "{overlay}");
        assert_eq!(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1], "drain");
        let budgets = of_kind(&objects, "PodDisruptionBudget").len();
        assert_eq!(budgets, usize::from(replicas > 1), "{overlay}");
        let listens: Vec<_> = settings(&objects)
            .iter()
            .filter(|(name, _)| name.ends_with("_BIND"))
            .map(|(_, bind)| bind.rsplit(':').next().unwrap().parse::<u64>().unwrap())
            .collect();
        for service in of_kind(&objects, "Service") {
            for port in service["spec"]["ports"].as_array().unwrap() {
                let to = port["targetPort"].as_u64().or_else(|| port["port"].as_u64()).unwrap();
                assert!(listens.contains(&to), "{overlay}: nothing listens at {to}");
            }
        }
        for policy in of_kind(&objects, "NetworkPolicy") {
            for rule in policy["spec"]["ingress"].as_array().unwrap() {
                for port in rule["ports"].as_array().unwrap() {
                    let to = port["port"].as_u64().unwrap();
                    assert!(listens.contains(&to), "{overlay}: nothing listens at {to}");
                }
            }
        }
    }
}

/// The variables of the relay's container.
fn settings(objects: &[Value]) -> Vec<(String, String)> {
    let [set] = of_kind(objects, "StatefulSet")[..] else { panic!("one StatefulSet") };
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let own = container["env"].as_array().unwrap();
    let mut settings: Vec<_> =
        own.iter().map(|pair| (text(&pair["name"]), text(&pair["value"]))).collect();
    for source in container["envFrom"].as_array().unwrap() {
        let name = &source["configMapRef"]["name"];
        let maps = of_kind(objects, "ConfigMap");
        let map = maps.into_iter().find(|map| map["metadata"]["name"] == *name).unwrap();
        let data = map["data"].as_object().unwrap();
        settings.extend(data.iter().map(|(name, value)| (name.clone(), text(value))));
    }
    settings
}

/// The files that the settings name, in a folder of this test: a certificate with its key, and secrets.
struct Files {
    folder: tempfile::TempDir,
    certificate: String,
    key: String,
}

impl Files {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["relay.example.org".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// The file of this test for one of a pod.
    fn of(&self, path: &str) -> PathBuf {
        let file = self.folder.path().join(path.trim_start_matches('/').replace('/', "-"));
        let text = match path.rsplit('/').next().unwrap() {
            "tls.crt" => &self.certificate,
            "tls.key" => &self.key,
            _ => "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        };
        fs::write(&file, text).unwrap();
        // As the manifests mount them: for the group.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
        file
    }
}

#[test]
fn relay_takes_the_settings_of_each_overlay() {
    for overlay in ["one", "cluster", "netbird"] {
        let files = Files::new();
        let mut relay = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        relay.arg("check-config").env_clear();
        for (name, value) in settings(&objects(overlay)) {
            let value = match &*value {
                "/var/lib/beacon-relay" => files.folder.path().to_owned(),
                path if path.starts_with("/etc/") => files.of(path),
                other => other.into(),
            };
            relay.env(name, value);
        }
        run(&mut relay);
    }
}

/// Runs a probe's command in the container of this relay; whether it passes.
fn passes(probe: &Value, relay: &Relay) -> bool {
    let words = probe["exec"]["command"].as_array().unwrap().iter();
    let words: Vec<_> = words.map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words[0], "beacon-relay", "the image has no other program");
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    // Where the container has its state folder.
    command.args(&words[1..]).env_clear().env("BEACON_RELAY_STATE_DIR", relay.state_dir());
    try_to_run(&mut command).0
}

#[test]
fn probes_pass_at_a_degraded_relay_and_only_readiness_fails_while_it_drains() {
    let objects = objects("one");
    let [set] = of_kind(&objects, "StatefulSet")[..] else { panic!("one StatefulSet") };
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let (readiness, liveness) = (&container["readinessProbe"], &container["livenessProbe"]);
    let ports = container["ports"].as_array().unwrap();
    let admin = ports.iter().find(|port| port["name"] == liveness["httpGet"]["port"]).unwrap();
    assert_eq!(admin["containerPort"], 9464);
    let lives = |relay: &Relay| {
        http_get(relay.admin, liveness["httpGet"]["path"].as_str().unwrap()).0 == 200
    };
    let nodes = [11, 12, 13].map(Node::new);
    let relay = Relay::with_nodes(&nodes.each_ref(), &["--drain-time", "1m"]);
    // Somebody to wait for: it would be gone at once.
    let _peers = nodes.each_ref().map(|node| Peer::log_in(relay.wss, node));
    let is_ready = || passes(readiness, &relay).then_some(());
    look_until(Instant::now() + PATIENCE, is_ready).expect("it is ready");

    say(&relay, &["switch", "punch", "off"]);
    assert!(say(&relay, &["status"]).contains("degraded"));
    assert!(passes(readiness, &relay) && lives(&relay));

    say(&relay, &["drain"]);
    assert!(!passes(readiness, &relay), "it drains");
    assert!(lives(&relay), "nobody restarts a relay because it drains");
}
