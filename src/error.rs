//! How errors are shown: with their causes, on one line.

use std::error::Error;

/// An error with its causes. A cause that only repeats what was said already is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        cause: Option<Box<Layer>>,
    }

    #[test]
    fn causes_follow_and_repetitions_do_not() {
        let inner = Layer { text: "connection refused", cause: None };
        let middle = Layer { text: "connection refused", cause: Some(Box::new(inner)) };
        let outer = Layer { text: "cannot reach Redis", cause: Some(Box::new(middle)) };
        assert_eq!(chain(&outer), "cannot reach Redis: connection refused");
    }
}
