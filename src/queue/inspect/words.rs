//! The words of verdicts: spans and numbers as people say them.

/// A span of so many milliseconds, in its largest unit: "18 s", "3 min", "5 h", "2 d".
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A number with its noun: "1 entry", "12 entries".
pub(super) fn counted(n: u64, noun: &str) -> String {
    if n == 1 {
        return format!("1 {noun}");
    }
    match noun.strip_suffix('y') {
        Some(stem) => format!("{n} {stem}ies"),
        None => format!("{n} {noun}s"),
    }
}

/// The pronoun and verb of a future: "it will be" of one, "they will be" of more.
pub(super) fn will_be(n: u64) -> &'static str {
    if n == 1 { "it will be" } else { "they will be" }
}

/// The verb of so many.
pub(super) fn is(n: u64) -> &'static str {
    if n == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        for (ms, said) in [
            (7, "7 ms"),
            (18_400, "18 s"),
            (119_000, "119 s"),
            (180_000, "3 min"),
            (7_200_000, "2 h"),
            (864_000_000, "10 d"),
        ] {
            assert_eq!(span(ms), said);
        }
    }

    #[test]
    fn numbers_have_the_noun_that_fits() {
        assert_eq!([counted(1, "entry"), counted(2, "entry"), counted(0, "job")], ["1 entry", "2 entries", "0 jobs"]);
    }
}
