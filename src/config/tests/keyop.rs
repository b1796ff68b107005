//! The settings of the keyop door: what goes with what, its peers, and what a reload takes.

use super::*;

const BIND: &str = "--keyop-bind=127.0.0.1:7740";

/// The files of a hub, and the flags that name them.
struct Files {
    _folder: tempfile::TempDir,
    flags: Vec<String>,
}

impl Files {
    /// Of a hub whose certificate has these common names.
    fn of(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(["hub.test".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let flags = vec![
            BIND.to_owned(),
            format!("--keyop-cert={}", file("cert", &cert)),
            format!("--keyop-key={}", file("key", &key.serialize_pem())),
            format!("--keyop-client-ca={}", file("ca", &cert)),
        ];
        Self { _folder: folder, flags }
    }

    fn said<'a>(&'a self, file: &'a str, flags: &'a mut Vec<&'a str>) -> Said<'a> {
        flags.extend(self.flags.iter().map(String::as_str));
        Said { file, flags, ..Said::default() }
    }
}

#[test]
fn relay_for_keyop_alone_has_no_listener_for_nodes_and_its_certificates_name() {
    let files = Files::of(&["hub"]);
    let mut flags = Vec::new();
    let config = files.said("", &mut flags).config().unwrap();
    let listeners = config.all_listeners(false);
    let [listener] = &*listeners else { panic!("{listeners:?}") };
    assert_eq!((listener.label(), &*listener.doors), ("keyop", &[&KEYOP][..]));
    assert!(listener.speaks_tls() && listener.client_trust.is_some());
    assert_eq!(config.keyop_hub_name().unwrap(), "hub");
    assert!(config.keyop.unwrap().peers.is_empty(), "everybody with a certificate");
}

#[test]
fn settings_of_keyop_mean_nothing_without_each_other() {
    for (flags, reason) in [
        (&[BIND][..], "needs --keyop-cert and --keyop-key as well"),
        (&["--keyop-client-ca=/c"], "needs --keyop-bind as well"),
        (&["--keyop-cert=/c"], "needs --keyop-bind as well"),
    ] {
        let refused = refusal(flags);
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    let files = Files::of(&["hub"]);
    let refused = with_flags(&[BIND, &files.flags[1], &files.flags[2]]).unwrap_err().to_string();
    assert!(refused.contains("needs --keyop-client-ca as well"), "{refused}");
    let mut flags = vec!["--cluster-nats=nats://n"];
    let refused = files.said("", &mut flags).config().unwrap_err().to_string();
    assert!(refused.contains("add --bus-nats"), "{refused}");
    let nameless = Files::of(&[]);
    let mut flags = Vec::new();
    let refused = nameless.said("", &mut flags).config().unwrap_err().to_string();
    assert!(refused.contains("keyop-name") && refused.contains("no common name"), "{refused}");
    let mut flags = vec!["--keyop-name=hub-1"];
    let config = nameless.said("", &mut flags).config().unwrap();
    assert_eq!(config.keyop_hub_name().unwrap(), "hub-1");
}

#[test]
fn peers_are_tables_of_the_file_and_a_reload_takes_them() {
    let files = Files::of(&["hub"]);
    let file = "[keyop]\nmax_record = 65536\n[[keyop.peer]]\nname = \"alpha\"\n\
                subscribe = [\"a\", \"b\"]\n[[keyop.peer]]\nname = \"beta\"\npublish = [\"c\"]";
    let mut flags = Vec::new();
    let before = files.said(file, &mut flags).loaded();
    let peers = &before.config.keyop.as_ref().unwrap().peers;
    let channels = |channels: &std::collections::BTreeSet<String>| {
        channels.iter().cloned().collect::<Vec<_>>().join(" ")
    };
    let shown: Vec<_> = peers
        .iter()
        .map(|peer| (&*peer.name, channels(&peer.subscribe), channels(&peer.publish)))
        .collect();
    let expected = [("alpha", "a b", ""), ("beta", "", "c")];
    assert_eq!(shown, expected.map(|(name, sub, publ)| (name, sub.to_owned(), publ.to_owned())));
    let printed = before.layers.to_string();
    let mut flags = Vec::new();
    let again = files.said(&printed, &mut flags).config().unwrap();
    assert_eq!(again.keyop, before.config.keyop, "what is printed says the same");

    let mut flags = Vec::new();
    let after = files.said("[[keyop.peer]]\nname = \"gamma\"", &mut flags).loaded();
    let (updated, difference) = before.updated(&after);
    let names = |config: &Config| config.keyop.as_ref().unwrap().peers[0].name.clone();
    assert_eq!(names(&updated.config), "gamma");
    let mut applied: Vec<_> = difference.applied.iter().map(|change| &*change.key).collect();
    applied.sort_unstable();
    assert_eq!(applied, ["keyop_max_record", "keyop_peer"]);
}

#[test]
fn peers_that_are_none_are_refused_with_how_they_are_written() {
    let files = Files::of(&["hub"]);
    for (table, reason) in [
        ("name = \"\"", "no name"),
        ("subscribe = [\"a\"]", "write [[keyop.peer]]"),
        ("name = \"a\"\nchannels = [\"a\"]", "write [[keyop.peer]]"),
        ("name = \"a\"\n[[keyop.peer]]\nname = \"a\"", "stands there twice"),
        ("name = \"a\"\nsubscribe = [[]]", "is the value of no setting"),
    ] {
        let file = format!("[[keyop.peer]]\n{table}");
        let mut flags = Vec::new();
        let refused = files.said(&file, &mut flags).config().unwrap_err().to_string();
        assert!(refused.contains(reason) && !refused.contains('\n'), "{table}: {refused}");
    }
}
