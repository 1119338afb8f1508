//! docs/FINDINGS.md is what the catalogue says.

#[test]
fn the_page_is_generated_from_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/FINDINGS.md");
    let page = memcheck_report::page();
    if std::env::var_os("MEMCHECK_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap();
    assert!(
        stored == page,
        "docs/FINDINGS.md is out of date: run with MEMCHECK_BLESS=1 and look at the change"
    );
}
