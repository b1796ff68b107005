//! Names: text, JSON and the cluster's wire give back the name that they were made of.

use beacon_wire::cluster::Name as _;
use beacon_wire::name::{MAX_LENGTH, Name, Realm};

/// Takes the input as a text, as JSON, and as a realm and the bytes of a name.
///
/// # Panics
/// Where a name does not come back.
pub fn run(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(name) = text.parse::<Name>()
    {
        comes_back(name);
    }
    if let Ok(name) = serde_json::from_slice::<Name>(input) {
        comes_back(name);
    }
    let Some((&realm, bytes)) = input.split_first() else { return };
    if realm == Realm::PILOT.0 {
        if let Ok(Some(name)) = Name::read(realm, bytes) {
            assert_eq!(name.bytes(), bytes);
            comes_back(name);
        }
        return;
    }
    let name = Name::new(Realm(realm), bytes);
    assert_eq!(name.realm(), Realm(realm));
    assert_eq!(name.is_hashed(), bytes.len() > MAX_LENGTH);
    assert_eq!(name.bytes() == bytes, !name.is_hashed());
    comes_back(name);
}

fn comes_back(name: Name) {
    let text = name.to_string();
    assert_eq!(text.parse(), Ok(name), "{text}");
    let json = serde_json::to_string(&name).expect("a name is a number or a text");
    assert_eq!(serde_json::from_str::<Name>(&json).ok(), Some(name), "{json}");
    let mut bytes = Vec::new();
    name.write(&mut bytes);
    assert_eq!(Name::read(name.realm().0, &bytes), Ok(Some(name)));
}
