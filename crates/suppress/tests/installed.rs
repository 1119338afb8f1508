//! Files that Debian's packages install, where they are installed.

use std::path::Path;

use memcheck_suppress::{Date, Suppressions};

#[test]
fn the_files_of_installed_packages_are_read() {
    for file in ["/usr/libexec/valgrind/default.supp", "/usr/lib/valgrind/python3.supp"] {
        let file = Path::new(file);
        // Absent packages have nothing to test.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        let mut rules = Suppressions::new(Date { year: 2026, month: 1, day: 1 });
        assert_eq!(rules.read(file, &text), Ok(()));
        assert!(rules.stale().count() > 10);
    }
}
