//! Paths as they are in the source tree: relative to its root, without detours.

use std::{borrow::Cow, path::Path};

/// The folder that the paths in reports are relative to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRoot(String);

impl SourceRoot {
    /// The root at an absolute path. What is no UTF-8 stands for no root: all paths are as they are recorded.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let path = path.to_str().unwrap_or_default();
        Self(without_detours(path).trim_end_matches('/').to_owned())
    }

    /// The root's path; empty when there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0
    }

    /// The path below the root, or the whole one when it lies elsewhere.
    pub(crate) fn relative<'a>(&self, file: &'a str) -> Cow<'a, str> {
        let file = without_detours(file);
        let below = file.strip_prefix(&self.0).filter(|_| !self.0.is_empty());
        match below.and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) => Cow::Owned(rest.to_owned()),
            None => file,
        }
    }
}

/// The path without `.` and, where a name stands before it, `..`. As text: the files may be on another machine.
fn without_detours(path: &str) -> Cow<'_, str> {
    if !path.split('/').any(|part| part == "." || part == "..") && !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(&last)) if last != ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let lead = if path.starts_with('/') { "/" } else { "" };
    Cow::Owned(format!("{lead}{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_the_root_are_relative_to_it() {
        let root = SourceRoot::new(Path::new("/home/u/./project/"));
        for (path, seen) in [
            ("/home/u/project/src/a.c", "src/a.c"),
            ("/home/u/project/build/../src/a.c", "src/a.c"),
            ("/home/u/project2/a.c", "/home/u/project2/a.c"),
            ("./src/a.c", "src/a.c"),
            ("../a.c", "../a.c"),
            ("/usr/lib/x.c", "/usr/lib/x.c"),
        ] {
            assert_eq!(root.relative(path), seen);
        }
        assert_eq!(SourceRoot::default().relative("/a/b.c"), "/a/b.c");
    }
}
