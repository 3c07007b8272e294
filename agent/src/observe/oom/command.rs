//! Command lines out of a process' memory, and what of them is masked.

/// What is shown instead of what could be a secret.
const MASK: &str = "***";
/// Longest word that can be a subcommand.
const WORD: usize = 16;
/// Longest ending of a file name.
const ENDING: usize = 5;

/// The arguments in `bytes`, each with its zero behind it; the last may be cut.
#[must_use]
pub(super) fn arguments(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes
        .split(|&byte| byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// Masks what could be a secret, and keeps what tells programs from each other: the program, the
/// names of options, and, before the first option, paths, file names and a subcommand.
pub(super) fn mask(arguments: &mut [String]) {
    let mut options = false;
    for (index, argument) in arguments.iter_mut().enumerate().skip(1) {
        if let Some(name) = option_name(argument) {
            options = true;
            if name.len() < argument.len() {
                *argument = format!("{name}{MASK}");
            }
        } else if options || !(is_file(argument) || (index == 1 && is_word(argument))) {
            *argument = match argument.split_once('=') {
                Some((name, _)) if is_name(name) => format!("{name}={MASK}"),
                _ => MASK.to_owned(),
            };
        }
    }
}

/// `--key=` of `--key=value`, `-p` of `-psecret`; all of `--key` and `-p`.
fn option_name(argument: &str) -> Option<&str> {
    if let Some(long) = argument.strip_prefix("--") {
        let end = long.find('=').map_or(argument.len(), |at| at + 3);
        return Some(&argument[..end]);
    }
    let mut rest = argument.strip_prefix('-')?.chars();
    Some(
        rest.next()
            .map_or(argument, |first| &argument[..=first.len_utf8()]),
    )
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_word(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    !text.is_empty() && text.len() <= WORD && plain
}

/// `/srv/app`, `./run`, `app.py`.
fn is_file(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let ending = text.rsplit_once('.').is_some_and(|(name, ending)| {
        !name.is_empty() && !ending.is_empty() && ending.len() <= ENDING
    });
    text.chars().all(plain) && (text.starts_with('/') || text.starts_with("./") || ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(line: &str) -> String {
        let mut arguments = line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        mask(&mut arguments);
        arguments.join(" ")
    }

    #[test]
    fn what_could_be_a_secret_is_masked() {
        for (line, shown) in [
            ("/usr/bin/shop", "/usr/bin/shop"),
            ("python3 app.py --token abc", "python3 app.py --token ***"),
            ("python3 -c print(1)", "python3 -c ***"),
            (
                "node /srv/app.js --key=abc x",
                "node /srv/app.js --key=*** ***",
            ),
            ("mysql -phunter2 -u root", "mysql -p*** -u ***"),
            ("env KEY=abc shop", "env KEY=*** ***"),
            ("git push https://u:p@host/x", "git push ***"),
            ("curl https://u:p@host/x.py", "curl ***"),
            ("login hunter2 Hunter2", "login *** ***"),
            ("x -", "x -"),
            ("x -é", "x -é"),
            ("x --", "x --"),
            ("x ", "x ***"),
        ] {
            assert_eq!(masked(line), shown);
        }
    }

    #[test]
    fn arguments_end_with_zeros() {
        assert_eq!(arguments(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(arguments(b"a\0cut"), ["a", "cut"]);
        assert!(arguments(b"").is_empty() && arguments(b"\0").is_empty());
    }
}
