//! Files of a cgroup that hold a key and a number on each line.

/// The number of `key`, if the file has it.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// The number that is all of a file; `max` is none.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_found_among_others_and_never_by_its_beginning(
            before in "([a-z]{1,5}_x [0-9]{1,6}\n){0,4}", number: u64, junk in "[^\n]{0,20}",
        ) {
            let text = format!("{before}anon_thp 7\n{junk}\nanon {number}\n");
            prop_assume!(!junk.starts_with("anon "));
            prop_assert_eq!(value(&text, "anon"), Some(number));
            prop_assert_eq!(value(&text, "ano"), None);
        }

        #[test]
        fn any_text_is_read_without_harm(text in ".{0,200}") {
            let _ = (value(&text, "populated"), super::number(&text));
        }
    }
}
