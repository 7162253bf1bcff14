//! Patterns of file names, as users write them in settings: `*.nix`, `BUILD.*`.
//!
//! Refuses what could never match a name: nothing at all, and a slash. Case
//! counts, as it does for Git. Whoever matches compiles them here, so that a
//! setting that was accepted can be used.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// What matches when any of `patterns` does.
pub fn set(patterns: &[String]) -> Result<GlobSet, String> {
    let mut all = GlobSetBuilder::new();
    for pattern in patterns {
        let wrong = |why: &str| format!("has the pattern {pattern:?}, which {why}");
        if pattern.is_empty() {
            return Err(wrong("matches nothing"));
        }
        if pattern.contains('/') {
            return Err(wrong("has a slash; it is matched against names, not paths"));
        }
        let glob =
            GlobBuilder::new(pattern).build().map_err(|error| wrong(&format!("is no glob: {}", error.kind())))?;
        all.add(glob);
    }
    all.build().map_err(|error| format!("cannot be used together: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_whole_and_by_case() {
        let set = set(&["*.nix".to_owned(), "BUILD.*".to_owned(), "[ab]?".to_owned()]).expect("globs");
        for name in ["a.nix", ".nix", "BUILD.bazel", "b1"] {
            assert!(set.is_match(name), "{name}");
        }
        for name in ["a.nixx", "a.NIX", "build.bazel", "ab1", ""] {
            assert!(!set.is_match(name), "{name}");
        }
    }

    #[test]
    fn what_can_never_match_is_refused() {
        for text in ["", "src/*.rs", "a[", "{a", "a\\"] {
            assert!(set(&[text.to_owned()]).is_err(), "{text:?}");
        }
        assert!(!set(&[]).expect("nothing").is_match("x"));
    }
}
