//! Types that are one word out of a few: what they have in common, and the error that lists the words.

use std::fmt;

/// How alike (Jaro–Winkler, 0 to 1) a known word must be to be suggested.
const ALIKE: f64 = 0.8;

/// A longer text is no typing error, and comparing a megabyte with the name of each key took minutes.
const LONGEST_SLIP: usize = 64;

/// Words that mean nearly the same as a known one, though their letters are not alike.
const SYNONYMS: &[(&str, &str)] = &[
    ("ide", "sata"),
    ("ahci", "sata"),
    ("sd", "scsi"),
    ("arm", "aarch64"),
    ("x64", "x86_64"),
    ("qemu", "tcg"),
    ("xen", "kvm"),
    ("nat", "user"),
    ("window", "gui"),
    ("stopped", "exit"),
    ("ready", "agent"),
    ("path", "file"),
    ("ro", "readonly"),
];

/// A word that is none of those known.
#[derive(Clone, PartialEq, Eq)]
pub struct UnknownWord {
    /// What it should name, e.g. `architecture`.
    pub what: &'static str,
    /// What was typed.
    pub typed: String,
    /// What could have been typed.
    pub known: &'static [&'static str],
}

impl UnknownWord {
    pub(super) fn new(what: &'static str, typed: &str, known: &'static [&'static str]) -> Self {
        Self { what, typed: typed.to_owned(), known }
    }

    /// The known word that was probably meant.
    pub fn nearest(&self) -> Option<&'static str> {
        if self.typed.len() > LONGEST_SLIP {
            return None;
        }
        let typed = self.typed.to_lowercase();
        let synonym = SYNONYMS.iter().find(|(word, _)| *word == typed).map(|(_, meant)| *meant);
        if let Some(meant) = synonym.filter(|meant| self.known.contains(meant)) {
            return Some(meant);
        }
        // two letters exchanged in a short word are not alike by the measure, but are a common slip
        let slip = |word: &str| typed.len() > 2 && strsim::damerau_levenshtein(&typed, word) == 1;
        let scored = self.known.iter().map(|word| (strsim::jaro_winkler(&typed, word), *word));
        let near = scored.filter(|(score, word)| *score >= ALIKE || slip(word));
        near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
    }
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {} '{}'", self.what, self.typed)?;
        if let Some(word) = self.nearest() {
            write!(f, ", did you mean '{word}'?")?;
        }
        write!(f, " (known: {})", self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

/// For an enum without fields: `ALL`, `as_str`, `Display`, and `FromStr` that also takes the aliases.
macro_rules! word_type {
    ($name:ident, $what:literal, { $($variant:ident = $word:literal $(| $alias:literal)*),+ $(,)? }) => {
        impl $name {
            /// Every value, in the order in which messages list them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it, as it is typed and printed.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::spec::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word $(| $alias)* => Ok(Self::$variant),)+
                    _ => Err($crate::spec::UnknownWord::new($what, text, &[$($word),+])),
                }
            }
        }
    };
}

pub(super) use word_type;

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["virtio", "scsi", "sata"];

    #[test]
    fn suggests_what_is_alike_or_means_the_same() {
        let message = |typed: &str| UnknownWord::new("bus", typed, KNOWN).to_string();
        assert_eq!(
            message("virtoi"),
            "unknown bus 'virtoi', did you mean 'virtio'? (known: virtio, scsi, sata)"
        );
        assert_eq!(message("SCSI"), "unknown bus 'SCSI', did you mean 'scsi'? (known: virtio, scsi, sata)");
        assert_eq!(message("ide"), "unknown bus 'ide', did you mean 'sata'? (known: virtio, scsi, sata)");
        assert_eq!(message("floppy"), "unknown bus 'floppy' (known: virtio, scsi, sata)");
        assert_eq!(message(""), "unknown bus '' (known: virtio, scsi, sata)");
    }

    #[test]
    fn a_synonym_of_something_else_is_not_suggested() {
        assert_eq!(UnknownWord::new("bus", "nat", KNOWN).nearest(), None);
    }
}
