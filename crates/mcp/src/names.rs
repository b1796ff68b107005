//! Names for peers that nobody has named: an adjective, a noun and three characters, as the
//! original's have them, so that people can tell sessions apart.

/// There is no randomness to make a name of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no randomness to make a name of")]
pub struct NoRandomness;

const ADJECTIVES: [&str; 64] = [
    "amber", "ample", "azure", "basic", "blithe", "bold", "brave", "brief", "bright", "brisk",
    "calm", "candid", "clear", "clever", "cosmic", "crisp", "curious", "deep", "deft", "dusty",
    "eager", "early", "even", "fabled", "fair", "fleet", "fond", "frosty", "gentle", "glad",
    "golden", "grand", "hardy", "hazel", "honest", "humble", "ivory", "jolly", "keen", "kind",
    "lively", "lucid", "lunar", "mellow", "merry", "misty", "modest", "nimble", "noble", "open",
    "patient", "plain", "proud", "quick", "quiet", "rapid", "rustic", "silent", "silver", "steady",
    "sunny", "swift", "vivid", "warm",
];

const NOUNS: [&str; 64] = [
    "anchor", "arbor", "aspen", "badger", "basin", "beacon", "birch", "bridge", "brook", "canyon",
    "cedar", "cliff", "comet", "coral", "crane", "creek", "dune", "eagle", "ember", "falcon",
    "fern", "field", "finch", "fjord", "forest", "fox", "garden", "glacier", "grove", "harbor",
    "hawk", "heron", "hill", "island", "lagoon", "lake", "lantern", "lark", "maple", "marsh",
    "meadow", "mesa", "moon", "moss", "oak", "ocean", "orchid", "osprey", "otter", "pine", "plain",
    "pond", "raven", "reef", "ridge", "river", "robin", "sparrow", "spruce", "stone", "summit",
    "thicket", "valley", "willow",
];

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Makes a name of random bits: 64 · 64 · 36³ = 191 million there are.
///
/// # Errors
/// The system has no randomness.
pub fn friendly() -> Result<String, NoRandomness> {
    Ok(of(getrandom::u64().map_err(|_| NoRandomness)?))
}

fn of(random: u64) -> String {
    let mut rest = random;
    let mut pick = |among: u64| {
        let index = usize::try_from(rest % among).expect("below the length of a table");
        rest /= among;
        index
    };
    let adjective = ADJECTIVES[pick(64)];
    let noun = NOUNS[pick(64)];
    let tail: String = (0..3).map(|_| char::from(DIGITS[pick(36)])).collect();
    format!("{adjective}-{noun}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_two_words_and_three_characters() {
        assert_eq!(of(0), "amber-anchor-000");
        assert_eq!(of(u64::MAX).split('-').count(), 3);
        assert_ne!(friendly().unwrap(), friendly().unwrap());
    }

    #[test]
    fn no_word_is_there_twice() {
        for words in [ADJECTIVES, NOUNS] {
            assert!(
                words.iter().all(|word| words.iter().filter(|other| *other == word).count() == 1)
            );
        }
    }
}
