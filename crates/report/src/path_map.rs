//! Folders that debugging information calls by other names than they have here.

use std::str::FromStr;

/// One folder: what it was called when the program was built, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    from: String,
    to: String,
}

impl FromStr for PathMap {
    type Err = String;

    /// `FROM=TO`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((from, to)) if !from.is_empty() => Ok(Self {
                from: from.trim_end_matches('/').to_owned(),
                to: to.trim_end_matches('/').to_owned(),
            }),
            _ => Err(format!("{text:?}: expected two folders, FROM=TO")),
        }
    }
}

impl PathMap {
    /// Where the file is, if it lies in this folder.
    fn find(&self, file: &str) -> Option<String> {
        let rest = file.strip_prefix(&self.from)?;
        (rest.starts_with('/')).then(|| format!("{}{rest}", self.to))
    }

    /// Where the file is: below the first of the folders that it lies in, else where it says.
    pub fn apply(maps: &[Self], file: &mut String) {
        if let Some(mapped) = maps.iter().find_map(|map| map.find(file)) {
            *file = mapped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_the_folder_move_with_it() {
        let maps: Vec<PathMap> = ["/build/x=/home/u/x/", "/build=."].map(|map| map.parse().unwrap()).into();
        for (file, expected) in [
            ("/build/x/a.c", "/home/u/x/a.c"),
            ("/build/y/b.c", "./y/b.c"),
            ("/builder/c.c", "/builder/c.c"),
            ("d.c", "d.c"),
        ] {
            let mut file = file.to_owned();
            PathMap::apply(&maps, &mut file);
            assert_eq!(file, expected);
        }
        assert!("=x".parse::<PathMap>().is_err() && "x".parse::<PathMap>().is_err());
    }
}
