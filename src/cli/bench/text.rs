//! Prompt text: common English words drawn at random, the same for the same seed, salt and part, on every machine.
//!
//! The salt makes a run's prompts new to every server from their first word on, so that cold is really cold; the part (`sweep 3 of 2048`) makes
//! texts of one run independent of each other and of the order in which they are made.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Words that most vocabularies hold whole.
const WORDS: &str = "the of and to in is you that it he was for on are as with his they at be this have from or one had by \
    word but not what all were we when your can said there use an each which she do how their if will up other about out \
    many then them these so some her would make like him into time has look two more write go see number no way could \
    people my than first water been call who oil its now find long down day did get come made may part over new sound \
    take only little work know place year live me back give most very after thing our just name good sentence man think \
    say great where help through much before line right too mean old any same tell boy follow came want show also around \
    form three small set put end does another well large must big even such because turn here why ask went men read need \
    land different home us move try kind hand picture again change off play spell air away animal house point page letter \
    mother answer found study still learn should world";

/// Writes the text of one part of a run.
pub struct Writer {
    random: ChaCha8Rng,
    words: Vec<&'static str>,
}

impl Writer {
    /// A writer whose text depends on nothing but these.
    pub fn new(seed: u64, salt: &str, part: &str) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("prefixd bench prompt text 1");
        hash.update(&seed.to_le_bytes());
        hash.update(&(salt.len() as u64).to_le_bytes());
        hash.update(salt.as_bytes());
        hash.update(part.as_bytes());
        let random = ChaCha8Rng::from_seed(*hash.finalize().as_bytes());
        Self { random, words: WORDS.split_whitespace().collect() }
    }

    /// `count` words in sentences of 6 to 14.
    pub fn words(&mut self, count: usize) -> String {
        let mut text = String::new();
        let mut left_in_sentence = 0;
        for at in 0..count {
            let begins = left_in_sentence == 0;
            if begins {
                left_in_sentence = self.random.random_range(6..=14);
            }
            left_in_sentence -= 1;
            let word = self.words[self.random.random_range(0..self.words.len())];
            if at > 0 {
                text.push(' ');
            }
            if begins {
                text.extend(word.chars().next().map(|first| first.to_ascii_uppercase()));
                text.push_str(&word[1..]);
            } else {
                text.push_str(word);
            }
            if left_in_sentence == 0 || at + 1 == count {
                text.push('.');
            }
        }
        text
    }

    /// A number in 0..1.
    pub fn share(&mut self) -> f64 {
        self.random.random()
    }

    /// An index below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_depends_on_seed_salt_and_part_alone(
            seed in 0u64..4, other in 0u64..4, salt in "[ab]{0,2}", salt2 in "[ab]{0,2}", part in "[ab]{0,2}", part2 in "[ab]{0,2}",
        ) {
            let one = Writer::new(seed, &salt, &part).words(30);
            let two = Writer::new(other, &salt2, &part2).words(30);
            prop_assert_eq!(one == two, (seed, &salt, &part) == (other, &salt2, &part2));
        }

        #[test]
        fn as_many_words_as_asked_for(count in 0usize..200) {
            let text = Writer::new(1, "", "").words(count);
            prop_assert_eq!(text.split_whitespace().count(), count);
            prop_assert_eq!(text.ends_with('.'), count > 0);
        }
    }
}
